//! The window's state, and what changes it: what the engine tells, keys, drops.

mod actions;
mod available;
mod loras;
mod opening;
mod runs;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use eframe::egui::{self, ViewportCommand};
use eframe::egui_wgpu::SurfaceConfig;
use ralu::escape::escape;
use ralu::gpu::{AdapterKind, describe};
use ralu::models::files::ModelPaths;
use ralu::pipeline::tune::TuningEvent;
use ralu_host::engine::EngineEvent;

use crate::advice::with_advice;
use crate::dialog::Dialog;
use crate::engine::{Engine, Model};
use crate::form::{Form, Painted};
use crate::frames::Frames;
use crate::kept::Kept;
use crate::keys;
use crate::loss::{Before, Loss};
use crate::record::Record;
use crate::unfinished;
use crate::view::View;
use crate::{canvas, controls, figures, theme, timeline};
pub use available::Situation;
pub use loras::{LoraRow, Loras, WEIGHTS};
use runs::Pending;

/// How long what happened may wait for its frame.
const FRAME_PATIENCE_CPU: Duration = Duration::from_millis(330);

/// What text fields are called.
const FIELD_PROMPT: &str = "prompt";
const FIELD_NEGATIVE: &str = "negative";
const FIELD_MODEL: &str = "model";

/// A line at the window's top: what was done, or what went wrong.
pub struct Notice {
    pub text: String,
    pub is_error: bool,
    /// Whether it is about one thing that could not be done: the next thing that is done ends it.
    passes: bool,
}

/// What a window starts with, besides what was kept.
pub struct Start {
    /// A model that is new to the form brings its own settings, unless they are to be kept.
    pub keep_form: bool,
    /// A picture or a model to open.
    pub open: Option<PathBuf>,
    /// The GPU that was lost before.
    pub before: Option<Before>,
}

/// The window.
pub struct App {
    pub engine: Engine,
    pub model: Option<Model>,
    /// The model that is being opened: its path, which the bundled one has not, and its parts in files of their own.
    opening: Option<(Option<PathBuf>, Option<ModelPaths>)>,
    pub form: Form,
    pub view: View,
    pub painted: Painted,
    /// The latest run with RALU.
    pub ralu: Option<Record>,
    /// The latest run without.
    pub plain: Option<Record>,
    /// Which of them is shown.
    pub shows_plain: bool,
    pub notice: Option<Notice>,
    pub frames: Frames,
    /// What is done before the next run begins.
    pub preparing: Option<String>,
    /// The text of the field for paths. It stays until what it names is open.
    pub model_field: String,
    /// What was typed there and is being opened.
    typed: Option<String>,
    /// The LoRAs of the model.
    pub loras: Loras,
    /// The text of the field for the memory budget, while it differs from what holds.
    pub budget_field: Option<String>,
    /// Runs that were asked for and are not over.
    pending: Vec<Pending>,
    /// The field that wants the focus.
    focus: Option<&'static str>,
    /// Whether a field had the focus in the frame before.
    typing: bool,
    title: String,
    kept: Kept,
    /// Whether what is being opened leaves the form as it is, as the model of a picture does: of each time that the engine was
    /// asked to.
    keep_form: VecDeque<bool>,
    dialog: Option<Dialog>,
    loss: Loss,
    closes: bool,
}

impl App {
    /// Starts the engine on the window's device, and opens what was open.
    pub fn new(
        creation: &eframe::CreationContext<'_>,
        kept: Kept,
        start: Start,
        loss: Loss,
    ) -> Result<App, String> {
        theme::apply(&creation.egui_ctx);
        let render = creation.wgpu_render_state.as_ref().ok_or("the window has no device")?;
        let context = creation.egui_ctx.clone();
        // A processor that draws frames draws no picture meanwhile: what happens in short order is one frame.
        let is_cpu = describe(0, &render.adapter).kind == AdapterKind::Cpu;
        let patience = if is_cpu { FRAME_PATIENCE_CPU } else { Duration::ZERO };
        let wake = move || context.request_repaint_after(patience);
        let unfinished = match start.before.as_ref().and_then(|b| b.unfinished.as_deref()) {
            None => Ok(vec![]),
            Some(path) => unfinished::take(path),
        };
        let runs = unfinished.as_deref().unwrap_or_default();
        let losses = runs.iter().map(|run| run.at.losses).max();
        let losses = losses.max(start.before.as_ref().map(|before| before.soon)).unwrap_or(0);
        let engine = Engine::start(render, loss.clone(), losses, wake)
            .map_err(|error| format!("the engine's thread cannot be started: {error}"))?;
        let mut app = App {
            engine,
            model: None,
            opening: None,
            form: kept.form.clone(),
            view: kept.view.clone(),
            painted: kept.painted.clone(),
            ralu: None,
            plain: None,
            shows_plain: false,
            notice: None,
            frames: Frames::default(),
            preparing: None,
            model_field: String::new(),
            typed: None,
            loras: Loras::default(),
            budget_field: None,
            pending: vec![],
            focus: None,
            typing: false,
            title: String::new(),
            keep_form: VecDeque::new(),
            dialog: None,
            loss,
            closes: false,
            kept,
        };
        let (model, parts) = (app.kept.model.clone(), app.kept.model_parts.clone());
        match start.open {
            Some(path) => app.open(&path),
            None => app.open_model(model, parts, start.keep_form),
        }
        if let Some(before) = &start.before {
            app.go_on(before, unfinished);
        }
        Ok(app)
    }

