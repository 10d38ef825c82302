//! Programs under a kernel that often says no: it is made to, by the seams of `tmem-sys` and `tmem-agent`, whose tables
//! say how and why. Whatever it answers, every byte is right, and what is printed is what is printed without tmem.

use crate::cases::native;
use crate::harness::{Ended, Run, TMEM};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

/// One in so many calls goes wrong, by turns: many, so that errors come in a row, or few enough to go far.
const RATES: [u64; 3] = [4, 16, 8];

/// A case of the subject, its limit, and its options.
type Case = (&'static str, &'static str, &'static [&'static str]);

/// What most cases are given: half of it stays. All of them are run, one after the other, in a minute.
const HALF: &[&str] = &["--mib", "16", "--ballast", "24"];

const CASES: &[Case] = &[
    ("fill-sequential", "24M", HALF),
    ("fill-random", "24M", HALF),
    ("fill-reverse", "24M", HALF),
    ("zero-pages", "24M", HALF),
    ("heap", "24M", HALF),
    ("fork-both-write", "32M", HALF),
    ("fork-raw-clone", "32M", HALF),
    ("fork-repeatedly", "32M", HALF),
    ("fork-early", "32M", HALF),
    ("fork-wipe", "32M", HALF),
    ("fork-dontfork", "32M", HALF),
    ("exec-self", "24M", &["--mib", "16", "--ballast", "24", "--times", "3"]),
    ("threads-exit", "32M", &["--mib", "16", "--ballast", "24", "--threads", "40"]),
    ("threads-stripes", "32M", &["--mib", "16", "--ballast", "24", "--threads", "4"]),
    ("remap-move", "24M", HALF),
    ("remap-grow", "24M", HALF),
    ("remap-shrink", "24M", HALF),
    ("remap-dontunmap", "32M", HALF),
    ("unmap-parts", "24M", HALF),
    ("map-over", "32M", HALF),
    // A size by which its mappings come out as large as has to be to be armed.
    ("neighbours", "32M", &["--mib", "20", "--ballast", "24"]),
    ("dontneed", "32M", HALF),
    ("madv-free", "24M", HALF),
    ("populate", "24M", HALF),
    ("protect", "32M", HALF),
    ("protect-none", "32M", HALF),
    ("dontneed-race", "32M", HALF),
    ("unmap-race", "32M", HALF),
    ("remap-race", "32M", HALF),
    ("fork-race", "32M", HALF),
    ("robust-mutex", "24M", HALF),
    ("huge-pages", "48M", &["--mib", "32", "--ballast", "40"]),
    ("own-userfaultfd", "32M", HALF),
    ("torture", "32M", &["--mib", "40", "--seconds", "3", "--threads", "4", "--seed", "1"]),
];

/// How often what went wrong, in all runs.
type Counts = BTreeMap<String, u64>;

/// Runs a case while calls go wrong as `plan` says, and checks what is true of each.
#[track_caller]
fn run((name, limit, arguments): Case, plan: &str) -> Option<Ended> {
    let run = Run::new(limit)?.environment("TMEM_FAULTS", plan);
    let ended = run.option("--on-full", "exceed").subject(name, arguments).finish();
    assert_eq!(ended.code(), 0, "{}", ended.story());
    ended.report().check_identities(0);
    assert!(ended.report().count("evicted_bytes") > 0, "{}", ended.story());
    if name != "torture" {
        let said = ended.stdout.lines().last().unwrap_or_default();
        assert_eq!(said, native(name, arguments), "the same case natively");
    }
    Some(ended)
}

fn add(counts: &mut Counts, ended: &Ended) {
    for (name, count) in ended.report().injected() {
        *counts.entry(name.to_owned()).or_default() += count;
    }
}

/// Huge pages come back whole of which the cleaner has encoded parts anew, which the monitor then writes. Whether enough
/// of them come back whole, where that is hindered, is not asked.
fn walk_over_huge_pages(seed: u64) -> Option<Ended> {
    let plan = &*format!("{seed}:8:write");
    eprintln!("TMEM_FAULTS={plan} huge-walk");
    let run = Run::new("256M")?.option("--on-full", "exceed").option("--policy", "dense");
    let mut run = run.environment("TMEM_FAULTS", plan).subject("huge-walk", &["--mib", "64", "--times", "8"]).start();
    run.until("the memory is filled", |run| run.stdout().contains("ready") || run.stdout().contains("skipped"));
    let front = run.front().0.to_string();
    let lowered = Command::new(TMEM).args(["limit", &front, "60M"]).output().unwrap();
    assert!(lowered.status.success(), "{}", String::from_utf8_lossy(&lowered.stderr));
    let ended = run.finish();
    let passed = ended.stdout.contains("ok huge-walk") || ended.stderr.contains("huge pages came back as small ones");
    assert!(passed || ended.stdout.contains("skipped"), "{}", ended.story());
    Some(ended)
}

#[test]
fn programs_are_right_whatever_the_kernel_answers() {
    let mut counts = Counts::new();
    let mut huge = true;
    // Whether the cleaner comes to them in time depends on how busy the machine is.
    for seed in 1..=6 {
        let Some(walked) = walk_over_huge_pages(seed) else { return };
        huge &= !walked.stdout.contains("skipped");
        add(&mut counts, &walked);
        if !huge || counts["write EFAULT"] > 0 && counts["write part"] > 0 {
            break;
        }
    }
    let mut failed = Vec::new();
    for (seed, case) in CASES.iter().enumerate() {
        let plan = format!("{seed}:{}", RATES[seed % RATES.len()]);
        eprint!("TMEM_FAULTS={plan} {} {}: ", case.0, case.2.join(" "));
        match catch_unwind(AssertUnwindSafe(|| run(*case, &plan))) {
            Ok(ended) => ended.iter().for_each(|ended| {
                eprintln!("{:.1?}", ended.wall);
                add(&mut counts, ended);
            }),
            Err(_) => failed.push((case.0, plan)),
        }
    }
    for (name, count) in &counts {
        eprintln!("{count:>9}  {name}");
    }
    assert!(failed.is_empty(), "{failed:?}");
    // Where huge pages are not to be had, they are not written to either.
    let cannot = |name: &str| name.starts_with("write ") && !huge;
    let never: Vec<_> = counts.iter().filter(|(name, count)| **count == 0 && !cannot(name)).collect();
    assert!(!counts.is_empty() && never.is_empty(), "never happened: {never:?}");
}

/// Runs a case while every other call goes wrong that has this name.
#[track_caller]
fn half_of(which: &str, name: &'static str) {
    for seed in 1..4 {
        let Some(ended) = run((name, "32M", HALF), &format!("{seed}:2:{which}")) else { return };
        assert!(ended.report().injected().any(|(name, count)| name == which && count > 0), "{}", ended.story());
    }
}

#[test]
fn a_fork_for_whose_child_there_is_no_descriptor_is_read_later() {
    half_of("read EMFILE", "fork-repeatedly");
}

#[test]
fn staging_is_given_back_where_no_mapping_can_be_split() {
    half_of("unregister ENOMEM", "fill-random");
}

#[test]
fn what_cannot_be_registered_is_registered_later() {
    half_of("register ENOMEM", "fill-random");
}
