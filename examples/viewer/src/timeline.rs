//! The stages below: as wide as their work, a tick for each step, and a place to go back to.

use eframe::egui::{Align2, CursorIcon, FontId, Painter, Rect, Sense, Ui, pos2, vec2};
use ralu::pipeline::StageKind;

use crate::app::App;
use crate::record::{MomentKind, Record, State};
use crate::theme;

/// Of the panel.
pub const HEIGHT: f32 = 96.0;
/// Of the bars.
const BAR: f32 = 22.0;
/// Between stages.
const GAP: f32 = 6.0;

/// Shows the stages of the run.
pub fn show(ui: &mut Ui, app: &mut App) {
    let (response, painter) = ui.allocate_painter(ui.available_size(), Sense::click_and_drag());
    let area = response.rect;
    let Some(record) = app.shown() else {
        let text = "three stages: half the size, then the regions with detail, then the whole";
        let font = FontId::proportional(12.5);
        painter.text(area.center(), Align2::CENTER_CENTER, text, font, theme::QUIET);
        return;
    };
    if area.width() < 40.0 || area.height() < 60.0 {
        return;
    }
    // The mark below has room at both ends.
    let row = Rect::from_min_size(area.min + vec2(5.0, 22.0), vec2(area.width() - 10.0, BAR));
    let bars = bars(record, row);
    for (stage, bar) in bars.iter().enumerate() {
        draw(&painter, record, stage, *bar);
    }
    let n = record.moments.len();
    let here = app.view.moment.unwrap_or(n.saturating_sub(1)).min(n.saturating_sub(1));
    if let Some(moment) = record.moments.get(here) {
        let x = place(record, &bars, moment.stage, moment.step);
        let bar = bars[moment.stage];
        let height = if app.view.moment.is_some() { 8.0 } else { 4.0 };
        let y = bar.bottom() + 3.0;
        let mark = vec![pos2(x, y), pos2(x - 5.0, y + height), pos2(x + 5.0, y + height)];
        painter.add(eframe::egui::Shape::convex_polygon(mark, theme::TEXT, (0.0, theme::TEXT)));
    }
    let text = status(record, app.view.moment);
    let font = FontId::proportional(12.5);
    painter.text(area.left_bottom() + vec2(5.0, 0.0), Align2::LEFT_BOTTOM, text, font, theme::TEXT);

    let asked = response.interact_pointer_pos().filter(|_| response.is_pointer_button_down_on());
    let moment = asked.map(|at| nearest(record, &bars, at.x));
    if response.hovered() {
        ui.ctx().set_cursor_icon(CursorIcon::PointingHand);
    }
    if let Some(moment) = moment {
        // The last one is where a run goes on.
        app.view.moment = (moment + 1 < n).then_some(moment);
    }
    response.on_hover_text_at_pointer("Go back to a step  (Left, Right, End)");
}

/// The stages' places, as wide as their work.
fn bars(record: &Record, area: Rect) -> Vec<Rect> {
    let stages = &record.schedule.stages;
    let work = |stage: usize| -> f64 {
        let steps = stages[stage].steps() as f64;
        let planned = record.plan.as_ref().and_then(|plan| plan.stages.get(stage));
        match planned {
            Some(planned) => steps * planned.tflops_per_step.with_attention,
            None => steps * stages[stage].n_tokens as f64,
        }
    };
    let all: f64 = (0..stages.len()).map(work).sum();
    let gaps = GAP * (stages.len() - 1) as f32;
    // Every stage has room for its words.
    let least = (area.width() * 0.18).min(150.0);
    let free = (area.width() - gaps - least * stages.len() as f32).max(0.0);
    let mut x = area.left();
    (0..stages.len())
        .map(|stage| {
            let width = least + free * (work(stage) / all.max(1e-12)) as f32;
            let bar = Rect::from_min_size(pos2(x, area.top()), vec2(width, area.height()));
            x += width + GAP;
            bar
        })
        .collect()
}

fn place(record: &Record, bars: &[Rect], stage: usize, step: usize) -> f32 {
    let steps = record.schedule.stages[stage].steps().max(1);
    bars[stage].left() + bars[stage].width() * step as f32 / steps as f32
}

fn nearest(record: &Record, bars: &[Rect], x: f32) -> usize {
    let distance = |i: usize| {
        let moment = &record.moments[i];
        (place(record, bars, moment.stage, moment.step) - x).abs()
    };
    // Of two at one place the later one: decoded, not guessed.
    (0..record.moments.len())
        .rev()
        .min_by(|a, b| distance(*a).total_cmp(&distance(*b)))
        .unwrap_or(0)
}

