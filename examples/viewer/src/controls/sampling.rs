//! How it is drawn: seed, size, acceleration, guidance, and what is rarely changed.

use std::ops::RangeInclusive;

use eframe::egui::{CollapsingHeader, ComboBox, DragValue, Ui};
use ralu::sampling::ZPolicy;

use super::widgets::{HIGH, combo, field, named, named_or_own, row, share, wide};
use crate::app::App;
use crate::form::{CACHES, Form, RALU};
use crate::keys::{Action, tip};

/// Shows the controls. Whether Enter was pressed in a field of text.
pub fn show(ui: &mut Ui, app: &mut App) -> bool {
    ui.add_space(4.0);
    row(ui, "seed", |ui| {
        let seed = DragValue::new(&mut app.form.seed).speed(0.05);
        wide(ui, seed).on_hover_text(tip(Action::NextSeed));
    });
    row(ui, "size", |ui| {
        let width = share(ui, 2);
        let side = |value| DragValue::new(value).range(16..=8192).speed(4.0);
        let (wide, high) = (side(&mut app.form.width), side(&mut app.form.height));
        ui.add_sized([width, HIGH], wide.prefix("w ")).on_hover_text(tip(Action::Wider));
        ui.add_sized([width, HIGH], high.prefix("h ")).on_hover_text(tip(Action::Taller));
    });
    let loaded = app.form.loaded.is_some();
    let known = if loaded { &RALU[..] } else { &RALU[..RALU.len() - 1] };
    row(ui, "RALU", |ui| combo(ui, "ralu", &mut app.form.ralu, known, tip(Action::NextRalu)));
    row(ui, "cache", |ui| {
        combo(ui, "cache", &mut app.form.cache, &CACHES, tip(Action::NextCache));
    });
    row(ui, "plain steps", |ui| {
        let steps = DragValue::new(&mut app.form.steps).range(1..=1000).speed(0.1);
        wide(ui, steps).on_hover_text(tip(Action::MoreSteps));
    });
    let entered = guidance(ui, app);
    let has_text_length = app.model.as_ref().is_some_and(|model| model.has_text_length);
    CollapsingHeader::new("more").show(ui, |ui| more(ui, &mut app.form, has_text_length));
    entered
}

/// The scales that the model has, and the text that true guidance steers away from.
fn guidance(ui: &mut Ui, app: &mut App) -> bool {
    let App { form, model: Some(model), .. } = app else { return false };
    if let Some(own) = model.guidance {
        row(ui, "guidance", |ui| {
            let mut shown = form.guidance.unwrap_or(own);
            let drag = DragValue::new(&mut shown).range(0.0..=30.0).speed(0.05).max_decimals(2);
            if wide(ui, drag).on_hover_text(tip(Action::MoreGuidance)).changed() {
                form.guidance = Some(shown);
            }
        });
    }
    let mut shown = form.true_guidance(model);
    row(ui, "true guidance", |ui| {
        let off = |scale: f64, _: RangeInclusive<usize>| {
            if scale <= 1.0 { "off".into() } else { format!("{:.2}", scale) }
        };
        let read = |text: &str| if text == "off" { Some(1.0) } else { text.trim().parse().ok() };
        let drag = DragValue::new(&mut shown).range(1.0..=30.0).speed(0.05);
        let drag = drag.custom_formatter(off).custom_parser(read);
        if wide(ui, drag).on_hover_text(tip(Action::MoreTrueGuidance)).changed() {
            form.true_cfg = Some(shown);
        }
    });
    // Without it, it would mean nothing.
    if shown <= 1.0 {
        return false;
    }
    let own = model.negative_prompt.as_deref().filter(|own| !own.is_empty());
    let hint = own.unwrap_or("what it should not show");
    field(ui, "negative", &mut form.negative_prompt, 1, hint, tip(Action::EditNegative))
}

/// What is rarely changed.
fn more(ui: &mut Ui, form: &mut Form, has_text_length: bool) {
    if has_text_length {
        row(ui, "text tokens", |ui| {
            let mut tokens = form.max_sequence_length.unwrap_or(0);
            let own = |tokens: f64, _: RangeInclusive<usize>| {
                if tokens == 0.0 { "the model's".into() } else { format!("{tokens}") }
            };
            let drag = DragValue::new(&mut tokens).range(0..=4096).custom_formatter(own);
            let tip = "tokens of the text that are read; 0 is the model's own number";
            if wide(ui, drag).on_hover_text(tip).changed() {
                form.max_sequence_length = (tokens > 0).then_some(tokens);
            }
        });
    }
    row(ui, "noise", |ui| {
        let tip = "where the first noise comes from; torch is what PyTorch's generator draws";
        named(ui, "rng", &mut form.rng, tip);
    });
    // The rest is RALU's.
    if !form.uses_ralu() {
        return;
    }
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
        ui.add_sized([width, HIGH], DragValue::new(z).range(2.0..=100.0).speed(0.05).prefix("Z "));
    }
}
