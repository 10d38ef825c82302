//! Rust source, line by line, with code and comments apart. Strings are blanked: what they say is not code.

/// A line of a file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// As written.
    pub(super) text: String,
    /// Without comments, and without what is inside strings.
    pub(super) code: String,
    /// Whether a comment is on it, or goes through it.
    pub(super) comment: bool,
}

/// Where the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    /// Nested this deep.
    BlockComment(usize),
    /// A string that ends in a quote and so many `#`; without any, a backslash escapes.
    Text {
        hashes: usize,
        raw: bool,
    },
}

/// The lines of a file; code and comments are told apart only in Rust.
pub(super) fn lines(text: &str, rust: bool) -> Vec<Line> {
    let mut state = State::Code;
    let mut lines = Vec::new();
    for text in text.lines() {
        let mut line = Line { text: text.to_owned(), ..Line::default() };
        if rust {
            state = split(text, state, &mut line);
        }
        lines.push(line);
    }
    lines
}

/// Sorts the characters of one line; the state after it.
fn split(text: &str, mut state: State, line: &mut Line) -> State {
    let mut rest = text;
    line.comment = matches!(state, State::BlockComment(_));
    while let Some(first) = rest.chars().next() {
        let taken = match state {
            State::BlockComment(depth) => in_comment(rest, depth, &mut state),
            State::Text { hashes, raw } => in_text(rest, hashes, raw, &mut state),
            State::Code if rest.starts_with("//") => {
                line.comment = true;
                return state;
            }
            State::Code => in_code(rest, line, &mut state),
        };
        // At least one character, so that the line ends.
        rest = &rest[taken.max(first.len_utf8())..];
    }
    state
}

fn in_comment(rest: &str, depth: usize, state: &mut State) -> usize {
    if rest.starts_with("*/") {
        *state = if depth == 1 { State::Code } else { State::BlockComment(depth - 1) };
        2
    } else if rest.starts_with("/*") {
        *state = State::BlockComment(depth + 1);
        2
    } else {
        0
    }
}

fn in_text(rest: &str, hashes: usize, raw: bool, state: &mut State) -> usize {
    if !raw && rest.starts_with('\\') {
        return 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
    }
    let ends = rest.strip_prefix('"').is_some_and(|rest| rest.bytes().take_while(|&b| b == b'#').count() >= hashes);
    if ends {
        *state = State::Code;
        return 1 + hashes;
    }
    0
}

fn in_code(rest: &str, line: &mut Line, state: &mut State) -> usize {
    if rest.starts_with("/*") {
        line.comment = true;
        *state = State::BlockComment(1);
        return 2;
    }
    let in_word = line.code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    if let Some((hashes, taken)) = raw_text(rest).filter(|_| !in_word) {
        line.code.push('"');
        *state = State::Text { hashes, raw: true };
        return taken;
    }
    if rest.starts_with('"') {
        line.code.push('"');
        *state = State::Text { hashes: 0, raw: false };
        return 1;
    }
    if let Some(taken) = character(rest) {
        line.code.push('\'');
        return taken;
    }
    line.code.extend(rest.chars().next());
    0
}

/// The start of a raw string: how many `#`, and how long.
fn raw_text(rest: &str) -> Option<(usize, usize)> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr")).or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.bytes().take_while(|&byte| byte == b'#').count();
    after[hashes..].starts_with('"').then(|| (hashes, rest.len() - after.len() + hashes + 1))
}

/// The length of a character literal, which a lifetime is not.
fn character(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    if first == '\\' {
        // The character after the backslash may be a quote itself.
        let escaped = 1 + inner[1..].chars().next()?.len_utf8();
        return inner[escaped..].find('\'').map(|end| 1 + escaped + end + 1);
    }
    inner[first.len_utf8()..].starts_with('\'').then(|| first.len_utf8() + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        lines(text, true).into_iter().map(|line| line.code.trim_end().to_owned()).collect()
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        assert_eq!(code(r#"let a = "unsafe \" // no"; // unsafe"#), [r#"let a = ";"#]);
        assert_eq!(code("a /* b /* c */ d */ e"), ["a  e"]);
        assert_eq!(code("a /* b\nc */ d"), ["a", " d"]);
        assert_eq!(code("let r = r##\"x\"# \" y\"##; z"), ["let r = \"; z"]);
        assert_eq!(code("\"two\nlines\" end"), ["\"", " end"]);
    }

    #[test]
    fn a_lifetime_does_not_open_a_character() {
        assert_eq!(code("fn f<'a>(x: &'a str) -> char { '\"' }"), ["fn f<'a>(x: &'a str) -> char { ' }"]);
        assert_eq!(code(r"['\'', '\\', '\u{1f}', 'é'] // c"), ["[', ', ', ']"]);
    }

    #[test]
    fn a_line_inside_a_comment_counts_as_commented() {
        let found: Vec<bool> = lines("a\n/* b\nc */ d\ne // f", true).iter().map(|line| line.comment).collect();
        assert_eq!(found, [false, true, true, true]);
    }
}
