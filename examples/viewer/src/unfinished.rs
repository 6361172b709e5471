//! Runs that a lost GPU ended, handed to the program that takes this one's place: it goes on with them, to the same
//! pictures.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use ralu::models::layers::Precision;
use ralu::pipeline::saved::Maker;
use ralu::pipeline::{Checkpoint, Products, Request, Saved, Settings};
use serde::{Deserialize, Serialize};

use crate::engine::Model;

/// Losses without a step between them after which a run is not begun again by itself.
const LOSSES: u32 = 3;
/// Of a file that is read: far more than the latents of the largest pictures take.
const MAX_BYTES: u64 = 1 << 30;

/// A run that was asked for and has not come to its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unfinished {
    /// What it draws.
    saved: Saved,
    /// Where it was.
    pub at: At,
}

/// Where a run was when its GPU was lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct At {
    /// What [`Checkpoint::to_bytes`] gave; `None` if it has to begin again.
    pub checkpoint: Option<Vec<u8>>,
    /// Stage and steps of the checkpoint, which also tell how far it came.
    place: (usize, usize),
    /// Losses without a step between them.
    pub losses: u32,
}

impl At {
    /// The place after one more loss, at `checkpoint` if the run had one.
    pub fn lost_at(&self, checkpoint: Option<&Checkpoint>) -> At {
        let place = checkpoint.map_or(self.place, |at| (at.stage(), at.steps()));
        let losses = if place > self.place { 1 } else { self.losses + 1 };
        let checkpoint = match checkpoint {
            Some(at) => at.to_bytes(),
            None => self.checkpoint.clone(),
        };
        At { checkpoint, place, losses }
    }

    /// The place in words.
    pub fn words(&self) -> String {
        match (&self.checkpoint, self.place) {
            (Some(_), (stage, steps)) => format!("after step {steps} of stage {stage}"),
            (None, _) => "from the start".into(),
        }
    }
}

impl Unfinished {
    pub fn new(settings: &Settings, model: &Model, at: At) -> Option<Unfinished> {
        let maker = Maker {
            model: &model.name,
            model_hash: None,
            model_parts: None,
            adapter: "",
            has_guidance: model.has_guidance,
            precision: Precision::default(),
            quantise: model.quantise,
            given: vec![],
        };
        Some(Unfinished {
            saved: Saved::new(settings, settings.seed, &maker, Products::default()).ok()?,
            at,
        })
    }

    /// The request to go on with; `None` if the GPU was lost too often in the same place.
    pub fn request(&self) -> Option<Request> {
        if self.at.losses >= LOSSES {
            return None;
        }
        let request = self.saved.request().ok()?;
        Some(request.with(|request| {
            request.count = Some(1);
            request.estimates = true;
            request.keep_first_stage = true;
        }))
    }
}

/// Writes runs into a new file that only this user can read.
pub fn write(runs: &[Unfinished]) -> std::io::Result<PathBuf> {
    let mut file = tempfile::Builder::new().prefix("ralu-unfinished-").tempfile()?;
    file.write_all(&serde_json::to_vec(runs)?)?;
    let (_, path) = file.keep().map_err(|error| error.error)?;
    Ok(path)
}

/// Reads such a file, and removes it.
pub fn take(path: &Path) -> std::io::Result<Vec<Unfinished>> {
    let mut bytes = vec![];
    std::fs::File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let runs = serde_json::from_slice(&bytes)?;
    // Only what was written by `write` is removed.
    std::fs::remove_file(path)?;
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_in_one_place_are_counted() {
        let first = At::default().lost_at(None);
        assert_eq!((first.losses, first.words().as_str()), (1, "from the start"));
        assert_eq!(first.lost_at(None).losses, 2);
        let later = At { checkpoint: Some(vec![1]), place: (2, 3), losses: 1 };
        assert_eq!(later.words(), "after step 3 of stage 2");
        assert_eq!(later.lost_at(None), At { losses: 2, ..later.clone() });
    }
}
