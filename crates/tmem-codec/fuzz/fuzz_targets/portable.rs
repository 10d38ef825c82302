//! Portable code and the versions for this CPU (SSE2, AVX2 and BMI): the same bytes from both, when they encode and when
//! they decode what is sound, damaged, or no encoding at all. x86-64 only.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use tmem_codec::{Codec, Encoded, MAX_BLOCK, Policy, Temperature, Workspace, decode, encode, encode_as, run_portable};

thread_local! {
    static WORKSPACE: RefCell<Box<Workspace>> = RefCell::new(Box::new(Workspace::new()));
}

/// What both versions make of the same thing, portable first.
fn both<T>(mut make: impl FnMut() -> T) -> [T; 2] {
    run_portable(true);
    let portable = make();
    run_portable(false);
    [portable, make()]
}

/// Both decode the same: an error, or the same bytes.
fn decode_both(workspace: &mut Workspace, codec: Codec, src: &[u8], len: usize) {
    let src: Box<[u8]> = src.into();
    let [portable, vector] = both(|| {
        let mut dst = vec![0xa5; len].into_boxed_slice();
        decode(workspace, codec, &src, &mut dst).map(|()| dst)
    });
    assert!(portable == vector, "{codec:?} {len}");
}

/// Both encode to the same bytes; those bytes, with each pair of `damage` a place and what is flipped there, decode alike.
fn check(
    workspace: &mut Workspace,
    (src, damage): (&[u8], &[u8]),
    encoder: impl Fn(&mut Workspace, &mut [u8]) -> Option<Encoded>,
) {
    let [portable, vector] = both(|| {
        let mut dst = vec![0; src.len()].into_boxed_slice();
        encoder(workspace, &mut dst).map(|done| (done, dst[..done.len].to_vec()))
    });
    assert!(portable == vector);
    let Some((done, mut bytes)) = vector else { return };
    decode_both(workspace, done.codec, &bytes, src.len());
    for pair in damage.chunks_exact(2).take(4) {
        let at = usize::from(pair[0]) * bytes.len() / 256;
        bytes[at] ^= pair[1];
        decode_both(workspace, done.codec, &bytes, src.len());
    }
}

/// The first two bytes say how often the rest is repeated, and with what distance it changes.
fn block(data: &[u8]) -> Vec<u8> {
    let [times, step, seed @ ..] = data else { return Vec::new() };
    let mut block = Vec::new();
    for round in 0..=*times {
        block.extend(seed.iter().enumerate().map(|(at, byte)| {
            if *step != 0 && at % usize::from(*step) == 0 { byte.wrapping_add(round) } else { *byte }
        }));
        if block.len() >= MAX_BLOCK {
            break;
        }
    }
    block.truncate(MAX_BLOCK);
    block
}

fuzz_target!(|data: &[u8]| {
    let [number, low, high, damage @ ..] = data else { return };
    let src = block(&data[1..]).into_boxed_slice();
    if src.is_empty() {
        return;
    }
    WORKSPACE.with_borrow_mut(|workspace| {
        let codec = Codec::ALL[usize::from(*number) % Codec::ALL.len()];
        let len = (usize::from(u16::from_le_bytes([*low, *high])) + 1).min(MAX_BLOCK);
        decode_both(workspace, codec, damage, len);
        let input = (&src[..], damage);
        check(workspace, input, |workspace, dst| encode_as(workspace, codec, &src, dst));
        let policy = Policy::ALL[usize::from(*number >> 4) % 2];
        for warmth in [Temperature::Hot, Temperature::Cold] {
            check(workspace, input, |workspace, dst| encode(workspace, policy, warmth, &src, dst));
        }
    });
});
