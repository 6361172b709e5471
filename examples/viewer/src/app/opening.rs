//! What the window opens: models, pictures' requests, and runs that a lost GPU has ended.

use std::path::{Path, PathBuf};

use eframe::egui;
use ralu::models::adapters::{Lora, LoraWeight};
use ralu::models::files::ModelPaths;

use super::App;
use crate::dialog::{Dialog, Wanted};
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
            self.pending.push(job);
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
        self.keep_form = keep_form;
        self.engine.stop();
        self.model = None;
        self.opening = true;
        let colors = self.kept.colors.get(&key).cloned();
        self.engine.open(path, parts, colors, self.form.quantise());
    }

    /// Opens the model that is open again, with the changes of a file; of one that it has already, with those that it holds now.
    fn add_lora(&mut self, file: &Path) {
        let (path, parts) = match &self.model {
            Some(model) => (model.path.clone(), model.parts.clone()),
            None => (self.kept.model.clone(), self.kept.model_parts.clone()),
        };
        let (file, weight) = (file.to_string_lossy().into_owned(), LoraWeight::default());
        let mut parts = parts.unwrap_or_default();
        match parts.loras.iter_mut().find(|lora| lora.file == file) {
            Some(lora) => lora.sha256 = None,
            None => parts.loras.push(Lora { file, weight, sha256: None }),
        }
        self.open_model(path, Some(parts), true);
    }

    /// Opens what is typed in the field for paths.
    pub fn open_typed(&mut self) {
        let typed = self.model_field.clone();
        self.open(Path::new(typed.trim()));
        let is_error = self.notice.as_ref().is_some_and(|notice| notice.is_error);
        match (is_error, self.opening) {
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
