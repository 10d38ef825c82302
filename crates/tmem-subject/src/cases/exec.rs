//! New programs in place of old ones.

use crate::fork::Child;
use crate::options::Options;
use crate::pattern::Digest;
use crate::pressure::Pressure;
use crate::region::Region;
use crate::sys::{self, PAGE};
use std::ffi::CString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Prints a digest of its own arguments' bytes; what the cases below run.
pub(crate) fn arguments(options: &Options) -> u64 {
    let mut digest = Digest::new();
    digest.add(options.seed);
    digest.value()
}

/// vfork and exec with evicted memory: the child borrows the address space until the exec.
pub(crate) fn vfork_exec(options: &Options) -> u64 {
    each_child(options, |arguments| {
        let stack = sys::map(64 << 10, sys::RW, libc::MAP_STACK);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the child has a stack of its own, calls only execve, and has left this address space when clone
        // returns.
        let id = unsafe { libc::clone(become_other, (stack + (64 << 10)) as *mut _, flags, arguments as *mut _) };
        sys::unmap(stack, 64 << 10);
        id
    })
}

extern "C" fn become_other(arguments: *mut libc::c_void) -> i32 {
    let path = sys::peek(arguments as usize);
    let _ = sys::call(libc::SYS_execve, &[path as usize, arguments as usize, environment()]);
    127
}

/// The environment as exec takes it.
fn environment() -> usize {
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    // SAFETY: nothing here changes the environment.
    unsafe { environ as usize }
}

/// posix_spawn with its arguments in evicted memory.
pub(crate) fn posix_spawn(options: &Options) -> u64 {
    each_child(options, |arguments| {
        let mut id = 0;
        let path = sys::peek(arguments) as *const libc::c_char;
        let (none, attributes) = (std::ptr::null(), std::ptr::null());
        let (argv, envp) = (arguments as *const *mut libc::c_char, environment() as *const *mut libc::c_char);
        // SAFETY: the strings and their list are terminated; the two options are absent.
        let error = unsafe { libc::posix_spawn(&raw mut id, path, none, attributes, argv, envp) };
        sys::demand_zero(error, "posix_spawn");
        id
    })
}

/// Makes children, with everything that exec reads (path, strings, list) lying in memory that was evicted.
fn each_child(options: &Options, make: impl Fn(usize) -> i32) -> u64 {
    let mut region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    // The first three pages are for the arguments; their shadow is not the pattern, so they are another region.
    let start = region.base;
    region = Region { base: region.address(4), versions: vec![0; region.pages() - 4], ..region };
    region.fill(region.all());
    for _ in 0..options.times {
        write_arguments(start, options.seed);
        pressure.evict_range(start, 3, 3);
        pressure.evict_half(&region);
        Child::made(make(start)).join();
        region.check_each((0..region.pages()).step_by(5));
    }
    region.check_all()
}

/// The list in the first page, the strings in the two after it.
fn write_arguments(at: usize, seed: u64) {
    let own = std::env::current_exe().expect("/proc is there");
    let strings = [own.display().to_string(), "arguments".into(), "--seed".into(), seed.to_string()];
    let mut place = at + PAGE + 2000;
    for (number, string) in strings.iter().enumerate() {
        let bytes = CString::new(string.as_str()).expect("no zeros inside");
        sys::poke_bytes(place, bytes.as_bytes_with_nul());
        sys::poke(at + number * 8, place as u64);
        place += bytes.as_bytes_with_nul().len();
    }
    sys::poke(at + strings.len() * 8, 0);
}

/// Fills and evicts, then becomes itself again, several times: only if each exec frees what the last program had in
/// the store is there room for the next.
pub(crate) fn exec_self(options: &Options) -> u64 {
    again(options, "exec-self", |_| {})
}

/// The same, with an environment that no longer names the pager: what follows is not managed, and right.
pub(crate) fn clean_environment(options: &Options) -> u64 {
    again(&Options { times: options.times.min(2), ..options.clone() }, "exec-clean-environment", |command| {
        command.env_clear();
    })
}

fn again(options: &Options, case: &str, change: impl Fn(&mut Command)) -> u64 {
    let region = Region::filled(options.mib, options.seed);
    let mut pressure = Pressure::new(options);
    let managed = case == "exec-self" || options.times == 2;
    if managed {
        pressure.evict_half(&region);
    }
    if options.times <= 1 {
        return region.check_all();
    }
    region.check_each((0..region.pages()).step_by(9));
    let next = Options { times: options.times - 1, seed: options.seed + 1, ..options.clone() };
    let own = std::env::current_exe().expect("/proc is there");
    let mut command = Command::new(own);
    command.arg(case).args(next.arguments());
    change(&mut command);
    let error = command.exec();
    sys::fail(&format!("exec: {error}"))
}
