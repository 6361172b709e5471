//! The requests of a run, one after the other: one of the options, or those of `--prompts`.

use ralu::escape::Escaped;
use ralu::models::config::ModelConfig;
use ralu::pipeline::{Request, RunSchedule, Settings, unfamiliar};

use crate::error::{Error, Result};
use crate::request::Line;

/// All requests of a run. Each was checked.
pub struct Jobs {
    /// What the options say.
    base: Request,
    lines: Vec<Line>,
    /// Pictures of all requests.
    pub count: usize,
    /// Stages of the request that has most.
    pub most_stages: usize,
    /// The number of the request with the largest picture.
    pub largest: usize,
}

/// One request, ready to be drawn.
pub struct Job {
    /// Number of its first picture among all, from 0.
    pub first: usize,
    /// Which line it is from; `None` if it is the only one.
    pub place: Option<String>,
    /// For the engine.
    pub request: Request,
    /// What it means for the model.
    pub settings: Settings,
    /// Its stages.
    pub schedule: RunSchedule,
}

impl Jobs {
    /// Checks the requests of `lines`, or `base` if there are none.
    pub fn new(base: Request, lines: Option<Vec<Line>>, config: &ModelConfig) -> Result<Jobs> {
        let lines = lines.unwrap_or_default();
        let mut jobs = Jobs { base, lines, count: 0, most_stages: 0, largest: 0 };
        let mut most = 0;
        for number in 0..jobs.len() {
            let Job { settings, schedule, .. } = jobs.job(number, 0, config)?;
            let work = settings.width * settings.height;
            if work > most {
                (most, jobs.largest) = (work, number);
            }
            jobs.count += settings.count;
            jobs.most_stages = jobs.most_stages.max(schedule.stages.len());
        }
        Ok(jobs)
    }

    /// How many requests there are.
    pub fn len(&self) -> usize {
        self.lines.len().max(1)
    }

    /// The request with that number, from 0, whose first picture has the number `first`.
    pub fn job(&self, number: usize, first: usize, config: &ModelConfig) -> Result<Job> {
        let line = self.lines.get(number);
        let request = match line {
            None => self.base.clone(),
            Some(line) => {
                let mut request = line.request.clone();
                request.given.clone_from(&self.base.given);
                request.mask = request.mask.or_else(|| self.base.mask.clone());
                request
            }
        };
        let of_line = |error: Error| match line {
            None => error,
            Some(line) => Error::failed(format!("{}: {}", line.place, error.message())),
        };
        let settings =
            Settings::resolve(&request, config).map_err(|error| of_line(error.into()))?;
        let schedule =
            RunSchedule::new(&settings, config).map_err(|error| of_line(error.into()))?;
        let place = line.map(|line| line.place.clone());
        Ok(Job { first, place, request, settings, schedule })
    }
}

impl Job {
    /// What the model has not seen of it.
    pub fn warnings(&self, config: &ModelConfig) -> Vec<String> {
        unfamiliar(&self.request, &self.settings, config)
    }

    /// What is said before it is drawn; `model` is what the model is called.
    pub fn describe(&self, model: &str) -> String {
        let Settings { width, height, count, seed, cache, ralu_name, .. } = &self.settings;
        let steps = match self.schedule.stages.as_slice() {
            [stage] => format!("{} steps", stage.steps()),
            stages => {
                let steps: Vec<String> = stages.iter().map(|s| s.steps().to_string()).collect();
                format!("RALU {ralu_name}, {} steps", steps.join(" + "))
            }
        };
        let seed = match count {
            1 => format!("seed {seed}"),
            count => format!("{count} pictures from seed {seed}"),
        };
        let cache = match cache {
            None => String::new(),
            Some(cache) => format!(", cache {}", cache.name()),
        };
        let place = self.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        format!("{place}{}: {width} x {height}, {steps}{cache}, {seed}", Escaped(model))
    }
}
