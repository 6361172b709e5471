//! JSON read a little at a time: a vocabulary's tens of thousands of entries must not hold an event loop up.

use serde_json::Deserializer;
use serde_json::value::RawValue;

/// The elements of a list, one after the other; `None` if it is no list.
pub(super) fn elements(raw: &RawValue) -> Option<impl Iterator<Item = &RawValue>> {
    let mut rest = raw.get().strip_prefix('[')?;
    Some(std::iter::from_fn(move || next(&mut rest)))
}

/// The names and values of an object, as they stand in the text; `None` if it is none.
pub(super) fn entries(raw: &RawValue) -> Option<impl Iterator<Item = (&RawValue, &RawValue)>> {
    let mut rest = raw.get().strip_prefix('{')?;
    Some(std::iter::from_fn(move || Some((next(&mut rest)?, next(&mut rest)?))))
}

/// The first value of `rest`, which then starts after it; `None` at a list's or object's end.
fn next<'a>(rest: &mut &'a str) -> Option<&'a RawValue> {
    let from = rest.trim_start_matches([' ', '\n', '\r', '\t', ',', ':']);
    let mut stream = Deserializer::from_str(from).into_iter::<&RawValue>();
    // A RawValue was checked when it was made, so this fails at the closing bracket and nowhere else.
    let found = stream.next()?.ok()?;
    *rest = &from[stream.byte_offset()..];
    Some(found)
}
