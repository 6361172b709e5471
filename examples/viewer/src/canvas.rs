//! The picture in the middle, with its tokens, scores and painted regions over it.

use std::sync::Arc;

use eframe::egui::text::LayoutJob;
use eframe::egui::{
    self, Align, Align2, Color32, CursorIcon, FontId, Galley, Painter, Pos2, Rect, Sense, Stroke,
    StrokeKind, Ui, pos2, vec2,
};
use ralu::pipeline::StageKind;
use ralu::sampling::Grid;

use crate::app::App;
use crate::record::{Moment, MomentKind, Record};
use crate::theme;
use crate::view::Paint;

/// Around the picture.
const MARGIN: f32 = 28.0;
/// Of text above the picture.
const LINE: f32 = 16.0;
/// Lines that stand closer, in points, would be a fog.
const LEAST_CELL: f32 = 4.0;

/// Shows the canvas.
pub fn show(ui: &mut Ui, app: &mut App) {
    let (response, painter) = ui.allocate_painter(ui.available_size(), Sense::click_and_drag());
    let area = response.rect;
    if area.width() < 2.0 * MARGIN + 8.0 || area.height() < 2.0 * MARGIN + 8.0 {
        painter.rect_filled(area, 0.0, theme::BACKGROUND);
        return;
    }
    let told = told(&painter, area, app);
    let mut free = area.shrink(MARGIN);
    if let Some(Told { galley, .. }) = &told {
        free.min.y = free.min.y.max(area.top() + galley.size().y + 14.0).min(free.max.y);
    }
    let rect = place(app, free);
    around(&painter, area, rect);
    let compared = app.view.compare && app.plain.is_some() && app.ralu.is_some();
    if compared {
        compare(&painter, rect, app);
    } else if let Some(record) = app.shown() {
        layers(&painter, rect, app, record, app.view.moment);
    } else {
        hint(&painter, rect, app);
    }
    let (rows, cols) = app.grid();
    let grid = Grid { rows, cols };
    painted(&painter, rect, app, grid);
    pointer(ui, &response, &painter, rect, app, grid, compared);
    dropping(ui, &painter, area);
    if let Some(Told { at, galley, text }) = told {
        let is_cut = galley.elided;
        let is_over = response.hover_pos().is_some_and(|pos| pos.y < at.y + galley.size().y);
        painter.galley(at, galley, theme::TEXT);
        if is_cut && is_over {
            response.on_hover_text_at_pointer(text);
        }
    }
}

/// What surrounds the picture.
fn around(painter: &Painter, area: Rect, rect: Rect) {
    let Rect { min, max } = area;
    for strip in [
        Rect::from_min_max(min, pos2(max.x, rect.top())),
        Rect::from_min_max(pos2(min.x, rect.bottom()), max),
        Rect::from_min_max(pos2(min.x, rect.top()), rect.left_bottom()),
        Rect::from_min_max(rect.right_top(), pos2(max.x, rect.bottom())),
    ] {
        painter.rect_filled(strip, 0.0, theme::BACKGROUND);
    }
}

/// Where the picture goes: as large as it fits.
fn place(app: &App, area: Rect) -> Rect {
    let size = match app.shown() {
        Some(record) => (record.settings.width, record.settings.height),
        None => (app.form.width, app.form.height),
    };
    let size = vec2(size.0.max(1) as f32, size.1.max(1) as f32);
    let scale = (area.width() / size.x).min(area.height() / size.y);
    Rect::from_center_size(area.center(), (size * scale).round()).intersect(area)
}

fn hint(painter: &Painter, rect: Rect, app: &App) {
    let text = match (&app.model, &app.preparing) {
        (None, _) if app.is_opening() => "opening the model",
        (None, _) => "open or drop a model: its folder, or its file",
        (_, Some(what)) => what,
        _ => "type a prompt and press Enter",
    };
    words(painter, rect, text, theme::QUIET);
}

/// Words in the middle, in as many lines as they take.
fn words(painter: &Painter, rect: Rect, text: &str, colour: Color32) {
    let mut job = LayoutJob::simple(text.into(), FontId::proportional(15.0), colour, rect.width());
    job.halign = Align::Center;
    let galley = painter.layout_job(job);
    let top = rect.center() - vec2(0.0, galley.size().y / 2.0);
    painter.galley(top, galley, colour);
}

/// The moment of a run to show.
fn moment(record: &Record, asked: Option<usize>) -> Option<&Moment> {
    asked.and_then(|i| record.moments.get(i)).or(record.moments.last())
}

/// The share of a moment's picture that belongs to the finished one: runs work at sizes rounded up.
fn used(record: &Record, moment: &Moment) -> Rect {
    let (width, height) = match moment.kind {
        MomentKind::Finished => (1.0, 1.0),
        _ => (
            record.settings.width as f32 / record.schedule.width as f32,
            record.settings.height as f32 / record.schedule.height as f32,
        ),
    };
    Rect::from_min_max(pos2(0.0, 0.0), pos2(width, height))
}

