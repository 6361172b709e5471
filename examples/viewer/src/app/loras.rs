//! The LoRAs of the model: a row for each, whose weights are drawn with as they change.

use std::path::{Path, PathBuf};

use eframe::egui;
use ralu::models::adapters::{AdapterReport, Lora, LoraWeight};
use ralu::models::files::ModelPaths;

use super::App;
use super::available::KeptStage;
use crate::engine::Model;

/// Weights that keys and sliders go to.
pub const WEIGHTS: std::ops::RangeInclusive<f64> = -2.0..=2.0;

/// See the module.
#[derive(Default)]
pub struct Loras {
    pub rows: Vec<LoraRow>,
    /// The slider that keys move, of all rows' sliders.
    chosen: usize,
    /// What the engine has, or was asked for last.
    asked: Vec<Lora>,
    /// The file that was added last, until it is open.
    added: Option<String>,
    /// Whether a picture is drawn once the files are open.
    draws: bool,
}

/// A file, as its sliders stand.
pub struct LoraRow {
    pub lora: Lora,
    /// Whether each stage has a slider of its own.
    pub by_stage: bool,
    /// What it changes, once it is open.
    pub report: Option<AdapterReport>,
}

impl LoraRow {
    fn new(lora: Lora) -> LoraRow {
        LoraRow { by_stage: lora.weight.whole().is_none(), lora, report: None }
    }

    /// The file's name.
    pub fn name(&self) -> String {
        name_of(&self.lora.file)
    }

    /// The weights of its sliders: one, or one for each stage.
    pub fn weights(&self) -> Vec<f64> {
        let stages = self.lora.weight.stages();
        let sliders = if self.by_stage { &stages[..] } else { &stages[..1] };
        sliders.to_vec()
    }

    pub fn set(&mut self, slider: usize, weight: f64) {
        let mut stages = self.lora.weight.stages();
        self.lora.weight = match stages.get_mut(slider).filter(|_| self.by_stage) {
            Some(stage) => {
                *stage = weight;
                LoraWeight::Stages(stages)
            }
            None => LoraWeight::Whole(weight),
        };
    }

    /// Gives each stage a slider of its own, or all of them the last one's.
    pub fn split(&mut self) {
        let stages = self.lora.weight.stages();
        self.by_stage = !self.by_stage;
        self.lora.weight = match self.by_stage {
            true => LoraWeight::Stages(stages),
            false => LoraWeight::Whole(stages[stages.len() - 1]),
        };
    }

    /// Whether its weight is the same in all stages: its changes are merged into the model's weights.
    pub fn is_merged(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.has_merged)
    }
}

