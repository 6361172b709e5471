//! Colours and spacing: dark and quiet, so that the picture is the brightest thing in the window.

use eframe::egui::{self, Color32, CornerRadius, FontFamily, FontId, Stroke, TextStyle, Visuals};

/// Behind everything.
pub const BACKGROUND: Color32 = Color32::from_rgb(0x12, 0x14, 0x17);
/// Behind the controls.
pub const PANEL: Color32 = Color32::from_rgb(0x18, 0x1b, 0x1f);
/// Of fields.
pub const FIELD: Color32 = Color32::from_rgb(0x22, 0x26, 0x2b);
/// Edges of what can be pressed or typed in: three times as bright as what lies on either side, at least.
pub const EDGE: Color32 = Color32::from_rgb(0x78, 0x80, 0x8a);
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
    context.set_visuals_of(egui::Theme::Dark, visuals());
    context.style_mut_of(egui::Theme::Dark, |style| {
        style.spacing.item_spacing = egui::vec2(8.0, 7.0);
        style.spacing.button_padding = egui::vec2(9.0, 4.0);
        style.spacing.interact_size.y = 24.0;
        // That there is more below is to be seen without the pointer there.
        style.spacing.scroll.dormant_handle_opacity = 0.6;
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

fn visuals() -> Visuals {
    let mut visuals = Visuals::dark();
    visuals.panel_fill = PANEL;
    visuals.window_fill = PANEL;
    visuals.window_stroke = Stroke::new(1.0, EDGE);
    visuals.extreme_bg_color = FIELD;
    visuals.text_edit_bg_color = Some(FIELD);
    visuals.faint_bg_color = FIELD;
    visuals.override_text_color = Some(TEXT);
    visuals.weak_text_color = Some(QUIET);
    visuals.selection.bg_fill = faint(AMBER, 0.28);
    visuals.selection.stroke = Stroke::new(1.0, AMBER);
    visuals.slider_trailing_fill = true;
    let widgets = &mut visuals.widgets;
    for widget in [
        &mut widgets.noninteractive,
        &mut widgets.inactive,
        &mut widgets.hovered,
        &mut widgets.active,
        &mut widgets.open,
    ] {
        widget.corner_radius = CornerRadius::same(4);
        widget.expansion = 0.0;
    }
    widgets.noninteractive.bg_stroke = Stroke::new(1.0, LINE);
    // Fields and buttons; rails of sliders and boxes of switches have the other fill.
    for widget in [&mut widgets.inactive, &mut widgets.open] {
        widget.weak_bg_fill = FIELD;
        widget.bg_fill = EDGE;
        widget.bg_stroke = Stroke::new(1.0, EDGE);
        widget.fg_stroke = Stroke::new(1.5, Color32::WHITE);
    }
    widgets.hovered.weak_bg_fill = LINE;
    widgets.hovered.bg_fill = EDGE;
    widgets.hovered.bg_stroke = Stroke::new(1.0, TEXT);
    widgets.active.weak_bg_fill = LINE;
    widgets.active.bg_fill = EDGE;
    visuals
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Least ratio of what is needed to see what can be used (WCAG 2.2, 1.4.11), and of text (1.4.3).
    const EDGES: f32 = 3.0;
    const TEXTS: f32 = 4.5;

    /// Relative luminance.
    fn luminance(colour: Color32) -> f32 {
        let linear = |value: u8| match f32::from(value) / 255.0 {
            v if v <= 0.04045 => v / 12.92,
            v => ((v + 0.055) / 1.055).powf(2.4),
        };
        0.2126 * linear(colour.r()) + 0.7152 * linear(colour.g()) + 0.0722 * linear(colour.b())
    }

    fn contrast(a: Color32, b: Color32) -> f32 {
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        a.max(b) / a.min(b)
    }

    #[track_caller]
    fn differ(what: &str, a: Color32, b: Color32, least: f32) {
        let found = contrast(a, b);
        assert!(found >= least, "{what}: {a:?} on {b:?} is {found:.2} : 1, not {least} : 1");
    }

    #[test]
    fn contrast_is_what_wcag_says() {
        assert!((contrast(Color32::WHITE, Color32::BLACK) - 21.0).abs() < 1e-3);
        let grey = Color32::from_rgb(0x77, 0x77, 0x77);
        assert!((contrast(grey, Color32::WHITE) - 4.48).abs() < 0.01);
    }

    #[test]
    fn what_can_be_used_has_edges() {
        let visuals = visuals();
        let widgets = &visuals.widgets;
        for (name, widget) in [
            ("inactive", widgets.inactive),
            ("hovered", widgets.hovered),
            ("active", widgets.active),
            ("open", widgets.open),
        ] {
            differ(name, widget.bg_stroke.color, PANEL, EDGES);
            differ(name, widget.bg_stroke.color, widget.weak_bg_fill, EDGES);
            assert!(widget.bg_stroke.width >= 1.0);
            // Sliders' rails and switches' boxes; their marks on them.
            differ(name, widget.bg_fill, PANEL, EDGES);
            differ(name, widget.fg_stroke.color, widget.bg_fill, EDGES);
        }
        differ("a field that is typed in", visuals.selection.stroke.color, FIELD, EDGES);
        // What is switched on is told by its edge and its text.
        differ("on", AMBER, PANEL.blend(visuals.selection.bg_fill), EDGES);
    }

    #[test]
    fn text_can_be_read() {
        let visuals = visuals();
        for (name, text) in [
            ("text", TEXT),
            ("quiet text", QUIET),
            ("an error", RED),
            ("a hint of painting", ROSE),
            ("a warning", AMBER),
        ] {
            for ground in [BACKGROUND, PANEL, FIELD] {
                differ(name, text, ground, TEXTS);
            }
        }
        differ("a button under the pointer", TEXT, visuals.widgets.hovered.weak_bg_fill, TEXTS);
        differ("a hint in a field", visuals.weak_text_color(), FIELD, TEXTS);
        differ("draw", BACKGROUND, AMBER, TEXTS);
        differ("marked text", TEXT, FIELD.blend(visuals.selection.bg_fill), TEXTS);
        differ("on", AMBER, PANEL.blend(visuals.selection.bg_fill), TEXTS);
    }
}
