//! What goes in comes out, in every mode and at every length.

use tmem_codec::{Codec, MAX_BLOCK, Policy, Temperature, Workspace, decode, encode, encode_as};

mod data;
use data::Shape;

fn lengths() -> impl Iterator<Item = usize> {
    (1..=300)
        .chain((301..=8200).step_by(37))
        .chain([4095, 4096, 4097, 8191, 8192, 8200, 16384, 65535, MAX_BLOCK])
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
                    decode(
                        &mut workspace,
                        done.codec,
                        &dst[..done.len],
                        &mut back[..len],
                    )
                    .unwrap_or_else(|_| panic!("{policy:?} {shape:?} {len} {done:?}"));
                    assert!(
                        back[..len] == block[..len],
                        "{policy:?} {shape:?} {len} {done:?}"
                    );
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
                let done = encode(
                    &mut workspace,
                    policy,
                    Temperature::Cold,
                    &block,
                    &mut dst[..room],
                );
                assert!(done.is_none_or(|done| done.len <= room));
                assert!(dst[room..].iter().all(|byte| *byte == 0x5a));
            }
        }
    }
}
