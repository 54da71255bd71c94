//! Text of others, made harmless for a terminal: control characters, bidirectional overrides and other invisible
//! characters are shown as escapes such as `\u{1b}`.
//!
//! [`line()`] is for each name, reason or path that comes from a peer, [`block`] for whole screens of our own lines;
//! all text goes through `block` before it is written, so that a forgotten `line` costs at most a line break.

use std::borrow::Cow;
use std::fmt::Write;

/// Text that belongs on one line: line breaks and tabs are escaped too.
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// Text of several lines, whose line breaks are ours.
pub fn block(text: &str) -> Cow<'_, str> {
    escape(text, |c| c == '\n')
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let harmless = |c| !is_unsafe(c) || keep(c);
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmless(c) {
            escaped.push(c);
        } else {
            escaped.extend(c.escape_default());
        }
    }
    Cow::Owned(escaped)
}

/// What a task printed, for a terminal: lines, tabs and colours stay, everything else that a terminal would obey
/// or that is no UTF-8 is escaped.
pub fn printed(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut coloured = false;
    for chunk in bytes.utf8_chunks() {
        coloured |= push_coloured(chunk.valid(), &mut text);
        for byte in chunk.invalid() {
            // Writing into a String does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    if coloured {
        text.push_str("\x1b[0m");
    }
    text
}

/// An event of the log: one line, whose colours are ours where `coloured`.
pub fn event(text: &str, coloured: bool) -> String {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let mut event = String::with_capacity(text.len() + 1);
    if coloured {
        for (at, part) in text.split('\n').enumerate() {
            event.push_str(if at > 0 { "\\n" } else { "" });
            push_coloured(part, &mut event);
        }
    } else {
        event.push_str(&line(text));
    }
    event.push('\n');
    event
}

/// Adds text whose line breaks, tabs and colours stay; says whether it had colours.
fn push_coloured(mut text: &str, to: &mut String) -> bool {
    let mut coloured = false;
    while let Some(c) = text.chars().next() {
        let length = match c {
            '\x1b' => colour_length(text),
            '\r' if text.starts_with("\r\n") => 2,
            '\n' | '\t' => 1,
            c if is_unsafe(c) => 0,
            c => c.len_utf8(),
        };
        coloured |= c == '\x1b' && length > 0;
        if length == 0 {
            to.extend(c.escape_default());
        } else {
            to.push_str(&text[..length]);
        }
        text = &text[length.max(c.len_utf8())..];
    }
    coloured
}

/// The length of the sequence that selects a colour at the start of `text`; 0 where it is another or none.
fn colour_length(text: &str) -> usize {
    let Some(rest) = text.strip_prefix("\x1b[") else {
        return 0;
    };
    let parameters = rest.trim_start_matches(|c: char| c.is_ascii_digit() || ";:".contains(c));
    if parameters.starts_with('m') {
        text.len() - parameters.len() + 1
    } else {
        0
    }
}

/// JSON with the same value, in which no character is left that a terminal would obey: what is not ASCII stands
/// within strings, where `\u001b` and the like are allowed.
pub fn json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing into a String does not fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Control characters, and those of Unicode's categories format, line separator and paragraph separator.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
            | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left_on_a_line() {
        assert_eq!(line("plain, π, 日本, e\u{301}"), "plain, π, 日本, e\u{301}");
        assert_eq!(line("a\x1b]0;title\x07b"), "a\\u{1b}]0;title\\u{7}b");
        assert_eq!(line("one\ntwo\tthree\r"), "one\\ntwo\\tthree\\r");
        assert_eq!(line("\u{9b}31m\u{7f}"), "\\u{9b}31m\\u{7f}");
        assert_eq!(line("exe\u{202e}gnp.x"), "exe\\u{202e}gnp.x");
        assert_eq!(
            line("a\u{200b}b\u{e0041}\u{2028}"),
            "a\\u{200b}b\\u{e0041}\\u{2028}"
        );
        assert_eq!(block("one\ntwo\r\n"), "one\ntwo\\r\n");
    }

    #[test]
    fn of_what_a_task_printed_a_terminal_gets_lines_tabs_and_colours() {
        assert_eq!(printed(b"a\tb\r\nc\n"), "a\tb\r\nc\n");
        assert_eq!(
            printed(b"\x1b[1;31mred\x1b[0m"),
            "\x1b[1;31mred\x1b[0m\x1b[0m"
        );
        assert_eq!(
            printed(b"\x1b[2Jgone\x1b]52;c;eA==\x07"),
            "\\u{1b}[2Jgone\\u{1b}]52;c;eA==\\u{7}"
        );
        assert_eq!(
            printed(b"seen\rhidden \x9b\xff"),
            "seen\\rhidden \\x9b\\xff"
        );
        assert_eq!(printed(b"\x1b["), "\\u{1b}[");
    }

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(
            event("a peer \x1b[2J\nERROR forged\n", false),
            "a peer \\u{1b}[2J\\nERROR forged\n"
        );
        assert_eq!(
            event("\x1b[33mWARN\x1b[0m a\n b\x07\n", true),
            "\x1b[33mWARN\x1b[0m a\\n b\\u{7}\n"
        );
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let value = serde_json::json!({ "name": "\u{1b}\u{9b}\u{202e}\u{e0041}π" });
        let text = json(&value.to_string());
        assert!(text.chars().all(|c| !is_unsafe(c)), "{text}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }
}
