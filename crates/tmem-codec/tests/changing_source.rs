//! A source that changes while it is encoded: a block of the usual bounds comes out, and nothing else is touched.
//!
//! `encode` takes `&[u8]`, and in Rust nobody may write what that refers to. In a program that is paged somebody does: the
//! pages are another program's, and the kernel alone knows. So they are changed here in that way too: by writes to
//! `/proc/self/mem`, which the kernel carries out behind the language's back.
#![cfg(target_os = "linux")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tmem_codec::{Codec, Encoded, MAX_BLOCK, Policy, Temperature, Workspace, decode, encode, encode_as};

mod data;
use data::{Random, Shape};

const GUARD: usize = 64;

/// Writes parts of the `images` over `len` bytes at `address` until `stop`, and counts how often.
fn scribble(memory: &File, (address, len): (u64, usize), images: &[Vec<u8>], stop: &AtomicBool, writes: &AtomicU64) {
    let mut random = Random::new(29);
    // Relaxed, both: what is written reaches the other thread through the kernel, whenever it does.
    while !stop.load(Ordering::Relaxed) {
        let image = &images[usize::try_from(random.below(images.len() as u64)).expect("an index")];
        let from = usize::try_from(random.below(len as u64)).expect("a position");
        let longest = if random.below(2) == 0 { 16 } else { 4096 };
        let part = usize::try_from(random.below(longest)).expect("a length") + 1;
        let to = len.min(from + part);
        memory.write_all_at(&image[from..to], address + from as u64).expect("this process's memory");
        // Relaxed: it is read when this thread has ended.
        writes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Ends the writing, also when an assertion does not hold.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        // Relaxed: as in `scribble`.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Bytes that are encoded, and where that and what is decoded again are put.
struct Place {
    /// Exactly as long as the block, so that a sanitizer sees what is read behind it.
    src: Box<[u8]>,
    dst: Vec<u8>,
    back: Vec<u8>,
}

impl Place {
    fn new(image: &[u8]) -> Self {
        let room = image.len() + 2 * GUARD;
        Self { src: image.into(), dst: vec![0; room], back: vec![0; room] }
    }

    /// Encodes by `encoder` into the middle of a larger buffer, and decodes what came out; whether it is a block.
    fn check(
        &mut self,
        workspace: &mut Workspace,
        encoder: impl FnOnce(&mut Workspace, &[u8], &mut [u8]) -> Option<Encoded>,
    ) -> bool {
        let Self { src, dst, back } = self;
        let room = src.len();
        let is_untouched = |bytes: &[u8]| bytes[..GUARD].iter().chain(&bytes[GUARD + room..]).all(|byte| *byte == 0x5a);
        dst.fill(0x5a);
        let encoded = encoder(workspace, src, &mut dst[GUARD..GUARD + room]);
        assert!(is_untouched(dst), "{encoded:?}");
        let Some(Encoded { codec, len }) = encoded else { return false };
        assert!(len <= room, "{codec:?}");
        // Some bytes, or corrupt.
        back.fill(0x5a);
        let _ = decode(workspace, codec, &dst[GUARD..GUARD + len], &mut back[GUARD..GUARD + room]);
        assert!(is_untouched(back), "{codec:?}");
        true
    }

    /// Once with every mode and policy.
    fn check_all(&mut self, workspace: &mut Workspace, warmth: Temperature) {
        for &codec in Codec::ALL {
            self.check(workspace, |workspace, src, dst| encode_as(workspace, codec, src, dst));
        }
        for policy in Policy::ALL {
            let fits = self.check(workspace, |workspace, src, dst| encode(workspace, policy, warmth, src, dst));
            assert!(fits, "raw always fits");
        }
    }
}

#[test]
fn a_source_that_changes_is_encoded_to_something_and_harms_nobody() {
    let memory = OpenOptions::new().write(true).open("/proc/self/mem").expect("this process's memory");
    let mut workspace = Box::new(Workspace::new());
    let images: Vec<Vec<u8>> = Shape::ALL.iter().map(|shape| shape.block(MAX_BLOCK, 31)).collect();
    for len in [200, 4096, 4099, 16384, MAX_BLOCK] {
        let mut place = Place::new(&images[7][..len]);
        let written = (place.src.as_ptr().addr() as u64, len);
        let (stop, writes) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| scribble(&memory, written, &images, &stop, &writes));
            let _stop = Stop(&stop);
            for round in 0..(4 << 20) / len {
                place.check_all(&mut workspace, if round % 2 == 0 { Temperature::Hot } else { Temperature::Cold });
            }
        });
        let writes = writes.into_inner();
        assert!(writes > 100, "the source was written only {writes} times");
    }
}
