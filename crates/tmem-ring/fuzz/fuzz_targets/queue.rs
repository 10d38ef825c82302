//! What a client writes to the memory of its queue, and when which worker does what (`server/by_hand/queue.rs`).
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tmem_ring::server::serve(data));
