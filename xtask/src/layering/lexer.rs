//! Rust source as the few kinds of token that finding paths needs: comments and literals are gone.

/// A token and the line on which it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// An identifier or keyword; a raw identifier without its `r#`.
    Word(&'a str),
    /// `::`
    PathSeparator,
    /// Any other character that is not white space; a literal is the one character `"`.
    Other(char),
}

impl<'a> Token<'a> {
    pub(super) fn word(self) -> Option<&'a str> {
        match self.kind {
            Kind::Word(word) => Some(word),
            Kind::PathSeparator | Kind::Other(_) => None,
        }
    }

    pub(super) fn is(self, character: char) -> bool {
        self.kind == Kind::Other(character)
    }
}

/// Splits source into tokens. Source that does not lex to its end gives the tokens up to there: the compiler
/// will refuse it anyway.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { rest: source, line: 1, tokens: Vec::new() };
    while !lexer.rest.is_empty() {
        lexer.step();
    }
    lexer.tokens
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token<'a>>,
}

impl<'a> Lexer<'a> {
    fn step(&mut self) {
        if self.rest.starts_with("//") {
            self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.take(block_comment(self.rest));
        } else if let Some(length) = string_literal(self.rest) {
            self.push(Kind::Other('"'));
            self.take(length);
        } else if self.rest.starts_with('\'') {
            self.quote();
        } else if let Some(length) = word_length(self.rest) {
            let word = self.take(length);
            self.push(Kind::Word(word.strip_prefix("r#").unwrap_or(word)));
        } else if self.rest.starts_with("::") {
            self.push(Kind::PathSeparator);
            self.take(2);
        } else if let Some(character) = self.rest.chars().next() {
            if !character.is_whitespace() {
                self.push(Kind::Other(character));
            }
            self.take(character.len_utf8());
        }
    }

    /// A lifetime or label, or a character literal.
    fn quote(&mut self) {
        let mut characters = self.rest.char_indices().skip(1);
        let (Some((_, first)), Some((second_at, second))) = (characters.next(), characters.next())
        else {
            self.take(self.rest.len());
            return;
        };
        if first == '\\' {
            // The escaped character may be a quote itself.
            let after_escape = self.rest.get(second_at + second.len_utf8()..).unwrap_or_default();
            let end = after_escape
                .find('\'')
                .map_or(self.rest.len(), |end| second_at + second.len_utf8() + end + 1);
            self.push(Kind::Other('"'));
            self.take(end);
        } else if second == '\'' {
            self.push(Kind::Other('"'));
            self.take(second_at + 1);
        } else {
            // A lifetime: its name is no path.
            let name = self.rest.get(1..).unwrap_or_default();
            self.take(word_length(name).unwrap_or(0) + 1);
        }
    }

    fn push(&mut self, kind: Kind<'a>) {
        self.tokens.push(Token { kind, line: self.line });
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }
}

/// The length of a word, raw identifiers and numbers included: a number is no path, but `1u8` must not leave
/// a `u8` behind.
fn word_length(text: &str) -> Option<usize> {
    let raw = if text.starts_with("r#") { 2 } else { 0 };
    let body = text.get(raw..)?;
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let length = body.find(|c| !is_part(c)).unwrap_or(body.len());
    (length > 0).then(|| raw + length)
}

/// The length of a string literal of any form at the start of the text.
fn string_literal(text: &str) -> Option<usize> {
    let body = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - body.len();
    if prefix > 1 {
        return None;
    }
    if let Some(raw) = body.strip_prefix('r') {
        let after_hashes = raw.trim_start_matches('#');
        let hashes = raw.len() - after_hashes.len();
        let content = after_hashes.strip_prefix('"')?;
        let close = format!("\"{}", "#".repeat(hashes));
        let opening = prefix + hashes + 2;
        let closing = content.find(&close).map(|end| end + close.len());
        return Some(opening + closing.unwrap_or(content.len()));
    }
    let content = body.strip_prefix('"')?;
    let mut escaped = false;
    for (at, character) in content.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(prefix + at + 2),
            _ => {}
        }
    }
    Some(text.len())
}

/// The length of a block comment, those inside of it included.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth = depth.saturating_sub(1);
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<&str> {
        tokens(source).into_iter().filter_map(Token::word).collect()
    }

    #[test]
    fn comments_and_literals_hold_no_imports() {
        assert_eq!(words("// use aya;\nuse /* aya /* tokio */ aya */ std;"), ["use", "std"]);
        assert_eq!(
            words(r###"x("aya::\" y", r#"a " aya"#, b"aya", c"aya", br"\", z)"###),
            ["x", "z"]
        );
        assert_eq!(words(r"f('a', '\'', '\u{61}', '\\', b'x', g)"), ["f", "b", "g"]);
    }

    #[test]
    fn lifetimes_are_not_taken_for_characters() {
        assert_eq!(
            words("fn f<'a>(x: &'a aya::Ebpf) -> &'static str"),
            ["fn", "f", "x", "aya", "Ebpf", "str"]
        );
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let tokens = tokens("/*\n\n*/ \"\n\" aya");
        assert_eq!(tokens.last(), Some(&Token { kind: Kind::Word("aya"), line: 4 }));
    }

    #[test]
    fn raw_identifiers_are_ordinary_words() {
        assert_eq!(words("r#type::x rest"), ["type", "x", "rest"]);
    }
}
