//! Which instructions the hot loops may be compiled to.

#[cfg(fuzzing)]
use core::sync::atomic::AtomicBool;
use core::sync::atomic::{AtomicU8, Ordering};

/// 0 before anybody asked, then 1 for no and 2 for yes.
static WIDE: AtomicU8 = AtomicU8::new(0);

#[cfg(fuzzing)]
static PORTABLE: AtomicBool = AtomicBool::new(false);

/// Has all that follows done by portable code, or no longer: so that the fuzzer can compare it with the rest.
#[cfg(fuzzing)]
pub fn run_portable(portable: bool) {
    // Relaxed: the thread that says so is the one that then encodes and decodes.
    PORTABLE.store(portable, Ordering::Relaxed);
}

/// Whether there is to be nothing but portable code, not even SSE2.
#[inline(always)]
pub(crate) fn is_portable() -> bool {
    #[cfg(fuzzing)]
    // Relaxed: as in `run_portable`.
    return PORTABLE.load(Ordering::Relaxed);
    #[cfg(not(fuzzing))]
    false
}

/// Whether this CPU has what the second versions of the hot loops are compiled for: AVX2, BMI1, BMI2, LZCNT, POPCNT,
/// and an operating system that keeps the wide registers. Those versions are the same source, so they give the same bytes.
#[inline(always)]
pub(crate) fn is_wide() -> bool {
    if is_portable() {
        return false;
    }
    // Relaxed: the answer is the same whoever asks, and publishes nothing.
    match WIDE.load(Ordering::Relaxed) {
        0 => ask(),
        answer => answer == 2,
    }
}

#[cold]
fn ask() -> bool {
    let wide = detect();
    // Relaxed: as above.
    WIDE.store(if wide { 2 } else { 1 }, Ordering::Relaxed);
    wide
}

fn detect() -> bool {
    use core::arch::x86_64::__cpuid_count;
    const XSAVE_AVX_POPCNT: u32 = 1 << 27 | 1 << 28 | 1 << 23;
    const BMI1_AVX2_BMI2: u32 = 1 << 3 | 1 << 5 | 1 << 8;
    const LZCNT: u32 = 1 << 5;
    const EXTENDED: u32 = 0x8000_0000;
    let cpuid = |leaf| __cpuid_count(leaf, 0);
    if cpuid(0).eax < 7 || cpuid(EXTENDED).eax <= EXTENDED {
        return false;
    }
    let has = cpuid(1).ecx & XSAVE_AVX_POPCNT == XSAVE_AVX_POPCNT
        && cpuid(7).ebx & BMI1_AVX2_BMI2 == BMI1_AVX2_BMI2
        && cpuid(EXTENDED + 1).ecx & LZCNT == LZCNT;
    // SAFETY: bit 27 of the first leaf says that the system has turned XGETBV on.
    has && unsafe { kept_registers() } & 6 == 6
}

/// The registers that the operating system keeps: bits 1 and 2 are the 16-byte and the 32-byte ones.
#[target_feature(enable = "xsave")]
fn kept_registers() -> u64 {
    // SAFETY: register 0 exists wherever the instruction does.
    unsafe { core::arch::x86_64::_xgetbv(0) }
}

#[cfg(test)]
mod tests {
    extern crate std;

    #[test]
    fn the_answer_is_the_standard_librarys() {
        let theirs = std::is_x86_feature_detected!("avx2")
            && std::is_x86_feature_detected!("bmi1")
            && std::is_x86_feature_detected!("bmi2")
            && std::is_x86_feature_detected!("lzcnt")
            && std::is_x86_feature_detected!("popcnt");
        assert_eq!(super::is_wide(), theirs);
        assert_eq!(super::is_wide(), theirs);
    }
}
