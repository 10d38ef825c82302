//! The unit files in `contrib`, as systemd reads them.

use crate::harness::{Scratch, TMEM, text};
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn systemd_understands_the_units() {
    let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib");
    let scratch = Scratch::new();
    let service = fs::read_to_string(contrib.join("tmem.service")).unwrap();
    let command = service.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/tmem ")).unwrap();
    assert!(command.starts_with("serve "), "{command}");
    // Verified where it lies here: `tmem` need not be installed.
    let service = scratch.write("tmem.service", &service.replace("/usr/local/bin/tmem", TMEM));
    let socket = scratch.write("tmem.socket", &fs::read_to_string(contrib.join("tmem.socket")).unwrap());
    let verify = Command::new("systemd-analyze").args(["verify", text(&service), text(&socket)]).output();
    let Ok(verified) = verify else {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && !said.contains("tmem."), "{said}");
}
