//! Names of choices and fields: those that serde spells, and no other.
//!
//! An enum whose values have names derives `Serialize` and `Deserialize` with one `rename_all`. Texts that people type
//! and read take the names from there through a macro (`by_serde`), and so do faces that list them ([`of_values`], [`of_fields`]).
//! JavaScript spells fields in its own way: [`camel`] and [`snake`] convert.
//!
//! ```
//! use ralu::names;
//! use ralu::sampling::Upsample;
//!
//! assert_eq!(names::of_values::<Upsample>(), ["token", "latent"]);
//! assert_eq!("latent".parse(), Ok(Upsample::Latent));
//! assert_eq!(Upsample::Latent.to_string(), "latent");
//! assert_eq!(names::camel("stage_ends"), "stageEnds");
//! ```

use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Visitor};

/// A word that names none of the choices.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("'{found}' is not a known {what}, expected one of {}", expected.join(", "))]
pub struct UnknownName {
    /// What was to be named: "preset", "variant".
    pub what: &'static str,
    /// The word found, as it was typed.
    pub found: String,
    /// The names that there are.
    pub expected: &'static [&'static str],
}

/// Implements `Display` and `FromStr` for an enum of units by the names that serde spells. Reads any case.
macro_rules! by_serde {
    ($type:ty, $what:literal) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                serde::Serialize::serialize(self, f)
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::names::UnknownName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::names::value(text, $what)
            }
        }
    };
}

pub(crate) use by_serde;

/// The value that `text` names, in any case and with space around it. `what` is a word for all values.
pub fn value<T: for<'de> Deserialize<'de>>(
    text: &str,
    what: &'static str,
) -> Result<T, UnknownName> {
    let name = text.trim().to_ascii_lowercase();
    let name: StrDeserializer<'_, ValueError> = name.as_str().into_deserializer();
    T::deserialize(name).map_err(|_| UnknownName {
        what,
        found: text.to_owned(),
        expected: of_values::<T>(),
    })
}

/// The names of an enum's values, in their order; none of a type that is no enum.
pub fn of_values<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    listed::<T>()
}

/// The names of a struct's fields, in their order, without those that serde skips; none of a type that is no struct.
pub fn of_fields<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    listed::<T>()
}

/// What a type asks of a deserializer, which is all that is read: nothing is deserialized.
fn listed<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &[&str] = &[];
    // An error in any case.
    let _ = T::deserialize(Listing(&mut names));
    names
}

struct Listing<'n>(&'n mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Listing<'_> {
    type Error = ValueError;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, ValueError> {
        *self.0 = variants;
        Err(ValueError::custom("only the names were wanted"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, ValueError> {
        *self.0 = fields;
        Err(ValueError::custom("only the names were wanted"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ValueError> {
        Err(ValueError::custom("neither an enum nor a struct"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// A field's name as JavaScript spells it: `stage_ends` is `stageEnds`.
pub fn camel(name: &str) -> String {
    let mut spelled = String::with_capacity(name.len());
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        match rest.peek() {
            Some(next) if c == '_' => {
                spelled.push(next.to_ascii_uppercase());
                rest.next();
            }
            _ => spelled.push(c),
        }
    }
    spelled
}

/// The inverse of [`camel`]: `stageEnds` is `stage_ends`. What JavaScript would not spell with an underscore becomes no
/// name of ours: `stage_ends` is `stage__ends`, which [`camel`] turns back.
pub fn snake(name: &str) -> String {
    let mut spelled = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() || c == '_' {
            spelled.push('_');
        }
        spelled.push(c.to_ascii_lowercase());
    }
    spelled
}

#[cfg(test)]
mod tests {
    use super::{camel, snake};

    #[test]
    fn javascript_spells_its_own_names_and_gets_them_back() {
        assert_eq!(camel("max_sequence_length"), "maxSequenceLength");
        assert_eq!(snake("maxSequenceLength"), "max_sequence_length");
        assert_eq!(snake("max_sequence_length"), "max__sequence__length");
        for name in ["prompt", "stageEnds", "stage_ends", "_x", "aB_c", "x_", "in32"] {
            assert_eq!(camel(&snake(name)), name);
        }
    }
}
