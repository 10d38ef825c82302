//! The agent, as the file that programs load.

/// The shared object that is preloaded into every program; empty in a build without one.
#[must_use]
pub fn agent_image() -> &'static [u8] {
    &[]
}
