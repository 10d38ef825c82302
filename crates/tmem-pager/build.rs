//! Builds the agent's shared object, which the monitor carries: always optimised, and without unwinding, so not as a
//! member of the workspace but with the compiler directly.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(variable("OUT_DIR"));
    let crates = here.join("..");
    for source in ["tmem-codec/src", "tmem-agent/src"] {
        println!("cargo::rerun-if-changed={}", crates.join(source).display());
    }
    let codec = out.join("libtmem_codec.rlib");
    let agent = out.join("libtmem_agent.rlib");
    compile(&crates.join("tmem-codec/src/lib.rs"), "tmem_codec", &codec, &["--crate-type=rlib"]);
    let uses_codec = format!("--extern=tmem_codec={}", codec.display());
    let mut flags = vec!["--crate-type=rlib", uses_codec.as_str()];
    // Both sides of what is shared have to be of one shape.
    if env::var_os("CARGO_FEATURE_FAULT_INJECTION").is_some() {
        flags.push("--cfg=feature=\"fault-injection\"");
    }
    compile(&crates.join("tmem-agent/src/lib.rs"), "tmem_agent", &agent, &flags);
    let uses_agent = format!("--extern=tmem_agent={}", agent.display());
    let search = format!("-Ldependency={}", out.display());
    // Symbols are bound at load: the agent must not come into the loader's hands later. libc's copies and fills are
    // all it takes.
    let link =
        ["-Clink-arg=-nostartfiles", "-Clink-arg=-Wl,-z,now,-z,relro,--gc-sections", "-Clto=fat", "-Cstrip=debuginfo"];
    let mut flags = vec!["--crate-type=cdylib", uses_agent.as_str(), search.as_str()];
    flags.extend(link);
    compile(&crates.join("tmem-agent/src/preload.rs"), "tmem_preload", &out.join("tmem-agent.so"), &flags);
}

fn compile(source: &Path, name: &str, output: &Path, flags: &[&str]) {
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition=2024", "-Copt-level=3", "-Cpanic=abort", "-Cembed-bitcode=yes", "--cap-lints=allow"]);
    rustc.arg(format!("--target={}", variable("TARGET"))).arg(format!("--crate-name={name}"));
    rustc.args(flags).arg("-o").arg(output).arg(source);
    let status = rustc.status().unwrap_or_else(|error| panic!("cannot run {rustc:?}: {error}"));
    assert!(status.success(), "{rustc:?} failed");
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
