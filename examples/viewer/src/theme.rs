//! Colours and spacing: dark and quiet, so that the picture is the brightest thing in the window.

use eframe::egui::{self, Color32, CornerRadius, FontFamily, FontId, Stroke, TextStyle, Visuals};

/// Behind everything.
pub const BACKGROUND: Color32 = Color32::from_rgb(0x12, 0x14, 0x17);
/// Behind the controls.
pub const PANEL: Color32 = Color32::from_rgb(0x18, 0x1b, 0x1f);
/// Of fields.
pub const FIELD: Color32 = Color32::from_rgb(0x22, 0x26, 0x2b);
/// Lines between things.
pub const LINE: Color32 = Color32::from_rgb(0x2d, 0x32, 0x38);
/// Text.
pub const TEXT: Color32 = Color32::from_rgb(0xd9, 0xdd, 0xe2);
/// Text that is less important.
pub const QUIET: Color32 = Color32::from_rgb(0x8a, 0x93, 0x9d);
/// What is refined, and what is under way.
pub const AMBER: Color32 = Color32::from_rgb(0xf2, 0xb8, 0x4b);
/// What is coarse, and what is done.
pub const BLUE: Color32 = Color32::from_rgb(0x6f, 0xa8, 0xdc);
/// What is both: the stage of regions.
pub const GREEN: Color32 = Color32::from_rgb(0x8f, 0xc2, 0x9a);
/// What the user painted.
pub const ROSE: Color32 = Color32::from_rgb(0xe8, 0x7d, 0xa0);
/// What went wrong.
pub const RED: Color32 = Color32::from_rgb(0xef, 0x6f, 0x6c);

/// A colour that lets `alpha` of what is below it through.
pub fn faint(colour: Color32, alpha: f32) -> Color32 {
    colour.gamma_multiply(alpha.clamp(0.0, 1.0))
}

/// Small text.
pub fn small() -> FontId {
    FontId::new(11.0, FontFamily::Proportional)
}

/// Dresses a context.
pub fn apply(context: &egui::Context) {
    context.set_theme(egui::Theme::Dark);
    let mut visuals = Visuals::dark();
    visuals.panel_fill = PANEL;
    visuals.window_fill = PANEL;
    visuals.window_stroke = Stroke::new(1.0, LINE);
    visuals.extreme_bg_color = FIELD;
    visuals.text_edit_bg_color = Some(FIELD);
    visuals.faint_bg_color = FIELD;
    visuals.override_text_color = Some(TEXT);
    visuals.selection.bg_fill = faint(AMBER, 0.35);
    visuals.selection.stroke = Stroke::new(1.0, AMBER);
    visuals.slider_trailing_fill = true;
    for widget in [
        &mut visuals.widgets.noninteractive,
        &mut visuals.widgets.inactive,
        &mut visuals.widgets.hovered,
        &mut visuals.widgets.active,
        &mut visuals.widgets.open,
    ] {
        widget.corner_radius = CornerRadius::same(4);
        widget.expansion = 0.0;
    }
    visuals.widgets.noninteractive.bg_stroke = Stroke::new(1.0, LINE);
    visuals.widgets.inactive.bg_fill = FIELD;
    visuals.widgets.inactive.weak_bg_fill = FIELD;
    visuals.widgets.hovered.weak_bg_fill = LINE;
    visuals.widgets.hovered.bg_stroke = Stroke::new(1.0, QUIET);
    context.set_visuals_of(egui::Theme::Dark, visuals);
    context.style_mut_of(egui::Theme::Dark, |style| {
        style.spacing.item_spacing = egui::vec2(8.0, 7.0);
        style.spacing.button_padding = egui::vec2(9.0, 4.0);
        style.spacing.interact_size.y = 24.0;
        style.interaction.tooltip_delay = 0.4;
        // Nothing moves that need not: a software adapter draws every frame of it.
        style.animation_time = 0.0;
        for (text, size) in [
            (TextStyle::Body, 13.0),
            (TextStyle::Button, 13.0),
            (TextStyle::Small, 11.0),
            (TextStyle::Heading, 16.0),
        ] {
            style.text_styles.insert(text, FontId::new(size, FontFamily::Proportional));
        }
    });
}
