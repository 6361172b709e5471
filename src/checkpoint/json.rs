//! JSON from outside, read without making more of it than is asked for.
//!
//! A tree of `serde_json::Value`s takes up to a hundred times the bytes of the text it is made from. Here, fields that
//! nobody reads are skipped, those that somebody reads stay text until their type is known, and lists have a limit.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// More fields than this in one object are an attack or a damaged file.
const MAX_FIELDS: usize = 1 << 14;
/// Longer names than this are an attack or a damaged file.
const MAX_NAME_BYTES: usize = 1024;

/// The fields of the object `text` whose names are wanted, unread. Of a name that occurs twice the last counts, as in
/// Python. `Err` says what is wrong with the text.
pub(crate) fn fields(
    text: &str,
    wanted: impl FnMut(&str) -> bool,
) -> Result<BTreeMap<String, &RawValue>, String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let found = Wanted(wanted).deserialize(&mut json).and_then(|found| json.end().map(|()| found));
    found.map_err(|error| error.to_string())
}

/// A value of some type; `None` if it is of another.
pub(crate) fn value<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

/// A list of at most `max` values of some type; `None` if it is longer or anything else.
pub(crate) fn list<'a, T: Deserialize<'a>>(raw: &'a RawValue, max: usize) -> Option<Vec<T>> {
    let mut json = serde_json::Deserializer::from_str(raw.get());
    AtMost(max, PhantomData).deserialize(&mut json).ok()
}

/// Whether a value is an object.
pub(crate) fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

struct Wanted<W>(W);

impl<'de, W: FnMut(&str) -> bool> DeserializeSeed<'de> for Wanted<W> {
    type Value = BTreeMap<String, &'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, W: FnMut(&str) -> bool> Visitor<'de> for Wanted<W> {
    type Value = BTreeMap<String, &'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object in braces")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = BTreeMap::new();
        while let Some(Name(name)) = map.next_key()? {
            if !(self.0)(&name) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if found.len() >= MAX_FIELDS {
                return Err(A::Error::custom(format_args!("more than {MAX_FIELDS} fields")));
            }
            found.insert(name.into_owned(), map.next_value()?);
        }
        Ok(found)
    }
}

/// The name of a field or of a tensor: a text of bounded length, borrowed where it has no escapes.
pub(crate) struct Name<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a name of at most {MAX_NAME_BYTES} bytes")
            }

            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
                match name.len() {
                    ..=MAX_NAME_BYTES => Ok(Name(name.into())),
                    len => Err(too_long(len)),
                }
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
                match name.len() {
                    ..=MAX_NAME_BYTES => Ok(Name(name.to_owned().into())),
                    len => Err(too_long(len)),
                }
            }
        }
        deserializer.deserialize_str(Visit)
    }
}

fn too_long<E: Error>(len: usize) -> E {
    E::custom(format_args!("a name has {len} bytes, expected at most {MAX_NAME_BYTES}"))
}

struct AtMost<T>(usize, PhantomData<T>);

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for AtMost<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} values", self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(value) = list.next_element()? {
            if found.len() == self.0 {
                return Err(A::Error::invalid_length(self.0 + 1, &self));
            }
            found.push(value);
        }
        Ok(found)
    }
}