/// A run's picture at a moment, its scores and its tokens.
fn layers(painter: &Painter, rect: Rect, app: &App, record: &Record, asked: Option<usize>) {
    let painter = painter.with_clip_rect(rect);
    let map = app.view.map;
    let shown = moment(record, asked);
    let stage = shown.map_or_else(|| record.position().0, |moment| moment.stage);
    let picture = |moment: &Moment, light: f32| {
        let tint = Color32::from_gray((255.0 * light * (1.0 - 0.62 * map)) as u8);
        painter.image(moment.texture.id(), rect, used(record, moment), tint);
    };
    match (shown, &record.before) {
        (Some(moment), _) => picture(moment, 1.0),
        (None, Some(before)) => {
            picture(before, 0.5);
            label(
                &painter,
                rect.center_bottom() - vec2(0.0, 8.0),
                Align2::CENTER_BOTTOM,
                &record.status(),
            );
        }
        (None, None) => words(&painter, rect, &record.status(), theme::QUIET),
    }
    // The grid covers what is worked at, of which the picture is a part.
    let whole = vec2(
        rect.width() * record.schedule.width as f32 / record.settings.width as f32,
        rect.height() * record.schedule.height as f32 / record.settings.height as f32,
    );
    let worked = Rect::from_min_size(rect.min, whole);
    if let (true, Some(regions)) = (app.view.heat, &record.regions) {
        let uv = Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0));
        painter.image(regions.heat.id(), worked, uv, Color32::WHITE);
    }
    if map > 0.01 {
        tokens(&painter, worked, record, stage, map);
    }
}

/// The tokens of a stage: coarse ones large and blue, fine ones small and amber.
fn tokens(painter: &Painter, rect: Rect, record: &Record, stage: usize, alpha: f32) {
    let schedule = &record.schedule;
    let kind = schedule.stages[stage].kind;
    let (rows, cols) = (schedule.rows, schedule.cols);
    let cell = vec2(rect.width() / cols as f32, rect.height() / rows as f32);
    let at = |row: usize, col: usize, n: usize| {
        let min = rect.min + vec2(col as f32 * cell.x, row as f32 * cell.y);
        Rect::from_min_size(min, cell * n as f32)
    };
    let blue = theme::faint(theme::BLUE, 0.85 * alpha);
    let amber = theme::faint(theme::AMBER, 0.95 * alpha);
    if kind == StageKind::Full {
        painter.rect_filled(rect, 0.0, theme::faint(theme::AMBER, 0.10 * alpha));
        return lines(painter, rect, rows, cols, amber);
    }
    painter.rect_filled(rect, 0.0, theme::faint(theme::BLUE, 0.10 * alpha));
    lines(painter, rect, rows / 2, cols / 2, blue);
    let (StageKind::Mixed, Some(regions)) = (kind, &record.regions) else { return };
    for (i, _) in regions.chosen.iter().enumerate().filter(|(_, chosen)| **chosen) {
        let here = at(2 * (i / regions.grid.cols), 2 * (i % regions.grid.cols), 2);
        painter.rect_filled(here, 0.0, theme::faint(theme::AMBER, 0.22 * alpha));
        lines(painter, here, 2, 2, amber);
    }
}

/// A grid of lines, its border too.
fn lines(painter: &Painter, rect: Rect, rows: usize, cols: usize, colour: Color32) {
    let (dx, dy) = (rect.width() / cols as f32, rect.height() / rows as f32);
    let stroke = Stroke::new(1.0, colour);
    if dx.min(dy) >= LEAST_CELL {
        (1..rows).for_each(|row| {
            painter.hline(rect.x_range(), rect.top() + row as f32 * dy, stroke);
        });
        (1..cols).for_each(|col| {
            painter.vline(rect.left() + col as f32 * dx, rect.y_range(), stroke);
        });
    }
    painter.rect_stroke(rect, 0.0, stroke, StrokeKind::Inside);
}

/// Plain sampling at the left of the wipe, RALU at the right.
fn compare(painter: &Painter, rect: Rect, app: &App) {
    let (Some(plain), Some(ralu)) = (&app.plain, &app.ralu) else { return };
    let x = rect.left() + rect.width() * app.view.wipe;
    let left = Rect::from_min_max(rect.min, pos2(x, rect.bottom()));
    let right = Rect::from_min_max(pos2(x, rect.top()), rect.max);
    for (record, part, align) in
        [(plain, left, Align2::LEFT_BOTTOM), (ralu, right, Align2::RIGHT_BOTTOM)]
    {
        if part.width() < 1.0 {
            continue;
        }
        // The run that is under way may be looked back at; the other is shown as it ended.
        let asked = if record.is_plain() == app.shows_plain { app.view.moment } else { None };
        layers(&painter.with_clip_rect(part), rect, app, record, asked);
        let seconds = record.step_seconds();
        let corner = match align {
            Align2::LEFT_BOTTOM => rect.left_bottom() + vec2(10.0, -8.0),
            _ => rect.right_bottom() + vec2(-10.0, -8.0),
        };
        label(
            &painter.with_clip_rect(part),
            corner,
            align,
            &format!("{}  {seconds:.1} s", record.name()),
        );
    }
    painter.vline(x, rect.y_range(), Stroke::new(1.5, theme::TEXT));
    painter.circle_filled(pos2(x, rect.center().y), 9.0, theme::TEXT);
    let font = FontId::proportional(12.0);
    painter.text(pos2(x, rect.center().y), Align2::CENTER_CENTER, "<>", font, theme::BACKGROUND);
}

