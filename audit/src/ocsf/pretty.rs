//! A record for a person.

use std::io::Write;

const INDENT: usize = 2;

/// The same JSON over several lines, members in the same order, nothing added or lost. Text that is not
/// JSON comes out as it is, or nearly.
#[must_use]
pub fn pretty(line: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(line.len() * 2);
    let mut depth: usize = 0;
    let mut in_string = false;
    let mut escaped = false;
    let mut bytes = line.iter().copied().filter(|byte| *byte != b'\n').peekable();
    while let Some(byte) = bytes.next() {
        if in_string {
            text.push(byte);
            in_string = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        match byte {
            b'{' | b'[' => {
                text.push(byte);
                if let Some(close) = bytes.next_if(|next| matches!(next, b'}' | b']')) {
                    text.push(close);
                } else {
                    depth += 1;
                    new_line(&mut text, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut text, depth);
                text.push(byte);
            }
            b',' => {
                text.push(byte);
                new_line(&mut text, depth);
            }
            b':' => text.extend_from_slice(b": "),
            _ => {
                in_string = byte == b'"';
                text.push(byte);
            }
        }
    }
    text.push(b'\n');
    text
}

fn new_line(text: &mut Vec<u8>, depth: usize) {
    // Writing to memory does not fail.
    drop(write!(text, "\n{:width$}", "", width = depth * INDENT));
}