    pub fn fail(&mut self, text: impl Into<String>) {
        self.notice = Some(Notice { text: text.into(), is_error: true, passes: false });
    }

    pub fn say(&mut self, text: impl Into<String>) {
        self.notice = Some(Notice { text: text.into(), is_error: false, passes: false });
    }

    /// The run that is shown.
    pub fn shown(&self) -> Option<&Record> {
        match self.shows_plain {
            true => self.plain.as_ref().or(self.ralu.as_ref()),
            false => self.ralu.as_ref().or(self.plain.as_ref()),
        }
    }

    /// Whether a model is being opened.
    pub fn is_opening(&self) -> bool {
        self.opening.is_some()
    }

    /// Whether something is drawn, or waits for it.
    pub fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The coarse grid of the form's size.
    pub fn grid(&self) -> (usize, usize) {
        let cells = |side: usize| side.div_ceil(32);
        (cells(self.form.height.max(1)), cells(self.form.width.max(1)))
    }

    fn take_in(&mut self, context: &egui::Context, event: EngineEvent) {
        match event {
            EngineEvent::Opened(info) => self.opened(Model::from(*info)),
            EngineEvent::OpenFailed(error) => {
                self.keep_form.pop_front();
                (self.opening, self.preparing) = (None, None);
                self.loras.reset(None);
                self.fail(with_advice(&error));
            }
            EngineEvent::LorasFailed(error) => {
                self.keep_form.pop_front();
                self.preparing = None;
                self.loras.take_back(self.model.as_ref());
                self.fail(with_advice(&error));
            }
            EngineEvent::Tuning { event: TuningEvent::Measured { done, of, .. }, .. } => {
                self.preparing = Some(format!("finding the fastest kernels, {done} of {of}"));
            }
            EngineEvent::Started(started) => self.started(*started),
            EngineEvent::Event { job, event, memory, counters } => {
                if let Some(record) = self.record(job) {
                    record.event(context, event, memory, counters);
                }
            }
            EngineEvent::Ended(ended) => self.ended(*ended),
            _ => {}
        }
    }

    fn opened(&mut self, model: Model) {
        if !self.keep_form.pop_front().unwrap_or(true) {
            self.form.suit(&model);
            (self.ralu, self.plain) = (None, None);
        }
        (self.opening, self.preparing) = (None, None);
        let about = self.loras.opened(&model);
        // Unless something else is typed there by now.
        if self.typed.take().is_some_and(|typed| typed == self.model_field) {
            self.model_field.clear();
        }
        self.kept.model.clone_from(&model.path);
        self.kept.model_parts.clone_from(&model.parts);
        self.kept.memory_budget = model.memory_budget.to_string();
        self.model = Some(model);
        self.draw_with_files();
        if let Some(about) = about {
            self.say(about);
        }
    }

    /// Writes down what the next start should find.
    fn remember(&mut self) -> std::io::Result<()> {
        self.kept.form = self.form.clone();
        self.kept.view = self.view.clone();
        self.kept.painted = self.painted.clone();
        self.kept.write()
    }

    /// Takes note of the window's size, which on closing is known no more.
    fn note_size(&mut self, context: &egui::Context) {
        let (size, maximised) = context.input(|input| {
            let viewport = input.viewport();
            (viewport.inner_rect.map(|rect| rect.size()), viewport.maximized.unwrap_or(false))
        });
        self.kept.maximised = maximised;
        // The size that it had before it filled the screen is the one to go back to.
        if let Some(size) = size.filter(|size| !maximised && size.x > 200.0 && size.y > 200.0) {
            self.kept.window = Some([size.x, size.y]);
        }
    }

