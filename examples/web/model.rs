//! The model, on the device that there is: one that was lost is replaced.

use std::cell::RefCell;
use std::rc::Rc;

use ralu::checkpoint::source::Remote;
use ralu::gpu::{self, AdapterChoice, AdapterReport, Gpu};
use ralu::pipeline::{Error, Options, Pipeline, Recovery};

/// An open model, and how to open its device again.
pub struct Model {
    choice: AdapterChoice,
    report: AdapterReport,
    /// `None` after a loss in which the model could not be moved.
    pipeline: RefCell<Option<Rc<Pipeline>>>,
}

impl Model {
    /// Opens the adapter and reads everything of the model but the weights.
    pub async fn open(
        choice: AdapterChoice,
        remote: Remote,
        options: Options,
    ) -> Result<Model, Error> {
        let gpu = Gpu::open(&choice).await?;
        let report = gpu.report().clone();
        let pipeline = Pipeline::fetch(gpu, Box::new(remote), options).await?;
        Ok(Model { choice, report, pipeline: RefCell::new(Some(Rc::new(pipeline))) })
    }

    /// What draws.
    pub fn adapter(&self) -> &AdapterReport {
        &self.report
    }

    /// The model on its device. Whoever holds on to it keeps it from being revived.
    pub fn pipeline(&self) -> Result<Rc<Pipeline>, Error> {
        self.pipeline.borrow().clone().ok_or_else(|| Error::Gpu(lost()))
    }

    /// Opens the device again, after it was lost.
    pub async fn revive(&self, recovery: &Recovery) -> Result<(), Error> {
        let gpu = recovery.limit_work(Gpu::open(&self.choice).await?);
        let pipeline = self.pipeline.take().and_then(Rc::into_inner).ok_or_else(lost)?;
        let revived = pipeline.revive(gpu).await?;
        *self.pipeline.borrow_mut() = Some(Rc::new(revived));
        Ok(())
    }
}

fn lost() -> gpu::Error {
    gpu::Error::Lost { reason: "the model could not be moved to another".to_owned() }
}
