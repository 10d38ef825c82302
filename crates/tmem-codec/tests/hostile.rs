//! Bytes that no encoder wrote: decoding ends, in `Corrupt` or in some block, and nothing else is touched.

#![allow(clippy::cast_possible_truncation, reason = "test data may wrap")]

use tmem_codec::{Codec, Workspace, decode, encode_as};

mod data;
use data::{Random, Shape};

/// Decodes into the middle of a larger buffer and looks at what stands around it.
fn decode_guarded(workspace: &mut Workspace, codec: Codec, src: &[u8], len: usize) {
    const GUARD: usize = 64;
    let mut dst = vec![0x5a; len + 2 * GUARD];
    // An allocation of exactly the source's length, so that an over-read can be seen by a sanitizer.
    let src: Box<[u8]> = src.into();
    let _ = decode(workspace, codec, &src, &mut dst[GUARD..GUARD + len]);
    assert!(dst[..GUARD].iter().chain(&dst[GUARD + len..]).all(|byte| *byte == 0x5a), "{codec:?}");
}

fn encodings(mut each: impl FnMut(&mut Workspace, Codec, &[u8], usize, &mut Random)) {
    let mut workspace = Box::new(Workspace::new());
    let mut random = Random::new(11);
    let mut dst = vec![0; 4096];
    for shape in Shape::ALL {
        for len in [1, 40, 500, 4096] {
            let block = shape.block(len, 5);
            for &codec in Codec::ALL {
                if let Some(done) = encode_as(&mut workspace, codec, &block, &mut dst) {
                    each(&mut workspace, codec, &dst[..done.len], len, &mut random);
                }
            }
        }
    }
}

#[test]
fn truncated_blocks_are_corrupt_or_decoded_in_bounds() {
    encodings(|workspace, codec, encoded, len, _| {
        let step = encoded.len() / 64 + 1;
        for cut in (0..encoded.len()).step_by(step) {
            decode_guarded(workspace, codec, &encoded[..cut], len);
        }
    });
}

#[test]
fn flipped_bits_are_corrupt_or_decoded_in_bounds() {
    encodings(|workspace, codec, encoded, len, random| {
        let mut bytes = encoded.to_vec();
        for _ in 0..200 {
            let at = usize::try_from(random.below(bytes.len() as u64)).expect("an index");
            let old = bytes[at];
            bytes[at] ^= 1 << random.below(8);
            decode_guarded(workspace, codec, &bytes, len);
            if random.below(3) > 0 {
                bytes[at] = old;
            }
        }
    });
}

#[test]
fn a_wrong_length_is_never_taken_for_the_right_one() {
    encodings(|workspace, codec, encoded, len, _| {
        for wrong in [len - 1, len + 1, len + 8, 65536] {
            let mut dst = vec![0; wrong];
            let same_word = codec == Codec::Filled && wrong > 0 && wrong % 8 == 0;
            let outcome = decode(workspace, codec, encoded, &mut dst);
            assert_eq!(outcome.is_ok(), same_word, "{codec:?} {len} as {wrong}");
        }
    });
}

#[test]
fn random_bytes_are_corrupt_or_decoded_in_bounds() {
    let mut workspace = Box::new(Workspace::new());
    let mut random = Random::new(13);
    for round in 0..4000 {
        let len = usize::try_from(random.below(if round % 8 == 0 { 3000 } else { 90 })).expect("a length");
        // Small values make plausible headers.
        let mask = if round % 2 == 0 { 0xff } else { 0x1f };
        let bytes: Vec<u8> =
            (0..len).map(|at| random.next() as u8 & if at % 2 == 1 && at < 4 { 0 } else { mask }).collect();
        for &codec in Codec::ALL {
            decode_guarded(&mut workspace, codec, &bytes, 1 + len * (1 + round % 5));
        }
    }
}
