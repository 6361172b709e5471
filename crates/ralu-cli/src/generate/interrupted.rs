//! What is kept of the run that was interrupted last, for `--resume`: its arguments, and where it was.

use std::ffi::OsString;
use std::sync::Arc;

use clap::Parser;
use ralu::models::config::ModelConfig;
use ralu::pipeline::Checkpoint;
use ralu_host::CacheDir;
use serde::{Deserialize, Serialize};

use super::jobs::Job;
use crate::args::{Cli, Command, GenerateArgs};
use crate::error::{Error, Result};

/// The file in the folder of kept files.
const FILE: &str = "interrupted-run";

/// The run, as the first line of the file has it, in JSON. The rest are the bytes of its checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Interrupted {
    /// The folder that it ran in, as its arguments may name files from there.
    folder: String,
    /// Its arguments from the program's name on, with its seed.
    words: Vec<String>,
    /// What it read from stdin.
    pub stdin: Option<String>,
    /// What its model is called.
    model: String,
    /// What stands for its model's files.
    model_hash: Option<String>,
    /// The number of the request that was being drawn.
    pub request: usize,
    /// Pictures of the requests before it.
    pub drawn: usize,
    /// Where it was, in words.
    pub place: String,
    #[serde(skip)]
    checkpoint: Vec<u8>,
}

/// What is known of a run before it is interrupted.
pub struct Run<'a> {
    /// Its arguments from the program's name on.
    pub words: &'a [OsString],
    /// Its first picture's seed.
    pub seed: u64,
    /// What it read from stdin.
    pub stdin: Option<String>,
    /// What its model is called.
    pub model: &'a str,
    /// What stands for its model's files.
    pub model_hash: Option<String>,
}

/// Keeps a run that ends before its end, in its request number `request`. Says what is to be told; nothing, if nothing was
/// done that is worth to be kept.
pub fn keep(
    cache: Option<&CacheDir>,
    run: &Run<'_>,
    request: usize,
    job: &Job,
    checkpoint: Option<&Checkpoint>,
) -> Option<String> {
    if checkpoint.is_none() && request == 0 {
        return None;
    }
    let failed = |reason: &str| Some(format!("this run cannot be resumed: {reason}"));
    let Some(cache) = cache else {
        return failed("there is no folder to keep it in (--cache-dir names one)");
    };
    let bytes = match checkpoint.map(Checkpoint::to_bytes) {
        None => vec![],
        Some(Some(bytes)) => bytes,
        Some(None) => {
            return failed("what --cache, --given and --save-tensors work with is not kept");
        }
    };
    let words = run.words.iter().map(|word| word.to_str().map(str::to_owned));
    let folder = std::env::current_dir().ok().and_then(|folder| folder.to_str().map(str::to_owned));
    let (Some(words), Some(folder)) = (words.collect::<Option<Vec<_>>>(), folder) else {
        return failed("its arguments or its folder are not Unicode");
    };
    let place = match checkpoint {
        Some(at) if at.steps() > 0 => {
            let picture = job.first + at.image() + 1;
            format!("after step {} of stage {} of picture {picture}", at.steps(), at.stage())
        }
        at => format!("with picture {}", job.first + at.map_or(0, Checkpoint::image) + 1),
    };
    let kept = Interrupted {
        folder,
        // The defaults of the user's configuration are among them.
        words: with_options(words, vec![format!("--seed={}", run.seed), "--no-config".into()]),
        stdin: run.stdin.clone(),
        model: run.model.to_owned(),
        model_hash: run.model_hash.clone(),
        request,
        drawn: job.first,
        place,
        checkpoint: vec![],
    };
    let mut file = serde_json::to_vec(&kept).ok()?;
    file.push(b'\n');
    file.extend(bytes);
    match cache.write(FILE, &file) {
        Ok(_) => Some(format!("`ralu generate --resume` goes on {}", kept.place)),
        Err(error) => failed(&error.to_string()),
    }
}

/// Words with options behind the others, but in front of what is no option whatever it looks like.
fn with_options(mut words: Vec<String>, options: Vec<String>) -> Vec<String> {
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    words.splice(end..end, options);
    words
}

impl Interrupted {
    /// The run that was interrupted last.
    pub fn read(cache: Option<&CacheDir>) -> Result<Interrupted> {
        let none = || {
            Error::failed(
                "there is no run to resume: none was interrupted since the last one was finished; expected a prompt",
            )
        };
        let bytes = cache.and_then(|cache| cache.read(FILE)).ok_or_else(none)?;
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let kept: Option<Interrupted> = serde_json::from_slice(&bytes[..end]).ok();
        let kept = kept.ok_or_else(|| {
            Error::failed("the interrupted run that is kept is damaged, or another version's; draw it from the start")
        })?;
        Ok(Interrupted { checkpoint: bytes.get(end + 1..).unwrap_or_default().to_vec(), ..kept })
    }

    /// Its arguments with those that were given to `--resume`, and all words of both. The program's working folder is that of
    /// the run from here on.
    pub fn arguments(&self, resume: &[OsString]) -> Result<(Cli, Vec<OsString>)> {
        std::env::set_current_dir(&self.folder).map_err(|error| {
            let folder = ralu::escape::escape(&self.folder).into_owned();
            Error::failed(format!(
                "the folder of the interrupted run, {folder}, cannot be used: {error}"
            ))
        })?;
        let mut command = true;
        let more = resume.iter().skip(1).filter(|word| {
            let is_command = command && *word == "generate";
            command &= !is_command;
            !is_command && *word != "--resume"
        });
        let more = more.map(|word| word.to_string_lossy().into_owned()).collect();
        let words = with_options(self.words.clone(), more);
        let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        let cli = Cli::try_parse_from(&words).map_err(|error| {
            let message = error.render().to_string();
            Error::usage(format!(
                "the interrupted run cannot go on with these options: {}",
                message.trim_start_matches("error: ").trim_end()
            ))
        })?;
        Ok((cli, words))
    }

    /// Checks that a model is the one of the run.
    pub fn check_model(&self, name: &str, hash: Option<&String>) -> Result<()> {
        if self.model_hash.as_ref() == hash {
            return Ok(());
        }
        let shown = |name: &str| ralu::escape::escape(name).into_owned();
        Err(Error::failed(format!(
            "the interrupted run cannot go on: it was drawn with the model {}, whose files are not those of {}; give that with \
             --model, or draw from the start",
            shown(&self.model),
            shown(name)
        )))
    }

    /// Lets `job`, the request that was being drawn, go on where it was.
    pub fn give_checkpoint(&self, job: &mut Job, config: &ModelConfig) -> Result<()> {
        if self.checkpoint.is_empty() {
            return Ok(());
        }
        let checkpoint = Checkpoint::read(&self.checkpoint, &job.settings, config);
        let checkpoint = checkpoint.map_err(|error| {
            Error::failed(format!(
                "the interrupted run cannot go on: {error}. With --resume expected no option that changes the picture"
            ))
        })?;
        job.request.resume = Some(Arc::new(checkpoint));
        Ok(())
    }
}

/// The arguments of `ralu generate` in a command line that was one before.
pub fn generate_args(cli: &Cli) -> Result<&GenerateArgs> {
    match &cli.command {
        Command::Generate(args) => Ok(args),
        _ => Err(Error::failed("the interrupted run that is kept is none of `ralu generate`")),
    }
}

/// Forgets the run that is kept: it is finished.
pub fn forget(cache: Option<&CacheDir>) {
    if let Some(cache) = cache {
        cache.remove(FILE);
    }
}
