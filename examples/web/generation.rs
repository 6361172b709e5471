//! A run that JavaScript pulls.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use ralu::pipeline::{Error, Event, Recovery, Request};
use wasm_bindgen::prelude::*;

use crate::about::About;
use crate::model::Model;
use crate::{error, event};

/// A request in progress. One at a time: runs of one pipeline share its memory.
#[wasm_bindgen]
pub struct Generation(Rc<Shared>);

/// A `Run` borrows its pipeline, which JavaScript cannot say: this future owns the one and has the other inside.
type Driver = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

struct Shared {
    about: About,
    driver: RefCell<Option<Driver>>,
    events: Rc<RefCell<VecDeque<Event>>>,
    waiting: RefCell<Option<Waker>>,
    busy: Rc<Cell<bool>>,
}

impl Generation {
    /// `busy` is true until it ends.
    pub fn new(model: Rc<Model>, request: Request, about: About, busy: Rc<Cell<bool>>) -> Self {
        busy.set(true);
        let events = Rc::new(RefCell::new(VecDeque::new()));
        let told = events.clone();
        let driver = async move {
            let mut recovery = Recovery::default();
            loop {
                let pipeline = model.pipeline()?;
                let mut run = pipeline.start(recovery.request(&request))?;
                let lost = loop {
                    match run.next().await {
                        Ok(Some(event)) => told.borrow_mut().push_back(event),
                        Ok(None) => return Ok(()),
                        Err(error) if recovery.should_resume(&error, &run) => break error,
                        Err(error) => return Err(error),
                    }
                    pause().await;
                };
                drop(run);
                drop(pipeline);
                let message = format!(
                    "The browser lost the GPU ({lost}). It is opened again, to go on {}.",
                    recovery.place()
                );
                told.borrow_mut().push_back(Event::Warning(message));
                pause().await;
                model.revive(&recovery).await?;
            }
        };
        Generation(Rc::new(Shared {
            about,
            driver: RefCell::new(Some(Box::pin(driver))),
            events,
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
            match poll_fn(|context| shared.poll(context)).await {
                Some(Ok(event)) => {
                    if let Some(object) = event::to_js(&event, &shared.about) {
                        return Ok(object);
                    }
                }
                Some(Err(failed)) => return Err(error::from_error(&failed)),
                None => return Ok(JsValue::UNDEFINED),
            }
        }
    }

    /// Ends the run, in the middle of a step if need be: what is queued on the GPU, a fraction of a second, is the last.
    pub fn cancel(&self) {
        self.0.end();
    }
}

impl Shared {
    fn poll(&self, context: &mut std::task::Context<'_>) -> Poll<Option<Result<Event, Error>>> {
        let Ok(mut slot) = self.driver.try_borrow_mut() else {
            return Poll::Pending;
        };
        let Some(driver) = slot.as_mut() else { return Poll::Ready(None) };
        *self.waiting.borrow_mut() = Some(context.waker().clone());
        let result = driver.as_mut().poll(context);
        if let Some(event) = self.events.borrow_mut().pop_front() {
            return Poll::Ready(Some(Ok(event)));
        }
        let Poll::Ready(result) = result else { return Poll::Pending };
        *slot = None;
        self.busy.set(false);
        Poll::Ready(result.err().map(Err))
    }

    fn end(&self) {
        // Never while it is polled: nothing that it polls calls JavaScript that could ask for this.
        if let Ok(mut driver) = self.driver.try_borrow_mut()
            && driver.take().is_some()
        {
            self.busy.set(false);
        }
        if let Some(waiting) = self.waiting.borrow_mut().take() {
            waiting.wake();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.driver.get_mut().is_some() {
            self.busy.set(false);
        }
    }
}

/// Pending once: whoever polls next goes on behind it.
async fn pause() {
    let mut paused = false;
    poll_fn(|_| match std::mem::replace(&mut paused, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}
