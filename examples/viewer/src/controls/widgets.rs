//! What controls are made of.

use std::fmt::Display;
use std::str::FromStr;

use eframe::egui::{
    self, Align2, Button, ComboBox, RichText, Sense, Stroke, TextEdit, TextStyle, Ui, Widget, vec2,
};
use ralu::names;
use serde::Deserialize;

use crate::app::Situation;
use crate::keys::{Action, tip};
use crate::theme;

/// Width of the column in which values are named.
const NAMES: f32 = 84.0;
/// Height of a control.
pub const HIGH: f32 = 24.0;

/// What pressed buttons ask for, and what can be asked for now.
pub struct Asked {
    pub situation: Situation,
    pub action: Option<Action>,
}

pub fn title(ui: &mut Ui, text: &str) {
    ui.add_space(4.0);
    ui.label(RichText::new(text).color(theme::QUIET).size(11.0));
}

/// A small line of what is so.
pub fn quiet(ui: &mut Ui, text: impl Into<String>) {
    ui.label(RichText::new(text).color(theme::QUIET).size(11.0));
}

/// A text field; whether Enter was pressed in it. Shift+Enter begins a new line.
pub fn field(
    ui: &mut Ui,
    id: &str,
    text: &mut String,
    rows: usize,
    hint: &str,
    tip: String,
) -> bool {
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

/// A row of the form: what it is about, and its fields.
pub fn row(ui: &mut Ui, name: &str, fields: impl FnOnce(&mut Ui)) {
    ui.horizontal(|ui| {
        let (rect, _) = ui.allocate_exact_size(vec2(NAMES, HIGH), Sense::hover());
        let font = TextStyle::Body.resolve(ui.style());
        ui.painter().text(rect.left_center(), Align2::LEFT_CENTER, name, font, theme::TEXT);
        fields(ui);
    });
}

/// A widget that takes the rest of a row.
pub fn wide(ui: &mut Ui, widget: impl Widget) -> egui::Response {
    ui.add_sized([share(ui, 1), HIGH], widget)
}

/// What each of `n` things has of the rest of a row.
pub fn share(ui: &Ui, n: usize) -> f32 {
    let gaps = ui.spacing().item_spacing.x * (n - 1) as f32;
    ((ui.available_width() - gaps) / n as f32).max(8.0)
}

pub fn combo(ui: &mut Ui, id: &str, value: &mut String, known: &[&str], tip: String) {
    let shown = value.split(':').next().unwrap_or(value).to_owned();
    let width = share(ui, 1);
    let response = ComboBox::from_id_salt(id).width(width).selected_text(shown).show_ui(ui, |ui| {
        for name in known {
            ui.selectable_value(value, (*name).to_owned(), *name);
        }
    });
    response.response.on_hover_text(tip);
}

/// A list of the names that a choice has.
pub fn named<T>(ui: &mut Ui, id: &str, value: &mut T, tip: &str)
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
pub fn named_or_own<T>(ui: &mut Ui, id: &str, value: &mut Option<T>, tip: &str)
where
    T: Display + FromStr + for<'de> Deserialize<'de>,
{
    const OWN: &str = "the variant's";
    let mut name = value.as_ref().map_or_else(|| OWN.to_owned(), T::to_string);
    let known = [&[OWN][..], names::of_values::<T>()].concat();
    combo(ui, id, &mut name, &known, tip.to_owned());
    *value = name.parse().ok();
}

/// A button that can be pressed if its action can be done, and else says under the pointer why not.
pub fn button(ui: &mut Ui, size: [f32; 2], button: Button<'_>, action: Action, asked: &mut Asked) {
    let obstacle = asked.situation.obstacle(action);
    let add = |ui: &mut Ui| ui.add_sized(size, button);
    let response = ui.add_enabled_ui(obstacle.is_none(), add).inner;
    let response = response.on_hover_text(tip(action));
    if response.on_disabled_hover_text(obstacle.unwrap_or_default()).clicked() {
        asked.action = Some(action);
    }
}

/// Buttons in a row, equally wide.
pub fn buttons(ui: &mut Ui, texts: &[(&str, Action)], asked: &mut Asked) {
    ui.horizontal(|ui| {
        // Their width is given, not made of their texts.
        ui.spacing_mut().button_padding.x = 2.0;
        let width = share(ui, texts.len());
        for (text, action) in texts {
            button(ui, [width, HIGH], Button::new(*text), *action, asked);
        }
    });
}

/// A switch that looks like a button.
pub fn toggle(ui: &mut Ui, width: f32, on: bool, text: &str, action: Action, asked: &mut Asked) {
    let text = RichText::new(text).color(if on { theme::AMBER } else { theme::TEXT });
    let mut switch = Button::selectable(on, text).frame_when_inactive(true);
    if on {
        switch = switch.stroke(Stroke::new(1.0, theme::AMBER));
    }
    button(ui, [width, HIGH], switch, action, asked);
}

/// Switches in a row, equally wide.
pub fn toggles(ui: &mut Ui, switches: &[(bool, &str, Action)], asked: &mut Asked) {
    ui.horizontal(|ui| {
        ui.spacing_mut().button_padding.x = 2.0;
        let width = share(ui, switches.len());
        for (on, text, action) in switches {
            toggle(ui, width, *on, text, *action, asked);
        }
    });
}
