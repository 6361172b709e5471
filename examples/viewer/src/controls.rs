//! What to draw, at the left.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use eframe::egui::{
    self, Align2, Button, CollapsingHeader, ComboBox, DragValue, RichText, ScrollArea, Sense,
    Slider, TextEdit, TextStyle, Ui, vec2,
};

use ralu::names;
use ralu::sampling::ZPolicy;
use serde::Deserialize;

use crate::app::App;
use crate::form::{CACHES, QUANTIZE, RALU};
use crate::keys::{Action, tip};
use crate::theme;
use crate::view::Paint;

/// Width of the panel.
pub const WIDTH: f32 = 268.0;
/// Width of the column in which values are named.
const NAMES: f32 = 76.0;

/// Shows the controls.
pub fn show(ui: &mut Ui, app: &mut App) {
    ScrollArea::vertical().auto_shrink([false, true]).show(ui, |ui| {
        // Not under the scroll bar.
        ui.set_max_width((ui.available_width() - 4.0).max(0.0));
        let mut asked = None;
        texts(ui, app, &mut asked);
        sampling(ui, app);
        runs(ui, app, &mut asked);
        looks(ui, app, &mut asked);
        regions(ui, app, &mut asked);
        saving(ui, app, &mut asked);
        if let Some(action) = asked {
            app.act(ui.ctx(), action);
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
    if field(ui, "prompt", &mut app.form.prompt, 2, hint, tip_text) {
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

fn combo(ui: &mut Ui, id: &str, value: &mut String, known: &[&str], tip: String) {
    let shown = value.split(':').next().unwrap_or(value).to_owned();
    let width = share(ui, 1);
    let response = ComboBox::from_id_salt(id).width(width).selected_text(shown).show_ui(ui, |ui| {
        for name in known {
            ui.selectable_value(value, (*name).to_owned(), *name);
        }
    });
    response.response.on_hover_text(tip);
}

/// A row of the form: what it is about, and its fields, which stand below each other.
fn row(ui: &mut Ui, name: &str, fields: impl FnOnce(&mut Ui)) {
    ui.horizontal(|ui| {
        let (rect, _) = ui.allocate_exact_size(vec2(NAMES, 24.0), Sense::hover());
        let font = TextStyle::Body.resolve(ui.style());
        ui.painter().text(rect.left_center(), Align2::LEFT_CENTER, name, font, theme::TEXT);
        fields(ui);
    });
}

fn sampling(ui: &mut Ui, app: &mut App) {
    ui.add_space(4.0);
    row(ui, "seed", |ui| {
        let width = share(ui, 1);
        let seed = DragValue::new(&mut app.form.seed).speed(0.05);
        ui.add_sized([width, 24.0], seed).on_hover_text(tip(Action::NextSeed));
    });
    row(ui, "size", |ui| {
        let width = share(ui, 2);
        let side = |value| DragValue::new(value).range(16..=8192).speed(4.0);
        let (wide, high) = (side(&mut app.form.width), side(&mut app.form.height));
        ui.add_sized([width, 24.0], wide.prefix("w ")).on_hover_text(tip(Action::Wider));
        ui.add_sized([width, 24.0], high.prefix("h ")).on_hover_text(tip(Action::Taller));
    });
    let loaded = app.form.loaded.is_some();
    let known = if loaded { &RALU[..] } else { &RALU[..RALU.len() - 1] };
    row(ui, "RALU", |ui| combo(ui, "ralu", &mut app.form.ralu, known, tip(Action::NextRalu)));
    row(ui, "cache", |ui| {
        combo(ui, "cache", &mut app.form.cache, &CACHES, tip(Action::NextCache));
    });
    row(ui, "plain steps", |ui| {
        let width = share(ui, 1);
        let steps = DragValue::new(&mut app.form.steps).range(1..=1000).speed(0.1);
        ui.add_sized([width, 24.0], steps).on_hover_text(tip(Action::MoreSteps));
    });
    row(ui, "guidance", |ui| guidance(ui, app));
    CollapsingHeader::new("more").show(ui, |ui| more(ui, app));
}

/// What is rarely changed.
fn more(ui: &mut Ui, app: &mut App) {
    row(ui, "weights", |ui| {
        let tip = "what large matrices are quantised to while the model is loaded; auto: if they do not fit";
        let before = app.form.quantize.clone();
        combo(ui, "quantize", &mut app.form.quantize, &QUANTIZE, tip.to_owned());
        let open = app.model.as_ref().map(|model| (model.path.clone(), model.parts.clone()));
        if let Some((path, parts)) = open.filter(|_| app.form.quantize != before) {
            app.open_model(path, parts, true);
        }
    });
    let form = &mut app.form;
    row(ui, "text tokens", |ui| {
        let mut tokens = form.max_sequence_length.unwrap_or(0);
        let own = |tokens: f64, _: RangeInclusive<usize>| {
            if tokens == 0.0 { "the model's".into() } else { format!("{tokens}") }
        };
        let drag = DragValue::new(&mut tokens).range(0..=4096).custom_formatter(own);
        let size = [share(ui, 1), 24.0];
        let tip = "tokens of the text, where the model lets them be chosen";
        if ui.add_sized(size, drag).on_hover_text(tip).changed() {
            form.max_sequence_length = (tokens > 0).then_some(tokens);
        }
    });
    row(ui, "noise", |ui| {
        let tip = "where the first noise comes from; torch is what PyTorch's generator draws";
        named(ui, "rng", &mut form.rng, tip);
    });
    row(ui, "variant", |ui| {
        let tip = "official reproduces every quirk of the authors' code";
        named(ui, "variant", &mut form.variant, tip);
    });
    let rules = &mut form.rules;
    row(ui, "upsampling", |ui| {
        named_or_own(ui, "upsample", &mut rules.upsample, "how a coarse token becomes four");
    });
    row(ui, "positions", |ui| {
        let tip = "how positions of two grids meet in stage 2";
        named_or_own(ui, "rope_mode", &mut rules.rope_mode, tip);
    });
    row(ui, "regions by", |ui| {
        let tip = "what regions are chosen by";
        named_or_own(ui, "region_score", &mut rules.region_score, tip);
    });
    row(ui, "jump noise", |ui| {
        named_or_own(ui, "jump_noise", &mut rules.jump_noise, "noise between stages");
    });
    row(ui, "strength", |ui| z_policy(ui, &mut form.z_policy));
}

/// How strong the noise between stages is.
fn z_policy(ui: &mut Ui, policy: &mut Option<ZPolicy>) {
    let fixed = match policy {
        Some(ZPolicy::Fixed(z)) => *z,
        _ => 6.0,
    };
    let width = share(ui, 2);
    let known = [None, Some(ZPolicy::MinNoise), Some(ZPolicy::Fixed(fixed))];
    let name = |policy: Option<ZPolicy>| match policy {
        None | Some(ZPolicy::Published) => "published",
        Some(ZPolicy::MinNoise) => "min-noise",
        Some(ZPolicy::Fixed(_)) => "fixed",
    };
    let shown = name(*policy);
    let response =
        ComboBox::from_id_salt("z_policy").width(width).selected_text(shown).show_ui(ui, |ui| {
            for one in known {
                ui.selectable_value(policy, one, name(one));
            }
        });
    response.response.on_hover_text("strength of the noise between stages");
    if let Some(ZPolicy::Fixed(z)) = policy {
        ui.add_sized([width, 24.0], DragValue::new(z).range(2.0..=100.0).speed(0.05).prefix("Z "));
    }
}

/// A list of the names that a choice has.
fn named<T>(ui: &mut Ui, id: &str, value: &mut T, tip: &str)
where
    T: Display + FromStr + for<'de> Deserialize<'de>,
{
    let mut name = value.to_string();
    combo(ui, id, &mut name, names::of_values::<T>(), tip.to_owned());
    if let Ok(chosen) = name.parse() {
        *value = chosen;
    }
}

/// The same for a choice that need not be made.
fn named_or_own<T>(ui: &mut Ui, id: &str, value: &mut Option<T>, tip: &str)
where
    T: Display + FromStr + for<'de> Deserialize<'de>,
{
    const OWN: &str = "the variant's";
    let mut name = value.as_ref().map_or_else(|| OWN.to_owned(), T::to_string);
    let known = [&[OWN][..], names::of_values::<T>()].concat();
    combo(ui, id, &mut name, &known, tip.to_owned());
    *value = name.parse().ok();
}

fn guidance(ui: &mut Ui, app: &mut App) {
    let own = app.model.as_ref().map(|model| (model.guidance, model.true_cfg));
    let (value, own) = match own {
        Some((None, own)) => (&mut app.form.true_cfg, own),
        Some((Some(own), _)) => (&mut app.form.guidance, own),
        // What it means is not known without a model.
        None => (&mut None, 0.0),
    };
    let mut shown = value.unwrap_or(own);
    let drag = DragValue::new(&mut shown).range(0.0..=30.0).speed(0.05).max_decimals(2);
    let size = [share(ui, 1), 24.0];
    let known = app.model.is_some();
    let response = ui.add_enabled_ui(known, |ui| ui.add_sized(size, drag)).inner;
    if response.on_hover_text(tip(Action::MoreGuidance)).changed() {
        *value = Some(shown);
    }
}

/// What each of `n` things has of the rest of a row.
fn share(ui: &Ui, n: usize) -> f32 {
    let gaps = ui.spacing().item_spacing.x * (n - 1) as f32;
    ((ui.available_width() - gaps) / n as f32).max(8.0)
}

fn button(ui: &mut Ui, width: f32, text: &str, action: Action, asked: &mut Option<Action>) {
    if ui.add_sized([width, 24.0], Button::new(text)).on_hover_text(tip(action)).clicked() {
        *asked = Some(action);
    }
}

/// Buttons in a row, equally wide.
fn buttons(ui: &mut Ui, texts: &[(&str, Action)], asked: &mut Option<Action>) {
    ui.horizontal(|ui| {
        // Their width is given, not made of their texts.
        ui.spacing_mut().button_padding.x = 2.0;
        let width = share(ui, texts.len());
        for (text, action) in texts {
            button(ui, width, text, *action, asked);
        }
    });
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
    buttons(ui, &[("draw both", Action::RunBoth), ("from stage 1", Action::Resume)], asked);
}

/// Switches in a row, equally wide.
fn toggles(ui: &mut Ui, switches: &[(bool, &str, Action)], asked: &mut Option<Action>) {
    ui.horizontal(|ui| {
        ui.spacing_mut().button_padding.x = 2.0;
        let width = share(ui, switches.len());
        for (on, text, action) in switches {
            let button = Button::selectable(*on, *text).frame_when_inactive(true);
            if ui.add_sized([width, 24.0], button).on_hover_text(tip(*action)).clicked() {
                *asked = Some(*action);
            }
        }
    });
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
    let switches = [
        (app.view.heat, "edges", Action::Heat),
        (app.view.compare, "wipe", Action::Compare),
        (app.view.figures, "figures", Action::Figures),
        (app.view.help, "keys", Action::Help),
    ];
    toggles(ui, &switches, asked);
}

fn regions(ui: &mut Ui, app: &mut App, asked: &mut Option<Action>) {
    title(ui, "regions");
    let paint = app.view.paint;
    let switches = [
        (paint == Some(Paint::Add), "paint", Action::Paint),
        (paint == Some(Paint::Erase), "erase", Action::Erase),
        // Never on: it is done at once.
        (false, "clear", Action::ClearPaint),
    ];
    toggles(ui, &switches, asked);
    ui.horizontal(|ui| {
        ui.checkbox(&mut app.form.replace_regions, "painted ones only")
            .on_hover_text(tip(Action::ReplaceRegions));
        let brush = DragValue::new(&mut app.view.brush).range(0.5..=16.0).speed(0.05);
        let size = [share(ui, 1), 24.0];
        ui.add_sized(size, brush.max_decimals(1).prefix("brush "))
            .on_hover_text(tip(Action::LargerBrush));
    });
}

fn saving(ui: &mut Ui, app: &mut App, asked: &mut Option<Action>) {
    title(ui, "files");
    buttons(ui, &[("save", Action::Save), ("save strip", Action::SaveStrip)], asked);
    let open = [("open model", Action::OpenModel), ("open picture", Action::OpenPicture)];
    buttons(ui, &open, asked);
    let hint = match &app.model {
        Some(model) => format!("{}; or type a path", model.name),
        None => "type a path".into(),
    };
    let entered = field(ui, "model", &mut app.model_field, 1, &hint, tip(Action::EditModel));
    if entered && !app.model_field.trim().is_empty() {
        app.open_typed();
    }
}
