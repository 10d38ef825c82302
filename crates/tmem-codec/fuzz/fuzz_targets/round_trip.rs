//! Whatever is encoded comes back, by every codec and policy, with and without room to spare.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use tmem_codec::{Codec, Encoded, MAX_BLOCK, Policy, Temperature, Workspace, decode, encode, encode_as};

thread_local! {
    static WORKSPACE: RefCell<Box<Workspace>> = RefCell::new(Box::new(Workspace::new()));
}

fn check(workspace: &mut Workspace, src: &[u8], done: Encoded, encoded: &[u8]) {
    assert!(done.len <= src.len());
    // Exactly as long as needed, so that the sanitizer sees any access beyond.
    let exact: Box<[u8]> = encoded[..done.len].into();
    let mut back = vec![0xa5; src.len()].into_boxed_slice();
    decode(workspace, done.codec, &exact, &mut back).expect("what was encoded decodes");
    assert!(*back == *src, "{:?}", done.codec);
}

/// The first two bytes say how often the rest is repeated, and with what distance it changes.
fn block(data: &[u8]) -> Vec<u8> {
    let [times, step, seed @ ..] = data else { return Vec::new() };
    let mut block = Vec::new();
    for round in 0..=usize::from(*times) {
        block.extend(seed.iter().enumerate().map(|(at, byte)| {
            if *step != 0 && at % usize::from(*step) == 0 { byte.wrapping_add(round as u8) } else { *byte }
        }));
        if block.len() >= MAX_BLOCK {
            break;
        }
    }
    block.truncate(MAX_BLOCK);
    block
}

fuzz_target!(|data: &[u8]| {
    let src = block(data).into_boxed_slice();
    if src.is_empty() {
        return;
    }
    WORKSPACE.with_borrow_mut(|workspace| {
        let mut dst = vec![0; src.len()].into_boxed_slice();
        for &codec in Codec::ALL {
            if let Some(done) = encode_as(workspace, codec, &src, &mut dst) {
                check(workspace, &src, done, &dst);
            }
        }
        for policy in Policy::ALL {
            for temperature in [Temperature::Hot, Temperature::Cold] {
                let done = encode(workspace, policy, temperature, &src, &mut dst).expect("raw always fits");
                check(workspace, &src, done, &dst);
                let mut short = vec![0; done.len / 2].into_boxed_slice();
                if let Some(done) = encode(workspace, policy, temperature, &src, &mut short) {
                    check(workspace, &src, done, &short);
                }
            }
        }
    });
});
