//! The header that is kept is the one that is made.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

#[test]
fn the_header_is_made_of_the_sources() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).unwrap();
    let files = ["lib", "error", "client", "region", "completion", "queue"];
    let builder = cbindgen::Builder::new().with_config(config);
    let builder = files.iter().fold(builder, |builder, file| builder.with_src(here.join(format!("src/{file}.rs"))));
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let made = String::from_utf8(made).unwrap();
    // There is none before the first time.
    let kept = std::fs::read_to_string(here.join("include/tmem_client.h")).unwrap_or_default();
    if made != kept {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tmem_client.h");
        std::fs::write(&path, made).unwrap();
        panic!("the header is another one now: cp {} {}", path.display(), here.join("include").display());
    }
}
