//! What was measured, as `--json` prints it and `results.json` keeps it.

use std::path::Path;

use ralu::escape::Escaped;
use ralu::pipeline::plan::Tflops;
use serde::{Deserialize, Serialize};

use crate::bench::read::read_text;
use crate::error::{Error, Result};
use crate::files;
use crate::median::median;
use crate::output::shown;

/// Of [`Results`].
const FORMAT: u32 = 1;
/// Its file in the output folder.
pub const FILE: &str = "results.json";

/// One run of the bench, finished or not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Always `quality`.
    pub bench: String,
    /// Version of this layout.
    pub format: u32,
    #[serde(flatten)]
    pub subject: Subject,
    pub settings: Vec<Setting>,
    /// The plain pictures that all others are compared with.
    pub references: Vec<Reference>,
    pub pictures: Vec<Compared>,
    /// The reference first, then the settings; made again from the pictures whenever this is written.
    #[serde(default, skip_deserializing)]
    pub summary: Vec<Summary>,
}

/// What all pictures have in common. Results of different subjects must not be mixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// Of the program.
    pub version: String,
    pub adapter: String,
    pub backend: String,
    pub model: String,
    /// As the user gave it; absent for the bundled one.
    pub model_path: Option<String>,
    pub precision: String,
    pub width: usize,
    pub height: usize,
    pub reference_steps: usize,
    /// Of the reference's settings: guidance, text length and so on.
    pub reference_fingerprint: String,
    pub prompts: Vec<String>,
    pub seeds: Vec<u64>,
}

/// A setting that is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub name: String,
    /// Options of `ralu generate`.
    pub options: String,
    /// Of everything that the options mean for this model.
    pub fingerprint: String,
    /// Where its pictures lie in the output folder.
    pub folder: String,
}

/// A picture of the reference.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reference {
    /// Number of the prompt, from 0.
    pub prompt: usize,
    pub seed: u64,
    #[serde(flatten)]
    pub work: Work,
}

/// A picture of a setting, compared with its reference.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Compared {
    /// The setting's name.
    pub setting: String,
    /// Number of the prompt, from 0.
    pub prompt: usize,
    pub seed: u64,
    #[serde(flatten)]
    pub work: Work,
    #[serde(flatten)]
    pub measures: Measures,
}

/// What a picture took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Work {
    /// From the first step to the decoded picture.
    pub seconds: f64,
    /// Steps in which the network was evaluated.
    pub computed_steps: usize,
    /// Steps in which a temporal cache stood in.
    pub reused_steps: usize,
}

/// How far a picture is from its reference.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Measures {
    /// Peak signal-to-noise ratio; absent if the pictures are identical.
    pub psnr_db: Option<f64>,
    /// Structural similarity; 1 if the pictures are identical.
    pub ssim: f64,
    /// Of the final latents, relative to the reference's norm.
    pub latent_distance: f64,
}

/// A setting over all its pictures.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Of the setting; `reference` stands first.
    pub name: String,
    pub pictures: usize,
    /// Means of the pictures' steps.
    pub computed_steps: f64,
    pub reused_steps: f64,
    /// Operations of one picture as `ralu plan` counts them.
    pub tflops: Tflops,
    pub median_seconds: f64,
    /// Median seconds of the reference over this setting's.
    pub speedup: f64,
    /// The same of planned operations, attention included.
    pub predicted_speedup: f64,
    /// Absent for the reference. `mean` is absent if pictures are identical to theirs.
    pub psnr_db: Option<Mean>,
    pub ssim: Option<Mean>,
    pub latent_distance: Option<Mean>,
}

/// A mean over pictures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// Infinite (`null` in JSON) if one of the numbers is.
    pub mean: f64,
    /// Standard deviation of the mean; absent for fewer than two pictures or infinite numbers.
    pub standard_error: Option<f64>,
}

impl Mean {
    fn of(numbers: impl Iterator<Item = f64>) -> Option<Mean> {
        let numbers: Vec<f64> = numbers.collect();
        let n = numbers.len() as f64;
        if numbers.is_empty() {
            return None;
        }
        let mean = numbers.iter().sum::<f64>() / n;
        let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
        let standard_error = (squares / (n - 1.0) / n).sqrt();
        Some(Mean { mean, standard_error: Some(standard_error).filter(|error| error.is_finite()) })
    }
}

impl Results {
    /// Nothing measured yet.
    pub fn new(subject: Subject, settings: Vec<Setting>) -> Self {
        Results {
            bench: "quality".to_owned(),
            format: FORMAT,
            subject,
            settings,
            references: vec![],
            pictures: vec![],
            summary: vec![],
        }
    }

    /// Takes over what an earlier run of the same comparison left in `folder`, if one did.
    ///
    /// Settings may have been added since; anything else that differs is an error.
    pub fn resume(&mut self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let shown = shown(&path);
        if !path.exists() {
            return Ok(());
        }
        let text = read_text(&path).map_err(|reason| Error::failed(format!("{shown} {reason}")))?;
        let earlier: Results = serde_json::from_str(&text).map_err(|error| {
            Error::failed(format!(
                "{shown} does not hold results of this bench ({error}); choose another folder or remove it"
            ))
        })?;
        if earlier.format != FORMAT {
            return Err(Error::failed(format!(
                "{shown} has format {}, expected {FORMAT}; choose another folder",
                earlier.format
            )));
        }
        if let Some(difference) = self.difference(&earlier) {
            return Err(Error::failed(format!(
                "{shown} holds results of another comparison: {difference}; repeat that one to continue it, or \
                 choose another folder"
            )));
        }
        self.references = earlier.references;
        self.pictures = earlier.pictures;
        Ok(())
    }

