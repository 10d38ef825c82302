//! The rules.

use super::{File, Offence};

/// Lines in a file of source.
const LIMIT_LINES: usize = 600;
/// Characters in a line of source.
const LIMIT_WIDTH: usize = 125;
/// What `unsafe` may be in: crates made for it, the few files of others that the design names, and the models that a
/// checker runs of those.
const UNSAFE_PLACES: &[&str] = &[
    "crates/tmem-sys/",
    "crates/tmem-agent/",
    "crates/tmem-codec/",
    "crates/tmem-subject/",
    "crates/tmem-ring/",
    "crates/tmem-client-c/",
    "crates/tmem/src/segment.rs",
    "crates/tmem/src/slab.rs",
    "crates/tmem/src/loom_models.rs",
];
/// Claims that a type makes where it is declared, in the engine: they run nothing.
const UNSAFE_CLAIMS: &[&str] = &["unsafe impl Stable for "];
/// How far above an atomic ordering its reason may stand.
const REASON_LINES: usize = 6;
/// Files whose orderings need no reason. Starts empty.
const ORDERINGS_WITHOUT_REASON: &[&str] = &[];
/// The names of atomic orderings; `cmp::Ordering` has others.
const ORDERINGS: &[&str] = &["Relaxed", "Acquire", "Release", "AcqRel", "SeqCst"];
/// Macros for code that is not finished.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!"];
/// Paths of one machine, which mean nothing on another. In two parts, since this file is judged too.
const FORBIDDEN: &[&str] = &[concat!("/wo", "rk/"), concat!(".lib", "rary/")];

/// Everything that is wrong with a file.
pub(super) fn judge(file: &File) -> Vec<Offence> {
    let rules: [fn(&File) -> Vec<Offence>; 8] =
        [length, width, forbidden_words, unsafe_code, forbids_unsafe, ordering_reasons, unfinished, dependency_reasons];
    rules.iter().flat_map(|rule| rule(file)).collect()
}

/// Prose and what tools write have other measures.
fn is_source(file: &File) -> bool {
    !file.path.ends_with(".md") && !file.path.ends_with(".lock") && !file.path.ends_with(".json")
}

/// Offences of the lines for which `wrong` gives a reason.
fn by_line(file: &File, wrong: impl Fn(usize) -> Option<String>) -> Vec<Offence> {
    (0..file.lines.len()).filter_map(|at| wrong(at).map(|what| file.offence(at + 1, what))).collect()
}

fn length(file: &File) -> Vec<Offence> {
    let count = file.lines.len();
    // A header for C is made of the sources, and as long as they make it.
    let is_made = file.path.strip_suffix(".h").is_some();
    let long = is_source(file) && !is_made && count > LIMIT_LINES;
    long.then(|| file.offence(count, format!("{count} lines; {LIMIT_LINES} are the limit"))).into_iter().collect()
}

fn width(file: &File) -> Vec<Offence> {
    by_line(file, |at| {
        let width = file.lines[at].text.chars().count();
        (is_source(file) && width > LIMIT_WIDTH).then(|| format!("{width} characters; {LIMIT_WIDTH} are the limit"))
    })
}

fn forbidden_words(file: &File) -> Vec<Offence> {
    by_line(file, |at| {
        let word = FORBIDDEN.iter().find(|word| file.lines[at].text.contains(**word))?;
        Some(format!("{word} is a path of one machine"))
    })
}

fn may_be_unsafe(path: &str) -> bool {
    UNSAFE_PLACES.iter().any(|place| path == *place || (place.ends_with('/') && path.starts_with(place)))
}

fn unsafe_code(file: &File) -> Vec<Offence> {
    by_line(file, |at| {
        let code = &file.lines[at].code;
        let claim = UNSAFE_CLAIMS.iter().any(|claim| code.starts_with(claim)) && file.path.starts_with("crates/tmem/");
        let found = !may_be_unsafe(&file.path) && !claim && has_word(code, "unsafe");
        found.then(|| "unsafe code outside the places made for it".to_owned())
    })
}

/// The root of a crate that has no unsafe place says so to the compiler.
fn forbids_unsafe(file: &File) -> Vec<Offence> {
    let Some((folder, name)) = file.path.rsplit_once("/src/") else {
        return Vec::new();
    };
    let is_root = matches!(name, "lib.rs" | "main.rs") || name.starts_with("bin/");
    let has_places = UNSAFE_PLACES.iter().any(|place| place.starts_with(&format!("{folder}/")));
    let forbids = file.lines.iter().any(|line| line.code.contains("#![forbid(unsafe_code)]"));
    let wrong = file.is_rust() && is_root && !has_places && !forbids;
    wrong.then(|| file.offence(1, "the root of a safe crate says #![forbid(unsafe_code)]")).into_iter().collect()
}

/// An ordering says what it publishes or why it need not, beside it or just above.
fn ordering_reasons(file: &File) -> Vec<Offence> {
    if ORDERINGS_WITHOUT_REASON.contains(&&*file.path) {
        return Vec::new();
    }
    by_line(file, |at| {
        let code = &file.lines[at].code;
        let ordering = ORDERINGS.iter().find(|ordering| has_word(code, ordering))?;
        let import = code.trim_start().starts_with("use ") || code.trim_start().starts_with("pub(crate) use ");
        let explained = file.lines[at.saturating_sub(REASON_LINES)..=at].iter().any(|line| line.comment);
        (!import && !explained).then(|| format!("Ordering::{ordering} without its reason within {REASON_LINES} lines"))
    })
}

