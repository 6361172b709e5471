//! The end of RALU's first stage: the clean estimate, the regions to refine early, and their pictures.

use web_time::Instant;

use super::Run;
use crate::gpu::Program;
use crate::pipeline::Error;
use crate::pipeline::event::{Event, PictureKind};
use crate::pipeline::picture::{self, Picture};
use crate::sampling::{self, EdgeMap, RaluParams, Ranking, RegionScore, TieBreak};
use crate::turns::Turns;

impl Run {
    /// Finds the tokens to refine early: score them by the clean estimate, and rank.
    pub(super) async fn choose_regions(&mut self, stage: usize) -> Result<(), Error> {
        let started = Instant::now();
        let grid = self.schedule.grid();
        let turns = Turns::new();
        let preview = match self.memory().low_pixels {
            Some(_) => {
                let planes = self.low_estimate(stage).await?;
                turns.yield_if_due().await;
                Some((self.push_low_picture(stage, &planes), planes))
            }
            None => None,
        };
        turns.yield_if_due().await;
        let (ranking, edges) = match (self.settings.rules.region_score, &preview) {
            (RegionScore::Edges, Some((_, planes))) => {
                let edges = self.edges(planes)?;
                turns.yield_if_due().await;
                (self.rank_by_edges(&edges)?, Some(edges))
            }
            (RegionScore::Variance, _) if self.image.estimates.len() >= 2 => (
                Ranking::by_score(&sampling::temporal_variance(&self.image.estimates, grid)?),
                None,
            ),
            // One step has no variance.
            (RegionScore::LatentGradient | RegionScore::Variance | RegionScore::Edges, _) => {
                let sigma = self.schedule.stages[stage].sigmas.last().copied().unwrap_or(0.0);
                let clean = self.clean_tokens(stage, sigma).await?;
                (Ranking::by_score(&sampling::latent_gradient(&clean, grid)?), None)
            }
        };
        let k =
            self.settings.ralu.as_ref().map_or(0, |r: &RaluParams| r.region_count(grid.n_tokens()));
        let selected = match (self.given.indices("ralu_selected")?, &self.settings.mask) {
            (Some(given), _) => self.check_selected(given)?,
            (None, None) => ranking.select(k),
            (None, Some(mask)) => {
                let shares = sampling::mask_regions(&mask.luma, mask.width, mask.height, grid)?;
                ranking.select_with_mask(mask.mode, &shares, k)
            }
        };
        turns.yield_if_due().await;
        if let Some((preview, _)) = &preview {
            self.push_region_pictures(stage, preview, edges.as_ref(), &selected);
        }
        let score = ranking.scores();
        if self.collect_tensors {
            let tensors = &mut self.image.tensors;
            // The official code sums pixels of value 255.
            let scale = if edges.is_some() { 255.0 } else { 1.0 };
            let sums: Vec<f32> = score.iter().map(|score| score * scale).collect();
            tensors.insert("edges", &[sums.len()], sums);
            let indices: Vec<i64> = selected.iter().map(|i| i64::from(*i)).collect();
            tensors.insert_indices("selected", &[indices.len()], indices);
        }
        self.events.push_back(Event::Regions {
            image: self.image.number,
            grid,
            selected: selected.clone(),
            score,
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

    fn edges(&self, planes: &[f32]) -> Result<EdgeMap, Error> {
        let (width, height) = (self.schedule.width / 2, self.schedule.height / 2);
        Ok(sampling::edge_map(planes, width, height, self.settings.rules.gray_map)?)
    }

    fn rank_by_edges(&self, edges: &EdgeMap) -> Result<Ranking, Error> {
        let grid = self.schedule.grid();
        let density = sampling::edge_density(edges, grid)?;
        let fine = match self.settings.rules.tie_break {
            TieBreak::Index => vec![],
            TieBreak::Gradient => sampling::gradient_sum(edges, grid)?,
        };
        Ok(Ranking::by_edges(density, fine))
    }

    /// Decodes the half-size clean estimate of a low stage: planes in the decoder's range.
    pub(super) async fn low_estimate(&mut self, stage: usize) -> Result<Vec<f32>, Error> {
        let programs = self.programs();
        let (Some(program), Some(pixels)) = (&programs.decode_low, &programs.memory.low_pixels)
        else {
            return Ok(vec![]);
        };
        program.run_fed(&self.context.device.gpu, &self.context.feeder()).await?;
        let values = self.read(pixels).await?;
        self.image.flops_done += self.programs().decode_low.as_ref().map_or(0.0, Program::flops);
        self.check_finite("the clean estimate of stage 1", &values).await?;
        let planes = picture::planes(&values);
        let sigma = self.schedule.stages[stage].sigmas.last().copied().unwrap_or(0.0);
        self.learn_colors(stage, sigma, &planes).await?;
        Ok(planes)
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
        edges: Option<&EdgeMap>,
        selected: &[u32],
    ) {
        let drawn = picture::draw_regions(preview, self.schedule.grid(), selected);
        let edges = edges.map(|edges| (PictureKind::Edges, picture::draw_edges(edges)));
        for (kind, picture) in edges.into_iter().chain([(PictureKind::Regions, drawn)]) {
            let image = self.image.number;
            self.events.push_back(Event::StagePicture { image, stage: stage + 1, kind, picture });
        }
    }
}
