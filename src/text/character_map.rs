//! Sentencepiece's character map, as a `tokenizer.json` carries it: found, decoded, checked.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::elements;
use crate::checkpoint::json::{fields, value};
use crate::turns::Turns;

/// The map in a `normalizer`, which is one or a sequence.
pub(super) fn character_map(normalizer: &RawValue) -> Option<Cow<'_, str>> {
    let wanted = ["type", "normalizers", "precompiled_charsmap"];
    let read = |raw| fields(RawValue::get(raw), |name| wanted.contains(&name)).ok();
    let whole = read(normalizer)?;
    let sequence = whole.get("normalizers").and_then(|list| elements(list));
    let mut all: Box<dyn Iterator<Item = _>> = match sequence {
        Some(sequence) => Box::new(sequence.filter_map(read)),
        None => Box::new(std::iter::once(whole)),
    };
    let map = all.find(|one| {
        let kind = one.get("type").and_then(|kind| value::<String>(kind));
        kind.as_deref() == Some("Precompiled")
    })?;
    #[derive(Deserialize)]
    struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
    value(map.get("precompiled_charsmap")?).map(|Borrowed(map)| map)
}

/// Standard base64; `None` if it is not.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    for chunk in text.chunks(4) {
        let mut bits = 0u32;
        for &c in chunk {
            let six = match c {
                b'A'..=b'Z' => c - b'A',
                b'a'..=b'z' => c - b'a' + 26,
                b'0'..=b'9' => c - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(six);
        }
        bits <<= 6 * (4 - chunk.len());
        match chunk.len() {
            1 => return None,
            n => out.extend_from_slice(&bits.to_be_bytes()[1..n]),
        }
    }
    Some(out)
}

/// Walks through the whole map once, so that no text can lead out of it: `spm_precompiled`, which applies it,
/// indexes without looking.
///
/// The map is a `u32` length in bytes, a double-array trie of `u32` units, and the replacements as UTF-8 text, each
/// ended by 0 (sentencepiece, `normalizer.cc`; the unit's bits are Darts-clone's).
pub(super) async fn check_character_map(map: &[u8], turns: &Turns) -> Result<(), String> {
    let Some((head, rest)) = map.split_first_chunk::<4>() else {
        return Err(format!("it has only {} bytes", map.len()));
    };
    let n_units = u32::from_le_bytes(*head) as usize / 4;
    if n_units == 0 || n_units > rest.len() / 4 {
        return Err(format!("a trie of {n_units} units does not fit into {} bytes", rest.len()));
    }
    let (trie, text) = rest.split_at(4 * n_units);
    let text =
        std::str::from_utf8(text).map_err(|_| "the replacements are not UTF-8".to_string())?;
    let unit = |at: usize| match trie.get(4 * at..4 * at + 4) {
        Some(&[a, b, c, d]) => Ok(u32::from_le_bytes([a, b, c, d])),
        _ => Err(format!("the trie leads to unit {at}, but has {n_units}")),
    };
    let offset = |unit: u32| (unit as usize >> 10) << ((unit & 1 << 9) >> 6);

    let mut seen = vec![false; n_units];
    let mut to_visit = vec![offset(unit(0)?)];
    for visited in 0.. {
        let Some(node) = to_visit.pop() else { break };
        if visited % 256 == 0 {
            turns.yield_if_due().await;
        }
        // Any byte may follow, in any node.
        for c in 1..=255usize {
            let at = node ^ c;
            let found = unit(at)?;
            if found & (1 << 31 | 0xff) != c as u32 || std::mem::replace(&mut seen[at], true) {
                continue;
            }
            let child = at ^ offset(found);
            if found >> 8 & 1 == 1 {
                let start = (unit(child)? & !(1 << 31)) as usize;
                if !text.is_char_boundary(start) {
                    return Err(format!(
                        "a replacement starts at {start}, which is no place in the text"
                    ));
                }
            }
            to_visit.push(child);
        }
    }
    Ok(())
}
