//! The window's state, and what changes it: what the engine tells, keys, drops.

mod opening;

use std::path::PathBuf;
use std::time::Duration;

use eframe::egui::{self, ViewportCommand};
use eframe::egui_wgpu::SurfaceConfig;
use ralu::escape::escape;
use ralu::gpu::{AdapterKind, describe};
use ralu::pipeline::Request;
use ralu::pipeline::tune::TuningEvent;
use ralu_host::End;
use ralu_host::engine::{Ended, EngineEvent, Started};

use crate::advice::with_advice;
use crate::dialog::{Dialog, Wanted};
use crate::engine::{Engine, Model};
use crate::files;
use crate::form::{self, Form, Painted};
use crate::frames::Frames;
use crate::kept::Kept;
use crate::keys::{self, Action};
use crate::loss::{Before, Loss};
use crate::record::{Record, State};
use crate::unfinished;
use crate::view::{Paint, View};
use crate::{canvas, controls, figures, theme, timeline};

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
    /// Whether a model is being opened.
    pub opening: bool,
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
    /// The run that goes on from another's first stage.
    resuming: Option<(u64, std::sync::Arc<ralu::pipeline::FirstStage>)>,
    /// Runs that were asked for and are not over.
    pub pending: Vec<u64>,
    /// The field that wants the focus.
    focus: Option<&'static str>,
    /// Whether a field had the focus in the frame before.
    typing: bool,
    title: String,
    kept: Kept,
    /// The model of a picture that was opened: its request is not to be changed when the model is there.
    keep_form: bool,
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
        // What was kept may be of another version.
        let budget = kept.memory_budget.parse().unwrap_or_default();
        let engine = Engine::start(render, budget, loss.clone(), losses, wake)
            .map_err(|error| format!("the engine's thread cannot be started: {error}"))?;
        let mut app = App {
            engine,
            model: None,
            opening: false,
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
            resuming: None,
            pending: vec![],
            focus: None,
            typing: false,
            title: String::new(),
            keep_form: start.keep_form,
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
        self.notice = Some(Notice { text: text.into(), is_error: true });
    }

    pub fn say(&mut self, text: impl Into<String>) {
        self.notice = Some(Notice { text: text.into(), is_error: false });
    }

    /// The run that is shown.
    pub fn shown(&self) -> Option<&Record> {
        match self.shows_plain {
            true => self.plain.as_ref().or(self.ralu.as_ref()),
            false => self.ralu.as_ref().or(self.plain.as_ref()),
        }
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

    fn submit(&mut self, form: &Form) -> Option<u64> {
        match form.request(&self.painted) {
            Ok(request) => Some(self.submit_request(request)),
            Err(message) => {
                self.fail(message);
                None
            }
        }
    }

    fn submit_request(&mut self, request: Request) -> u64 {
        self.notice = None;
        self.view.paint = None;
        self.view.moment = None;
        self.frames.clear();
        let job = self.engine.run(request);
        self.pending.push(job);
        job
    }

    /// Does what a key or a button asks for.
    pub fn act(&mut self, context: &egui::Context, action: Action) {
        let guided = self.model.as_ref().is_some_and(|model| model.has_guidance);
        match action {
            Action::Run => {
                self.engine.stop();
                self.submit(&self.form.clone());
            }
            Action::RunBoth => {
                self.engine.stop();
                let form = self.form.clone();
                if form.ralu == "off" {
                    return self.fail("choose an acceleration to compare plain sampling with (A)");
                }
                if self.submit(&form).is_some() {
                    self.submit(&form.plain());
                    self.view.compare = true;
                }
            }
            Action::Resume => self.resume(),
            Action::Stop => self.engine.stop(),
            Action::EditPrompt => self.focus = Some(FIELD_PROMPT),
            Action::EditNegative => self.focus = Some(FIELD_NEGATIVE),
            Action::EditModel => self.focus = Some(FIELD_MODEL),
            Action::OpenModel => self.ask(context, Wanted::Model),
            Action::OpenPicture => self.ask(context, Wanted::Picture),
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
            Action::MoreGuidance | Action::LessGuidance => {
                let change = if action == Action::MoreGuidance { 0.5 } else { -0.5 };
                let own = self.model.as_ref().map(|model| (model.guidance, model.true_cfg));
                let (guidance, true_cfg) = own.unwrap_or_default();
                let (value, own) = match guided {
                    true => (&mut self.form.guidance, guidance.unwrap_or(3.5)),
                    false => (&mut self.form.true_cfg, true_cfg),
                };
                *value = Some((value.unwrap_or(own) + change).clamp(0.0, 30.0));
            }
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
            Action::Compare => {
                self.view.compare = !self.view.compare;
                if self.view.compare && (self.plain.is_none() || self.ralu.is_none()) {
                    self.view.compare = false;
                    self.fail("there are no two runs to compare yet: draw both (V)");
                }
            }
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

    /// Runs again from the end of stage 1.
    fn resume(&mut self) {
        let Some(first) = self.ralu.as_ref().and_then(|record| record.first_stage.clone()) else {
            return self
                .fail("there is no finished stage 1 to go on from yet: draw with RALU first (R)");
        };
        match self.form.request(&self.painted) {
            Err(message) => self.fail(message),
            Ok(mut request) => {
                request.first_stage = Some(first.clone());
                self.engine.stop();
                let job = self.submit_request(request);
                self.resuming = Some((job, first));
            }
        }
    }

    fn save(&mut self, action: Action) {
        // The wipe shows two pictures, and each of them as it is now.
        let moment = if self.view.compare { None } else { self.view.moment };
        let result = match self.shown() {
            None => Err("there is no picture to save yet".into()),
            Some(record) if action == Action::SaveStrip => files::save_strip(record),
            Some(record) if record.picture.is_some() && !record.is_finished_at(moment) => {
                Err("an earlier moment is shown; go to the finished picture (End) to save it"
                    .into())
            }
            Some(record) => files::save(record, &self.engine.adapter.name),
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

    fn take_in(&mut self, context: &egui::Context, event: EngineEvent) {
        match event {
            EngineEvent::Opened(info) => self.opened(Model::from(*info)),
            EngineEvent::OpenFailed(error) => {
                self.preparing = None;
                self.opening = false;
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
        if !self.keep_form {
            self.form.suit(&model);
            (self.ralu, self.plain) = (None, None);
        }
        self.opening = false;
        // Unless something else is typed there by now.
        if self.typed.take().is_some_and(|typed| typed == self.model_field) {
            self.model_field.clear();
        }
        self.kept.model.clone_from(&model.path);
        self.kept.model_parts.clone_from(&model.parts);
        self.model = Some(model);
    }

    fn started(&mut self, started: Started) {
        let Started { job, settings, schedule, plan, model, is_resumed, .. } = started;
        self.preparing = None;
        let mut record = Record::new(job, model.into(), settings, schedule, plan.map(Box::new));
        record.goes_on = is_resumed;
        if let Some((number, first)) = self.resuming.take() {
            if number == job {
                record.resumed = true;
                record.first_stage = Some(first);
            } else {
                self.resuming = Some((number, first));
            }
        }
        self.shows_plain = record.is_plain();
        let place = if record.is_plain() { &mut self.plain } else { &mut self.ralu };
        *place = Some(record);
    }

    fn ended(&mut self, ended: Ended) {
        let Ended { job, end, colors, .. } = ended;
        self.preparing = None;
        self.pending.retain(|pending| *pending != job);
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

    fn record(&mut self, job: u64) -> Option<&mut Record> {
        [&mut self.ralu, &mut self.plain].into_iter().flatten().find(|record| record.job == job)
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
            (Some(Notice { text, is_error: true }), _, _) => {
                format!("ralu: error: {}", text.lines().next().unwrap_or_default())
            }
            (Some(Notice { text, .. }), _, _) if !self.is_busy() => format!("ralu: {text}"),
            _ if self.preparing.is_some() => {
                format!("ralu: {}", self.preparing.as_deref().unwrap_or_default())
            }
            (_, _, None) if self.opening => "ralu: opening the model".into(),
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
