//! The agent, as the file that programs load.

/// The shared object that is preloaded into every program.
#[must_use]
pub fn agent_image() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/tmem-agent.so"))
}
