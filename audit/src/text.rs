//! Bounds for text: a long string is cut and marked, and never costs a record.
//!
//! Events have no field for a token, but a process may carry one in its arguments and an error may quote
//! one: whatever looks like a JWT is taken out of every text.

use std::borrow::Cow;
use std::cell::Cell;

/// The kernel's name of a process, with room for the marker.
pub(crate) const COMM: usize = 32;
/// A path: PATH_MAX.
pub(crate) const PATH: usize = 4096;
/// Arguments of a process.
pub(crate) const CMD_LINE: usize = 1024;
/// A sentence for a reader.
pub(crate) const DETAIL: usize = 1024;
/// An id, a name, a code, a key id.
pub(crate) const ID: usize = 256;
/// A URI.
pub(crate) const URI: usize = 512;
/// One destination or selector.
pub(crate) const ITEM: usize = 384;
/// Items of a list: 64 endpoints of 16 ports each.
pub(crate) const ITEMS: usize = 1024;

/// Stands at the end of text that was cut.
pub(crate) const MARKER: &str = "…";

/// Stands where a token was.
const TOKEN_REMOVED: &str = "[token removed]";
/// How every JSON object of a JWT's header begins in base64url: `{"`.
const TOKEN_START: &str = "eyJ";

/// Cuts text and remembers whether it cut anything, so that the record can say so.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    cut: Cell<bool>,
}

impl Cutter {
    /// Whether anything was cut so far.
    pub(crate) fn has_cut(&self) -> bool {
        self.cut.get()
    }

    /// `text` in at most `limit` bytes, marker included.
    pub(crate) fn cut<'a>(&self, text: &'a str, limit: usize) -> Cow<'a, str> {
        let text = without_tokens(text);
        if text.len() <= limit {
            return text;
        }
        self.cut.set(true);
        let end = text.floor_char_boundary(limit.saturating_sub(MARKER.len()));
        let mut short = String::with_capacity(limit);
        short.push_str(text.get(..end).unwrap_or_default());
        short.push_str(MARKER);
        Cow::Owned(short)
    }

    /// As [`Cutter::cut`], with the empty string as "not known".
    pub(crate) fn known<'a>(&self, text: &'a str, limit: usize) -> Option<Cow<'a, str>> {
        if text.is_empty() { None } else { Some(self.cut(text, limit)) }
    }

    /// Every item cut to `limit` bytes, and the list to [`ITEMS`] items.
    pub(crate) fn list<'a>(&self, items: &'a [String], limit: usize) -> Vec<Cow<'a, str>> {
        if items.len() > ITEMS {
            self.cut.set(true);
        }
        items.iter().take(ITEMS).map(|item| self.cut(item, limit)).collect()
    }
}

/// `text` with every run that begins like a JWT and has a dot, as its parts do, taken out.
fn without_tokens(text: &str) -> Cow<'_, str> {
    if !text.contains(TOKEN_START) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, from)) =
        rest.find(TOKEN_START).and_then(|start| rest.split_at_checked(start))
    {
        let end = from.find(|character: char| !is_token_character(character));
        let (run, after) = from.split_at_checked(end.unwrap_or(from.len())).unwrap_or((from, ""));
        clean.push_str(before);
        clean.push_str(if run.contains('.') { TOKEN_REMOVED } else { run });
        rest = after;
    }
    clean.push_str(rest);
    Cow::Owned(clean)
}

fn is_token_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | '=')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_costs_a_record_and_no_cut_goes_unmarked(text in any::<String>(), limit in 3_usize..64) {
            let cutter = Cutter::default();
            let short = cutter.cut(&text, limit);
            prop_assert!(short.len() <= limit);
            prop_assert_eq!(cutter.has_cut(), text.len() > limit);
            if cutter.has_cut() {
                prop_assert!(short.ends_with(MARKER));
                prop_assert!(text.starts_with(short.trim_end_matches(MARKER)));
            } else {
                prop_assert_eq!(&*short, text.as_str());
            }
        }
    }

    #[test]
    fn a_list_without_end_is_cut_and_said_so() {
        let cutter = Cutter::default();
        let items = vec![String::from("x"); ITEMS + 1];
        assert_eq!(cutter.list(&items, ID).len(), ITEMS);
        assert!(cutter.has_cut(), "a reader must see that the list is not complete");
    }

    #[test]
    fn a_token_on_a_command_line_is_not_kept() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
        let line = format!("curl -H 'Authorization: Bearer {token}' https://example.org");
        let cutter = Cutter::default();
        let kept = cutter.cut(&line, CMD_LINE);
        assert_eq!(kept, "curl -H 'Authorization: Bearer [token removed]' https://example.org");
        assert!(!cutter.cut(&format!("{token}{token}"), 40).contains("c2ln"), "cut before cleaned");
        assert_eq!(cutter.cut("eyJust a word", ID), "eyJust a word");
    }
}
