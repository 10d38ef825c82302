//! Whether programs can be paged here: what the kernel offers, what this user may, and the exact fix for each lack.

use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::path::Path;
use tmem_sys::{Features, PAGE_BYTES, Pagemap, Userfaultfd, same_memory};

/// Where userfaultfds can be had, by file permission.
const DEVICE: &str = "/dev/userfaultfd";
/// UFFDIO_MOVE came with it, the youngest thing that is needed.
const KERNEL: (u32, u32) = (6, 8);
/// `CAP_SYS_PTRACE` (include/uapi/linux/capability.h).
const CAP_SYS_PTRACE: u64 = 1 << 19;
/// Descriptors for a tree of programs: some four for each, and a few for the monitor.
const DESCRIPTORS: u64 = 4096;
/// The kernel's own default of vm.max_map_count; staging areas and registered ranges split mappings.
const MAPS: u64 = 65530;

/// What a userfaultfd has to be able to do.
const FEATURES: [(Features, &str); 6] = [
    (Features::EVENT_FORK, "EVENT_FORK"),
    (Features::EVENT_REMAP, "EVENT_REMAP"),
    (Features::EVENT_REMOVE, "EVENT_REMOVE"),
    (Features::EVENT_UNMAP, "EVENT_UNMAP"),
    (Features::THREAD_ID, "THREAD_ID"),
    (Features::MOVE, "MOVE"),
];

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What it is.
    pub name: &'static str,
    /// What was found.
    pub found: String,
    /// Whether it will do.
    pub verdict: Verdict,
}

/// Whether what was found will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It will.
    Good,
    /// It will, and could be better: how.
    Advice(String),
    /// It will not: the fix.
    Lack(String),
}

/// Something without which no program can be paged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

/// Where userfaultfds are had from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The device: its file permissions decide.
    Device,
    /// The system call.
    SystemCall,
}

/// Programs can be paged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Where userfaultfds are had from.
    pub door: Door,
}

/// Looks at everything that is needed.
///
/// # Errors
/// What is lacking, never nothing.
pub fn rights() -> Result<Rights, Vec<Lack>> {
    let lack = |check: Check| match check.verdict {
        Verdict::Lack(fix) => Some(Lack { what: format!("{}: {}", check.name, check.found), fix }),
        Verdict::Good | Verdict::Advice(_) => None,
    };
    let lacks: Vec<Lack> = checks().into_iter().filter_map(lack).collect();
    match door() {
        Ok(door) if lacks.is_empty() => Ok(Rights { door }),
        _ => Err(lacks),
    }
}

