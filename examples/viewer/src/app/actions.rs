//! What keys and buttons do.

use eframe::egui;

use super::{App, FIELD_MODEL, FIELD_NEGATIVE, FIELD_PROMPT, Notice};
use crate::dialog::Wanted;
use crate::files;
use crate::form::{self, Painted};
use crate::keys::Action;
use crate::view::Paint;

/// What a key adds to the weight of a LoRA.
const LORA_STEP: f64 = 0.1;

impl App {
    /// Does what a key or a button asks for.
    pub fn act(&mut self, context: &egui::Context, action: Action) {
        if let Some(obstacle) = self.situation().obstacle(action) {
            let text = obstacle.to_owned();
            self.notice = Some(Notice { text, is_error: true, passes: true });
            return;
        }
        self.notice = self.notice.take().filter(|notice| !notice.passes);
        match action {
            Action::Run => self.run(),
            Action::RunBoth => self.run_both(),
            Action::Resume => self.resume(),
            Action::Stop => self.engine.stop(),
            Action::EditPrompt => self.focus = Some(FIELD_PROMPT),
            Action::EditNegative => self.focus = Some(FIELD_NEGATIVE),
            Action::EditModel => self.focus = Some(FIELD_MODEL),
            Action::OpenModel => self.ask(context, Wanted::Model),
            Action::OpenFile => self.ask(context, Wanted::File),
            Action::ReopenGpu => self.engine.destroy_device(),
            Action::NextSeed => self.form.seed = self.form.seed.wrapping_add(1),
            Action::PreviousSeed => self.form.seed = self.form.seed.wrapping_sub(1),
            Action::Wider => self.form.width = form::next_side(self.form.width, true),
            Action::Narrower => self.form.width = form::next_side(self.form.width, false),
            Action::Taller => self.form.height = form::next_side(self.form.height, true),
            Action::Lower => self.form.height = form::next_side(self.form.height, false),
            Action::NextRalu | Action::PreviousRalu => {
                let next = action == Action::NextRalu;
                self.form.ralu = form::neighbour(&form::RALU, &self.form.ralu, next).into();
            }
            Action::NextCache => {
                let name = self.form.cache.split(':').next().unwrap_or("off").to_owned();
                self.form.cache = form::neighbour(&form::CACHES, &name, true).into();
            }
            Action::MoreSteps => self.form.steps = (self.form.steps + 1).min(1000),
            Action::FewerSteps => self.form.steps = self.form.steps.saturating_sub(1).max(1),
            Action::MoreGuidance => self.guide(0.5),
            Action::LessGuidance => self.guide(-0.5),
            Action::MoreTrueGuidance => self.guide_truly(0.5),
            Action::LessTrueGuidance => self.guide_truly(-0.5),
            Action::NextLora => self.loras.choose_next(),
            Action::MoreLora => self.loras.add_to_chosen(LORA_STEP),
            Action::LessLora => self.loras.add_to_chosen(-LORA_STEP),
            Action::LoraStages => self.loras.split_chosen(),
            Action::RemoveLora => self.loras.remove_chosen(),
            Action::LiveLoras => self.view.live = !self.view.live,
            Action::ShowMap => self.view.map = if self.view.map < 0.5 { 1.0 } else { 0.0 },
            Action::MoreMap => self.view.map = (self.view.map + 0.1).min(1.0),
            Action::LessMap => self.view.map = (self.view.map - 0.1).max(0.0),
            Action::Heat => self.view.heat = !self.view.heat,
            Action::Paint => self.toggle_paint(Paint::Add),
            Action::Erase => self.toggle_paint(Paint::Erase),
            Action::ClearPaint => self.painted = Painted::default(),
            Action::LargerBrush => self.view.brush = (self.view.brush + 0.5).min(16.0),
            Action::SmallerBrush => self.view.brush = (self.view.brush - 0.5).max(0.5),
            Action::ReplaceRegions => self.form.replace_regions = !self.form.replace_regions,
            Action::Back | Action::Forward | Action::Live => self.scrub(action),
            Action::Compare => self.view.compare = !self.view.compare,
            Action::WipeLeft => self.view.wipe = (self.view.wipe - 0.05).max(0.0),
            Action::WipeRight => self.view.wipe = (self.view.wipe + 0.05).min(1.0),
            Action::Save | Action::SaveStrip => self.save(action),
            Action::Figures => self.view.figures = !self.view.figures,
            Action::Frames => self.measure_frames(),
            Action::Help => self.view.help = !self.view.help,
            Action::Close => self.closes = true,
        }
    }

    /// Begins or ends measuring frames.
    fn measure_frames(&mut self) {
        self.view.frames = !self.view.frames;
        if self.view.frames {
            self.frames.clear();
        } else if let Some([median, slowest]) = self.frames.between() {
            let n = self.frames.count();
            self.say(format!(
                "{n} frames, {median:.1} ms apart, the slowest of a hundred {slowest:.1} ms"
            ));
        }
    }

    fn toggle_paint(&mut self, paint: Paint) {
        self.view.paint = if self.view.paint == Some(paint) { None } else { Some(paint) };
        if self.view.paint.is_some() {
            self.view.compare = false;
        }
    }

    fn scrub(&mut self, action: Action) {
        let n = self.shown().map_or(0, |record| record.moments.len());
        let at = self.view.moment.unwrap_or(n.saturating_sub(1)).min(n.saturating_sub(1));
        self.view.moment = match action {
            Action::Back => Some(at.saturating_sub(1)),
            Action::Forward if at + 1 < n => Some(at + 1),
            _ => None,
        };
    }

    /// More or less of the guidance that the model has: true guidance, if there is no other.
    fn guide(&mut self, change: f64) {
        let Some(own) = self.model.as_ref().map(|model| model.guidance) else { return };
        let Some(own) = own else { return self.guide_truly(change) };
        let value = self.form.guidance.unwrap_or(own);
        self.form.guidance = Some((value + change).clamp(0.0, 30.0));
    }

    fn guide_truly(&mut self, change: f64) {
        let Some(model) = &self.model else { return };
        let value = self.form.true_guidance(model);
        self.form.true_cfg = Some((value + change).clamp(1.0, 30.0));
    }

    fn save(&mut self, action: Action) {
        let Some(record) = self.shown() else { return };
        let result = match action {
            Action::SaveStrip => files::save_strip(record),
            _ => files::save(record, &self.engine.adapter.name),
        };
        let which = match (self.view.compare, self.shown()) {
            (true, Some(record)) => format!(", the picture of {}", record.name()),
            _ => String::new(),
        };
        match result {
            Ok(path) => self.say(format!("saved {}{which}", path.display())),
            Err(message) => self.fail(message),
        }
    }
}
