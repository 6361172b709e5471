//! What a model says it was trained on, next to what is asked of it.

use std::collections::HashSet;

use super::{Request, Settings};
use crate::escape::Escaped;
use crate::models::config::ModelConfig;

/// Words that are named in a message; of more, only how many there are.
const MOST_WORDS: usize = 8;

/// What of a request the model has not seen in its training, in sentences: a size that was asked for, and words. Of models whose
/// `generation_config.json` does not say what they know (`sizes`, `known_words`), only sizes beyond [`Family::most_pixels`].
///
/// [`Family::most_pixels`]: crate::models::family::Family::most_pixels
pub fn unfamiliar(request: &Request, settings: &Settings, config: &ModelConfig) -> Vec<String> {
    let (sizes, words) = (&config.generation.sizes, &config.generation.known_words);
    let mut told = Vec::new();
    let size = [settings.width, settings.height];
    let is_asked = request.width.is_some() || request.height.is_some();
    if is_asked && !sizes.is_empty() && !sizes.contains(&size) {
        let known: Vec<String> = sizes.iter().map(|[w, h]| format!("{w} x {h}")).collect();
        told.push(format!(
            "this model knows pictures of {}, and of {} x {} it may make no sense",
            known.join(" and "),
            size[0],
            size[1]
        ));
    }
    let (pixels, most) = (settings.width * settings.height, config.family().most_pixels());
    if is_asked && sizes.is_empty() && pixels > most {
        told.push(format!(
            "models of this family know pictures of at most {:.1} megapixels, such as {}, and of {} x {} they may repeat themselves",
            most as f64 / f64::from(1 << 20),
            such_as(most, size),
            size[0],
            size[1]
        ));
    }
    let words: HashSet<&str> = words.iter().map(String::as_str).collect();
    let unknown = unknown_words(&settings.prompt, &words);
    if !words.is_empty() && !unknown.is_empty() {
        let named: Vec<String> =
            unknown.iter().take(MOST_WORDS).map(|word| Escaped(word).to_string()).collect();
        let more = match unknown.len().saturating_sub(MOST_WORDS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        told.push(format!(
            "this model has never seen {}{more}, and draws something else there; it knows {} words, which `known_words` in its \
             generation_config.json lists",
            named.join(", "),
            words.len()
        ));
    }
    told
}

/// The largest size of at most `most` pixels with the shape of `size`, in whole tokens.
fn such_as(most: usize, size: [usize; 2]) -> String {
    let scale = (most as f64 / (size[0] * size[1]) as f64).sqrt();
    let [width, height] = size.map(|side| ((side as f64 * scale / 16.0) as usize).max(1) * 16);
    format!("{width} x {height}")
}

/// The words of a text that are not known, each once, in their order. Numbers are no words, and plurals are known with
/// their singular.
fn unknown_words(text: &str, known: &HashSet<&str>) -> Vec<String> {
    let mut seen = HashSet::new();
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '\'').map(str::to_lowercase);
    let is_known = |word: &str| {
        let singular = word.strip_suffix("es").filter(|word| known.contains(word));
        let singular = singular.or_else(|| word.strip_suffix('s'));
        known.contains(word) || singular.is_some_and(|word| known.contains(word))
    };
    let unknown = words.filter(|word| word.chars().any(char::is_alphabetic) && !is_known(word));
    unknown.filter(|word| seen.insert(word.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_compared_without_case_and_number() {
        let known = HashSet::from(["a", "fox", "on", "red", "and"]);
        let unknown = |text| unknown_words(text, &known);
        assert_eq!(unknown("A red fox, on 2 foxes; a-fox"), [""; 0]);
        assert_eq!(unknown("Dragons and a dragon's Dragons"), ["dragons", "dragon's"]);
        assert_eq!(unknown(""), [""; 0]);
    }
}
