//! How processes end and outlive each other.

use crate::fork::{Pipe, child};
use crate::options::Options;
use crate::pressure::Pressure;
use crate::region::Region;
use crate::sys;
use std::fs;

/// The program ends at once; its child goes on checking, and writes what it saw to a file.
pub(crate) fn orphan(options: &Options) -> u64 {
    let region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    let born = Pipe::new();
    let started = child(|| {
        born.tell(1);
        outlive(options, region.clone());
    });
    born.hear();
    started.leave();
    region.check_each(0..8)
}

/// As a daemon does it: fork, a session of its own, fork again.
pub(crate) fn daemon(options: &Options) -> u64 {
    let region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    child(|| {
        sys::demand(sys::call(libc::SYS_setsid, &[]), "setsid");
        child(|| outlive(options, region.clone())).leave();
    })
    .join();
    region.check_each(0..8)
}

/// Waits until the parent is gone, checks and grows under pressure, and says so in the file.
fn outlive(options: &Options, mut region: Region) {
    while !adopted() {
        sys::pause();
    }
    let file = options.file.as_ref().unwrap_or_else(|| sys::fail("--file is missing"));
    region.check_all();
    region.fill((0..region.pages()).step_by(2));
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    let digest = region.check_all();
    sys::demand(fs::write(file, format!("ok outlived {digest:016x}\n")), "write the result");
}

/// Whether the parent is one that did not make us: init or a subreaper, not another subject.
fn adopted() -> bool {
    let parent = sys::demand(sys::call(libc::SYS_getppid, &[]), "getppid");
    let name = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
    name.trim() != "tmem-subject"
}

/// Closes every descriptor above the standard three, as daemons do, and then comes under pressure.
pub(crate) fn close_descriptors(options: &Options) -> u64 {
    sys::demand(sys::call(libc::SYS_close_range, &[3, u32::MAX as usize, 0]), "close_range");
    let mut region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    pressure.evict_half(&region);
    region.check_all();
    sys::demand(sys::call(libc::SYS_close_range, &[3, u32::MAX as usize, 0]), "close_range");
    region.fill((0..region.pages()).step_by(2));
    pressure.evict_half(&region);
    let inherited = region.clone();
    child(|| {
        inherited.check_all();
    })
    .join();
    region.check_all()
}

/// Exits with a status, with memory evicted.
pub(crate) fn exit(options: &Options) -> u64 {
    let region = Region::filled(options.mib, options.seed);
    Pressure::new(options).evict_half(&region);
    region.check_each((0..region.pages()).step_by(3));
    sys::exit(options.number)
}

/// Dies by a signal, with memory evicted.
pub(crate) fn die(options: &Options) -> u64 {
    let region = Region::filled(options.mib, options.seed);
    Pressure::new(options).evict_half(&region);
    region.check_each((0..region.pages()).step_by(3));
    let own = std::process::id() as usize;
    sys::demand(sys::call(libc::SYS_kill, &[own, options.number as usize]), "kill");
    sys::fail("the signal did nothing")
}
