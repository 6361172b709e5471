//! What to draw, at the left.

use eframe::egui::{self, Button, ComboBox, DragValue, RichText, ScrollArea, Slider, TextEdit, Ui};

use crate::app::App;
use crate::form::{CACHES, RALU};
use crate::keys::{Action, tip};
use crate::theme;
use crate::view::Paint;

/// Of the panel.
pub const WIDTH: f32 = 268.0;

/// Shows the controls.
pub fn show(ui: &mut Ui, app: &mut App) {
    ScrollArea::vertical().auto_shrink([false, true]).show(ui, |ui| {
        // Not under the scroll bar.
        ui.set_max_width((ui.available_width() - 4.0).max(0.0));
        let mut asked = None;
        texts(ui, app, &mut asked);
        size(ui, app);
        sampling(ui, app);
        runs(ui, app, &mut asked);
        looks(ui, app, &mut asked);
        regions(ui, app, &mut asked);
        saving(ui, app, &mut asked);
        if let Some(action) = asked {
            app.act(action);
        }
    });
}

fn title(ui: &mut Ui, text: &str) {
    ui.add_space(4.0);
    ui.label(RichText::new(text).color(theme::QUIET).size(11.0));
}

/// A text field; whether Enter was pressed in it. Shift+Enter begins a new line.
fn field(ui: &mut Ui, id: &str, text: &mut String, rows: usize, hint: &str, tip: String) -> bool {
    let new_line = egui::KeyboardShortcut::new(egui::Modifiers::SHIFT, egui::Key::Enter);
    let edit = TextEdit::multiline(text)
        .id(egui::Id::unique(id))
        .desired_rows(rows)
        .desired_width(f32::INFINITY)
        .hint_text(hint.to_owned())
        .return_key(new_line);
    let response = ui.add(edit).on_hover_text(tip);
    let entered = response.has_focus()
        && ui.input(|input| input.key_pressed(egui::Key::Enter) && !input.modifiers.any());
    if entered {
        response.surrender_focus();
    }
    entered
}

fn texts(ui: &mut Ui, app: &mut App, asked: &mut Option<Action>) {
    let (hint, tip_text) = ("what to draw", tip(Action::EditPrompt));
    title(ui, "prompt");
    if field(ui, "prompt", &mut app.form.prompt, 3, hint, tip_text) {
        *asked = Some(Action::Run);
    }
    let own = app.model.as_ref().and_then(|model| model.negative_prompt.clone());
    let hint =
        own.filter(|own| !own.is_empty()).unwrap_or_else(|| "what it should not show".into());
    let tip_text = tip(Action::EditNegative);
    if field(ui, "negative", &mut app.form.negative_prompt, 1, &hint, tip_text) {
        *asked = Some(Action::Run);
    }
}

fn size(ui: &mut Ui, app: &mut App) {
    ui.horizontal(|ui| {
        ui.label("seed");
        let seed = DragValue::new(&mut app.form.seed).speed(0.05);
        ui.add(seed).on_hover_text(tip(Action::NextSeed));
    });
    ui.horizontal(|ui| {
        ui.label("size");
        let side = |value| DragValue::new(value).range(16..=8192).speed(4.0);
        ui.add(side(&mut app.form.width)).on_hover_text(tip(Action::Wider));
        ui.label("x");
        ui.add(side(&mut app.form.height)).on_hover_text(tip(Action::Taller));
    });
}

fn combo(ui: &mut Ui, id: &str, value: &mut String, known: &[&str], tip: String) {
    let shown = value.split(':').next().unwrap_or(value).to_owned();
    let response = ComboBox::from_id_salt(id).width(118.0).selected_text(shown).show_ui(ui, |ui| {
        for name in known {
            ui.selectable_value(value, (*name).to_owned(), *name);
        }
    });
    response.response.on_hover_text(tip);
}

fn sampling(ui: &mut Ui, app: &mut App) {
    title(ui, "how");
    egui::Grid::new("how").num_columns(2).spacing([8.0, 6.0]).show(ui, |ui| {
        ui.label("RALU");
        let loaded = app.form.loaded.is_some();
        let known = if loaded { &RALU[..] } else { &RALU[..RALU.len() - 1] };
        combo(ui, "ralu", &mut app.form.ralu, known, tip(Action::NextRalu));
        ui.end_row();
        ui.label("cache");
        combo(ui, "cache", &mut app.form.cache, &CACHES, tip(Action::NextCache));
        ui.end_row();
        ui.label("plain steps");
        let steps = DragValue::new(&mut app.form.steps).range(1..=1000).speed(0.1);
        ui.add(steps).on_hover_text(tip(Action::MoreSteps));
        ui.end_row();
        ui.label("guidance");
        guidance(ui, app);
        ui.end_row();
    });
}

