//! Tokenizers.

mod added_tokens;
mod byte_level;
mod token_limits;
mod tokenizers;
mod vocabularies;
