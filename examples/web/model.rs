//! The model, on the device that there is: one that was lost is replaced.

use std::cell::RefCell;

use ralu::checkpoint::source::Remote;
use ralu::gpu::{AdapterChoice, AdapterReport, Gpu};
use ralu::pipeline::{Error, Options, Pipeline, Recovery};

/// An open model, and how to open its device again.
pub struct Model {
    choice: AdapterChoice,
    report: AdapterReport,
    pipeline: RefCell<Pipeline>,
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
        Ok(Model { choice, report, pipeline: RefCell::new(pipeline) })
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