/// Looks at everything that matters, in the order in which a person would mend it.
#[must_use]
pub fn checks() -> Vec<Check> {
    vec![
        kernel(),
        userfaultfd(),
        events(),
        page_tables(),
        comparing(),
        executable_memfd(),
        proc(),
        loader(),
        descriptors(),
        mappings(),
        overcommit(),
    ]
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Version of the kernel: 6.18 is (6, 18).
pub(crate) fn kernel_version() -> (u32, u32) {
    let release = release();
    let mut numbers = release.split(|other: char| !other.is_ascii_digit()).map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn kernel() -> Check {
    let release = release();
    let verdict = if kernel_version() < KERNEL { Verdict::Lack(kernel_fix()) } else { Verdict::Good };
    Check { name: "kernel", found: format!("Linux {release}"), verdict }
}

fn kernel_fix() -> String {
    let (major, minor) = KERNEL;
    format!("boot Linux {major}.{minor} or newer, with CONFIG_USERFAULTFD and CONFIG_PROC_PAGE_MONITOR")
}

/// Where a userfaultfd can be had that also serves faults of the kernel, or why not. The monitor opens the device and
/// hands it to its programs; the system call is theirs to make, with rights that they have themselves.
fn door() -> Result<Door, String> {
    let device = match rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => return Ok(Door::Device),
        Err(Errno::NOENT) => format!("there is no {DEVICE}"),
        Err(Errno::ACCESS | Errno::PERM) => format!("{DEVICE} may not be opened"),
        Err(errno) => format!("{DEVICE}: {errno}"),
    };
    if sysctl("vm/unprivileged_userfaultfd") == Some(1) {
        return Ok(Door::SystemCall);
    }
    let inherited = if rustix::process::geteuid().is_root() { "CapEff:" } else { "CapAmb:" };
    if capabilities(inherited) & CAP_SYS_PTRACE != 0 {
        return Ok(Door::SystemCall);
    }
    Err(format!("{device}, and programs may not make the system call"))
}

fn userfaultfd() -> Check {
    let (found, verdict) = match (door(), Userfaultfd::new()) {
        (Err(why), _) => (why, Verdict::Lack(door_fix())),
        (Ok(_), Err(errno)) => (
            format!("refused ({errno})"),
            Verdict::Lack("let the sandbox (seccomp, or a security module) allow userfaultfd, or run outside".into()),
        ),
        (Ok(Door::Device), Ok(_)) => (format!("through {DEVICE}"), Verdict::Good),
        (Ok(Door::SystemCall), Ok(_)) => ("through the system call".into(), Verdict::Good),
    };
    Check { name: "userfaultfd", found, verdict }
}

fn door_fix() -> String {
    let for_all = "`sudo sysctl -w vm.unprivileged_userfaultfd=1`";
    if in_container() {
        format!("start the container with `--device {DEVICE}`, or on the host {for_all}")
    } else if Path::new(DEVICE).exists() {
        format!(
            "`sudo chgrp $(id -g) {DEVICE} && sudo chmod 660 {DEVICE}` until the next boot (for good a udev rule: \
             KERNEL==\"userfaultfd\", GROUP=\"...\", MODE=\"0660\"), or for every user {for_all}"
        )
    } else {
        for_all.into()
    }
}

/// What has to be told of an address space, tried in earnest where a userfaultfd can be had.
fn events() -> Check {
    let all = FEATURES.iter().fold(Features::NONE, |all, (feature, _)| all | *feature);
    let tried = Userfaultfd::new().and_then(|userfaultfd| userfaultfd.enable(all));
    let missing = Features::offered().map(missing).unwrap_or_default();
    let (found, verdict) = if capabilities("CapEff:") & CAP_SYS_PTRACE == 0 || tried == Err(Errno::PERM) {
        let found = "no CAP_SYS_PTRACE: without it the children of programs would read zeros".into();
        (found, Verdict::Lack(capability_fix()))
    } else if !missing.is_empty() {
        (format!("the kernel lacks {}", missing.join(", ")), Verdict::Lack(kernel_fix()))
    } else if let (Err(errno), Ok(_)) = (tried, Userfaultfd::new()) {
        (format!("refused ({errno})"), Verdict::Lack(kernel_fix()))
    } else {
        // Without a userfaultfd there is nothing to try: that is told already.
        ("fork, mremap, madvise, munmap, move".into(), Verdict::Good)
    };
    Check { name: "events", found, verdict }
}

fn missing(offered: Features) -> Vec<&'static str> {
    FEATURES.iter().filter(|(feature, _)| !offered.contain(*feature)).map(|(_, name)| *name).collect()
}

/// Which pages are present is asked with an ioctl that is as young as the rest (PAGEMAP_SCAN, Linux 6.7).
fn page_tables() -> Check {
    let page = PAGE_BYTES as u64;
    let asked = Pagemap::open(std::process::id())
        .and_then(|pagemap| Ok(pagemap.present(page..2 * page, 1, &mut Vec::new())?));
    let (found, verdict) = match asked {
        Ok(_) => ("readable".into(), Verdict::Good),
        Err(error) => (format!("not readable ({error})"), Verdict::Lack(kernel_fix())),
    };
    Check { name: "page tables", found, verdict }
}

fn comparing() -> Check {
    let this = std::process::id();
    let (found, verdict) = match same_memory(this, this) {
        Ok(_) => ("allowed".into(), Verdict::Good),
        Err(errno) => (
            format!("refused ({errno})"),
            Verdict::Lack("let the sandbox (seccomp) allow kcmp, or use a kernel with CONFIG_KCMP".into()),
        ),
    };
    Check { name: "kcmp", found, verdict }
}

