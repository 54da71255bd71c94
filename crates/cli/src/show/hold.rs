//! Output that is shown in parts, on a terminal.

/// Longest sequence that selects a colour, bytes; a longer one is shown as it is.
const COLOUR_BYTES_MAX: usize = 32;
/// Bytes of the longest character.
const CHARACTER_BYTES_MAX: usize = 4;

/// Holds back the end of a part that cannot be shown by itself: some of a character, of a colour or of a line break.
#[derive(Debug, Default)]
pub struct Hold(Vec<u8>);

impl Hold {
    /// Takes a part, and gives what can be shown now.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.extend_from_slice(bytes);
        let end = whole(&self.0);
        self.0.drain(..end).collect()
    }

    /// Gives what was held back: nothing follows.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// The length of the part of a text that can be shown whatever follows.
fn whole(text: &[u8]) -> usize {
    let near = |most: usize| text.len().saturating_sub(most);
    let escape = text[near(COLOUR_BYTES_MAX)..]
        .iter()
        .rposition(|byte| *byte == 0x1b);
    if let Some(at) = escape.map(|at| at + near(COLOUR_BYTES_MAX))
        && is_begun(&text[at + 1..])
    {
        return at;
    }
    if text.ends_with(b"\r") {
        return text.len() - 1;
    }
    let from = near(CHARACTER_BYTES_MAX - 1);
    let lead = text[from..].iter().rposition(|byte| byte & 0xc0 != 0x80);
    match lead.map(|at| at + from) {
        Some(at) if text.len() - at < length_by(text[at]) => at,
        _ => text.len(),
    }
}

/// Whether what follows an escape can still become a colour.
fn is_begun(rest: &[u8]) -> bool {
    let parameter = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b';' | b':');
    match rest.split_first() {
        None => true,
        Some((b'[', rest)) => rest.iter().all(parameter),
        Some(_) => false,
    }
}

/// The length of a character by its first byte.
fn length_by(first: u8) -> usize {
    match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::escape::printed;

    #[test]
    fn a_text_is_shown_the_same_however_it_is_cut() {
        let text = "plain é \u{20ac} \u{1f600}\r\nred \x1b[1;31mred\x1b[0m \x1b]0;title\x07 end\r";
        let plain = |text: &str| text.replace("\x1b[0m", "");
        let expected = plain(&printed(text.as_bytes()));
        for size in 1..text.len() {
            let mut hold = Hold::default();
            let parts = text.as_bytes().chunks(size);
            let mut shown: String = parts.map(|part| printed(&hold.take(part))).collect();
            shown += &printed(&hold.rest());
            assert_eq!(plain(&shown), expected, "in parts of {size}");
        }
    }

    #[test]
    fn what_is_no_text_is_not_held_back_for_long() {
        let mut hold = Hold::default();
        let mut shown = hold.take(&[0xff; 100]);
        shown.extend(hold.take(&[0x80; 100]));
        assert_eq!(shown.len(), 200);
        let long = [b"\x1b[".as_slice(), &[b'1'; 100]].concat();
        assert_eq!(hold.take(&long), long);
    }
}
