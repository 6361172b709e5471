//! The model, on the device that there is: one that was lost is replaced.

use std::cell::RefCell;
use std::sync::Arc;

use ralu::checkpoint::source::{Remote, Source, read};
use ralu::gpu::{AdapterChoice, AdapterReport, Gpu};
use ralu::models::files::{ModelFiles, ModelPaths, PartPlace};
use ralu::pipeline::{Error, Options, Pipeline, Recovery};
use ralu::text::Vocabularies;

/// What a model consists of.
pub enum What {
    /// A diffusers folder.
    Folder,
    /// Files, each with what it is.
    Files(ModelPaths),
    /// Files that are what they are: see [`ModelPaths::sort`].
    List(Vec<String>),
}

/// The files of a model, put together.
pub struct Files {
    /// What they are read from.
    pub source: Box<dyn Source>,
    /// Where parts are from that lie in files of their own.
    pub parts: Vec<PartPlace>,
    /// What the user should know of how the model was put together.
    pub notes: Vec<String>,
    /// Every path that is read, of files and of folders as a whole, but for changes to the model.
    pub paths: Vec<String>,
}

impl Files {
    /// Finds out what is what. Text encoders that come without a tokenizer take one of `vocabularies`.
    pub async fn open(remote: Remote, what: What, vocabularies: Remote) -> Result<Files, Error> {
        let paths = match what {
            What::Folder => None,
            What::Files(paths) => Some(paths),
            What::List(files) => Some(read(&remote, || ModelPaths::sort(&remote, &files)).await?),
        };
        let Some(paths) = paths else {
            let (parts, notes, paths) = (Vec::new(), Vec::new(), vec![String::new()]);
            return Ok(Files { source: Box::new(remote), parts, notes, paths });
        };
        let files = ModelFiles::fetch(Arc::new(remote), &paths).await?;
        let is_change = |path: &&str| files.loras().iter().any(|lora| lora.file == **path);
        let paths = files.paths().into_iter().filter(|path| !is_change(path));
        Ok(Files {
            parts: files.parts().to_vec(),
            notes: files.notes().to_vec(),
            paths: paths.map(str::to_owned).collect(),
            source: {
                let vocabularies = Vocabularies::from_source(Arc::new(vocabularies));
                Box::new(files.with_vocabularies(vocabularies))
            },
        })
    }
}

/// An open model, and how to open its device again.
pub struct Model {
    choice: AdapterChoice,
    report: AdapterReport,
    parts: Vec<PartPlace>,
    notes: Vec<String>,
    paths: Vec<String>,
    pipeline: RefCell<Pipeline>,
}

impl Model {
    /// Opens the adapter and reads everything of the model but the weights. Text encoders that come without a tokenizer take
    /// one of `vocabularies`.
    pub async fn open(
        choice: AdapterChoice,
        remote: Remote,
        what: What,
        vocabularies: Remote,
        options: Options,
    ) -> Result<Model, Error> {
        // First, as it takes the least time to fail.
        let gpu = Gpu::open(&choice).await?;
        let report = gpu.report().clone();
        let Files { source, parts, notes, paths } = Files::open(remote, what, vocabularies).await?;
        let pipeline = Pipeline::fetch(gpu, source, options).await?;
        Ok(Model { choice, report, parts, notes, paths, pipeline: RefCell::new(pipeline) })
    }

    /// Where parts are from that lie in files of their own.
    pub fn parts(&self) -> &[PartPlace] {
        &self.parts
    }

    /// What the user should know of how the model was put together.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// See [`Files::paths`].
    pub fn paths(&self) -> &[String] {
        &self.paths
    }

    /// What draws.
    pub fn adapter(&self) -> &AdapterReport {
        &self.report
    }

    /// The model on its device.
    pub fn pipeline(&self) -> Pipeline {
        self.pipeline.borrow().clone()
    }

    /// Opens the device again, after it was lost.
    pub async fn revive(&self, recovery: &Recovery) -> Result<(), Error> {
        let gpu = recovery.limit_work(Gpu::open(&self.choice).await?);
        let revived = self.pipeline().revive(gpu).await?;
        self.pipeline.replace(revived);
        Ok(())
    }
}
