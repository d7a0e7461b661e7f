//! Writing to standard output and standard error. Files are in [`pending`](crate::pending).

use anyhow::Context;
use std::{
    fmt::Write as _,
    io::{self, ErrorKind, Write},
};

/// Writes to standard output. That the reader went away is no error: it has seen enough.
pub fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Writes a serialised value and a newline to standard output.
pub fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print((json_lines(value).context("cannot write JSON")? + "\n").as_bytes())
}

/// A serialised value in lines, for people as well as programs.
pub fn json_lines(value: &impl serde::Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(|json| escape_json(&json))
}

/// A serialised value in one line.
pub fn json(value: &impl serde::Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(|json| escape_json(&json))
}

/// A string in JSON.
pub fn json_string(text: &str) -> String {
    escape_json(&serde_json::Value::from(text).to_string())
}

/// JSON may have characters in its strings that it need not escape, and that a terminal obeys. Outside of them, it has none.
fn escape_json(json: &str) -> String {
    replace_unsafe(json, "\n", |c| format!("\\u{:04x}", u32::from(c)))
}

/// Writes lines for people to standard output, without what could change what a terminal does.
pub fn print_lines(text: &str) -> anyhow::Result<()> {
    print(escape_lines(text).as_bytes())
}

/// Writes lines to standard error, with one system call, and without what could change what a terminal does. Without a
/// standard error, they are lost.
pub fn complain(text: &str) {
    let text = escape_lines(text.strip_suffix('\n').unwrap_or(text)) + "\n";
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The same text without line breaks and other control characters, which names of files and interfaces may contain, and
/// without those that are not seen or change the order of what is.
pub fn one_line(text: &str) -> String {
    replace_unsafe(text, "", |c| c.escape_default().to_string())
}

/// The same for a text of several lines, each of which is known to be one.
fn escape_lines(text: &str) -> String {
    replace_unsafe(text, "\n", |c| c.escape_default().to_string())
}

/// A name in an image for people: as [`one_line`], and bytes that are not UTF-8 and backslashes are escaped, too.
pub fn shown(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        text += &one_line(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

fn replace_unsafe(text: &str, kept: &str, escape: impl Fn(char) -> String) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) && !kept.contains(c) {
            safe += &escape(c);
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Whether a character could move a cursor, end a line, reorder text, or is not seen: control characters, marks and overrides
/// of direction, separators, and what has no width.
fn is_unsafe(c: char) -> bool {
    let is_format = matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
    );
    c.is_control() || is_format
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_has_no_control_characters() {
        assert_eq!(one_line("a\nb\u{1b}c é"), "a\\nb\\u{1b}c é");
        assert_eq!(one_line("tap\u{9b}0\u{202e}x\u{2028}"), "tap\\u{9b}0\\u{202e}x\\u{2028}");
        assert_eq!(json_string("a\"\u{1b}\u{9b}\u{202e}\n"), r#""a\"\u001b\u009b\u202e\n""#);
        assert_eq!(escape_lines("a\n\rb"), "a\n\\rb");
    }

    #[test]
    fn names_are_shown_without_what_acts_on_a_terminal() {
        assert_eq!(shown("caf\u{e9} x".as_bytes()), "caf\u{e9} x");
        assert_eq!(shown(b"a\x1b[2Jb\nc\\d\xff"), "a\\u{1b}[2Jb\\nc\\\\d\\xff");
        assert_eq!(shown("\u{202e}gpj.exe".as_bytes()), "\\u{202e}gpj.exe");
    }
}
