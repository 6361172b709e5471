//! Where a stage's tokens are, as the network is told.

use super::Run;
use crate::checkpoint::source::read;
use crate::models::position_table::Interpolation;
use crate::models::rope::Rope;
use crate::pipeline::context::RunContext;
use crate::pipeline::event::Event;
use crate::pipeline::programs::PositionMemory;
use crate::pipeline::{Error, StageKind};
use crate::sampling::layout::{table_crop, table_positions};
use crate::sampling::{Grid, TokenLayout};
use crate::turns::Turns;

impl Run {
    /// Writes the positions of a stage's tokens to the GPU.
    pub(super) async fn write_positions(&mut self, stage: usize) -> Result<(), Error> {
        let Some(rope) = self.context.model.config.transformer.rope() else {
            return self.write_table_rows(stage).await;
        };
        let n_text = self.context.model.config.text_tokens(self.settings.max_sequence_length);
        match (&self.memory().stages[stage].positions, self.layout(stage)?) {
            (PositionMemory::Rotations(table), layout) => {
                let positions = layout.map_or_else(|| self.raster(), |layout| layout.positions());
                self.write(table, &rotations(&rope, n_text, &positions).await).await
            }
            (PositionMemory::PerGrid { fine, coarse, .. }, Some(layout)) => {
                let in_full_units = layout.positions_in_full_units();
                let in_fine = rotations(&rope, n_text, &in_full_units).await;
                self.write(fine, &in_fine).await?;
                let in_coarse = rotations(&rope, n_text, &layout.positions()).await;
                self.write(coarse, &in_coarse).await
            }
            (PositionMemory::PerGrid { .. }, None) | (PositionMemory::Added(_), _) => {
                unreachable!("memory was made for rotations, and for two grids only under RALU")
            }
        }
    }

    /// The stage's tokens; `None` for plain sampling, whose grid may have odd sides.
    fn layout(&self, stage: usize) -> Result<Option<TokenLayout>, Error> {
        let grid: Grid = self.schedule.grid();
        if !self.schedule.is_ralu() {
            return Ok(None);
        }
        Ok(Some(match self.schedule.stages[stage].kind {
            StageKind::Low => TokenLayout::low(grid)?,
            StageKind::Mixed => TokenLayout::mixed(grid, &self.image.selected)?,
            StageKind::Full => TokenLayout::full(grid)?,
        }))
    }

    fn raster(&self) -> Vec<[f32; 2]> {
        let (rows, cols) = (self.schedule.rows, self.schedule.cols);
        (0..rows).flat_map(|row| (0..cols).map(move |col| [row as f32, col as f32])).collect()
    }

    /// The vectors of the table of positions that belong to the stage's tokens.
    async fn write_table_rows(&mut self, stage: usize) -> Result<(), Error> {
        let context = self.context.clone();
        let RunContext { model, cache, .. } = &*context;
        let (source, parts, interpolation) = (&model.source, &model.parts, &cache.interpolation);
        let Some(table) = parts.denoiser.model.position_table() else {
            unreachable!("a network has rotary positions or a table of them")
        };
        let weights = &parts.denoiser.weights;
        let positions = match self.layout(stage)? {
            Some(layout) => table_positions(&layout, table.side())?,
            None => {
                let [top, left] = table_crop(self.schedule.rows, self.schedule.cols, table.side())?;
                self.raster().into_iter().map(|[r, c]| [top + r, left + c]).collect()
            }
        };
        let has_fractions = positions.iter().flatten().any(|x| x.fract() != 0.0);
        let found = match interpolation.get() {
            Some(found) => found,
            // Nothing lies between two entries: the formula is not asked.
            None if !has_fractions || model.is_random => Interpolation::Formula,
            None => {
                let found = read(&**source, || table.check(weights)).await?;
                interpolation.set(Some(found));
                if found == Interpolation::Linear {
                    self.events.push_back(Event::Warning(
                        "this model's table of positions does not follow the usual formula; positions between two \
                         entries are interpolated"
                            .to_owned(),
                    ));
                }
                found
            }
        };
        let rows = match model.is_random {
            true => vec![0.0; positions.len() * model.config.transformer.hidden()],
            false => read(&**source, || table.rows(weights, &positions, found)).await?,
        };
        match &self.memory().stages[stage].positions {
            PositionMemory::Added(memory) => self.write(memory, &rows).await,
            PositionMemory::Rotations(_) | PositionMemory::PerGrid { .. } => {
                unreachable!("memory was made for a table of positions")
            }
        }
    }
}

/// The rotations of all tokens, some tokens at a time.
async fn rotations(rope: &Rope, n_text: usize, positions: &[[f32; 2]]) -> Vec<f32> {
    let turns = Turns::new();
    let mut table = rope.text_table(n_text);
    for some in positions.chunks(128) {
        table.extend(rope.image_table(some));
        turns.yield_if_due().await;
    }
    table
}
