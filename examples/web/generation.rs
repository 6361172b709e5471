//! A run that JavaScript pulls.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use async_lock::Mutex;
use ralu::Run;
use ralu::pipeline::{Error, Event, Recovery, Request};
use wasm_bindgen::prelude::*;

use crate::about::About;
use crate::model::Model;
use crate::{error, event};

/// A request in progress. An engine has one at a time.
#[wasm_bindgen]
pub struct Generation(Rc<Shared>);

struct Shared {
    about: About,
    model: Rc<Model>,
    request: Request,
    /// Locked by the call of `next` that works.
    work: Mutex<Work>,
    ended: Cell<bool>,
    /// The call of `next` that is waiting, to be told when this is cancelled.
    waiting: RefCell<Option<Waker>>,
    busy: Rc<Cell<bool>>,
}

struct Work {
    recovery: Recovery,
    phase: Phase,
    /// What is said before the run begins, the last first.
    warnings: Vec<String>,
}

/// What the next call of `next` does.
enum Phase {
    Start,
    Pull(Run),
    /// Opens the device again, and resumes.
    Revive,
    Done,
}

impl Generation {
    /// `warnings` are said before the run begins. `busy` is true until it ends.
    pub fn new(
        model: Rc<Model>,
        request: Request,
        about: About,
        mut warnings: Vec<String>,
        busy: Rc<Cell<bool>>,
    ) -> Self {
        busy.set(true);
        warnings.reverse();
        let (recovery, phase) = (Recovery::default(), Phase::Start);
        Generation(Rc::new(Shared {
            about,
            model,
            request,
            work: Mutex::new(Work { recovery, phase, warnings }),
            ended: Cell::new(false),
            waiting: RefCell::default(),
            busy,
        }))
    }
}

#[wasm_bindgen]
impl Generation {
    /// The next event; undefined at the end, and after `cancel`.
    pub async fn next(&self) -> Result<JsValue, JsValue> {
        let shared = self.0.clone();
        loop {
            match shared.until_cancelled(shared.pull()).await {
                Some(Ok(Some(event))) => {
                    if let Some(object) = event::to_js(&event, &shared.about) {
                        return Ok(object);
                    }
                }
                Some(Err(failed)) => {
                    shared.end();
                    return Err(error::from_error(&failed));
                }
                Some(Ok(None)) | None => {
                    shared.end();
                    return Ok(JsValue::UNDEFINED);
                }
            }
        }
    }

    /// Ends the run, in the middle of a step if need be: what is queued on the GPU, a fraction of a second, is the last.
    pub fn cancel(&self) {
        self.0.end();
        if let Some(waiting) = self.0.waiting.take() {
            waiting.wake();
        }
    }
}

impl Shared {
    /// The next event; `None` at the end. A lost device is opened again, and the run resumed.
    async fn pull(&self) -> Result<Option<Event>, Error> {
        let mut work = self.work.lock().await;
        let Work { recovery, phase, warnings } = &mut *work;
        if let Some(warning) = warnings.pop() {
            return Ok(Some(Event::Warning(warning)));
        }
        if let Phase::Revive = phase {
            self.model.revive(recovery).await?;
        }
        if let Phase::Start | Phase::Revive = phase {
            let request = recovery.request(&self.request);
            *phase = Phase::Pull(self.model.pipeline().start(request)?);
        }
        let Phase::Pull(run) = phase else { return Ok(None) };
        match run.next().await {
            Err(error) if recovery.should_resume(&error, run) => {
                *phase = Phase::Revive;
                Ok(Some(Event::Warning(format!(
                    "The browser lost the GPU ({error}). It is opened again, to go on {}.",
                    recovery.place()
                ))))
            }
            result => result,
        }
    }

    /// What `future` gives; `None` if this is cancelled before.
    async fn until_cancelled<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|context| {
            if self.ended.get() {
                return Poll::Ready(None);
            }
            self.waiting.replace(Some(context.waker().clone()));
            future.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// Drops the run. While a call of `next` works on it, that call does so when it is told.
    fn end(&self) {
        if let Some(mut work) = self.work.try_lock() {
            work.phase = Phase::Done;
        }
        // Once: afterwards the engine may be busy with another one.
        if !self.ended.replace(true) {
            self.busy.set(false);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end();
    }
}
