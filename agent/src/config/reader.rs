//! Reading a TOML document so that no fault hides another: a value that is missing, misspelt, of the
//! wrong type or refused is recorded with its place, and reading goes on.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Sink;

/// One table. Keys that nobody asked for are faults when it is [`finished`](Self::finish).
pub(super) struct Section<'d> {
    path: String,
    at: Option<usize>,
    table: &'d DeTable<'d>,
    known: BTreeSet<&'static str>,
    sink: &'d Sink<'d>,
}

impl<'d> Section<'d> {
    pub(super) fn root(table: &'d DeTable<'d>, sink: &'d Sink<'d>) -> Self {
        Self { path: String::new(), at: None, table, known: BTreeSet::new(), sink }
    }

    /// The value of a key, if it is there.
    pub(super) fn optional(&mut self, key: &'static str) -> Option<Value<'d>> {
        self.known.insert(key);
        let (_, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(Value { path: self.path_of(key), value, sink: self.sink })
    }

    /// The value of a key; a fault if it is not there.
    pub(super) fn required(&mut self, key: &'static str, expected: &str) -> Option<Value<'d>> {
        let value = self.optional(key);
        if value.is_none() {
            self.missing(key, expected);
        }
        value
    }

    /// Records that a key must be there.
    pub(super) fn missing(&self, key: &str, expected: &str) {
        self.sink.add(self.at, &self.path_of(key), None, "is missing", format!("write {expected}"));
    }

    /// A key that is understood but not offered: a fault if it is there.
    pub(super) fn refuse(&mut self, key: &'static str, problem: &str, expected: &str) {
        if let Some(value) = self.optional(key) {
            value.fault(problem, expected);
        }
    }

    /// A fault about the table as a whole.
    pub(super) fn fault(&self, problem: impl Into<String>, expected: impl Into<String>) {
        self.sink.add(self.at, &self.path, None, problem, expected);
    }

    /// Records every key that nobody asked for.
    pub(super) fn finish(self) {
        for (name, value) in self.table {
            if self.known.contains(name.get_ref().as_ref()) {
                continue;
            }
            let known: Vec<&str> = self.known.iter().copied().collect();
            self.sink.add(
                Some(name.span().start),
                &self.path_of(name.get_ref()),
                Some(self.sink.source(value.span())),
                "unknown key",
                format!("known here: {}", known.join(", ")),
            );
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// One value and its place.
#[derive(Clone)]
pub(super) struct Value<'d> {
    path: String,
    value: &'d Spanned<DeValue<'d>>,
    sink: &'d Sink<'d>,
}

impl<'d> Value<'d> {
    /// Records a fault about this value.
    pub(super) fn fault(&self, problem: impl Into<String>, expected: impl Into<String>) {
        let span = self.value.span();
        let written = self.sink.source(span.clone());
        self.sink.add(Some(span.start), &self.path, Some(written), problem, expected);
    }

    /// A string.
    pub(super) fn string(&self, expected: &str) -> Option<&'d str> {
        let text = self.value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(&format!("a string: {expected}"));
        }
        text
    }

    /// A string that `parse` accepts.
    pub(super) fn parse<T, E: Display>(
        &self,
        expected: &str,
        parse: impl FnOnce(&'d str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(self.string(expected)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(error.to_string(), format!("expected {expected}"));
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        let value = self.value.get_ref().as_bool();
        if value.is_none() {
            self.wrong_type("true or false");
        }
        value
    }

    /// A whole number within bounds.
    pub(super) fn integer(&self, bounds: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let Some(written) = self.value.get_ref().as_integer() else {
            self.wrong_type(&expected);
            return None;
        };
        let number = u64::from_str_radix(written.as_str(), written.radix()).ok();
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            self.fault("out of bounds", format!("expected {expected}"));
        }
        number
    }

    /// The items of an array. An empty array is a fault where `expected` says what belongs in it:
    /// empty never means "all".
    pub(super) fn items(&self, expected: &str) -> Option<Vec<Value<'d>>> {
        let Some(array) = self.value.get_ref().as_array() else {
            self.wrong_type(&format!("an array: {expected}"));
            return None;
        };
        if array.is_empty() {
            self.fault("is empty, which would allow nothing", format!("expected {expected}"));
            return None;
        }
        let items = array.iter().enumerate().map(|(at, value)| Value {
            path: format!("{}[{at}]", self.path),
            value,
            sink: self.sink,
        });
        Some(items.collect())
    }

    /// Reads every item of an array; `None` if any is at fault, after all were read.
    pub(super) fn each<T>(
        &self,
        expected: &str,
        read: impl FnMut(&Value<'d>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let read: Vec<Option<T>> = self.items(expected)?.iter().map(read).collect();
        read.into_iter().collect()
    }

    /// Reads a table; unknown keys in it are faults.
    pub(super) fn table<T>(
        &self,
        expected: &str,
        read: impl FnOnce(&mut Section<'d>) -> Option<T>,
    ) -> Option<T> {
        let Some(table) = self.value.get_ref().as_table() else {
            self.wrong_type(&format!("a table: {expected}"));
            return None;
        };
        let mut section = Section {
            path: self.path.clone(),
            at: Some(self.value.span().start),
            table,
            known: BTreeSet::new(),
            sink: self.sink,
        };
        let value = read(&mut section);
        section.finish();
        value
    }

    /// Whether it is a whole number (ports are numbers or tables).
    pub(super) fn is_integer(&self) -> bool {
        self.value.get_ref().is_integer()
    }

    fn wrong_type(&self, expected: &str) {
        let kind = self.value.get_ref().type_str();
        self.fault(format!("is of type {kind}"), format!("expected {expected}"));
    }
}
