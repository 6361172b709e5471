//! Runs: what is asked for, what begins, what ends.

use std::sync::Arc;

use ralu::pipeline::FirstStage;
use ralu_host::End;
use ralu_host::engine::{Ended, Started};

use super::App;
use super::available::KeptStage;
use crate::advice::with_advice;
use crate::form::Form;
use crate::kept::Kept;
use crate::record::{Record, State};

/// A run that was asked for and is not over.
pub(super) struct Pending {
    pub job: u64,
    /// What was asked for; `None` if an earlier process did.
    pub form: Option<Form>,
    /// The end of stage 1 that it goes on from.
    pub first: Option<Arc<FirstStage>>,
}

impl App {
    /// Draws what the form says, in place of what is drawn now.
    pub(super) fn run(&mut self) {
        self.engine.stop();
        self.submit(&self.form.clone(), None);
    }

    /// Draws it with RALU and without.
    pub(super) fn run_both(&mut self) {
        self.engine.stop();
        let form = self.form.clone();
        if self.submit(&form, None) {
            self.submit(&form.plain(), None);
            self.view.compare = true;
        }
    }

    /// Draws it again from the end of stage 1.
    pub(super) fn resume(&mut self) {
        let first = self.ralu.as_ref().and_then(|record| record.first_stage.clone());
        self.engine.stop();
        self.submit(&self.form.clone(), first);
    }

    /// Asks for a run. False if the form makes no sense.
    fn submit(&mut self, form: &Form, first: Option<Arc<FirstStage>>) -> bool {
        match form.request(&self.painted, self.model.as_ref()) {
            Err(message) => {
                self.fail(message);
                false
            }
            Ok(request) => {
                self.notice = None;
                self.view.paint = None;
                self.view.moment = None;
                self.frames.clear();
                let job = self.engine.run(request.with(|r| r.first_stage.clone_from(&first)));
                self.pending.push(Pending { job, form: Some(form.clone()), first });
                true
            }
        }
    }

    /// Whether the end of stage 1 is kept, of a run that differs from the form in nothing but its regions and what LoRAs do later.
    pub(super) fn kept_stage(&self) -> KeptStage {
        let Some(record) = &self.ralu else { return KeptStage::Nothing };
        let Some(first) = &record.first_stage else { return KeptStage::Nothing };
        let has_same_form = record.form.as_ref().is_none_or(|form| form.has_stage_1_of(&self.form));
        let has_same_model =
            self.model.as_ref().is_some_and(|model| model.has_files_of(&record.model));
        match has_same_form && has_same_model && first.fits_lora_weights(&self.loras.weights()) {
            true => KeptStage::Fits,
            false => KeptStage::OfOthers,
        }
    }

    pub(super) fn started(&mut self, started: Started) {
        let Started { job, settings, schedule, plan, model, is_resumed, .. } = started;
        self.preparing = None;
        let mut record = Record::new(job, model.into(), settings, schedule, plan.map(Box::new));
        record.goes_on = is_resumed;
        if let Some(asked) = self.pending.iter().find(|asked| asked.job == job) {
            record.form.clone_from(&asked.form);
            record.resumed = asked.first.is_some();
            record.first_stage.clone_from(&asked.first);
        }
        self.shows_plain = record.is_plain();
        record.before = self.shown().and_then(|shown| shown.picture_before(&record));
        let place = if record.is_plain() { &mut self.plain } else { &mut self.ralu };
        *place = Some(record);
    }

    pub(super) fn ended(&mut self, ended: Ended) {
        let Ended { job, end, colors, .. } = ended;
        self.preparing = None;
        self.pending.retain(|asked| asked.job != job);
        if let Some(record) = self.record(job) {
            record.state = match end {
                End::Finished => State::Done,
                End::Cancelled => State::Stopped,
                End::Failed(_) => State::Failed,
            };
        }
        if let End::Failed(error) = &end {
            return self.fail(with_advice(error));
        }
        if let Some(colors) = colors {
            let key = Kept::model_key(self.kept.model.as_ref(), self.kept.model_parts.as_ref());
            self.kept.colors.insert(key, colors);
        }
        if self.view.compare && !self.is_busy() {
            // What was compared with is not what is saved.
            self.shows_plain = false;
        }
        if let Err(error) = self.remember() {
            self.fail(format!("the window's state cannot be kept: {error}"));
        }
    }

    pub(super) fn record(&mut self, job: u64) -> Option<&mut Record> {
        [&mut self.ralu, &mut self.plain].into_iter().flatten().find(|record| record.job == job)
    }
}
