//! JSON text that is also safe to show: characters that steer a terminal or reorder what is seen are
//! written as escapes, whoever put them into a process name or a path.

use std::io::{self, Write};

use serde_json::ser::Formatter;

/// Compact JSON with more escapes than JSON asks for.
pub(super) struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        if fragment.is_ascii() && !fragment.as_bytes().contains(&0x7f) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut plain = 0;
        for (at, character) in fragment.char_indices().filter(|(_, character)| misleads(*character))
        {
            writer.write_all(fragment.as_bytes().get(plain..at).unwrap_or_default())?;
            write!(writer, "\\u{:04x}", u32::from(character))?;
            plain = at + character.len_utf8();
        }
        writer.write_all(fragment.as_bytes().get(plain..).unwrap_or_default())
    }
}

/// Delete, the C1 controls, line and paragraph separators, bidirectional controls, zero-width characters
/// and the byte order mark. All are in the basic plane, so that one `\u` escape holds each.
fn misleads(character: char) -> bool {
    matches!(
        character,
        '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
    )
}
