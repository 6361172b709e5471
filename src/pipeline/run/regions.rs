//! The end of RALU's first stage: the clean estimate, its edges, the regions to refine early, and their pictures.

use web_time::Instant;

use super::Run;
use crate::gpu::Program;
use crate::pipeline::Error;
use crate::pipeline::event::{Event, PictureKind};
use crate::pipeline::picture::{self, Picture};
use crate::pipeline::prompt::check_finite;
use crate::sampling::{self, EdgeMap, RaluParams, TieBreak};

impl<'p> Run<'p> {
    /// Finds the tokens to refine early: decode the estimate, find its edges, rank the patches.
    pub(super) async fn choose_regions(&mut self, stage: usize) -> Result<(), Error> {
        let started = Instant::now();
        let planes = self.low_estimate().await?;
        let preview = self.push_low_picture(stage, &planes);
        let grid = self.schedule.grid();
        let (width, height) = (self.schedule.width / 2, self.schedule.height / 2);
        let edges = sampling::edge_map(&planes, width, height, self.settings.rules.gray_map)?;
        let density = sampling::edge_density(&edges, grid)?;
        let fine = match self.settings.rules.tie_break {
            TieBreak::Index => vec![],
            TieBreak::Gradient => sampling::gradient_sum(&edges, grid)?,
        };
        let k =
            self.settings.ralu.as_ref().map_or(0, |r: &RaluParams| r.region_count(grid.n_tokens()));
        let selected = match (self.given.indices("ralu_selected")?, &self.settings.mask) {
            (Some(given), _) => self.check_selected(given)?,
            (None, None) => sampling::select(&density, &fine, k),
            (None, Some(mask)) => {
                let shares = sampling::mask_regions(&mask.luma, mask.width, mask.height, grid)?;
                sampling::select_with_mask(mask.mode, &shares, &density, &fine, k)
            }
        };
        self.push_region_pictures(stage, &preview, &edges, &selected);
        if self.collect_tensors {
            let tensors = &mut self.image.tensors;
            // The official code sums pixels of value 255.
            let sums: Vec<f32> = density.iter().map(|count| *count as f32 * 255.0).collect();
            tensors.insert("edges", &[sums.len()], sums);
            let indices: Vec<i64> = selected.iter().map(|i| i64::from(*i)).collect();
            tensors.insert_indices("selected", &[indices.len()], indices);
        }
        self.events.push_back(Event::Regions {
            image: self.image.number,
            grid,
            selected: selected.clone(),
            density,
            seconds: started.elapsed().as_secs_f64(),
        });
        if selected.len() != self.schedule.regions {
            // Painted regions overlapped with found ones: the mixed stage is shorter than was planned.
            self.schedule.set_regions(selected.len());
            self.replan().await?;
        }
        self.image.selected = selected;
        Ok(())
    }

    /// Decodes the half-size clean estimate: planes in the decoder's range.
    pub(super) async fn low_estimate(&mut self) -> Result<Vec<f32>, Error> {
        let programs = self.programs()?;
        let (Some(program), Some(pixels)) = (&programs.decode_low, &programs.memory.low_pixels)
        else {
            return Ok(vec![]);
        };
        program.run(&self.pipeline.gpu).await?;
        let values = self.read(pixels).await?;
        self.image.flops_done += self.programs()?.decode_low.as_ref().map_or(0.0, Program::flops);
        check_finite("the clean estimate of stage 1", &values)?;
        Ok(picture::planes(&values))
    }

    pub(super) fn push_low_picture(&mut self, stage: usize, planes: &[f32]) -> Picture {
        let (width, height) = (self.schedule.width / 2, self.schedule.height / 2);
        let picture = Picture::from_planes(&picture::to_unit(planes), width, height);
        self.events.push_back(Event::StagePicture {
            image: self.image.number,
            stage: stage + 1,
            kind: PictureKind::Estimate,
            picture: picture.clone(),
        });
        picture
    }

    fn check_selected(&self, given: &[i64]) -> Result<Vec<u32>, Error> {
        let n = self.schedule.grid().n_tokens();
        let mut selected = Vec::with_capacity(given.len());
        for &index in given {
            let Some(index) = u32::try_from(index).ok().filter(|i| (*i as usize) < n) else {
                return Err(Error::Given {
                    name: "ralu_selected".into(),
                    found: format!("[{}], with the index {index}", given.len()),
                    expected: format!("indices from 0 to {}", n - 1),
                });
            };
            selected.push(index);
        }
        selected.sort_unstable();
        selected.dedup();
        if selected.is_empty() || selected.len() == n {
            return Err(Error::Given {
                name: "ralu_selected".into(),
                found: format!("[{}]", selected.len()),
                expected: format!("between 1 and {} different indices", n - 1),
            });
        }
        Ok(selected)
    }

    fn push_region_pictures(
        &mut self,
        stage: usize,
        preview: &Picture,
        edges: &EdgeMap,
        selected: &[u32],
    ) {
        let drawn = picture::draw_regions(preview, self.schedule.grid(), selected);
        for (kind, picture) in
            [(PictureKind::Edges, picture::draw_edges(edges)), (PictureKind::Regions, drawn)]
        {
            let image = self.image.number;
            self.events.push_back(Event::StagePicture { image, stage: stage + 1, kind, picture });
        }
    }
}
