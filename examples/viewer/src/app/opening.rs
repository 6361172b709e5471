//! What the window opens: models, pictures' requests, and runs that a lost GPU has ended.

use std::path::{Path, PathBuf};

use eframe::egui;

use super::App;
use crate::dialog::{Dialog, Wanted};
use crate::files::{self, Dropped};
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

    pub(super) fn open_model(&mut self, path: Option<PathBuf>, keep_form: bool) {
        let key = Kept::model_key(path.as_ref());
        self.keep_form = keep_form;
        self.engine.stop();
        self.model = None;
        self.opening = true;
        self.engine.open(path, self.kept.colors.get(&key).cloned());
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

    /// Opens a model folder, or the request of a picture.
    pub fn open(&mut self, path: &Path) {
        self.notice = None;
        self.typed = None;
        match files::read(path) {
            Err(message) => self.fail(message),
            Ok(Dropped::Model(folder)) => self.open_model(Some(folder), false),
            Ok(Dropped::Picture(request, model)) => {
                self.painted = self.form.load(*request);
                self.say(format!("the request of {}", path.display()));
                let open = self.model.as_ref().map(|model| &model.path);
                if open != Some(&model) {
                    self.open_model(model, true);
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
