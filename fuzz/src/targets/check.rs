//! What holds for every input.

use std::fmt::Display;

use ralu::checkpoint::source::Source;
use ralu::checkpoint::weights::{Manifest, Weights};
use ralu::escape::escape;
use ralu::models::config::{ModelConfig, folder, stem};
use ralu::models::encoders::TokenisedText;
use ralu::models::layers::{LoadContext, Loader, Precision};
use ralu::pipeline::plan::{Caps, plan};
use ralu::pipeline::{Options, RaluChoice, Request, RunSchedule, Settings, check_model};
use ralu::sampling::layout::table_crop;
use ralu::tensor::ResidentIds;
use ralu::text::Encoded;

const PROMPT: &str = "A fox's <|endoftext|> Ünïcode 狐 on 12 purple backgrounds </s> ▁";

/// Bytes of a message: twenty problems, each with names and paths as long as `Escaped` lets them.
const LONGEST: usize = 64 << 10;

/// A message holds nothing that a terminal obeys. Lists of problems have one on each line.
#[track_caller]
pub fn message(error: &dyn Display) {
    let text = error.to_string();
    assert!(!text.is_empty(), "an error without words");
    assert!(text.len() <= LONGEST, "a message fills the screen: {} bytes", text.len());
    for line in text.lines() {
        assert_eq!(escape(line), line, "a message shows control characters");
    }
}

/// The error, if it is one, has a clean [`message`].
#[track_caller]
pub fn clean<T, E: Display>(result: Result<T, E>) -> Option<T> {
    result.inspect_err(|error| message(error)).ok()
}

/// What `inspect` calls fit to run gets as far as a GPU can be needed: settings, noise levels, memory, tokens and
/// their embeddings. What it refuses, it refuses with words.
pub fn keeps_its_word(source: &dyn Source) {
    let whole = clean(check_model(source)).is_some();
    let Some(config) = clean(ModelConfig::load(source)) else {
        assert!(!whole, "check_model took a configuration that cannot be read");
        return;
    };
    // Plans are made of models whose weights are not there, too.
    for ralu in [RaluChoice::Auto, RaluChoice::Off] {
        let settings = Settings::resolve(&Request::new(PROMPT).ralu(ralu), &config);
        let settings = if whole { Some(settings.expect("settings")) } else { clean(settings) };
        let Some(settings) = settings else { continue };
        settings.warnings.iter().for_each(|warning| message(warning));
        scheduled(&settings, &config, whole);
        if whole {
            let made = plan(&config, Some(source), &settings, Caps::default(), Options::default());
            let made = made.expect("a plan");
            assert!(made.speedup.is_finite() && made.tflops.linear.is_finite(), "{made:?}");
            if settings.ralu.is_none() {
                texts(source, &config, &settings);
                positions(source, &config, &settings);
            }
        }
    }
}

/// A schedule, if there is one, is made of numbers that can be drawn with; with `must`, there is one.
pub fn scheduled(settings: &Settings, config: &ModelConfig, must: bool) -> Option<RunSchedule> {
    let schedule = RunSchedule::new(settings, config);
    let schedule = if must { Some(schedule.expect("a schedule")) } else { clean(schedule) }?;
    for stage in &schedule.stages {
        let sigmas = &stage.sigmas;
        assert!(sigmas.len() >= 2 && stage.n_tokens > 0, "{stage:?}");
        assert!(sigmas.iter().all(|sigma| sigma.is_finite()), "{stage:?}");
        assert!(sigmas.is_sorted_by(|a, b| a >= b), "noise grows: {stage:?}");
        assert!(sigmas[0] <= 1.0 && sigmas[0] > 0.0, "{stage:?}");
        assert!(stage.time_shift.is_finite(), "{stage:?}");
    }
    Some(schedule)
}

fn tokens(encoded: &Encoded, length: usize, vocab_size: usize) {
    assert_eq!(encoded.ids.len(), length);
    let largest = encoded.ids.iter().max().copied().unwrap_or(0);
    assert!((largest as usize) < vocab_size, "token {largest} of {vocab_size}");
}

/// The prompt as tokens, and what the host looks up for them.
fn texts(source: &dyn Source, config: &ModelConfig, settings: &Settings) {
    let ids = ResidentIds::default();
    let context = LoadContext::new(&ids, Precision::Auto, u64::MAX);
    for encoder in &config.text_encoders {
        let length = encoder.length(settings.max_sequence_length);
        let kind = encoder.config.tokenizer();
        let tokenizer = kind.load(source, encoder.tokenizer).expect("a tokenizer");
        let encoded = tokenizer.encode(PROMPT, length).expect("tokens");
        tokens(&encoded, length, encoder.config.vocab_size());
        let weights = Weights::open(source, encoder.folder, stem::TRANSFORMERS).expect("weights");
        let manifest = Manifest::new(&weights);
        let model = encoder.config.load(&Loader::new(manifest.root(), &context));
        let text = TokenisedText { ids: encoded.ids, n_real: encoded.real };
        let inputs = model.embed(&weights, &text).expect("embeddings");
        for (values, (name, rows, cols)) in inputs.iter().zip(model.inputs(length)) {
            assert_eq!(values.len(), rows * cols, "{name}");
        }
    }
}

/// The table of positions, if there is one.
fn positions(source: &dyn Source, config: &ModelConfig, settings: &Settings) {
    let ids = ResidentIds::default();
    let context = LoadContext::new(&ids, Precision::Auto, u64::MAX);
    let weights = Weights::open(source, folder::TRANSFORMER, stem::DIFFUSERS).expect("weights");
    let manifest = Manifest::new(&weights);
    let model = config.transformer.load(&Loader::new(manifest.root(), &context));
    let Some(table) = model.position_table() else { return };
    let found = table.check(&weights).expect("the table");
    let [rows, cols] = [settings.height, settings.width].map(|side| side.div_ceil(16));
    let [top, left] = table_crop(rows, cols, table.side()).expect("a place in the table");
    table.rows(&weights, &[[top, left], [top + 0.5, left]], found).expect("positions");
}