    fn difference(&self, earlier: &Results) -> Option<String> {
        let (now, then) = (&self.subject, &earlier.subject);
        let path = |subject: &Subject| subject.model_path.clone().unwrap_or(subject.model.clone());
        let texts = [
            ("the version", &then.version, &now.version),
            ("the adapter", &then.adapter, &now.adapter),
            ("the backend", &then.backend, &now.backend),
            ("the model", &path(then), &path(now)),
            ("the precision", &then.precision, &now.precision),
            ("the size", &size(then), &size(now)),
            (
                "the number of reference steps",
                &then.reference_steps.to_string(),
                &now.reference_steps.to_string(),
            ),
            ("the seeds", &format!("{:?}", then.seeds), &format!("{:?}", now.seeds)),
        ]
        .into_iter()
        .find(|(_, then, now)| then != now)
        .map(|(what, then, now)| format!("{what} was {}, not {}", Escaped(then), Escaped(now)));
        if texts.is_some() {
            return texts;
        }
        if then.prompts != now.prompts {
            return Some("it has other prompts".to_owned());
        }
        if then != now {
            return Some("guidance, text length or negative prompt were others".to_owned());
        }
        earlier.settings.iter().find_map(|then| {
            match self.settings.iter().find(|now| now.name == then.name) {
                None => Some(format!("it has a setting {:?}, which is not given now", then.name)),
                Some(now)
                    if (&now.fingerprint, &now.folder) != (&then.fingerprint, &then.folder) =>
                {
                    Some(format!("the setting {:?} was {:?}", then.name, then.options))
                }
                Some(_) => None,
            }
        })
    }

    /// The number of pictures that are measured, references included.
    pub fn n_done(&self) -> usize {
        self.references.len() + self.pictures.len()
    }

    /// The reference's picture of that prompt and seed, if it was made.
    pub fn reference(&self, prompt: usize, seed: u64) -> Option<&Reference> {
        self.references.iter().find(|one| (one.prompt, one.seed) == (prompt, seed))
    }

    /// Whether the picture of a setting was made.
    pub fn has(&self, setting: &str, prompt: usize, seed: u64) -> bool {
        let wanted = (setting, prompt, seed);
        self.pictures.iter().any(|one| (one.setting.as_str(), one.prompt, one.seed) == wanted)
    }

    /// Notes a picture of the reference, instead of an earlier one of the same prompt and seed.
    pub fn set_reference(&mut self, reference: Reference) {
        let (prompt, seed) = (reference.prompt, reference.seed);
        self.references.retain(|one| (one.prompt, one.seed) != (prompt, seed));
        self.references.push(reference);
    }

    /// Makes the summary. `tflops`: of the reference, then of each setting.
    pub fn summarise(&mut self, tflops: &[Tflops]) {
        let works: Vec<Work> = self.references.iter().map(|one| one.work).collect();
        let reference_seconds = median_seconds(&works);
        let Some((&reference, others)) = tflops.split_first() else { return };
        self.summary = vec![Summary {
            name: "reference".to_owned(),
            pictures: works.len(),
            computed_steps: mean_steps(&works, |work| work.computed_steps),
            reused_steps: mean_steps(&works, |work| work.reused_steps),
            tflops: reference,
            median_seconds: reference_seconds,
            speedup: 1.0,
            predicted_speedup: 1.0,
            psnr_db: None,
            ssim: None,
            latent_distance: None,
        }];
        for (setting, &tflops) in self.settings.iter().zip(others) {
            let own = || self.pictures.iter().filter(|one| one.setting == setting.name);
            let works: Vec<Work> = own().map(|one| one.work).collect();
            let median_seconds = median_seconds(&works);
            self.summary.push(Summary {
                name: setting.name.clone(),
                pictures: works.len(),
                computed_steps: mean_steps(&works, |work| work.computed_steps),
                reused_steps: mean_steps(&works, |work| work.reused_steps),
                tflops,
                median_seconds,
                speedup: reference_seconds / median_seconds,
                predicted_speedup: reference.with_attention / tflops.with_attention,
                psnr_db: Mean::of(own().map(|one| one.measures.psnr_db.unwrap_or(f64::INFINITY))),
                ssim: Mean::of(own().map(|one| one.measures.ssim)),
                latent_distance: Mean::of(own().map(|one| one.measures.latent_distance)),
            });
        }
    }

    /// Writes `results.json`, whole or not at all.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        files::write(&folder.join(FILE), text.as_bytes())
    }
}

fn median_seconds(works: &[Work]) -> f64 {
    median(works.iter().map(|work| work.seconds).collect())
}

/// 0 of no pictures.
fn mean_steps(works: &[Work], steps: impl Fn(&Work) -> usize) -> f64 {
    works.iter().map(steps).sum::<usize>() as f64 / works.len().max(1) as f64
}

fn size(subject: &Subject) -> String {
    format!("{} x {}", subject.width, subject.height)
}

/// A short name for settings that are too long to be compared by eye: FNV-1a over what `Debug` says of all of them.
pub fn fingerprint(settings: &impl std::fmt::Debug) -> String {
    let text = format!("{settings:?}");
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
