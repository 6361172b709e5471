//! T5's model: a text's most likely pieces.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use tokenizers::models::bpe::Vocab;
use tokenizers::models::unigram::UnigramTrainer;
use tokenizers::{Model, Result, Token};

/// How much less likely than the least likely piece a character is that is in none. Sentencepiece, `unigram_model.cc`.
const UNKNOWN_PENALTY: f64 = 10.0;

/// The same as the `tokenizers` crate's `Unigram` (its fast path, which is `Unigram::encode`), which can only be built
/// in one go: with T5's 32100 pieces that takes longer than a page can wait.
pub(super) struct Pieces {
    ids: Vocab,
    scores: Vec<f64>,
    /// The lengths that pieces have, in bytes.
    lengths: BTreeSet<usize>,
    least_score: f64,
    /// Ids without a piece since the last one with a piece.
    unused: usize,
    /// The id of what is in no piece.
    unknown: u32,
}

impl Pieces {
    /// Without any piece yet.
    pub fn new(unknown: u32) -> Self {
        Pieces {
            ids: Vocab::new(),
            scores: Vec::new(),
            lengths: BTreeSet::new(),
            least_score: f64::INFINITY,
            unused: 0,
            unknown,
        }
    }

    /// Adds the piece with the next id.
    pub fn push(&mut self, text: String, score: f64) {
        self.scores.extend(std::iter::repeat_n(0.0, std::mem::take(&mut self.unused)));
        self.lengths.insert(text.len());
        self.ids.insert(text, self.scores.len() as u32);
        self.scores.push(score);
        if score < self.least_score {
            self.least_score = score;
        }
    }

    /// Leaves the next id without a piece. At the end that makes no difference: no text leads there.
    pub fn push_unused(&mut self) {
        self.unused += 1;
    }

    /// How many ids there are up to the last one with a piece.
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// Where the pieces of the likeliest division of `word` end, and their ids. Viterbi's algorithm; of two divisions
    /// that are equally likely, the first to be found counts.
    fn divide(&self, word: &str) -> Vec<(usize, u32)> {
        #[derive(Clone, Copy)]
        struct Best {
            score: f64,
            start: usize,
            id: u32,
        }
        let mut ending_at: Vec<Option<Best>> = vec![None; word.len() + 1];
        for (start, first) in word.char_indices() {
            let so_far = if start == 0 { 0.0 } else { ending_at[start].map_or(0.0, |b| b.score) };
            let mut consider = |end: usize, score: f64, id: u32| {
                let score = score + so_far;
                if ending_at[end].is_none_or(|best| score > best.score) {
                    ending_at[end] = Some(Best { score, start, id });
                }
            };
            let mut alone = false;
            for length in &self.lengths {
                let end = start + length;
                if end > word.len() {
                    break;
                }
                if let Some(&id) = word.get(start..end).and_then(|piece| self.ids.get(piece)) {
                    consider(end, self.scores[id as usize], id);
                    alone |= *length == first.len_utf8();
                }
            }
            if !alone {
                let score = self.least_score - UNKNOWN_PENALTY;
                consider(start + first.len_utf8(), score, self.unknown);
            }
        }
        let mut pieces = Vec::new();
        let mut end = word.len();
        while let Some(best) = ending_at[end].filter(|_| end > 0) {
            pieces.push((end, best.id));
            end = best.start;
        }
        pieces.reverse();
        pieces
    }
}

impl Model for Pieces {
    type Trainer = UnigramTrainer;

    fn tokenize(&self, word: &str) -> Result<Vec<Token>> {
        let mut tokens: Vec<Token> = Vec::new();
        let mut start = 0;
        let mut after_unknown = false;
        for (end, id) in self.divide(word) {
            let unknown = id == self.unknown;
            match tokens.last_mut() {
                // What is unknown is one token, however long.
                Some(last) if unknown && after_unknown => {
                    last.value.push_str(&word[start..end]);
                    last.offsets.1 = end;
                }
                _ => tokens.push(Token::new(id, word[start..end].to_owned(), (start, end))),
            }
            (start, after_unknown) = (end, unknown);
        }
        for token in &mut tokens {
            // As a whole it may be a piece, of which a part was likelier.
            token.id = self.token_to_id(&token.value).unwrap_or(self.unknown);
        }
        Ok(tokens)
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.ids.iter().find(|(_, other)| **other == id).map(|(token, _)| token.clone())
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        self.ids.iter().map(|(token, id)| (token.clone(), *id)).collect()
    }

    fn get_vocab_size(&self) -> usize {
        self.len()
    }

    fn save(&self, _: &Path, _: Option<&str>) -> Result<Vec<PathBuf>> {
        Err("these pieces were read from a file and are not written".into())
    }

    fn get_trainer(&self) -> UnigramTrainer {
        UnigramTrainer::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::models::unigram::Unigram;

    /// Random vocabularies of few letters, so that divisions compete, with equal scores, pieces that occur twice and
    /// characters that are in no piece.
    #[test]
    fn pieces_are_those_of_the_crate() {
        let mut state = 7u64;
        let mut random = move |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        let letters = ["a", "b", "c", "é", "▁", "猫"];
        for _ in 0..200 {
            let mut word = |least: usize, most: usize, letters: &[&str]| -> String {
                let length = least + random(most - least + 1);
                (0..length).map(|_| letters[random(letters.len())]).collect()
            };
            let mut vocab = vec![("<unk>".to_owned(), 0.0)];
            for i in 0..30 {
                vocab.push((word(1, 4, &letters[..5]), -f64::from(i * 7 % 12) / 2.0));
            }
            let crates = Unigram::from(vocab.clone(), Some(0), false).unwrap();
            let mut own = Pieces::new(0);
            for (text, score) in vocab {
                own.push(text, score);
            }
            for _ in 0..50 {
                let text = word(0, 12, &letters);
                assert_eq!(own.tokenize(&text).unwrap(), crates.tokenize(&text).unwrap(), "{text}");
            }
        }
    }
}