/// Text that can be read on any picture.
fn label(painter: &Painter, at: Pos2, align: Align2, text: &str) {
    let galley = painter.layout_no_wrap(text.into(), FontId::proportional(12.0), theme::TEXT);
    let rect = align.anchor_size(at, galley.size());
    painter.rect_filled(rect.expand2(vec2(6.0, 3.0)), 4.0, theme::faint(theme::BACKGROUND, 0.75));
    painter.galley(rect.min, galley, theme::TEXT);
}

/// The painted regions.
fn painted(painter: &Painter, rect: Rect, app: &App, grid: Grid) {
    if app.painted.is_empty() {
        return;
    }
    let painter = painter.with_clip_rect(rect);
    let cell = cell_size(rect, app);
    for (i, _) in app.painted.cells.iter().enumerate().filter(|(_, cell)| **cell) {
        let min = rect.min + vec2((i % grid.cols) as f32 * cell.x, (i / grid.cols) as f32 * cell.y);
        let here = Rect::from_min_size(min, cell);
        // A picture is to be seen, a painting to be painted.
        let strength = if app.view.paint.is_some() { 1.0 } else { 0.35 };
        painter.rect_filled(here, 0.0, theme::faint(theme::ROSE, 0.28 * strength * strength));
        let stroke = Stroke::new(1.0, theme::faint(theme::ROSE, 0.8 * strength));
        painter.rect_stroke(here, 0.0, stroke, StrokeKind::Inside);
    }
}

/// Size of a coarse token on the screen.
fn cell_size(rect: Rect, app: &App) -> egui::Vec2 {
    vec2(
        32.0 * rect.width() / app.form.width.max(1) as f32,
        32.0 * rect.height() / app.form.height.max(1) as f32,
    )
}

/// Painting, and dragging the wipe.
fn pointer(
    ui: &Ui,
    response: &egui::Response,
    painter: &Painter,
    rect: Rect,
    app: &mut App,
    grid: Grid,
    compared: bool,
) {
    let Some(at) = response.interact_pointer_pos().or(response.hover_pos()) else { return };
    let pressed = response.is_pointer_button_down_on();
    if compared {
        ui.ctx().set_cursor_icon(CursorIcon::ResizeHorizontal);
        if pressed {
            app.view.wipe = ((at.x - rect.left()) / rect.width()).clamp(0.0, 1.0);
        }
        return;
    }
    let Some(paint) = app.view.paint else { return };
    let cell = cell_size(rect, app);
    if pressed && rect.expand(cell.x).contains(at) && app.painted.cells.len() == grid.n_tokens() {
        let place = (at - rect.min) / cell;
        // The other button does the other thing.
        let other = ui.input(|input| input.pointer.secondary_down());
        app.painted.brush(place.x, place.y, app.view.brush, (paint == Paint::Add) != other);
    }
    if rect.contains(at) {
        ui.ctx().set_cursor_icon(CursorIcon::Crosshair);
        let colour = if paint == Paint::Add { theme::ROSE } else { theme::TEXT };
        painter.circle_stroke(at, app.view.brush * cell.x, Stroke::new(1.5, colour));
    }
}

/// What a drop would do, while something is held over the window.
fn dropping(ui: &Ui, painter: &Painter, area: Rect) {
    if ui.input(|input| input.raw.hovered_files.is_empty()) {
        return;
    }
    painter.rect_filled(area, 0.0, theme::faint(theme::BACKGROUND, 0.75));
    let text = "drop a model, a LoRA for the model that is open, or a picture that ralu made";
    words(painter, area.shrink(12.0), text, theme::TEXT);
}

/// What was done or went wrong, above the picture; a run's warnings too.
struct Told {
    at: Pos2,
    galley: Arc<Galley>,
    text: String,
}

fn told(painter: &Painter, area: Rect, app: &App) -> Option<Told> {
    let (text, colour) = match (&app.notice, app.shown()) {
        (Some(notice), _) if notice.is_error => (notice.text.clone(), theme::RED),
        (Some(notice), _) => (notice.text.clone(), theme::QUIET),
        (None, _) if app.view.paint.is_some() => {
            ("paint where detail matters, then draw from stage 1 (F)".into(), theme::ROSE)
        }
        (None, Some(record)) if !record.warnings.is_empty() => {
            (record.warnings.join("\n"), theme::AMBER)
        }
        _ => return None,
    };
    let width = (area.width() - 24.0).max(1.0);
    let mut job = LayoutJob::simple(text.clone(), FontId::proportional(12.5), colour, width);
    // The picture keeps most of the room; the rest is read under the pointer.
    job.wrap.max_rows = ((0.4 * area.height() / LINE) as usize).max(1);
    let galley = painter.layout_job(job);
    Some(Told { at: pos2(area.left() + 12.0, area.top() + 7.0), galley, text })
}