fn name_of(file: &str) -> String {
    let path = Path::new(file);
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

impl Loras {
    /// Those of a model that is being opened.
    pub fn reset(&mut self, parts: Option<&ModelPaths>) {
        let loras = parts.map(|parts| parts.loras.clone()).unwrap_or_default();
        self.rows = loras.iter().cloned().map(LoraRow::new).collect();
        self.asked = loras;
        (self.added, self.draws) = (None, false);
    }

    /// As the rows stand.
    pub fn current(&self) -> Vec<Lora> {
        self.rows.iter().map(|row| row.lora.clone()).collect()
    }

    pub fn weights(&self) -> Vec<LoraWeight> {
        self.rows.iter().map(|row| row.lora.weight).collect()
    }

    /// Takes note of what a model that was opened says of its files. Gives what is to be said of the one that was added.
    pub fn opened(&mut self, model: &Model) -> Option<String> {
        for (row, report) in self.rows.iter_mut().zip(&model.loras) {
            if row.name() == name_of(&report.file) {
                row.report = Some(report.clone());
            }
        }
        let added = name_of(&self.added.take()?);
        let report = model.loras.iter().find(|report| name_of(&report.file) == added)?;
        let mut shown = report.clone();
        shown.file = added;
        Some(shown.to_string())
    }

    /// Goes back to those of the open model: others could not be opened.
    pub fn take_back(&mut self, model: Option<&Model>) {
        self.reset(model.and_then(|model| model.parts.as_ref()));
        model.and_then(|model| self.opened(model));
    }

    /// The row and the slider that keys move.
    pub fn chosen(&self) -> Option<(usize, usize)> {
        let sliders = self.rows.iter().enumerate();
        let mut sliders =
            sliders.flat_map(|(i, row)| (0..row.weights().len()).map(move |s| (i, s)));
        sliders.clone().nth(self.chosen).or_else(|| sliders.next())
    }

    pub fn chosen_is_merged(&self) -> bool {
        self.chosen().is_some_and(|(row, _)| self.rows[row].is_merged())
    }

    pub fn choose_next(&mut self) {
        let sliders: usize = self.rows.iter().map(|row| row.weights().len()).sum();
        self.chosen = (self.chosen + 1) % sliders.max(1);
    }

    pub fn add_to_chosen(&mut self, change: f64) {
        let Some((row, slider)) = self.chosen() else { return };
        let row = &mut self.rows[row];
        let weight = row.weights()[slider] + change;
        // Tenths of a weight are to be tenths after many steps, too.
        row.set(slider, ((weight * 1e3).round() / 1e3).clamp(*WEIGHTS.start(), *WEIGHTS.end()));
    }

    pub fn split_chosen(&mut self) {
        if let Some((row, _)) = self.chosen() {
            self.rows[row].split();
        }
    }

    pub fn remove_chosen(&mut self) {
        if let Some((row, _)) = self.chosen() {
            self.rows.remove(row);
        }
    }
}

impl App {
    /// Adds a file's changes to those of the model. One that it has already is read again.
    pub(super) fn add_lora(&mut self, file: &Path) {
        let Some((path, mut parts)) = self.open_paths() else {
            return self
                .fail("there is no model that a LoRA could change: open one first (Ctrl+O)");
        };
        let file = file.to_string_lossy().into_owned();
        if self.loras.rows.iter().any(|row| row.lora.file == file) {
            parts.loras.iter_mut().filter(|l| l.file == file).for_each(|l| l.sha256 = None);
            return self.open_model(path, Some(parts), true);
        }
        let weight = LoraWeight::default();
        self.loras.added = Some(file.clone());
        self.loras.rows.push(LoraRow::new(Lora { file, weight, sha256: None }));
    }

    /// The paths of the model that is open or being opened, with its LoRAs as their rows stand.
    pub(super) fn open_paths(&self) -> Option<(Option<PathBuf>, ModelPaths)> {
        let (path, parts) = match (&self.model, &self.opening) {
            (_, Some((path, parts))) => (path, parts),
            (Some(model), None) => (&model.path, &model.parts),
            (None, None) => return None,
        };
        let parts = parts.clone().unwrap_or_default();
        Some((path.clone(), parts.with(|parts| parts.loras = self.loras.current())))
    }

    /// Has the engine draw with the LoRAs as their rows stand, and draws again if anything was drawn.
    pub(super) fn use_loras(&mut self, context: &egui::Context) {
        let loras = self.loras.current();
        // One weight and three that are the same are the same.
        let what = |loras: &[Lora]| -> Vec<(String, [f64; 3])> {
            loras.iter().map(|lora| (lora.file.clone(), lora.weight.stages())).collect()
        };
        if what(&loras) == what(&self.loras.asked) {
            return;
        }
        // While a slider is held, a picture is drawn to its end before the next one begins.
        if context.dragged_id().is_some() && self.is_busy() {
            return;
        }
        let files = |loras: &[Lora]| loras.iter().map(|l| l.file.clone()).collect::<Vec<_>>();
        let has_other_files = files(&loras) != files(&self.loras.asked);
        let draws = self.view.live && (self.is_busy() || self.shown().is_some());
        if draws {
            self.engine.stop();
        }
        self.engine.set_loras(loras.clone());
        self.keep_form.push_back(true);
        self.loras.asked = loras;
        if has_other_files {
            self.preparing = Some("opening the model with these LoRAs".into());
            // Whether they fit the model is not known yet.
            self.loras.draws = draws;
        } else if draws {
            self.draw_with_weights();
        }
    }

    /// Draws with files that are open by now, if that was put off until then.
    pub(super) fn draw_with_files(&mut self) {
        if std::mem::take(&mut self.loras.draws) {
            self.draw_with_weights();
        }
    }

    fn draw_with_weights(&mut self) {
        match self.kept_stage() {
            KeptStage::Fits => self.resume(),
            KeptStage::Nothing | KeptStage::OfOthers => self.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loras(files: &[&str]) -> Loras {
        let paths = ModelPaths::default().with(|paths| {
            paths.loras = files.iter().map(|file| file.parse().unwrap()).collect();
        });
        let mut loras = Loras::default();
        loras.reset(Some(&paths));
        loras
    }

    fn shown(loras: &Loras) -> Vec<String> {
        loras.rows.iter().map(|row| format!("{}:{}", row.name(), row.lora.weight)).collect()
    }

    #[test]
    fn keys_go_through_all_sliders() {
        let mut loras = loras(&["/a/one.safetensors:0.3", "two.sft:0,0.5,1"]);
        assert_eq!(loras.current(), loras.asked);
        loras.add_to_chosen(0.1);
        loras.add_to_chosen(0.1);
        for _ in 0..2 {
            loras.choose_next();
        }
        loras.add_to_chosen(-5.0);
        assert_eq!(shown(&loras), ["one.safetensors:0.5", "two.sft:0,-2,1"]);
        assert!(loras.current() != loras.asked);
        for _ in 0..2 {
            loras.choose_next();
        }
        assert_eq!(loras.chosen(), Some((0, 0)));
        loras.remove_chosen();
        assert_eq!((shown(&loras), loras.chosen()), (vec!["two.sft:0,-2,1".into()], Some((0, 0))));
        loras.remove_chosen();
        assert_eq!(loras.chosen(), None);
        loras.add_to_chosen(0.1);
        loras.choose_next();
    }

    #[test]
    fn stages_come_together_in_the_last() {
        let mut loras = loras(&["one.safetensors:0.3"]);
        loras.split_chosen();
        assert_eq!(loras.rows[0].weights(), [0.3; 3]);
        loras.rows[0].set(2, 0.7);
        assert_eq!(shown(&loras), ["one.safetensors:0.3,0.3,0.7"]);
        loras.split_chosen();
        assert_eq!(shown(&loras), ["one.safetensors:0.7"]);
    }
}
