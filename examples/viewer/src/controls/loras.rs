//! The LoRAs of the model: a row for each, with a slider for its weight, or one for each of RALU's stages.

use eframe::egui::{Button, Label, RichText, Slider, SliderClamping, Ui};

use super::widgets::{Asked, HIGH, quiet, share, toggle};
use crate::app::{App, LoraRow, WEIGHTS};
use crate::keys::{Action, tip};
use crate::theme;

/// Widths of a row's buttons.
const STAGES: f32 = 52.0;
const REMOVE: f32 = 24.0;
/// Of a slider's number.
const NUMBER: f32 = 52.0;

/// Shows the rows; nothing if the model has no LoRA.
pub fn show(ui: &mut Ui, app: &mut App, asked: &mut Asked) {
    if app.loras.rows.is_empty() {
        return;
    }
    ui.horizontal(|ui| {
        quiet(ui, "LoRAs");
        let live = ui.checkbox(&mut app.view.live, "draw as they change");
        live.on_hover_text(tip(Action::LiveLoras));
    });
    let chosen = app.loras.chosen();
    let has_many = app.loras.rows.len() > 1 || app.loras.rows.iter().any(|row| row.by_stage);
    let mut removed = None;
    for (i, row) in app.loras.rows.iter_mut().enumerate() {
        if head(ui, row, asked) {
            removed = Some(i);
        }
        for slider in 0..row.weights().len() {
            weight(ui, row, slider, has_many && chosen == Some((i, slider)));
        }
    }
    if let Some(i) = removed {
        app.loras.rows.remove(i);
    }
}

/// Its name and its buttons. Whether it is to be removed.
fn head(ui: &mut Ui, row: &mut LoraRow, asked: &Asked) -> bool {
    let mut is_removed = false;
    ui.horizontal(|ui| {
        ui.spacing_mut().button_padding.x = 2.0;
        let gaps = 2.0 * ui.spacing().item_spacing.x;
        let width = (ui.available_width() - gaps - STAGES - REMOVE).max(8.0);
        let is_off = row.lora.weight.stages() == [0.0; 3];
        let colour = if is_off { theme::QUIET } else { theme::TEXT };
        let name = Label::new(RichText::new(row.name()).color(colour)).truncate();
        let about = match &row.report {
            Some(report) => report.to_string(),
            None => row.lora.file.clone(),
        };
        let name = |ui: &mut Ui| {
            ui.set_width(width);
            ui.add(name).on_hover_text(about);
        };
        ui.allocate_ui([width, HIGH].into(), name);
        // A row's own switch: it is not for the chosen one.
        let mut own = Asked { situation: asked.situation, action: None };
        own.situation.has_fixed_stages = row.is_merged();
        toggle(ui, STAGES, row.by_stage, "stages", Action::LoraStages, &mut own);
        if own.action.is_some() {
            row.split();
        }
        let remove = ui.add_sized([REMOVE, HIGH], Button::new("x"));
        is_removed = remove.on_hover_text(tip(Action::RemoveLora)).clicked();
    });
    is_removed
}

fn weight(ui: &mut Ui, row: &mut LoraRow, slider: usize, is_chosen: bool) {
    let mut weight = row.weights()[slider];
    ui.horizontal(|ui| {
        let text = if row.by_stage { (slider + 1).to_string() } else { String::new() };
        let colour = if is_chosen { theme::AMBER } else { theme::QUIET };
        let mark = if is_chosen && !row.by_stage { ">".to_owned() } else { text };
        if !mark.is_empty() {
            ui.label(RichText::new(mark).color(colour));
        }
        ui.spacing_mut().interact_size.x = NUMBER;
        ui.spacing_mut().slider_width = share(ui, 1) - NUMBER - ui.spacing().item_spacing.x;
        // What is typed may go further than the slider.
        let scale = Slider::new(&mut weight, WEIGHTS)
            .clamping(SliderClamping::Never)
            .step_by(0.01)
            .trailing_fill(false)
            .max_decimals(3)
            .update_while_editing(false);
        let about = match (row.by_stage, slider) {
            (false, _) => "weight of the LoRA; 0 is off",
            (true, 0) => "weight in stage 1, at half the size: composition",
            (true, 1) => "weight in stage 2, with regions at full size",
            (true, _) => "weight in stage 3, at full size: detail. Plain sampling takes it, too",
        };
        let tip = format!("{about}  (Z, Shift+Z for the one that J chooses)");
        if ui.add(scale).on_hover_text(tip).changed() {
            row.set(slider, weight);
        }
    });
}
