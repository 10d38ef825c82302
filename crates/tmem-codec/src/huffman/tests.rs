extern crate std;
use super::decode::decode_portable;
use super::encode::encode_by;
use super::*;
use crate::codec::Corrupt;
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    /// What could be a block of the word LZ, with streams of these lengths; `spread` bounds its bytes.
    fn plain(&mut self, lengths: [usize; 3], spread: usize) -> Vec<u8> {
        let mut plain = Vec::new();
        for length in &lengths[..2] {
            plain.extend(u16::try_from(*length).expect("a block's stream").to_le_bytes());
        }
        plain.extend((0..lengths.iter().sum()).map(|_| u8::try_from(self.below(spread)).expect("a byte")));
        plain
    }
}

fn round_trip(lane: &mut Lane, plain: &[u8]) -> Vec<u8> {
    let mut coded = vec![0; HEADER + plain.len() * 11 / 8 + 8];
    let len = encode(lane, plain, &mut coded).expect("no code is above 10 bits");
    coded.truncate(len);
    let mut back = vec![0xa5; plain.len()];
    assert_eq!(decode(&coded, &mut back), Ok(plain.len()));
    assert!(back == plain);
    coded
}

#[test]
fn streams_of_all_lengths_return() {
    let (mut random, mut lane) = (Random(1), Box::new([0; LANE_MAX]));
    for stream in 0..3 {
        for length in 0..100 {
            let mut lengths = [random.below(30), random.below(30), random.below(30)];
            lengths[stream] = length;
            let spread = 1 + random.below(256);
            let plain = random.plain(lengths, spread);
            round_trip(&mut lane, &plain);
        }
    }
    for spread in [1, 17, 256] {
        let plain = random.plain([40_000, 9000, 16_000], spread);
        round_trip(&mut lane, &plain);
    }
}

#[test]
fn every_symbol_has_a_code_after_every_other() {
    let mut lane = Box::new([0; LANE_MAX]);
    for before in 0..=255 {
        let stream: Vec<u8> = (0..=255).flat_map(|symbol| [before, symbol]).collect();
        let mut plain = vec![0, 2, 0, 2];
        (0..3).for_each(|_| plain.extend(&stream));
        round_trip(&mut lane, &plain);
    }
}

#[test]
fn both_versions_write_and_read_the_same() {
    let (mut random, mut lane) = (Random(3), Box::new([0; LANE_MAX]));
    for round in 0..300 {
        let lengths = [random.below(2000), random.below(300), random.below(500)];
        let spread = 1 + random.below(256);
        let plain = random.plain(lengths, spread);
        let coded = round_trip(&mut lane, &plain);
        let mut portable = vec![0; coded.len()];
        assert_eq!(encode_by(&mut lane, &plain, &mut portable), Some(coded.len()), "{round}");
        assert!(portable == coded, "{round}");
        let (mut damaged, mut one, mut other) = (coded, vec![0; plain.len()], vec![0; plain.len()]);
        for _ in 0..20 {
            let at = random.below(damaged.len());
            damaged[at] ^= 1 << random.below(8);
            assert_eq!(decode(&damaged, &mut one), decode_portable(&damaged, &mut other), "{round}");
            assert!(one == other, "{round}");
        }
    }
}

#[test]
fn what_does_not_fit_is_not_written_and_what_is_cut_or_longer_is_never_taken_for_the_block() {
    let (mut random, mut lane) = (Random(5), Box::new([0; LANE_MAX]));
    let plain = random.plain([700, 90, 200], 40);
    let coded = round_trip(&mut lane, &plain);
    let mut dst = vec![0; coded.len() - 1];
    assert_eq!(encode(&mut lane, &plain, &mut dst), None);
    let mut back = vec![0; plain.len()];
    for len in 0..coded.len() {
        // A lane that goes backwards then starts elsewhere; by chance it may end where it should.
        let outcome = decode(&coded[..len], &mut back);
        assert!(outcome == Err(Corrupt) || back != plain, "{len}");
    }
    let longer = [&coded[..], &[0]].concat();
    assert!(decode(&longer, &mut back) == Err(Corrupt) || back != plain);
    assert_eq!(decode(&coded, &mut back[1..]), Err(Corrupt));
}

#[test]
fn streams_that_are_said_to_be_long_end_with_the_bits() {
    // Zeros: the shortest codes, and as many symbols as can be said.
    for tail in [0, 1, 7, 8, 40] {
        let mut coded = vec![0; HEADER + tail];
        coded[..2].copy_from_slice(&60_000u16.to_le_bytes());
        let mut back = vec![0xa5; 65_536];
        assert_eq!(decode(&coded, &mut back), Err(Corrupt));
        // What was decoded before that was noticed: eight bits a byte, and the bytes that are looked at at once.
        let quarter = 15_000;
        let touched = back[PLAIN_HEADER..][..quarter].iter().rposition(|byte| *byte != 0xa5);
        assert!(touched.is_none_or(|last| last < (tail + 9) * 8), "{tail}: {touched:?}");
    }
}