/// How this user comes by CAP_SYS_PTRACE.
fn capability_fix() -> String {
    let tmem = std::env::current_exe().map_or_else(|_| "$(which tmem)".into(), |path| path.display().to_string());
    if !in_first_user_namespace() {
        "run tmem on the host, or in a container that is not rootless: the kernel asks for the right outside of any user \
         namespace"
            .into()
    } else if capabilities("CapBnd:") & CAP_SYS_PTRACE == 0 && in_container() {
        "start the container with `--cap-add SYS_PTRACE`".into()
    } else if capabilities("CapBnd:") & CAP_SYS_PTRACE == 0 || rustix::thread::no_new_privs().unwrap_or(false) {
        "run tmem outside of this sandbox, which lets nothing gain rights (no_new_privs, or the bounding set)".into()
    } else {
        format!("`sudo setcap cap_sys_ptrace+ep {tmem}`, or run it as root")
    }
}

fn in_first_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map");
    map.is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

fn in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists())
}

fn executable_memfd() -> Check {
    let (found, verdict) = match memfd_create("tmem-check", MemfdFlags::CLOEXEC | MemfdFlags::EXEC) {
        Ok(_) => ("allowed".into(), Verdict::Good),
        Err(Errno::ACCESS) => {
            ("forbidden by vm.memfd_noexec".into(), Verdict::Lack("`sudo sysctl -w vm.memfd_noexec=1`".into()))
        }
        Err(errno) => {
            (errno.to_string(), Verdict::Lack("let the sandbox (seccomp) allow memfd_create, or run outside".into()))
        }
    };
    Check { name: "executable memfd", found, verdict }
}

fn proc() -> Check {
    let good = Path::new("/proc/self/exe").exists() && fs::read_to_string("/proc/self/maps").is_ok();
    let (found, verdict) = if good {
        ("mounted".into(), Verdict::Good)
    } else {
        ("not mounted".into(), Verdict::Lack("`sudo mount -t proc proc /proc`".into()))
    };
    Check { name: "/proc", found, verdict }
}

/// Programs load the agent through it. One that has another loader brings that along, so this is advice.
fn loader() -> Check {
    let known = [
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/ld-linux-aarch64.so.1",
        "/lib/ld-musl-x86_64.so.1",
        "/lib/ld-musl-aarch64.so.1",
    ];
    let (found, verdict) = match known.iter().find(|path| Path::new(path).exists()) {
        Some(path) => ((*path).into(), Verdict::Good),
        None => (
            "none in the usual places".into(),
            Verdict::Advice("statically linked programs run, and are not managed".into()),
        ),
    };
    Check { name: "dynamic loader", found, verdict }
}

fn descriptors() -> Check {
    let most = getrlimit(Resource::Nofile).maximum;
    let few = most.is_some_and(|most| most < DESCRIPTORS);
    let found = most.map_or_else(|| "no limit".into(), |most| format!("at most {most}"));
    let fix = format!("a tree of many processes needs more: `ulimit -Hn {DESCRIPTORS}` as root");
    Check { name: "open files", found, verdict: if few { Verdict::Advice(fix) } else { Verdict::Good } }
}

fn mappings() -> Check {
    let most = sysctl("vm/max_map_count");
    let found = most.map_or_else(|| "unknown".into(), |most| format!("vm.max_map_count is {most}"));
    let verdict = if most.is_some_and(|most| most < MAPS) {
        Verdict::Advice(format!("programs with many mappings need more: `sudo sysctl -w vm.max_map_count={MAPS}`"))
    } else {
        Verdict::Good
    };
    Check { name: "mappings", found, verdict }
}

fn overcommit() -> Check {
    let mode = sysctl("vm/overcommit_memory");
    let found = mode.map_or_else(|| "unknown".into(), |mode| format!("vm.overcommit_memory is {mode}"));
    let verdict = if mode == Some(2) {
        Verdict::Advice(
            "the kernel counts what is moved out as still used: `sudo sysctl -w vm.overcommit_memory=0`".into(),
        )
    } else {
        Verdict::Good
    };
    Check { name: "overcommit", found, verdict }
}

fn sysctl(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok()
}

/// A set of capabilities of this process, by its name in `/proc/self/status`.
fn capabilities(set: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix(set));
    hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_never_without_a_fix() {
        for check in checks() {
            assert!(!check.found.is_empty() && !check.name.is_empty(), "{check:?}");
            if let Verdict::Lack(fix) | Verdict::Advice(fix) = &check.verdict {
                assert!(!fix.is_empty(), "{check:?}");
            }
        }
        match rights() {
            Ok(_) => assert!(checks().iter().all(|check| !matches!(check.verdict, Verdict::Lack(_)))),
            Err(lacks) => assert!(!lacks.is_empty()),
        }
    }
}
