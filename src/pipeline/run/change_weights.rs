//! What low-rank changes are multiplied by, in the stages of a run and in the text encoders.

use super::Run;
use crate::models::layers::Upload;
use crate::pipeline::Part;
use crate::pipeline::model::Model;

/// Weights of each file in one of `stages` stages, counted from 0. Plain sampling is the last of three.
fn of_stage(weights: &[[f64; 3]], stage: usize, stages: usize) -> Vec<f64> {
    weights.iter().map(|of| of[(stage + of.len()).saturating_sub(stages)]).collect()
}

/// Weights of each file in text encoders, which work once for all stages: the largest.
fn of_text(weights: &[[f64; 3]]) -> Vec<f64> {
    let largest = |of: &[f64; 3]| {
        of.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(0.0)
    };
    weights.iter().map(largest).collect()
}

impl Run {
    /// What low-rank changes are multiplied by in a stage, for each of their files.
    pub(super) fn stage_change_weights(&self, stage: usize) -> Vec<f64> {
        of_stage(&self.change_weights, stage, self.schedule.stages.len())
    }

    /// The same in text encoders.
    pub(super) fn text_change_weights(&self) -> Vec<f64> {
        of_text(&self.change_weights)
    }

    /// The weights that the end of the first stage depends on.
    pub(super) fn first_change_weights(&self) -> FirstWeights {
        let stages = self.schedule.stages.len();
        let changes_text = changes_text_encoders(&self.context.model);
        FirstWeights {
            stages,
            first: self.stage_change_weights(0),
            text: changes_text.then(|| self.text_change_weights()),
        }
    }
}

/// Whether low-rank changes are added to a text encoder.
fn changes_text_encoders(model: &Model) -> bool {
    let uploads = model.parts.uploads_of(Part::TextEncoders);
    uploads.iter().any(|(_, upload)| matches!(upload, Upload::FactorScales { .. }))
}

/// What low-rank changes were multiplied by up to the end of the first stage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FirstWeights {
    /// Stages of the run.
    stages: usize,
    /// In the first one, for each file.
    first: Vec<f64>,
    /// In text encoders; `None` if nothing is added to those.
    text: Option<Vec<f64>>,
}

impl FirstWeights {
    /// Whether a run with these weights, for each file those of the three stages, is the same up to there.
    pub fn fit(&self, weights: &[[f64; 3]]) -> bool {
        of_stage(weights, 0, self.stages) == self.first
            && self.text.as_ref().is_none_or(|text| of_text(weights) == *text)
    }
}
