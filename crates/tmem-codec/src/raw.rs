//! Loads and stores of 8 and 16 bytes whose bounds the caller has proved already, and what is said to the cache of them.
//!
//! Each load and store takes the whole slice and a position, so that the proof is one comparison, and a debug build
//! (the tests, the fuzzers) checks it again.

/// The 8 bytes at `at`, little end first.
///
/// # Safety
/// `at + 8 <= src.len()`.
#[inline(always)]
pub(crate) unsafe fn load64(src: &[u8], at: usize) -> u64 {
    debug_assert!(at + 8 <= src.len());
    // SAFETY: `at` lies within the slice by the contract.
    let place = unsafe { src.as_ptr().add(at) };
    // SAFETY: 8 bytes from `at` are inside the slice by the contract; a byte array has alignment 1.
    u64::from_le_bytes(unsafe { place.cast::<[u8; 8]>().read() })
}

/// The 4 bytes at `at`, little end first.
///
/// # Safety
/// `at + 4 <= src.len()`.
#[inline(always)]
pub(crate) unsafe fn load32(src: &[u8], at: usize) -> u32 {
    debug_assert!(at + 4 <= src.len());
    // SAFETY: `at` lies within the slice by the contract.
    let place = unsafe { src.as_ptr().add(at) };
    // SAFETY: 4 bytes from `at` are inside the slice by the contract; a byte array has alignment 1.
    u32::from_le_bytes(unsafe { place.cast::<[u8; 4]>().read() })
}

/// The 2 bytes at `at`, little end first.
///
/// # Safety
/// `at + 2 <= src.len()`.
#[inline(always)]
pub(crate) unsafe fn load16(src: &[u8], at: usize) -> u16 {
    debug_assert!(at + 2 <= src.len());
    // SAFETY: `at` lies within the slice by the contract.
    let place = unsafe { src.as_ptr().add(at) };
    // SAFETY: 2 bytes from `at` are inside the slice by the contract; a byte array has alignment 1.
    u16::from_le_bytes(unsafe { place.cast::<[u8; 2]>().read() })
}

/// Writes 8 bytes at `at`, little end first.
///
/// # Safety
/// `at + 8 <= dst.len()`.
#[inline(always)]
pub(crate) unsafe fn store64(dst: &mut [u8], at: usize, word: u64) {
    debug_assert!(at + 8 <= dst.len());
    // SAFETY: `at` lies within the slice by the contract.
    let place = unsafe { dst.as_mut_ptr().add(at) };
    // SAFETY: 8 bytes from `at` are inside the slice by the contract; a byte array has alignment 1.
    unsafe { place.cast::<[u8; 8]>().write(word.to_le_bytes()) }
}

/// Copies 16 bytes from one slice to another.
///
/// # Safety
/// `from + 16 <= src.len()` and `to + 16 <= dst.len()`.
#[inline(always)]
pub(crate) unsafe fn copy16(src: &[u8], from: usize, dst: &mut [u8], to: usize) {
    debug_assert!(from + 16 <= src.len() && to + 16 <= dst.len());
    // SAFETY: `from` lies within `src` by the contract.
    let source = unsafe { src.as_ptr().add(from) };
    // SAFETY: `to` lies within `dst` by the contract.
    let place = unsafe { dst.as_mut_ptr().add(to) };
    // SAFETY: 16 bytes from `from` are inside `src` by the contract; a byte array has alignment 1.
    let bytes = unsafe { source.cast::<[u8; 16]>().read() };
    // SAFETY: 16 bytes from `to` are inside `dst` by the contract.
    unsafe { place.cast::<[u8; 16]>().write(bytes) }
}

/// Bytes of a block that are asked for ahead of their use. What follows in a longer one the CPU foresees by itself.
const AHEAD: usize = crate::GRANULE;
/// Bytes of a cache line, at least.
const LINE: usize = 64;

/// Has the CPU fetch `bytes`, which are read or written soon.
#[inline(always)]
pub(crate) fn expect(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..bytes.len().min(AHEAD)).step_by(LINE) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = bytes.as_ptr().wrapping_add(at).cast::<i8>();
        // SAFETY: SSE is part of x86_64, and a prefetch accesses nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}
