//! What clients ask for on the socket, as JSON or as what JSON says (`server/by_hand/desk.rs`).
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tmem_ring::server::answer(data));
