//! The model: what is open, what its runs may take, and what else can be opened.

use eframe::egui::{RichText, TextEdit, Ui};

use super::widgets::{Asked, buttons, combo, field, quiet, row, title, wide};
use crate::app::App;
use crate::form::QUANTIZE;
use crate::keys::{Action, tip};

/// Shows it.
pub fn show(ui: &mut Ui, app: &mut App, asked: &mut Asked) {
    title(ui, "model");
    state(ui, app);
    memory(ui, app);
    row(ui, "weights", |ui| {
        let tip = "what large matrices are quantised to while the model is loaded; auto: if they do not fit";
        let before = app.form.quantize.clone();
        combo(ui, "quantize", &mut app.form.quantize, &QUANTIZE, tip.to_owned());
        if app.form.quantize != before {
            app.open_again();
        }
    });
    let open = [("open model", Action::OpenModel), ("open file", Action::OpenFile)];
    buttons(ui, &open, asked);
    let hint = "or type a path, or drop a file";
    let entered = field(ui, "model", &mut app.model_field, 1, hint, tip(Action::EditModel));
    if entered && !app.model_field.trim().is_empty() {
        app.open_typed();
    }
}

/// What is open, in words.
fn state(ui: &mut Ui, app: &App) {
    let Some(model) = &app.model else {
        let text = if app.is_opening() { "being opened" } else { "none is open" };
        return quiet(ui, text);
    };
    let path = model.path.as_ref().map(|path| path.display().to_string());
    let name = ui.label(RichText::new(&model.name).strong());
    name.on_hover_text(path.unwrap_or_else(|| "the bundled model".into()));
    let weights = match &model.quantise {
        None => "weights as they are stored".to_owned(),
        Some(quantise) => format!("weights quantised to {quantise}"),
    };
    let memory = match model.memory_budget.bytes() {
        Some(bytes) => format!("at most {} of GPU memory", ralu::gpu::human_bytes(bytes)),
        None if model.memory_budget == Default::default() => "the GPU memory that is free".into(),
        None => "as much GPU memory as it takes".into(),
    };
    quiet(ui, format!("{weights}; {memory}"));
    // Which parts were found in files of their own, and what was assumed.
    for note in &model.notes {
        quiet(ui, note);
    }
}

/// How much memory runs may take.
fn memory(ui: &mut Ui, app: &mut App) {
    row(ui, "memory", |ui| {
        let mut text = app.budget_field.clone().unwrap_or_else(|| app.memory_budget());
        let edit = TextEdit::singleline(&mut text).desired_width(f32::INFINITY);
        let tip = "the most GPU memory that runs may take: auto (what is free), off, or a size such as 6GiB. Blocks of weights that \
                   do not fit come and go; the picture is the same";
        let response = wide(ui, edit).on_hover_text(tip);
        if response.changed() {
            app.budget_field = Some(text);
        }
        if response.lost_focus() {
            app.limit_memory();
        }
    });
}
