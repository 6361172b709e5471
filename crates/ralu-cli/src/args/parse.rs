//! Values of options that are not read by clap alone; errors say what was expected.

use std::fmt::Display;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use ralu::names;
use ralu::pipeline::MemoryBudget;
use ralu::sampling::{CacheSpec, check_stages};
use serde::Deserialize;

use super::CacheArg;

pub fn cache(text: &str) -> Result<CacheArg, String> {
    CacheSpec::parse_option(text).map(CacheArg).map_err(|error| error.to_string())
}

pub fn choice<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// A choice of which help lists the names.
pub fn named<T>() -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Display> + for<'de> Deserialize<'de> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names::of_values::<T>()).try_map(|name| choice(&name))
}

pub fn whole(text: &str) -> Result<usize, String> {
    text.trim().parse().map_err(|_| "expected a whole number, for example 512".to_owned())
}

/// Width and height of a picture.
pub fn width_and_height(text: &str) -> Result<(usize, usize), String> {
    let expected = || "expected width and height, for example 1024x768".to_owned();
    let (width, height) = text.split_once(['x', 'X', '\u{d7}']).ok_or_else(expected)?;
    Ok((whole(width).map_err(|_| expected())?, whole(height).map_err(|_| expected())?))
}

#[cfg(feature = "bench")]
pub fn positive(text: &str) -> Result<usize, String> {
    match whole(text)? {
        0 => Err("expected at least 1".to_owned()),
        number => Ok(number),
    }
}

pub fn seed(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

pub fn number(text: &str) -> Result<f64, String> {
    let expected = || "expected a number, for example 3.5".to_owned();
    text.trim().parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(expected)
}

/// Bytes, written like a budget of memory; 0 is none.
pub fn size(text: &str) -> Result<u64, String> {
    match (text.trim(), text.parse::<MemoryBudget>()) {
        ("0", _) => Ok(0),
        (_, Ok(MemoryBudget::Bytes(bytes))) => Ok(bytes),
        _ => Err("expected a size such as 6GiB or 800MiB".to_owned()),
    }
}

pub fn seconds(text: &str) -> Result<f64, String> {
    match number(text)? {
        seconds if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds from 0 to 3600".to_owned()),
    }
}

/// One number for each of RALU's stages.
#[derive(Clone, Debug, PartialEq)]
pub struct PerStage<T>(pub Vec<T>);

fn per_stage<T>(
    text: &str,
    parse: fn(&str) -> Result<T, String>,
    example: &str,
) -> Result<PerStage<T>, String> {
    let numbers = text.split(',').map(parse).collect::<Result<Vec<T>, String>>();
    let numbers = numbers
        .map_err(|_| format!("expected three numbers with commas, for example {example}"))?;
    check_stages("these", numbers.len()).map_err(|error| error.to_string())?;
    Ok(PerStage(numbers))
}

pub fn steps_per_stage(text: &str) -> Result<PerStage<usize>, String> {
    per_stage(text, whole, "5,6,7")
}

pub fn numbers_per_stage(text: &str) -> Result<PerStage<f64>, String> {
    per_stage(text, number, "0.3,0.45,1")
}
