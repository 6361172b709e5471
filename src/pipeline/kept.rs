//! What a pipeline keeps from one run to the next, so that a second prompt starts with its first step.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::encoders::EncoderMemory;
use super::prompt::Embedding;
use super::run::Programs;
use super::{Rng, RunSchedule, Settings};
use crate::gpu::Store;
use crate::models::encoders::TokenisedText;
use crate::tensor::Blocks;

/// Encoded texts that are kept, in host memory: 8 MB each for FLUX.
const TEXTS: usize = 8;

/// See the module.
#[derive(Default)]
pub(super) struct Kept {
    /// The text encoders' programs.
    pub encoders: EncoderMemory,
    programs: RefCell<Option<(ProgramsKey, Programs)>>,
    /// The latest last.
    texts: RefCell<VecDeque<(TextKey, Rc<Embedding>)>>,
}

/// The tokens of a text, for each text encoder.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TextKey {
    pub texts: Vec<TokenisedText>,
    /// Tokens of the encoding, padding included.
    pub n_text: usize,
}

/// All that a run's recordings depend on.
#[derive(PartialEq)]
pub(super) struct ProgramsKey {
    /// Without what is written into buffers before or between the steps.
    settings: Settings,
    schedule: RunSchedule,
    stage_pictures: bool,
    in_f32: Blocks,
}

impl ProgramsKey {
    pub fn new(
        settings: &Settings,
        schedule: &RunSchedule,
        stage_pictures: bool,
        in_f32: &Blocks,
    ) -> Self {
        let settings = Settings {
            prompt: String::new(),
            negative_prompt: settings.negative_prompt.as_ref().map(|_| String::new()),
            guidance: 0.0,
            true_cfg: 0.0,
            seed: 0,
            count: 0,
            rng: Rng::default(),
            mask: None,
            warnings: vec![],
            ..settings.clone()
        };
        let (schedule, in_f32) = (schedule.clone(), in_f32.clone());
        ProgramsKey { settings, schedule, stage_pictures, in_f32 }
    }
}

impl Kept {
    /// What does not depend on a device.
    pub fn texts_only(self) -> Self {
        Kept { texts: self.texts, ..Kept::default() }
    }

    /// An encoded text.
    pub fn text(&self, key: &TextKey) -> Option<Rc<Embedding>> {
        let mut texts = self.texts.borrow_mut();
        let at = texts.iter().position(|(known, _)| known == key)?;
        let found = texts.remove(at)?;
        let embedding = found.1.clone();
        texts.push_back(found);
        Some(embedding)
    }

    /// Keeps an encoded text instead of the one that was used the longest time ago.
    pub fn keep_text(&self, key: TextKey, embedding: Rc<Embedding>) {
        let mut texts = self.texts.borrow_mut();
        texts.push_back((key, embedding));
        if texts.len() > TEXTS {
            texts.pop_front();
        }
    }

    /// The programs that were kept, if they are those of `key`; others are freed.
    pub fn take_programs(&self, key: &ProgramsKey, store: &Store) -> Option<Programs> {
        let (kept_key, programs) = self.programs.borrow_mut().take()?;
        if kept_key == *key {
            return Some(programs);
        }
        programs.free(store);
        None
    }

    /// Frees the programs that were kept.
    pub fn forget_programs(&self, store: &Store) {
        let kept = self.programs.borrow_mut().take();
        if let Some((_, programs)) = kept {
            programs.free(store);
        }
    }

    /// Keeps programs instead of those that were kept before.
    pub fn keep_programs(&self, key: ProgramsKey, programs: Programs, store: &Store) {
        let before = self.programs.borrow_mut().replace((key, programs));
        if let Some((_, programs)) = before {
            programs.free(store);
        }
    }
}