    /// What the window is called: where the run is, for those who look at something else meanwhile.
    fn show_title(&mut self, context: &egui::Context) {
        let title = match (&self.notice, self.shown(), &self.model) {
            (Some(Notice { text, is_error: true, .. }), _, _) => {
                format!("ralu: error: {}", text.lines().next().unwrap_or_default())
            }
            (Some(Notice { text, .. }), _, _) if !self.is_busy() => format!("ralu: {text}"),
            _ if self.preparing.is_some() => {
                format!("ralu: {}", self.preparing.as_deref().unwrap_or_default())
            }
            (_, Some(record), _) if self.is_busy() && record.is_over() => "ralu: starting".into(),
            (_, _, None) if self.is_opening() => "ralu: opening the model".into(),
            (_, _, None) => "ralu: no model".into(),
            (_, Some(record), _)
                if self.is_busy() || self.ralu.is_some() || self.plain.is_some() =>
            {
                format!("ralu: {}: {}", record.name(), record.status())
            }
            (_, _, Some(model)) => format!("ralu: {}", model.name),
        };
        // Names of folders, and what files say, go into it.
        let title = escape(&title).into_owned();
        if title != self.title {
            context.send_viewport_cmd(ViewportCommand::Title(title.clone()));
            self.title = title;
        }
    }

    /// The identity of a text field, for the focus.
    fn focus_field(&mut self, context: &egui::Context) {
        if let Some(field) = self.focus.take() {
            context.memory_mut(|memory| memory.request_focus(egui::Id::unique(field)));
        }
    }
}

impl eframe::App for App {
    fn logic(&mut self, context: &egui::Context, _: &mut eframe::Frame) {
        for event in self.engine.events() {
            self.take_in(context, event);
        }
        self.hear_dialog();
        if self.loss.reason().is_some() && !self.closes {
            // `main` opens it again; until then nothing can be drawn.
            self.closes = true;
            context.send_viewport_cmd(ViewportCommand::Close);
        }
        self.show_title(context);
    }

    fn ui(&mut self, ui: &mut egui::Ui, frame: &mut eframe::Frame) {
        let context = ui.ctx().clone();
        if self.loss.reason().is_some() {
            return;
        }
        if self.engine.adapter.kind == AdapterKind::Cpu {
            // There is no screen to keep in step with, and a frame that waits holds the engine up.
            let present_mode = eframe::wgpu::PresentMode::AutoNoVsync;
            frame.set_wgpu_surface_config(SurfaceConfig {
                present_mode,
                ..SurfaceConfig::HIGH_THROUGHPUT
            });
        }
        self.note_size(&context);
        self.frames.begin(frame.info().cpu_usage);
        if self.view.frames {
            // Measured at display rate, not only where something has changed.
            context.request_repaint();
        }
        let dropped = context.input(|input| input.raw.dropped_files.clone());
        for file in dropped {
            self.open(file.path());
        }
        for action in keys::pressed(&context, self.typing) {
            self.act(&context, action);
        }
        if self.closes {
            context.send_viewport_cmd(ViewportCommand::Close);
        }
        self.focus_field(&context);
        let (rows, cols) = self.grid();
        self.painted.fit(rows, cols);

        // Panels are not filled, the window is theirs already: without a GPU every layer of pixels is felt.
        let bar = egui::Frame::new().inner_margin(egui::Margin::symmetric(14, 10));
        egui::Panel::bottom("timeline")
            .frame(bar)
            .exact_size(timeline::HEIGHT)
            .resizable(false)
            .show(ui, |ui| timeline::show(ui, self));
        egui::Panel::left("controls")
            .frame(bar)
            .exact_size(controls::WIDTH)
            .resizable(false)
            .show(ui, |ui| controls::show(ui, self));
        if self.view.figures {
            egui::Panel::right("figures")
                .frame(bar)
                .exact_size(figures::WIDTH)
                .resizable(false)
                .show(ui, |ui| figures::show(ui, self));
        }
        egui::CentralPanel::default()
            .frame(egui::Frame::new())
            .show(ui, |ui| canvas::show(ui, self));
        self.use_loras(&context);
        let mut help = self.view.help;
        keys::help(&context, &mut help);
        self.view.help = help;
        self.typing = context.egui_wants_keyboard_input();
        self.show_title(&context);
    }

    fn clear_color(&self, _: &egui::Visuals) -> [f32; 4] {
        theme::PANEL.to_normalized_gamma_f32()
    }

    fn on_exit(&mut self) {
        // What a lost GPU ends is not stopped, but goes on.
        if self.loss.reason().is_none() {
            self.engine.stop();
        }
        // There is no window left to say it in.
        if let Err(error) = self.remember() {
            eprintln!("the window's state cannot be kept: {error}");
        }
    }
}
