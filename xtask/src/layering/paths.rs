//! The paths that a source file names, as far as they can be told without the compiler: imports resolved,
//! `crate`, `self` and `super` replaced, code that only tests are built with left out.

use std::collections::{HashMap, HashSet};

use super::lexer::{Kind, Token, tokens};

/// A path that a file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// The path, resolved: `std::time::Instant::now`. An import of everything ends with `*`.
    pub(super) path: Vec<String>,
    pub(super) line: usize,
    /// Offered to others: `pub use`, also where it is `pub(crate)`.
    pub(super) reexported: bool,
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) named: Vec<Named>,
    /// Lines with the keyword `unsafe`, tests included.
    pub(super) unsafe_lines: Vec<usize>,
    /// Modules in other files that only tests are built with.
    pub(super) test_modules: Vec<String>,
}

/// Reads a file that is the given module (`grantd`, `kernel`, `maps`).
pub(super) fn read(source: &str, module: &[String]) -> Source {
    let tokens = tokens(source);
    let mut reader =
        Reader { tokens: &tokens, at: 0, module: module.to_vec(), test_modules: Vec::new() };
    let written = reader.collect();
    let is_unsafe = |token: &&Token<'_>| token.word() == Some("unsafe");
    Source {
        named: resolve(written),
        unsafe_lines: tokens.iter().filter(is_unsafe).map(|token| token.line).collect(),
        test_modules: reader.test_modules,
    }
}

/// A path as written, with the module in which it stands.
struct Written {
    segments: Vec<String>,
    line: usize,
    module: Vec<String>,
    /// The name that an import gives to it here.
    imported_as: Option<String>,
    reexported: bool,
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    module: Vec<String>,
    test_modules: Vec<String>,
}

impl<'a> Reader<'a> {
    fn collect(&mut self) -> Vec<Written> {
        let mut written = Vec::new();
        // The depth of braces at which each inline module began.
        let mut modules: Vec<usize> = Vec::new();
        let mut depth = 0_usize;
        let mut public = false;
        while let Some(token) = self.peek(0) {
            if self.at_test_attribute() {
                self.skip_test_item();
                continue;
            }
            match token.kind {
                Kind::Word("use") if !self.after_path_or_dot() && !self.is_precise_capture() => {
                    self.at += 1;
                    self.use_tree(&mut Vec::new(), public, &mut written);
                    public = false;
                }
                Kind::Word("mod") if self.peek(2).is_some_and(|t| t.is('{')) => {
                    self.module.extend(self.peek(1).and_then(Token::word).map(str::to_owned));
                    modules.push(depth);
                    depth += 1;
                    self.at += 3;
                }
                Kind::Word("pub") => {
                    public = true;
                    self.at += 1;
                    if self.peek(0).is_some_and(|t| t.is('(')) {
                        self.skip_balanced('(', ')');
                    }
                }
                Kind::Word(_) | Kind::PathSeparator => {
                    public = false;
                    self.path(&mut written);
                }
                Kind::Other('{') => {
                    depth += 1;
                    self.at += 1;
                }
                Kind::Other('}') => {
                    depth = depth.saturating_sub(1);
                    if modules.last() == Some(&depth) {
                        modules.pop();
                        self.module.pop();
                    }
                    self.at += 1;
                }
                Kind::Other(_) => self.at += 1,
            }
        }
        written
    }