fn unfinished(file: &File) -> Vec<Offence> {
    by_line(file, |at| {
        let code = &file.lines[at].code;
        let found =
            UNFINISHED.iter().find(|name| has_word(code, name.trim_end_matches('!')) && code.contains(**name))?;
        Some(format!("{found} in finished code"))
    })
}

/// A dependency has its reason above it or beside it; crates of this workspace explain themselves.
fn dependency_reasons(file: &File) -> Vec<Offence> {
    if !file.path.ends_with("/Cargo.toml") {
        return Vec::new();
    }
    let mut offences = Vec::new();
    let (mut in_dependencies, mut open, mut above) = (false, false, "");
    for (at, line) in file.lines.iter().enumerate() {
        let text = line.text.trim();
        if text.starts_with('[') {
            in_dependencies = text.trim_end_matches(']').ends_with("dependencies");
        } else if in_dependencies && !open && !text.is_empty() && !text.starts_with('#') {
            let name = text.split(['=', '.', ' ']).next().unwrap_or(text);
            let internal = name.starts_with("tmem");
            if !internal && !text.contains('#') && !above.starts_with('#') {
                offences
                    .push(file.offence(at + 1, format!("the dependency {name} without its reason above or beside it")));
            }
        }
        // A table or list may go over several lines.
        open = match (text.matches(['{', '[']).count(), text.matches(['}', ']']).count()) {
            (opened, closed) if opened > closed => true,
            (opened, closed) if opened < closed => false,
            _ => open,
        };
        above = text;
    }
    offences
}

/// Whether `word` stands in `code` by itself, and not as part of a longer name.
fn has_word(code: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(is_name) && !code[at + word.len()..].starts_with(is_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offences(path: &str, text: &str) -> Vec<String> {
        judge(&File::new(path, text)).into_iter().map(|offence| offence.to_string()).collect()
    }

    #[track_caller]
    fn assert_wrong(path: &str, text: &str, expected: &str) {
        let found = offences(path, text);
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    }

    #[track_caller]
    fn assert_fine(path: &str, text: &str) {
        assert_eq!(offences(path, text), Vec::<String>::new());
    }

    #[test]
    fn unsafe_stays_in_its_places() {
        assert_wrong("crates/tmem/src/log.rs", "fn f() { unsafe { g() } }", ":1: unsafe");
        assert_fine("crates/tmem/src/log.rs", "unsafe impl Stable for Leaf {}");
        assert_wrong("crates/tmem/src/log.rs", "unsafe impl Send for Leaf {}", ":1: unsafe");
        assert_wrong("crates/tmem-fs/src/log.rs", "unsafe impl Stable for Leaf {}", ":1: unsafe");
        assert_fine("crates/tmem/src/slab.rs", "fn f() { unsafe { g() } }");
        assert_fine("crates/tmem-sys/src/map.rs", "unsafe fn f() {}");
        assert_fine("crates/tmem/src/log.rs", "// unsafe\nlet unsafe_count = \"unsafe\";");
    }

    #[test]
    fn a_safe_crate_says_so() {
        assert_wrong("crates/tmem-cli/src/main.rs", "fn main() {}", "forbid");
        assert_fine("crates/tmem-cli/src/main.rs", "#![forbid(unsafe_code)]\nfn main() {}");
        assert_fine("crates/tmem/src/lib.rs", "mod segment;");
        assert_fine("crates/tmem-cli/src/other.rs", "fn f() {}");
    }

    #[test]
    fn an_ordering_has_a_reason_nearby() {
        let path = "crates/tmem/src/log.rs";
        assert_wrong(path, "x.load(Ordering::Acquire);", "Ordering::Acquire");
        assert_wrong(path, "x.load(Acquire);", "Ordering::Acquire");
        assert_fine(path, "x.load(Ordering::Acquire); // pairs with the store in publish");
        assert_fine(path, "// Relaxed: a counter.\n\n\n\n\n\nx.load(Ordering::Relaxed);");
        assert_wrong(path, "// Relaxed: a counter.\n\n\n\n\n\n\nx.load(Ordering::Relaxed);", "Relaxed");
        assert_fine(path, "use Ordering::{Acquire, Release};\nmatch a.cmp(b) { Ordering::Less => 1 }");
    }

    #[test]
    fn unfinished_code_is_found() {
        assert_wrong("crates/tmem/src/log.rs", concat!("to", "do!()"), "finished");
        assert_fine("crates/tmem/src/log.rs", "// todo!\nmy_todo!();");
    }

    #[test]
    fn size_has_limits() {
        assert_wrong("crates/tmem/src/log.rs", &"\n".repeat(601), "601 lines");
        assert_wrong("crates/tmem/src/log.rs", &"x".repeat(126), "126 characters");
        assert_fine("README.md", &"x".repeat(126));
        assert_wrong("README.md", concat!("see /wo", "rk/main"), "one machine");
    }

    #[test]
    fn a_dependency_has_a_reason() {
        let path = "crates/tmem/Cargo.toml";
        assert_wrong(path, "[dependencies]\nserde = \"1\"\n", ":2: the dependency serde");
        assert_wrong(path, "[target.'cfg(loom)'.dependencies]\nloom = { version = \"0.7\" }\n", "loom");
        assert_fine(path, "[dependencies]\n# Reads.\nserde = \"1\"\nlibc = \"1\" # calls\ntmem-sys.workspace = true\n");
        assert_fine(
            path,
            "[dependencies]\n# Reads.\nserde = { version = \"1\", features = [\n  \"derive\",\n] }\n[lints]\na = 1\n",
        );
    }
}
