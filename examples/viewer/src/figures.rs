//! Figures at the right: noise levels, speed, memory, adapter, frames.

use eframe::egui::{self, RichText, Sense, Stroke, Ui, pos2, vec2};
use ralu::gpu::human_bytes;

use crate::app::App;
use crate::keys::{Action, tip};
use crate::record::Record;
use crate::theme;

/// Of the panel.
pub const WIDTH: f32 = 212.0;

/// Shows the figures.
pub fn show(ui: &mut Ui, app: &mut App) {
    let mut asked = None;
    egui::ScrollArea::vertical().auto_shrink([false, true]).show(ui, |ui| {
        if let Some(record) = app.shown() {
            title(ui, "noise level");
            sigmas(ui, record, app.view.moment);
            speed(ui, app, record);
            memory(ui, record);
        }
        title(ui, "adapter");
        let adapter = &app.engine.adapter;
        ui.label(RichText::new(&adapter.name).size(12.0));
        ui.label(RichText::new(adapter.backend).size(11.0).color(theme::QUIET));
        if ui.button("open again").on_hover_text(tip(Action::ReopenGpu)).clicked() {
            asked = Some(Action::ReopenGpu);
        }
        if app.view.frames {
            frames(ui, app);
        }
    });
    if let Some(action) = asked {
        app.act(ui.ctx(), action);
    }
}

fn title(ui: &mut Ui, text: &str) {
    ui.add_space(6.0);
    ui.label(RichText::new(text).color(theme::QUIET).size(11.0));
}

/// A name and a figure.
fn row(ui: &mut Ui, name: &str, figure: String) {
    ui.horizontal(|ui| {
        ui.label(RichText::new(name).size(12.0).color(theme::QUIET));
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            ui.label(RichText::new(figure).size(12.5));
        });
    });
}

/// The noise levels of all steps; jumps are gaps, at which noise is added again.
fn sigmas(ui: &mut Ui, record: &Record, asked: Option<usize>) {
    let size = vec2(ui.available_width().max(10.0), 96.0);
    let (response, painter) = ui.allocate_painter(size, Sense::hover());
    let area = response.rect.shrink2(vec2(4.0, 6.0));
    let stages = &record.schedule.stages;
    let steps = record.schedule.steps().max(1) as f32;
    let at = |step: usize, sigma: f64| {
        pos2(
            area.left() + area.width() * step as f32 / steps,
            area.bottom() - area.height() * sigma as f32,
        )
    };
    let line = Stroke::new(1.0, theme::LINE);
    painter.hline(area.x_range(), area.bottom(), line);
    painter.hline(area.x_range(), area.top(), line);
    let (now_stage, now_step) = match asked.and_then(|i| record.moments.get(i)) {
        Some(moment) => (moment.stage, moment.step),
        None => record.position(),
    };
    let mut before = 0;
    for (i, stage) in stages.iter().enumerate() {
        let points: Vec<_> =
            stage.sigmas.iter().enumerate().map(|(step, s)| at(before + step, *s)).collect();
        let colour = match i {
            _ if stages.len() == 1 => theme::AMBER,
            0 => theme::BLUE,
            _ if i + 1 == stages.len() => theme::AMBER,
            _ => theme::GREEN,
        };
        if i > 0
            && let (Some(from), Some(to)) = (stages[i - 1].sigmas.last(), stage.sigmas.first())
        {
            let (from, to) = (at(before, *from), at(before, *to));
            painter.extend(egui::Shape::dashed_line(
                &[from, to],
                Stroke::new(1.0, theme::QUIET),
                3.0,
                2.0,
            ));
        }
        if i == now_stage
            && let Some(point) = points.get(now_step)
        {
            painter.circle_filled(*point, 4.0, colour);
        }
        points.iter().for_each(|point| {
            painter.circle_filled(*point, 1.6, colour);
        });
        painter.line(points, Stroke::new(1.5, colour));
        before += stage.steps();
    }
    response.on_hover_text(
        "Noise of the latents, from 1 (noise alone) at the top to 0. Dashed: jumps between stages, which add noise.",
    );
}

fn speed(ui: &mut Ui, app: &App, record: &Record) {
    title(ui, "speed");
    if let Some(plan) = &record.plan {
        let figure = format!("{:.2}x", plan.speedup_with_attention);
        row(ui, &format!("predicted, of {} steps", plan.baseline.steps), figure);
    }
    if let Some(measured) = record.measured_speedup() {
        row(ui, "measured by its steps", format!("{measured:.2}x"));
    }
    // Both were run: that is the whole truth.
    if let (Some(plain), Some(ralu)) = (&app.plain, &app.ralu)
        && let (Some(a), Some(b)) = (plain.seconds, ralu.seconds)
        && (plain.settings.width, plain.settings.height)
            == (ralu.settings.width, ralu.settings.height)
        && !ralu.resumed
    {
        row(ui, &format!("of {} plain steps, run", plain.settings.steps), format!("{:.2}x", a / b));
    }
    if let Some(seconds) = record.seconds {
        row(ui, "the picture took", format!("{seconds:.1} s"));
    }
    if let Some(regions) = &record.regions {
        row(ui, "finding regions", format!("{:.2} s", regions.seconds));
    }
}

fn memory(ui: &mut Ui, record: &Record) {
    title(ui, "memory");
    row(ui, "weights", human_bytes(record.memory.weights_bytes));
    row(ui, "activations, pooled", human_bytes(record.memory.pool_bytes));
    row(ui, "latents and pixels", human_bytes(record.memory.states_bytes));
    row(ui, "most at once", human_bytes(record.peak_bytes));
}

fn frames(ui: &mut Ui, app: &App) {
    title(ui, "frames");
    let shown = |figure: Option<[f64; 2]>| match figure {
        Some([median, slowest]) => format!("{median:.1} / {slowest:.1} ms"),
        None => "none yet".into(),
    };
    row(ui, "apart", shown(app.frames.between()));
    row(ui, "work", shown(app.frames.work()));
    ui.small("median / slowest of a hundred");
}
