//! The example, compiled by a C compiler, with the static and with the shared library; and what that one exports.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::World;

/// What a program that has the static library in it needs besides (`rustc --print native-static-libs`).
const SYSTEM: &[&str] = &["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];

/// Where cargo has put the libraries: beside this test.
fn libraries() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{command:?} ended with {}\n{out}{err}", output.status);
    out
}

fn compile(name: &str, with: &[&str]) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"]).arg(here.join("include"));
    cc.arg(here.join("examples/put_get.c")).arg("-o").arg(&program).args(with);
    run(&mut cc);
    program
}

fn assert_runs(program: &Path) {
    let world = World::new();
    let out = run(Command::new(program).arg(&world.socket));
    assert_eq!(out, "2097152 bytes were put as one operation, and came back the same as another\n");
    let nowhere = Command::new(program).arg(world.socket.with_extension("not")).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8(nowhere.stderr).unwrap().starts_with("connect: no daemon at "));
}

#[test]
fn a_c_program_runs_with_the_static_library() {
    let library = libraries().join("libtmem_client.a");
    let with: Vec<&str> = std::iter::once(library.to_str().unwrap()).chain(SYSTEM.iter().copied()).collect();
    assert_runs(&compile("put_get-static", &with));
}

#[test]
fn a_c_program_runs_with_the_shared_library() {
    let folder = libraries();
    let (find, remember) = (format!("-L{}", folder.display()), format!("-Wl,-rpath,{}", folder.display()));
    assert_runs(&compile("put_get-shared", &[&find, "-ltmem_client", &remember]));
}

#[test]
fn the_shared_library_exports_the_headers_functions_and_nothing_else() {
    let library = libraries().join("libtmem_client.so");
    let symbols = run(Command::new("nm").args(["--dynamic", "--defined-only", "--format=posix"]).arg(library));
    let mut exported: Vec<&str> = symbols.lines().filter_map(|line| line.split(' ').next()).collect();
    exported.sort_unstable();
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/tmem_client.h");
    let header = std::fs::read_to_string(header).unwrap();
    let mut declared: Vec<&str> = header
        .lines()
        .filter(|line| !line.trim_start().starts_with(['*', '/']))
        .filter_map(|line| line.split_once('(').map(|(before, _)| before))
        .filter_map(|before| before.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("tmem_"))
        .collect();
    declared.sort_unstable();
    // The comments beside them tell of others, too.
    declared.dedup();
    assert_eq!(exported, declared);
}
