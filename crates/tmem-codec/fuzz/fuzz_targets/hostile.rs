//! Bytes that no encoder wrote: first as they are, then as damage to an honest encoding.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use tmem_codec::{Codec, MAX_BLOCK, Workspace, decode, encode_as};

thread_local! {
    static WORKSPACE: RefCell<Box<Workspace>> = RefCell::new(Box::new(Workspace::new()));
}

fuzz_target!(|data: &[u8]| {
    let [number, low, high, src @ ..] = data else { return };
    let codec = Codec::ALL[usize::from(*number) % Codec::ALL.len()];
    let len = (usize::from(u16::from_le_bytes([*low, *high])) + 1).min(MAX_BLOCK);
    WORKSPACE.with_borrow_mut(|workspace| {
        let src: Box<[u8]> = src.into();
        let mut dst = vec![0; len].into_boxed_slice();
        let _ = decode(workspace, codec, &src, &mut dst);
        // The input again, as a block to encode, with its own bytes as places and values of the damage.
        if src.len() < 16 || src.len() > MAX_BLOCK {
            return;
        }
        let mut room = vec![0; src.len()];
        let Some(done) = encode_as(workspace, codec, &src, &mut room) else { return };
        let mut encoded: Box<[u8]> = room[..done.len].into();
        for pair in src.chunks_exact(2).take(8) {
            let at = usize::from(pair[0]) * encoded.len() / 256;
            encoded[at] ^= pair[1];
        }
        let mut dst = vec![0; src.len()].into_boxed_slice();
        let _ = decode(workspace, codec, &encoded, &mut dst);
    });
});
