//! What the window opens: models, pictures' requests, and runs that a lost GPU has ended.

use std::path::{Path, PathBuf};

use eframe::egui;
use ralu::gpu::human_bytes;
use ralu::models::files::ModelPaths;
use ralu::pipeline::MemoryBudget;
use ralu_host::engine::OpenModel;

use super::App;
use super::runs::Pending;
use crate::dialog::{Dialog, Wanted};
use crate::engine;
use crate::files::{self, Dropped};
use crate::form::QUANTIZE;
use crate::kept::Kept;
use crate::loss::Before;
use crate::unfinished::Unfinished;

impl App {
    /// Goes on with the runs that a lost GPU has ended.
    pub(super) fn go_on(&mut self, before: &Before, unfinished: std::io::Result<Vec<Unfinished>>) {
        let runs = match unfinished {
            Ok(runs) => runs,
            Err(error) => {
                let message = before.message(None);
                return self.fail(format!("{message}. Its run cannot be read: {error}"));
            }
        };
        let mut place = None;
        for run in runs {
            let Some(request) = run.request() else { continue };
            place.get_or_insert_with(|| run.at.words());
            let job = self.engine.resume(request, run.at);
            self.pending.push(Pending { job, form: None, first: None });
        }
        match &place {
            Some(place) => self.say(before.message(Some(place))),
            None => self.fail(before.message(None)),
        }
    }

    pub fn open_model(
        &mut self,
        path: Option<PathBuf>,
        parts: Option<ModelPaths>,
        keep_form: bool,
    ) {
        let key = Kept::model_key(path.as_ref(), parts.as_ref());
        self.keep_form.push_back(keep_form);
        self.engine.stop();
        self.model = None;
        self.loras.reset(parts.as_ref());
        self.opening = Some((path.clone(), parts.clone()));
        let mut model = OpenModel::new(path.clone().unwrap_or_else(engine::bundled));
        model.given = path;
        model.parts = parts;
        model.colors = self.kept.colors.get(&key).cloned();
        model.quantise = self.form.quantise();
        model.memory_budget = Some(self.kept_budget());
        self.engine.open(model);
    }

    /// Opens the model that is open again, with what the form says of it by now.
    pub fn open_again(&mut self) {
        if let Some((path, parts)) = self.open_paths() {
            self.open_model(path, Some(parts).filter(|parts| !parts.is_model_alone()), true);
        }
    }

    /// Opens what is typed in the field for paths.
    pub fn open_typed(&mut self) {
        let typed = self.model_field.clone();
        self.open(Path::new(typed.trim()));
        let is_error = self.notice.as_ref().is_some_and(|notice| notice.is_error);
        match (is_error, self.is_opening()) {
            // It stays, to be corrected.
            (true, _) => {}
            (false, true) => self.typed = Some(typed),
            (false, false) => self.model_field.clear(),
        }
    }

    /// Opens a model's folder or file, the model that is open with a LoRA, or the request of a picture.
    pub fn open(&mut self, path: &Path) {
        self.notice = None;
        self.typed = None;
        match files::read(path) {
            Err(message) => self.fail(message),
            Ok(Dropped::Model(folder)) => self.open_model(Some(folder), None, false),
            Ok(Dropped::Lora(file)) => self.add_lora(&file),
            Ok(Dropped::Picture { request, model, parts, quantise, hash }) => {
                self.painted = self.form.load(*request);
                let quantize = quantise.map_or_else(|| QUANTIZE[0].into(), |to| to.to_string());
                let is_other = quantize != self.form.quantize;
                self.form.quantize = quantize;
                self.say(format!("the request of {}", path.display()));
                let is_open =
                    self.model.as_ref().is_some_and(|open| open.is(&model, &parts, &hash));
                if !is_open || is_other {
                    self.open_model(model, parts, true);
                }
            }
        }
    }

    /// Has runs take no more of the GPU's memory than the field says.
    pub fn limit_memory(&mut self) {
        let Some(text) = self.budget_field.take() else { return };
        match text.trim().parse::<MemoryBudget>() {
            Ok(budget) if budget == self.kept_budget() => {}
            Ok(budget) => {
                self.kept.memory_budget = budget.to_string();
                self.open_again();
            }
            Err(error) => {
                self.fail(format!("the memory budget: {error}"));
                self.budget_field = Some(text);
            }
        }
    }

    /// The memory budget as it is written.
    pub fn memory_budget(&self) -> String {
        let budget = self.kept_budget();
        budget.bytes().map_or_else(|| budget.to_string(), human_bytes)
    }

    /// What was kept may be of another version.
    fn kept_budget(&self) -> MemoryBudget {
        self.kept.memory_budget.parse().unwrap_or_default()
    }

    /// Opens a dialog, unless one is open.
    pub(super) fn ask(&mut self, context: &egui::Context, wanted: Wanted) {
        if self.dialog.is_none() {
            let context = context.clone();
            self.dialog = Some(Dialog::open(wanted, move || context.request_repaint()));
        }
    }

    pub(super) fn hear_dialog(&mut self) {
        let Some(answer) = self.dialog.as_ref().and_then(Dialog::answer) else { return };
        self.dialog = None;
        match answer {
            Ok(Some(path)) => self.open(&path),
            Ok(None) => {}
            Err(message) => self.fail(message),
        }
    }
}
