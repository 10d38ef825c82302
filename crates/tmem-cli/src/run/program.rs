//! The program that is to be run: where it is, and whether it will load the agent.

use super::Failure;
use rustix::fs::{Access, access};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Interpreters of interpreters; the kernel allows so many.
const INTERPRETERS: usize = 5;
/// As the C library does without PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// The kernel reads so much of a `#!` line (BINPRM_BUF_SIZE).
const HEAD_BYTES: usize = 256;
/// Headers of the segments of a program; more are not looked at.
const SEGMENTS: u64 = 64;

/// Finds a program as a shell does.
pub(crate) fn find(name: &OsStr) -> Result<PathBuf, Failure> {
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match runs(&path) {
            Ok(()) => Ok(path),
            Err(Some(why)) => Err(Failure::new(126, format!("cannot execute {}: {why}", path.display()))),
            Err(None) => Err(Failure::new(127, format!("there is no {}", path.display()))),
        };
    }
    let folders = std::env::var_os("PATH").unwrap_or_else(|| OsString::from(DEFAULT_PATH));
    let mut found = None;
    for folder in std::env::split_paths(&folders) {
        let path = folder.join(name);
        match runs(&path) {
            // An empty entry means the current folder, and needs its slash.
            Ok(()) if folder.as_os_str().is_empty() => return Ok(Path::new(".").join(name)),
            Ok(()) => return Ok(path),
            Err(Some(why)) if found.is_none() => found = Some(format!("cannot execute {}: {why}", path.display())),
            Err(_) => {}
        }
    }
    let name = name.display();
    Err(found
        .map_or_else(|| Failure::new(127, format!("there is no program {name} in PATH")), |why| Failure::new(126, why)))
}

/// Whether a file can be executed; why not, or nothing if there is no such file.
fn runs(path: &Path) -> Result<(), Option<String>> {
    match fs::metadata(path) {
        Err(error) if matches!(error.raw_os_error(), Some(2 | 20)) => Err(None),
        Err(error) => Err(Some(error.to_string())),
        Ok(metadata) if metadata.is_dir() => Err(Some("it is a directory".into())),
        Ok(metadata) if !metadata.is_file() => Err(Some("it is not a file".into())),
        Ok(_) => access(path, Access::EXEC_OK).map_err(|_| Some("it is not executable: `chmod +x` makes it so".into())),
    }
}

/// Why a program will not load the agent, if it will not. What cannot be read is believed to.
pub(crate) fn unmanaged(path: &Path) -> Option<String> {
    let mut path = path.to_path_buf();
    let mut what = String::from("it");
    for _ in 0..INTERPRETERS {
        let file = File::open(&path).ok()?;
        let mut head = vec![0; HEAD_BYTES];
        let length = file.read_at(&mut head, 0).ok()?;
        head.truncate(length);
        if head.starts_with(b"#!") {
            path = interpreter(&head)?;
            what = format!("its interpreter {}", path.display());
        } else if head.starts_with(b"\x7fELF") {
            return elf(&file, &head).or_else(|| gains_rights(&path)).map(|why| format!("{what} {why}"));
        } else {
            return None;
        }
    }
    None
}

/// The interpreter that a `#!` line names.
fn interpreter(head: &[u8]) -> Option<PathBuf> {
    let line = head[2..].split(|byte| *byte == b'\n').next()?;
    let word = line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(word)))
}

/// What in its header keeps a program from loading the agent (System V ABI, "ELF header", "Program header").
fn elf(file: &File, head: &[u8]) -> Option<String> {
    const CLASS_64: u8 = 2;
    const PT_INTERP: u32 = 3;
    let machine = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    if head.get(4) != Some(&CLASS_64) || half(head, 18) != Some(machine) {
        return Some("is made for another kind of processor than tmem".into());
    }
    let (table, entry_bytes, entries) = (long(head, 32)?, u64::from(half(head, 54)?), u64::from(half(head, 56)?));
    for entry in 0..entries.min(SEGMENTS) {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, table.checked_add(entry * entry_bytes)?).ok()?;
        if u32::from_le_bytes(kind) == PT_INTERP {
            return None;
        }
    }
    Some("is linked statically".into())
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Whether a program will have rights that this user has not: its loader then loads nothing for others (ld.so(8),
/// "Secure-execution mode").
fn gains_rights(path: &Path) -> Option<String> {
    const SETUID: u32 = 0o4000;
    const SETGID: u32 = 0o2010;
    if rustix::thread::no_new_privs().unwrap_or(false) {
        return None;
    }
    let metadata = fs::metadata(path).ok()?;
    let user = rustix::process::getuid();
    let set = |bits: u32| metadata.mode() & bits == bits;
    if set(SETUID) && metadata.uid() != user.as_raw() {
        return Some("is setuid".into());
    }
    if set(SETGID) && metadata.gid() != rustix::process::getgid().as_raw() {
        return Some("is setgid".into());
    }
    let mut value = [0; 64];
    let capable = !user.is_root() && rustix::fs::getxattr(path, "security.capability", &mut value).is_ok();
    capable.then(|| "has file capabilities".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_found_and_managed() {
        let path = find(OsStr::new("sh")).unwrap();
        assert!(path.is_absolute());
        assert_eq!(unmanaged(&path), None);
    }

    #[test]
    fn what_cannot_run_is_told_apart() {
        assert_eq!(find(OsStr::new("no-such-program-at-all")).unwrap_err().status, 127);
        assert_eq!(find(OsStr::new("/no/such/program")).unwrap_err().status, 127);
        assert_eq!(find(OsStr::new("/proc/self/status")).unwrap_err().status, 126);
        assert_eq!(find(OsStr::new("/")).unwrap_err().status, 126);
    }

    #[test]
    fn lines_name_their_interpreter() {
        assert_eq!(interpreter(b"#!/bin/sh\necho"), Some("/bin/sh".into()));
        assert_eq!(interpreter(b"#! /usr/bin/env python3\n"), Some("/usr/bin/env".into()));
        assert_eq!(interpreter(b"#!\n"), None);
    }

    #[test]
    fn a_static_program_is_told() {
        let mut image = vec![0; 64];
        image[..5].copy_from_slice(b"\x7fELF\x02");
        image[18] = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
        image[32] = 64;
        image[54] = 56;
        image[56] = 1;
        image.extend([1, 0, 0, 0]);
        image.resize(120, 0);
        let path = std::env::temp_dir().join(format!("tmem-static-{}", std::process::id()));
        fs::write(&path, &image).unwrap();
        assert_eq!(unmanaged(&path).as_deref(), Some("it is linked statically"));
        image[64] = 3;
        fs::write(&path, &image).unwrap();
        assert_eq!(unmanaged(&path), None);
        image[4] = 1;
        fs::write(&path, &image).unwrap();
        assert!(unmanaged(&path).unwrap().contains("processor"));
        fs::remove_file(&path).unwrap();
    }
}