fn guidance(ui: &mut Ui, app: &mut App) {
    let Some(model) = &app.model else { return };
    let (value, own) = match model.guidance {
        Some(own) => (&mut app.form.guidance, own),
        None => (&mut app.form.true_cfg, model.true_cfg),
    };
    let mut shown = value.unwrap_or(own);
    let drag = DragValue::new(&mut shown).range(0.0..=30.0).speed(0.05).max_decimals(2);
    if ui.add(drag).on_hover_text(tip(Action::MoreGuidance)).changed() {
        *value = Some(shown);
    }
}

fn button(ui: &mut Ui, text: &str, action: Action, asked: &mut Option<Action>) {
    if ui.button(text).on_hover_text(tip(action)).clicked() {
        *asked = Some(action);
    }
}

fn runs(ui: &mut Ui, app: &App, asked: &mut Option<Action>) {
    ui.add_space(4.0);
    let wide = egui::vec2(ui.available_width(), 30.0);
    if app.is_busy() {
        let stop = Button::new(RichText::new("stop").color(theme::TEXT)).fill(theme::LINE);
        if ui.add_sized(wide, stop).on_hover_text(tip(Action::Stop)).clicked() {
            *asked = Some(Action::Stop);
        }
    } else {
        let draw = Button::new(RichText::new("draw").color(theme::BACKGROUND).strong());
        let draw = ui.add_sized(wide, draw.fill(theme::AMBER));
        if draw.on_hover_text(tip(Action::Run)).clicked() {
            *asked = Some(Action::Run);
        }
    }
    ui.horizontal(|ui| {
        button(ui, "both", Action::RunBoth, asked);
        button(ui, "from stage 1", Action::Resume, asked);
    });
}

fn toggle(ui: &mut Ui, on: bool, text: &str, action: Action, asked: &mut Option<Action>) {
    if ui.selectable_label(on, text).on_hover_text(tip(action)).clicked() {
        *asked = Some(action);
    }
}

fn looks(ui: &mut Ui, app: &mut App, asked: &mut Option<Action>) {
    title(ui, "look at");
    ui.horizontal(|ui| {
        ui.label("picture");
        ui.spacing_mut().slider_width = (ui.available_width() - 56.0).max(20.0);
        let slider = Slider::new(&mut app.view.map, 0.0..=1.0).show_value(false);
        ui.add(slider).on_hover_text(tip(Action::ShowMap));
        ui.label("tokens");
    });
    ui.horizontal(|ui| {
        toggle(ui, app.view.heat, "edges", Action::Heat, asked);
        toggle(ui, app.view.compare, "wipe", Action::Compare, asked);
        toggle(ui, app.view.figures, "figures", Action::Figures, asked);
        toggle(ui, app.view.help, "keys", Action::Help, asked);
    });
}

fn regions(ui: &mut Ui, app: &mut App, asked: &mut Option<Action>) {
    title(ui, "regions");
    ui.horizontal(|ui| {
        toggle(ui, app.view.paint == Some(Paint::Add), "paint", Action::Paint, asked);
        toggle(ui, app.view.paint == Some(Paint::Erase), "erase", Action::Erase, asked);
        button(ui, "clear", Action::ClearPaint, asked);
        let brush = DragValue::new(&mut app.view.brush).range(0.5..=16.0).speed(0.05);
        ui.add(brush.max_decimals(1)).on_hover_text(tip(Action::LargerBrush));
    });
    ui.checkbox(&mut app.form.replace_regions, "painted ones only")
        .on_hover_text(tip(Action::ReplaceRegions));
}

fn saving(ui: &mut Ui, app: &mut App, asked: &mut Option<Action>) {
    title(ui, "files");
    ui.horizontal(|ui| {
        button(ui, "save", Action::Save, asked);
        button(ui, "save strip", Action::SaveStrip, asked);
    });
    let mut text = std::mem::take(&mut app.model_field);
    let entered =
        field(ui, "model", &mut text, 1, "model folder or PNG to open", tip(Action::EditModel));
    if entered && !text.trim().is_empty() {
        app.open(std::path::Path::new(text.trim()));
        text.clear();
    }
    app.model_field = text;
    let name = app.model.as_ref().map_or("opening", |model| model.name.as_str());
    ui.label(RichText::new(format!("model: {name}")).color(theme::QUIET).size(11.0));
}
