//! Each case of the subject under a limit that lets about half of its memory stay: it must find every byte right, and
//! print what it prints without tmem.

use crate::harness::{Run, subject};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

/// Exit status of a case that cannot be tried here.
const SKIPPED: i32 = 77;
/// The limit that the subject's defaults are made for.
const LIMIT: &str = "64M";

/// What the stacks hold that 300 threads write to: some are mapped anew each time, and are full 40 microseconds later,
/// before anybody can have seen them.
const NEW_STACKS: u64 = 300 * (64 << 10);

/// Cases that tests of other modules run.
const ELSEWHERE: &[&str] = &[
    "arguments",
    "exit",
    "die",
    "orphan",
    "daemon",
    "noise",
    "hold",
    "torture",
    "huge-walk",
    "discard-staged",
    "walk",
];

/// Runs a case; the report is checked by `check`.
#[track_caller]
fn case(name: &str, limit: &str, arguments: &[&str]) {
    let Some(run) = Run::new(limit) else { return };
    let ended = run.subject(name, arguments).finish();
    if ended.code() == SKIPPED {
        eprintln!("{}", ended.stdout.trim());
        return;
    }
    let said = ended.ok_within(limit, if name == "threads-exit" { NEW_STACKS } else { 0 });
    eprintln!("{}", ended.story());
    assert_eq!(said, native(name, arguments), "the same case natively");
    let evicts = !matches!(name, "many-processes" | "locked-all");
    assert_eq!(ended.report().count("evicted_bytes") > 0, evicts, "{}", ended.story());
    if matches!(name, "shared-anonymous" | "memfd" | "locked" | "hugetlb") {
        let kind = if matches!(name, "locked" | "hugetlb") { name } else { "shared" };
        assert!(ended.report().count(&format!("left_alone_bytes/{kind}")) > 0, "{}", ended.story());
    }
}

/// The last line that the case prints without tmem.
pub(crate) fn native(name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(subject());
    let output = command.arg(name).args(arguments).arg("--native").stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

macro_rules! cases {
    ($($(#[$attribute:meta])* $test:ident: $name:literal, $limit:expr, [$($argument:literal),*];)*) => {
        const HERE: &[&str] = &[$($name),*];
        $(
            #[test]
            $(#[$attribute])*
            fn $test() {
                case($name, $limit, &[$($argument),*]);
            }
        )*
    };
}

cases! {
    fill_sequential: "fill-sequential", LIMIT, [];
    fill_random: "fill-random", LIMIT, [];
    fill_reverse: "fill-reverse", LIMIT, [];
    rewrite: "rewrite", LIMIT, [];
    zero_pages: "zero-pages", LIMIT, ["--mib", "32"];
    deep_recursion: "deep-recursion", LIMIT, [];
    heap: "heap", LIMIT, [];
    program_break: "break", LIMIT, [];
    fork_both_write: "fork-both-write", LIMIT, ["--mib", "32"];
    fork_raw_clone: "fork-raw-clone", LIMIT, ["--mib", "32"];
    fork_grandchildren: "fork-grandchildren", LIMIT, ["--mib", "32"];
    fork_early: "fork-early", LIMIT, [];
    fork_repeatedly: "fork-repeatedly", LIMIT, ["--mib", "32"];
    fork_wipe: "fork-wipe", LIMIT, ["--mib", "32"];
    fork_dontfork: "fork-dontfork", LIMIT, ["--mib", "32"];
    many_processes: "many-processes", "256M", ["--count", "100"];
    vfork_exec: "vfork-exec", LIMIT, [];
    posix_spawn: "posix-spawn", LIMIT, [];
    exec_self: "exec-self", LIMIT, ["--times", "6"];
    exec_clean_environment: "exec-clean-environment", LIMIT, [];
    close_descriptors: "close-descriptors", LIMIT, ["--mib", "32"];
    threads_exit: "threads-exit", LIMIT, ["--threads", "300"];
    threads_exit_raw: "threads-exit-raw", LIMIT, ["--threads", "300"];
    threads_own_stacks: "threads-own-stacks", LIMIT, ["--threads", "300"];
    threads_locals: "threads-locals", LIMIT, ["--threads", "100"];
    threads_stripes: "threads-stripes", LIMIT, ["--threads", "4"];
    remap_move: "remap-move", LIMIT, [];
    remap_grow: "remap-grow", LIMIT, [];
    remap_shrink: "remap-shrink", LIMIT, [];
    remap_dontunmap: "remap-dontunmap", LIMIT, ["--mib", "32"];
    remap_repeatedly: "remap-repeatedly", LIMIT, [];
    unmap_parts: "unmap-parts", LIMIT, [];
    map_over: "map-over", LIMIT, [];
    neighbours: "neighbours", LIMIT, [];
    dontneed: "dontneed", LIMIT, [];
    madv_free: "madv-free", LIMIT, [];
    populate: "populate", LIMIT, [];
    protect: "protect", LIMIT, [];
    protect_none: "protect-none", LIMIT, [];
    reserve_commit: "reserve-commit", LIMIT, [];
    dontneed_race: "dontneed-race", LIMIT, [];
    unmap_race: "unmap-race", LIMIT, [];
    remap_race: "remap-race", LIMIT, [];
    fork_race: "fork-race", LIMIT, ["--mib", "32"];
    call_file: "call-file", LIMIT, [];
    call_vectors: "call-vectors", LIMIT, [];
    call_pipe: "call-pipe", LIMIT, [];
    call_socket: "call-socket", LIMIT, [];
    call_futex: "call-futex", LIMIT, [];
    call_small: "call-small", LIMIT, [];
    call_vm_readv: "call-vm-readv", LIMIT, ["--mib", "32"];
    direct_io: "direct-io", LIMIT, [];
    io_uring_fixed: "io-uring-fixed", LIMIT, [];
    signal_stack: "signal-stack", LIMIT, [];
    signal_storm: "signal-storm", LIMIT, [];
    stop_continue: "stop-continue", LIMIT, [];
    robust_mutex: "robust-mutex", LIMIT, [];
    robust_mutex_shared: "robust-mutex-shared", LIMIT, ["--mib", "32"];
    pi_mutex: "pi-mutex", LIMIT, [];
    locked: "locked", LIMIT, [];
    locked_evicted: "locked-evicted", LIMIT, [];
    locked_all: "locked-all", LIMIT, [];
    shared_anonymous: "shared-anonymous", LIMIT, ["--mib", "32"];
    memfd: "memfd", LIMIT, ["--mib", "32"];
    private_file: "private-file", LIMIT, ["--mib", "32"];
    hugetlb: "hugetlb", LIMIT, [];
    huge_pages: "huge-pages", LIMIT, [];
    own_userfaultfd: "own-userfaultfd", LIMIT, ["--mib", "32"];
}

#[test]
fn every_case_of_the_subject_is_run() {
    let output = Command::new(subject()).arg("list").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let listed: BTreeSet<&str> = text.lines().collect();
    let run: BTreeSet<&str> = HERE.iter().chain(ELSEWHERE).copied().collect();
    assert_eq!(listed, run);
}
