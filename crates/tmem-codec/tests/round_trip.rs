//! What goes in comes out, in every mode and at every length.

use tmem_codec::{Codec, MAX_BLOCK, Policy, Temperature, Workspace, decode, encode, encode_as};

mod data;
use data::Shape;

fn lengths() -> impl Iterator<Item = usize> {
    (1..=300).chain((301..=8200).step_by(37)).chain([4095, 4096, 4097, 8191, 8192, 8200, 16384, 65535, MAX_BLOCK])
}

#[test]
fn every_mode_returns_what_it_was_given() {
    let mut workspace = Box::new(Workspace::new());
    let mut dst = vec![0; MAX_BLOCK];
    let mut back = vec![0; MAX_BLOCK];
    for shape in Shape::ALL {
        let block = shape.block(MAX_BLOCK, 7);
        for len in lengths() {
            for &codec in Codec::ALL {
                let Some(done) = encode_as(&mut workspace, codec, &block[..len], &mut dst) else {
                    continue;
                };
                assert_eq!(done.codec, codec);
                assert!(done.len <= len);
                back[..len].fill(0xa5);
                let outcome = decode(&mut workspace, codec, &dst[..done.len], &mut back[..len]);
                assert_eq!(outcome, Ok(()), "{codec:?} {shape:?} {len}");
                assert!(back[..len] == block[..len], "{codec:?} {shape:?} {len}");
            }
        }
    }
}

#[test]
fn every_length_up_to_two_granules_returns() {
    let mut workspace = Box::new(Workspace::new());
    let mut dst = vec![0; 8200];
    let mut back = vec![0; 8200];
    let block = Shape::Mixed.block(8200, 21);
    for len in 1..=8200 {
        // A different start each time, so that the ends are different too.
        let src = &block[8200 - len..];
        for &codec in Codec::ALL {
            let Some(done) = encode_as(&mut workspace, codec, src, &mut dst) else { continue };
            back[..len].fill(0xa5);
            let outcome = decode(&mut workspace, codec, &dst[..done.len], &mut back[..len]);
            assert_eq!(outcome, Ok(()), "{codec:?} {len}");
            assert!(back[..len] == *src, "{codec:?} {len}");
        }
    }
}

#[test]
fn short_periods_are_found_from_the_start_on() {
    let mut workspace = Box::new(Workspace::new());
    let mut dst = vec![0; MAX_BLOCK];
    let mut back = vec![0; MAX_BLOCK];
    for period in 1..=40 {
        let unit = Shape::Noise.block(period, 23);
        let block: Vec<u8> = unit.iter().copied().cycle().take(MAX_BLOCK).collect();
        for policy in Policy::ALL {
            let done = encode(&mut workspace, policy, Temperature::Cold, &block, &mut dst).expect("raw fits");
            assert!(done.len < 1000, "{period} {policy} {done:?}");
            assert_eq!(decode(&mut workspace, done.codec, &dst[..done.len], &mut back), Ok(()));
            assert!(back == block, "{period} {policy}");
        }
    }
}

#[test]
fn lz4_is_the_format_that_others_read_and_write() {
    let mut workspace = Box::new(Workspace::new());
    let mut dst = vec![0; MAX_BLOCK];
    let mut back = vec![0; MAX_BLOCK];
    for shape in Shape::ALL {
        for len in [1, 12, 13, 100, 4095, 4096, 16384, MAX_BLOCK] {
            let block = shape.block(len, 17);
            if let Some(done) = encode_as(&mut workspace, Codec::Lz4, &block, &mut dst) {
                let theirs = lz4_flex::block::decompress_into(&dst[..done.len], &mut back[..len]);
                assert_eq!(theirs.ok(), Some(len), "{shape:?} {len}");
                assert!(back[..len] == block, "{shape:?} {len}");
            }
            let theirs = lz4_flex::block::compress(&block);
            if theirs.len() <= len {
                assert_eq!(decode(&mut workspace, Codec::Lz4, &theirs, &mut back[..len]), Ok(()));
                assert!(back[..len] == block, "{shape:?} {len}");
            }
        }
    }
}

#[test]
fn numbers_and_names_of_codecs_stand_for_themselves() {
    for &codec in Codec::ALL {
        assert_eq!(Codec::try_from(codec as u8), Ok(codec));
    }
    let numbers: Vec<u8> = (0..=255).filter(|number| Codec::try_from(*number).is_ok()).collect();
    let with_zstd: &[u8] = if cfg!(feature = "zstd") { &[4, 0x14, 0x24] } else { &[] };
    let mut known = [&[0, 1, 2, 3, 5, 0x12, 0x15, 0x22, 0x25], with_zstd].concat();
    known.sort_unstable();
    assert_eq!(numbers, known);
    for policy in Policy::ALL {
        assert_eq!(policy.to_string().parse(), Ok(policy));
    }
    assert_eq!(Policy::default(), Policy::Balanced);
}

#[test]
fn the_footprint_grows_only_with_the_first_use_of_zstd() {
    let mut workspace = Box::new(Workspace::new());
    let block = Shape::Text.block(4096, 1);
    let mut dst = vec![0; 4096];
    let before = workspace.footprint_bytes();
    assert!((96 << 10..256 << 10).contains(&before));
    encode(&mut workspace, Policy::Fast, Temperature::Cold, &block, &mut dst);
    assert_eq!(workspace.footprint_bytes(), before);
    encode(&mut workspace, Policy::Dense, Temperature::Cold, &block, &mut dst);
    assert_eq!(workspace.footprint_bytes() > before, cfg!(feature = "zstd"));
}

#[test]
fn every_policy_returns_what_it_was_given_and_never_grows() {
    let mut workspace = Box::new(Workspace::new());
    let mut back = vec![0; MAX_BLOCK];
    for shape in Shape::ALL {
        let block = shape.block(MAX_BLOCK, 9);
        for len in lengths() {
            // No slack at all behind the result.
            let mut dst = vec![0; len];
            for policy in Policy::ALL {
                for temperature in [Temperature::Hot, Temperature::Cold] {
                    let done = encode(&mut workspace, policy, temperature, &block[..len], &mut dst)
                        .expect("raw fits a destination of the source's length");
                    assert!(done.len <= len);
                    decode(&mut workspace, done.codec, &dst[..done.len], &mut back[..len])
                        .unwrap_or_else(|_| panic!("{policy:?} {shape:?} {len} {done:?}"));
                    assert!(back[..len] == block[..len], "{policy:?} {shape:?} {len} {done:?}");
                }
            }
        }
    }
}

#[test]
fn a_short_destination_is_refused_and_not_overrun() {
    let mut workspace = Box::new(Workspace::new());
    for shape in Shape::ALL {
        let block = shape.block(4096, 3);
        for room in (0..4096).step_by(61) {
            let mut dst = vec![0x5a; 4096 + 64];
            for policy in Policy::ALL {
                let done = encode(&mut workspace, policy, Temperature::Cold, &block, &mut dst[..room]);
                assert!(done.is_none_or(|done| done.len <= room));
                assert!(dst[room..].iter().all(|byte| *byte == 0x5a));
            }
        }
    }
}