fn draw(painter: &Painter, record: &Record, stage: usize, bar: Rect) {
    let spec = &record.schedule.stages[stage];
    let steps = &record.steps[stage];
    let kept = record.resumed && stage == 0;
    let colour = match spec.kind {
        StageKind::Low => theme::BLUE,
        StageKind::Mixed => theme::GREEN,
        StageKind::Full => theme::AMBER,
    };
    painter.rect_filled(bar, 3.0, theme::FIELD);
    let n = spec.steps();
    for step in 0..n {
        let width = bar.width() / n as f32;
        let min = pos2(bar.left() + step as f32 * width, bar.top());
        let cell = Rect::from_min_size(min, vec2(width, bar.height())).shrink2(vec2(1.0, 1.0));
        let fill = match steps.get(step) {
            _ if kept => theme::faint(colour, 0.4),
            Some(done) if done.reused => theme::faint(colour, 0.45),
            Some(_) => colour,
            None => continue,
        };
        painter.rect_filled(cell, 2.0, fill);
    }
    let running = record.state == State::Running && !record.is_over();
    let (at, done) = record.position();
    if running && at == stage && done < n {
        let width = bar.width() / n as f32;
        let min = pos2(bar.left() + done as f32 * width, bar.top());
        let cell = Rect::from_min_size(min, vec2(width, bar.height())).shrink2(vec2(1.0, 1.0));
        painter.rect_filled(cell, 2.0, theme::faint(colour, 0.22));
    }
    let name = match (spec.kind, record.schedule.stages.len()) {
        (_, 1) => "plain sampling".to_owned(),
        (StageKind::Low, _) => format!("{}  half size", stage + 1),
        (StageKind::Mixed, _) => format!("{}  regions", stage + 1),
        (StageKind::Full, _) => format!("{}  whole", stage + 1),
    };
    let above = bar.left_top() + vec2(1.0, -5.0);
    let font = FontId::proportional(12.0);
    let end = painter.text(above, Align2::LEFT_BOTTOM, name, font, theme::TEXT).right();
    let tokens = format!("{} tokens", spec.n_tokens);
    let seconds = record.stage_seconds(stage);
    let (long, short): (String, String) =
        match record.seconds_to_come(stage).filter(|_| !record.is_over()) {
            _ if kept => (", kept".into(), ", kept".into()),
            Some(to_come) if steps.is_empty() => {
                (format!(", about {to_come:.1} s"), format!(", ~{to_come:.1} s"))
            }
            Some(to_come) => (
                format!(", {seconds:.1} s of about {:.1}", seconds + to_come),
                format!(", {seconds:.1} of ~{:.1} s", seconds + to_come),
            ),
            None if seconds > 0.0 => (format!(", {seconds:.1} s"), format!(", {seconds:.1} s")),
            None => (format!(", {n} steps"), String::new()),
        };
    let at = pos2(end + 8.0, above.y);
    // As much as there is room for before the next stage.
    let shown = [format!("{tokens}{long}"), format!("{tokens}{short}"), tokens, String::new()]
        .map(|text| painter.layout_no_wrap(text, theme::small(), theme::QUIET));
    if let Some(galley) = shown.into_iter().find(|galley| at.x + galley.size().x <= bar.right()) {
        painter.galley(at - vec2(0.0, galley.size().y), galley, theme::QUIET);
    }
}

/// A line about the moment that is shown.
fn status(record: &Record, asked: Option<usize>) -> String {
    let Some(moment) = asked.and_then(|i| record.moments.get(i)) else {
        return format!("{}: {}", record.name(), record.status());
    };
    let stage = &record.schedule.stages[moment.stage];
    let sigma = stage.sigmas.get(moment.step).copied().unwrap_or(0.0);
    let what = match moment.kind {
        MomentKind::Estimate => "estimate",
        MomentKind::Decoded => "decoded",
        MomentKind::Finished => "finished",
    };
    let seconds = moment.step.checked_sub(1).and_then(|i| record.steps[moment.stage].get(i));
    let seconds = seconds.map_or(String::new(), |step| format!(", {:.2} s", step.seconds));
    format!(
        "stage {}, step {} of {}: {what} at sigma {sigma:.3}{seconds}",
        moment.stage + 1,
        moment.step,
        stage.steps()
    )
}
