//! What to draw, at the left.

mod loras;
mod model;
mod sampling;
mod widgets;

use eframe::egui::{Button, DragValue, Panel, RichText, ScrollArea, Slider, Ui};

use crate::app::App;
use crate::keys::{Action, tip};
use crate::theme;
use crate::view::Paint;
use widgets::{Asked, HIGH, button, buttons, field, share, title, toggles};

/// Width of the panel.
pub const WIDTH: f32 = 268.0;
/// Height below which the buttons that draw are not kept in sight.
const LEAST_HEIGHT: f32 = 240.0;

/// Shows the controls: all of them can be scrolled to, and those that draw are always there.
pub fn show(ui: &mut Ui, app: &mut App) {
    let mut asked = Asked { situation: app.situation(), action: None };
    let has_room = ui.available_height() > LEAST_HEIGHT;
    if has_room {
        let panel = Panel::bottom("runs").resizable(false).show_separator_line(false);
        let frame = eframe::egui::Frame::new().inner_margin(eframe::egui::Margin {
            top: 6,
            right: 4,
            ..Default::default()
        });
        panel.frame(frame).show(ui, |ui| runs(ui, app, &mut asked));
    }
    ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
        // Not under the scroll bar.
        ui.set_max_width((ui.available_width() - 4.0).max(0.0));
        title(ui, "prompt");
        let tip_text = tip(Action::EditPrompt);
        let mut entered = field(ui, "prompt", &mut app.form.prompt, 2, "what to draw", tip_text);
        entered |= sampling::show(ui, app);
        if entered {
            asked.action = Some(Action::Run);
        }
        loras::show(ui, app, &mut asked);
        if !has_room {
            runs(ui, app, &mut asked);
        }
        looks(ui, app, &mut asked);
        if app.form.uses_ralu() {
            regions(ui, app, &mut asked);
        }
        title(ui, "save");
        let save = [("picture", Action::Save), ("strip of stages", Action::SaveStrip)];
        buttons(ui, &save, &mut asked);
        model::show(ui, app, &mut asked);
    });
    if let Some(action) = asked.action {
        app.act(ui.ctx(), action);
    }
}

fn runs(ui: &mut Ui, app: &App, asked: &mut Asked) {
    let wide = [ui.available_width(), 30.0];
    if app.is_busy() {
        let stop = Button::new(RichText::new("stop").color(theme::TEXT)).fill(theme::LINE);
        button(ui, wide, stop, Action::Stop, asked);
    } else {
        let draw = Button::new(RichText::new("draw").color(theme::BACKGROUND).strong());
        button(ui, wide, draw.fill(theme::AMBER), Action::Run, asked);
    }
    buttons(ui, &[("draw both", Action::RunBoth), ("from stage 1", Action::Resume)], asked);
}

fn looks(ui: &mut Ui, app: &mut App, asked: &mut Asked) {
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

fn regions(ui: &mut Ui, app: &mut App, asked: &mut Asked) {
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
        let size = [share(ui, 1), HIGH];
        ui.add_sized(size, brush.max_decimals(1).prefix("brush "))
            .on_hover_text(tip(Action::LargerBrush));
    });
}
