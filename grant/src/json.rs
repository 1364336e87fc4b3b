//! JSON read strictly, for every format of this crate.
//!
//! serde's derived `Deserialize` also takes an array for a struct, `null` for an absent option, and
//! ignores duplicates among fields that it does not know. None of that may pass here, so all formats are
//! read through this small tree: duplicate keys are refused at any depth, numbers are unsigned integers
//! or nothing, and [`Fields::finish`] refuses what nobody asked for.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use crate::ids::{InvalidId, UnixTime};

/// A JSON value. Texts are wiped when dropped, because some are tokens.
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// An integer of 0 to 2^64 - 1 written without sign, fraction and exponent.
    Unsigned(u64),
    /// Any other number: negative, fractional, with exponent, or too large.
    OtherNumber,
    Text(Zeroizing<String>),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

/// What is wrong with a JSON document, and where. Quotes no values, and names only fields that the
/// format knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    path: String,
    pub(crate) kind: FaultKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// Not JSON at all, a duplicate key, or nested too deep.
    Syntax,
    /// A required field is absent.
    Missing,
    /// A field that the format does not have.
    Unknown,
    /// A value of another type or form than the one named.
    Expected(&'static str),
    /// An endpoint that is not a destination.
    Destination(crate::destination::InvalidDestination),
}

impl Fault {
    pub(crate) fn new(kind: FaultKind) -> Self {
        Self { path: String::new(), kind }
    }

    pub(crate) fn expected(what: &'static str) -> Self {
        Self::new(FaultKind::Expected(what))
    }

    /// The same fault, seen from the object that has the faulty value as `field`.
    fn within(mut self, field: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{field}{dot}{}", self.path);
        self
    }
}

impl From<InvalidId> for Fault {
    fn from(invalid: InvalidId) -> Self {
        Self::expected(invalid.expected)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        match &self.kind {
            FaultKind::Syntax => f.write_str("not strict JSON (syntax, duplicate key or depth)"),
            FaultKind::Missing => f.write_str("required, but absent"),
            FaultKind::Unknown => f.write_str("has a field that this format does not have"),
            FaultKind::Expected(what) => write!(f, "expected {what}"),
            FaultKind::Destination(invalid) => invalid.fmt(f),
        }
    }
}

impl Json {
    /// Parses one document with nothing after it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        serde_json::from_slice(bytes).map_err(|_| Fault::new(FaultKind::Syntax))
    }

    /// Parses one document that must be an object.
    pub(crate) fn parse_object(bytes: &[u8]) -> Result<Fields, Fault> {
        Self::parse(bytes)?.object()
    }

    pub(crate) fn object(self) -> Result<Fields, Fault> {
        let Self::Object(map) = self else { return Err(Fault::expected("an object")) };
        Ok(Fields(map))
    }

    pub(crate) fn text(self) -> Result<Zeroizing<String>, Fault> {
        let Self::Text(text) = self else { return Err(Fault::expected("a string")) };
        Ok(text)
    }

    /// A text that is no secret.
    pub(crate) fn plain_text(self) -> Result<String, Fault> {
        Ok(std::mem::take(&mut *self.text()?))
    }

    /// A text of a certain kind.
    pub(crate) fn id<T: TryFrom<String, Error = InvalidId>>(self) -> Result<T, Fault> {
        Ok(T::try_from(self.plain_text()?)?)
    }

    pub(crate) fn unsigned(self) -> Result<u64, Fault> {
        let Self::Unsigned(number) = self else {
            return Err(Fault::expected("an unsigned integer"));
        };
        Ok(number)
    }

    /// An instant in whole seconds, not after the year 9999.
    pub(crate) fn time(self) -> Result<UnixTime, Fault> {
        self.unsigned()
            .ok()
            .map(UnixTime)
            .filter(|time| *time <= UnixTime::MAX)
            .ok_or_else(|| Fault::expected("whole seconds since 1970, as an unsigned integer"))
    }

    /// A list of 1 to `max` values, each read by `read`.
    pub(crate) fn list<T>(
        self,
        max: usize,
        read: impl FnMut(Json) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let list = self.list_or_empty(max, read)?;
        if list.is_empty() { Err(Fault::expected("a list that is not empty")) } else { Ok(list) }
    }

    /// A list of 0 to `max` values, each read by `read`.
    pub(crate) fn list_or_empty<T>(
        self,
        max: usize,
        mut read: impl FnMut(Json) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let Self::List(values) = self else { return Err(Fault::expected("a list")) };
        if values.len() > max {
            return Err(Fault::expected("a list with fewer items"));
        }
        values
            .into_iter()
            .enumerate()
            .map(|(at, value)| read(value).map_err(|fault| fault.within(&format!("[{at}]"))))
            .collect()
    }
}

/// The fields of an object, taken one by one.
pub(crate) struct Fields(BTreeMap<String, Json>);

impl Fields {
    pub(crate) fn required<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(Json) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.optional(field, read)?.ok_or_else(|| Fault::new(FaultKind::Missing).within(field))
    }

    /// An optional field is absent or well-formed; `null` is neither.
    pub(crate) fn optional<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(Json) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        match self.0.remove(field) {
            Some(value) => read(value).map(Some).map_err(|fault| fault.within(field)),
            None => Ok(None),
        }
    }

    pub(crate) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// The text of a field, if it is one.
    pub(crate) fn peek_text(&self, field: &str) -> Option<&str> {
        let Json::Text(text) = self.0.get(field)? else { return None };
        Some(text)
    }

    /// Refuses fields that nobody took.
    pub(crate) fn finish(self) -> Result<(), Fault> {
        if self.0.is_empty() { Ok(()) } else { Err(Fault::new(FaultKind::Unknown)) }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate keys")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Json, E> {
        Ok(Json::OtherNumber)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::OtherNumber)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(Zeroizing::new(value.to_owned())))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(Zeroizing::new(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry::<String, Json>()? {
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(Json::Object(map))
    }
}
