//! The index of a sharded checkpoint: which tensor is in which file.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use super::header::MAX_TENSORS;
use super::{Result, WeightError};
use crate::checkpoint::json::{self, Name};
use crate::checkpoint::source::Source;

/// More files than this are an attack or a damaged index: FLUX.1's T5 has 2, its transformer 3.
const MAX_SHARDS: usize = 1000;

/// What `weight_map` says, its files numbered by name.
#[derive(Default)]
pub(super) struct WeightMap {
    shards: Vec<String>,
    /// Tensors and the numbers of their files.
    entries: Vec<(String, usize)>,
}

impl WeightMap {
    /// The files, by name.
    pub fn shards(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().map(String::as_str)
    }

    /// Each tensor, the number of its file, and its file.
    pub fn entries(&self) -> impl Iterator<Item = (&str, usize, &str)> {
        self.entries.iter().map(|(name, i)| (name.as_str(), *i, self.shards[*i].as_str()))
    }
}

/// Reads the index at `path`, which messages call `shown`.
pub(super) fn read(source: &dyn Source, path: &str, shown: &str) -> Result<WeightMap> {
    let damaged = |reason: String| WeightError::Index { file: shown.to_owned(), reason };
    let text = source.text(path)?.unwrap_or_default();
    let fields = json::fields(&text, |name| name == "weight_map").map_err(damaged)?;
    let map = fields.get("weight_map").filter(|map| json::is_object(map));
    let Some(map) = map else {
        return Err(damaged(
            "expected an object \"weight_map\" from tensor names to file names".into(),
        ));
    };
    let mut json = serde_json::Deserializer::from_str(map.get());
    let map = Files.deserialize(&mut json).map_err(|error| damaged(error.to_string()))?;
    if map.shards.is_empty() {
        return Err(damaged("\"weight_map\" is empty".into()));
    }
    Ok(map)
}

struct Files;

impl<'de> DeserializeSeed<'de> for Files {
    type Value = WeightMap;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Files {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from tensor names to file names")
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        // Of a name that occurs twice the last counts, as in Python.
        let mut files = BTreeMap::new();
        let mut shards = BTreeMap::new();
        while let Some(Name(name)) = map.next_key()? {
            let shard: &serde_json::value::RawValue = map.next_value()?;
            let file = json::value::<Name<'_>>(shard).map(|Name(file)| file);
            // A file lies in the folder of its index: a name with a folder in it is an attempt to read something else.
            let Some(file) = file.filter(|file| {
                !file.is_empty() && !file.contains(['/', '\\', ':', '\0']) && file != ".."
            }) else {
                let shard: String = shard.get().chars().take(200).collect();
                return Err(A::Error::custom(format_args!(
                    "the file of {name} is {shard}; expected a plain file name"
                )));
            };
            let next = shards.len();
            let number = *shards.entry(file.into_owned()).or_insert(next);
            if shards.len() > MAX_SHARDS {
                return Err(A::Error::custom(format_args!("more than {MAX_SHARDS} files")));
            }
            files.insert(name.into_owned(), number);
            if files.len() > MAX_TENSORS {
                return Err(A::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
            }
        }
        let mut by_name = vec![0; shards.len()];
        for (i, number) in shards.values().enumerate() {
            by_name[*number] = i;
        }
        let entries = files.into_iter().map(|(name, number)| (name, by_name[number])).collect();
        Ok(WeightMap { shards: shards.into_keys().collect(), entries })
    }
}