    fn peek(&self, ahead: usize) -> Option<Token<'a>> {
        self.tokens.get(self.at + ahead).copied()
    }

    /// `impl Trait + use<'a>` names no path.
    fn is_precise_capture(&self) -> bool {
        self.peek(1).is_some_and(|t| t.is('<'))
    }

    fn after_path_or_dot(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        before.is_some_and(|t| t.kind == Kind::PathSeparator || t.is('.'))
    }

    /// A path in an expression, a type, an attribute or a macro's arguments.
    fn path(&mut self, written: &mut Vec<Written>) {
        let line = self.peek(0).map_or(0, |t| t.line);
        let method = self.after_path_or_dot();
        let mut segments = Vec::new();
        if self.peek(0).is_some_and(|t| t.kind == Kind::PathSeparator) {
            // `::name` is a crate's, where a word stands before it it goes on after generic arguments.
            segments.push(String::new());
            self.at += 1;
        }
        while let Some(word) = self.peek(0).and_then(Token::word) {
            segments.push(word.to_owned());
            self.at += 1;
            let goes_on = self.peek(0).is_some_and(|t| t.kind == Kind::PathSeparator)
                && self.peek(1).is_some_and(|t| t.word().is_some());
            if !goes_on {
                break;
            }
            self.at += 1;
        }
        if !method && !segments.is_empty() {
            let module = self.module.clone();
            written.push(Written { segments, line, module, imported_as: None, reexported: false });
        }
    }

    /// One tree of a `use`; the prefix is what stands before it.
    fn use_tree(&mut self, prefix: &mut Vec<String>, reexported: bool, written: &mut Vec<Written>) {
        let length = prefix.len();
        let line = self.peek(0).map_or(0, |t| t.line);
        let mut alias = None;
        while let Some(token) = self.peek(0) {
            match token.kind {
                Kind::PathSeparator => {
                    if prefix.is_empty() {
                        prefix.push(String::new());
                    }
                    self.at += 1;
                }
                Kind::Word("as") => {
                    alias = self.peek(1).and_then(Token::word).map(str::to_owned);
                    self.at += 2;
                }
                Kind::Word(word) => {
                    prefix.push(word.to_owned());
                    self.at += 1;
                }
                Kind::Other('*') => {
                    prefix.push("*".to_owned());
                    self.at += 1;
                }
                Kind::Other('{') => {
                    self.at += 1;
                    while self.peek(0).is_some_and(|t| !t.is('}')) {
                        self.use_tree(prefix, reexported, written);
                        if self.peek(0).is_some_and(|t| t.is(',')) {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    prefix.truncate(length);
                    return;
                }
                Kind::Other(_) => break,
            }
        }
        // `use a::{self}` imports a.
        if prefix.len() > 1 && prefix.last().is_some_and(|last| last == "self") {
            prefix.pop();
        }
        let imported_as = alias.or_else(|| prefix.last().cloned());
        let (segments, module) = (prefix.clone(), self.module.clone());
        written.push(Written { segments, line, module, imported_as, reexported });
        prefix.truncate(length);
        if self.peek(0).is_some_and(|t| !t.is(',') && !t.is('}') && !t.is(';')) {
            // Not what a use tree ends with: go on behind it, or the same token would be met for ever.
            self.at += 1;
        }
    }

    /// `#[cfg(test)]`, or a cfg of which `test` is a required part.
    fn at_test_attribute(&self) -> bool {
        let words = ["#", "[", "cfg", "("];
        let matches = |(ahead, expected): (usize, &&str)| {
            self.peek(ahead).is_some_and(|token| match token.kind {
                Kind::Word(word) => word == *expected,
                Kind::Other(character) => expected.chars().eq([character]),
                Kind::PathSeparator => false,
            })
        };
        if !words.iter().enumerate().all(matches) {
            return false;
        }
        match (self.peek(4).and_then(Token::word), self.peek(6).and_then(Token::word)) {
            (Some("test"), _) => self.peek(5).is_some_and(|t| t.is(')')),
            (Some("all"), Some("test")) => true,
            _ => false,
        }
    }

    /// Skips the item that a test attribute stands on.
    fn skip_test_item(&mut self) {
        self.at += 1;
        self.skip_balanced('[', ']');
        while self.peek(0).is_some_and(|t| t.is('#')) {
            self.at += 1;
            self.skip_balanced('[', ']');
        }
        while let Some(token) = self.peek(0) {
            match token.kind {
                Kind::Word("mod") if self.peek(2).is_some_and(|t| t.is(';')) => {
                    let name = self.peek(1).and_then(Token::word).map(str::to_owned);
                    self.test_modules.extend(name);
                    self.at += 3;
                    return;
                }
                Kind::Other('{') => {
                    self.skip_balanced('{', '}');
                    // `use a::{b};` ends behind the braces.
                    if self.peek(0).is_some_and(|t| t.is(';')) {
                        self.at += 1;
                    }
                    return;
                }
                Kind::Other(';' | ',') => {
                    self.at += 1;
                    return;
                }
                Kind::Other('}') => return,
                Kind::Other('(') => self.skip_balanced('(', ')'),
                Kind::Word(_) | Kind::PathSeparator | Kind::Other(_) => self.at += 1,
            }
        }
    }

    /// Skips from an opening bracket to behind the one that closes it.
    fn skip_balanced(&mut self, open: char, close: char) {
        let mut depth = 0_usize;
        while let Some(token) = self.peek(0) {
            self.at += 1;
            if token.is(open) {
                depth += 1;
            } else if token.is(close) {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return;
                }
            }
        }
    }
}

/// Replaces the first segment of each path by what it stands for in its file.
fn resolve(written: Vec<Written>) -> Vec<Named> {
    let mut imports: HashMap<String, Vec<Vec<String>>> = HashMap::new();
    for path in &written {
        if let Some(name) = path.imported_as.as_ref().filter(|name| *name != "*" && *name != "_") {
            imports.entry(name.clone()).or_default().push(absolute(&path.segments, &path.module));
        }
    }
    let mut named = Vec::new();
    let mut seen = HashSet::new();
    for path in written {
        for resolved in expansions(&path, &imports) {
            if seen.insert((resolved.clone(), path.line)) {
                let Written { line, reexported, .. } = path;
                named.push(Named { path: resolved, line, reexported });
            }
        }
    }
    named
}

/// What a path may mean: an import's own path, or each import of this file that has its first name.
fn expansions(path: &Written, imports: &HashMap<String, Vec<Vec<String>>>) -> Vec<Vec<String>> {
    let own = absolute(&path.segments, &path.module);
    let Some((first, rest)) = path.segments.split_first() else { return Vec::new() };
    let mut meanings = vec![own];
    for import in imports.get(first).into_iter().flatten() {
        let mut meaning = import.clone();
        // An import may start from a name that another import gives: `use std::time; use time::Instant;`
        if let Some((head, tail)) = import.split_first()
            && head != first
            && let Some(outer) = imports.get(head).and_then(|outer| outer.first())
        {
            meaning = outer.iter().chain(tail).cloned().collect();
        }
        meaning.extend(rest.iter().cloned());
        meanings.push(meaning);
    }
    meanings.dedup();
    meanings
}

/// The path with `crate`, `self` and `super` replaced; a leading `::` is dropped.
fn absolute(segments: &[String], module: &[String]) -> Vec<String> {
    let mut base: Vec<String> = Vec::new();
    let mut rest = segments;
    let mut inside = module.to_vec();
    while let Some((first, tail)) = rest.split_first() {
        match first.as_str() {
            "crate" => base = module.first().cloned().into_iter().collect(),
            "self" => base.clone_from(&inside),
            "super" => {
                inside.pop();
                base.clone_from(&inside);
            }
            "" => {}
            _ => break,
        }
        rest = tail;
    }
    base.extend(rest.iter().cloned());
    base
}

#[cfg(test)]
mod tests;
