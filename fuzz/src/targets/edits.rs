//! Edits of JSON, read from an input's bytes: what a fuzzer cannot find by changing the bytes of a text.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Number, Value};

/// Whole numbers that are often a bound, or just beyond one.
const WHOLE: &[u64] = &[
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    16,
    17,
    64,
    77,
    127,
    255,
    256,
    512,
    1000,
    1024,
    4096,
    4097,
    8192,
    8193,
    65_535,
    1 << 20,
    1 << 22,
    (1 << 22) + 1,
    1 << 24,
    1 << 31,
    u32::MAX as u64,
    1 << 53,
    i64::MAX as u64,
    u64::MAX,
];

const FRACTIONS: &[f64] =
    &[-0.0, 0.1, 0.5, 1.5, -0.5, 1e-7, 1e-30, 5e-324, 1e6, 1e15, 1e19, 1e30, 1e300, f64::MAX];

const TEXTS: &[&str] = &[
    "",
    " ",
    ".",
    "..",
    "../x",
    "/x",
    "a\0",
    "\n",
    "\u{1b}]0;x\u{7}",
    "\u{9b}31m",
    "\u{202e}",
    "\u{2028}",
    "🦊",
    "e\u{301}",
    "▁",
    "a</w>",
    "<|startoftext|>",
    "<|endoftext|>",
    "</s>",
    "<pad>",
    "Precompiled",
    "Sequence",
    "F32",
    "F16",
    "BF16",
    "F64",
    "F8_E4M3",
    "U8",
    "linear",
    "exponential",
    "gelu",
    "quick_gelu",
    "off",
    "custom",
    "4x",
    "teacache",
    "taylorseer:interval=3",
    "rms_norm",
    "model.safetensors",
];

/// Values in a list that an edit makes: few enough for thousands of inputs a second.
const MOST_VALUES: usize = 3000;

/// Bytes of such a list: an input of the fuzzer must not take the memory that a target has.
const MOST_BYTES: usize = 1 << 20;

/// Changes one value of `json`.
fn edit(json: &mut Value, input: &mut Unstructured<'_>) -> Result<()> {
    // From elsewhere in the same file: of the right type, often.
    let other = find(json, input)?.clone();
    let value = find(json, input)?;
    match input.int_in_range(0..=15u8)? {
        0 => *value = Value::Null,
        1 | 2 => *value = (*input.choose(WHOLE)?).into(),
        3 => *value = input.arbitrary::<u16>()?.into(),
        4 => *value = input.arbitrary::<i64>()?.into(),
        5 => *value = number(*input.choose(FRACTIONS)?),
        6 => *value = number(input.arbitrary()?),
        7 => *value = (*input.choose(TEXTS)?).into(),
        8 => *value = text(input)?.into(),
        9 => *value = input.arbitrary::<bool>()?.into(),
        10 => *value = other,
        11 => *value = Value::Array(vec![value.take()]),
        12 => {
            let most = (MOST_VALUES / size(&other)).min(MOST_BYTES / other.to_string().len());
            *value = Value::Array(vec![other; input.int_in_range(0..=300)?.min(most)]);
        }
        13 => *value = nested(input.int_in_range(1..=300)?),
        14 => match value {
            Value::Object(map) => rename(map, input)?,
            Value::Array(list) => list.push(other),
            Value::Number(n) => *value = nudged(n, input.arbitrary()?),
            Value::String(text) => text.push_str(input.choose(TEXTS)?),
            _ => {}
        },
        _ => match value {
            Value::Object(map) => {
                let at = index(map.len(), input)?;
                if let Some(key) = map.keys().nth(at).cloned() {
                    map.remove(&key);
                }
            }
            Value::Array(list) if !list.is_empty() => {
                let at = index(list.len(), input)?;
                list.remove(at);
            }
            _ => *value = Value::Array(vec![]),
        },
    }
    Ok(())
}

/// A value of `json`: down from the whole until the input says stop.
fn find<'j>(json: &'j mut Value, input: &mut Unstructured<'_>) -> Result<&'j mut Value> {
    let n = match &*json {
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    // The input's end ends this, too: what is read there is 0.
    if n == 0 || input.int_in_range(0..=5u8)? == 0 {
        return Ok(json);
    }
    let at = index(n, input)?;
    match json {
        Value::Array(list) => find(&mut list[at], input),
        Value::Object(map) => {
            let (_, value) = map.iter_mut().nth(at).expect("fewer than there are");
            find(value, input)
        }
        _ => Ok(json),
    }
}

/// Values in `json`, itself included.
fn size(json: &Value) -> usize {
    1 + match json {
        Value::Array(list) => list.iter().map(size).sum(),
        Value::Object(map) => map.values().map(size).sum(),
        _ => 0,
    }
}

fn index(length: usize, input: &mut Unstructured<'_>) -> Result<usize> {
    input.int_in_range(0..=length.saturating_sub(1))
}

fn number(x: f64) -> Value {
    Number::from_f64(x).map_or(Value::Null, Value::Number)
}

fn nudged(n: &Number, how: u8) -> Value {
    let x = n.as_f64().unwrap_or(0.0);
    let changed = match how % 8 {
        0 => x + 1.0,
        1 => x - 1.0,
        2 => -x,
        3 => 2.0 * x,
        4 => x / 2.0,
        5 => x + 1e-9,
        6 => 1000.0 * x,
        _ => x / 1000.0,
    };
    match n.is_u64() && changed.fract() == 0.0 && (0.0..1e15).contains(&changed) {
        true => (changed as u64).into(),
        false => number(changed),
    }
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |value, _| Value::Array(vec![value]))
}

fn text(input: &mut Unstructured<'_>) -> Result<String> {
    let n = input.int_in_range(0..=63)?;
    let n = n.min(input.len());
    let text = String::from_utf8_lossy(input.bytes(n)?).into_owned();
    Ok(if input.ratio(1u8, 8u8)? { text.repeat(1000) } else { text })
}

fn rename(map: &mut Map<String, Value>, input: &mut Unstructured<'_>) -> Result<()> {
    let at = index(map.len(), input)?;
    let Some(key) = map.keys().nth(at).cloned() else { return Ok(()) };
    let value = map.remove(&key).unwrap_or_default();
    let key = match input.arbitrary::<bool>()? {
        true => (*input.choose(TEXTS)?).to_owned(),
        false => text(input)?,
    };
    map.insert(key, value);
    Ok(())
}

/// Changes up to four values of a text that is JSON; what an earlier change made too deep stays as it is.
pub fn edited(text: &str, input: &mut Unstructured<'_>) -> Result<String> {
    let Ok(mut json) = serde_json::from_str(text) else { return Ok(text.to_owned()) };
    for _ in 0..input.int_in_range(1..=4)? {
        edit(&mut json, input)?;
    }
    Ok(json.to_string())
}
