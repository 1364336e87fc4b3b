//! A text that does not print and is wiped from memory when dropped.

use std::fmt;

use zeroize::Zeroizing;

/// Holds an Okta token, or a text that could be one by mistake. Never leaves this crate.
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    pub(crate) fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The text, for hashing and verifying only.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}
