//! The two questions that people have of a plan: does it fit, and how long does it take?

use std::fmt;

use ralu::escape::Escaped;
use ralu::gpu::human_bytes;
use ralu::pipeline::{AdapterSpeed, Plan};
use ralu_host::fit::Fit;
use serde::Serialize;

use super::prediction::{Prediction, Work, rate_of};
use crate::progress::human_time;

/// Does it fit?
#[derive(Serialize)]
pub struct Memory {
    /// The adapter; `None` if there is none here.
    adapter: Option<String>,
    need_bytes: u64,
    free_bytes: Option<u64>,
    /// Also by weights that come and go; `None` if it is not known.
    fits: Option<bool>,
    /// Whether weights have to come and go for that; `None` if it is not known.
    streams: Option<bool>,
    /// What it can keep within in that way, if it does not fit whole.
    least_bytes: Option<u64>,
    /// The best format that makes it fit whole.
    quantize: Option<&'static str>,
    #[serde(skip)]
    fit: Fit,
}

impl Memory {
    /// What `fit` is on that adapter.
    pub fn new(adapter: Option<String>, fit: Fit) -> Memory {
        Memory {
            adapter,
            need_bytes: fit.need,
            free_bytes: fit.free,
            fits: fit.fits(),
            streams: fit.fits_whole().map(|whole| !whole),
            least_bytes: fit.least,
            quantize: fit.best_quantised().map(|(format, _)| format.name()),
            fit,
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Memory { fit, adapter, .. } = self;
        let need = human_bytes(fit.need);
        let within = |f: &mut fmt::Formatter<'_>| match fit.least {
            Some(least) => {
                write!(f, "; weights that come and go let it keep within {}", human_bytes(least))
            }
            None => Ok(()),
        };
        f.write_str("Does it fit?  ")?;
        let Some(adapter) = adapter else {
            write!(
                f,
                "There is no adapter here (`ralu devices` says why). It needs {need} of one's memory"
            )?;
            return within(f);
        };
        let adapter = Escaped(adapter);
        let Some(free) = fit.free.map(human_bytes) else {
            write!(f, "Not known: it needs {need}, and {adapter} does not say what it has free")?;
            return within(f);
        };
        let of = format!("whole it needs {need}, and {adapter} has {free} free");
        let quantised = match fit.best_quantised() {
            Some((format, need)) => {
                format!("--quantize {} makes it fit whole, in {}", format.name(), human_bytes(need))
            }
            None => {
                "a smaller picture (--width, --height) or smaller weights make it fit".to_owned()
            }
        };
        match (fit.fits_whole(), fit.fits()) {
            (Some(true), _) => write!(f, "Yes: it needs {need}, and {adapter} has {free} free"),
            (_, Some(true)) => write!(f, "Yes, by weights that come and go: {of}; {quantised}"),
            _ => {
                write!(f, "No: {of}")?;
                within(f)?;
                write!(f, "; {quantised}")
            }
        }
    }
}

/// How long does it take?
#[derive(Serialize)]
pub struct Time {
    /// Of one picture, without what happens once; `None` if nothing was measured.
    seconds: Option<f64>,
    /// Whose speed that is.
    adapter: Option<String>,
    /// What was measured.
    from: Option<Work>,
}

impl Time {
    /// Of a plan, by what is known of an adapter and of weights that come and go.
    pub fn new(plan: &Plan, speed: Option<&AdapterSpeed>, streamed: Option<&Prediction>) -> Time {
        let rate = speed.and_then(|speed| rate_of(speed, plan));
        let computed = rate.map(|(rate, _)| plan.tflops.with_attention * 1e12 / rate);
        let seconds = streamed.map_or(computed, |streamed| streamed.seconds(plan));
        Time {
            seconds,
            adapter: speed.filter(|_| seconds.is_some()).map(|speed| speed.adapter.clone()),
            from: rate.filter(|_| seconds.is_some()).map(|(_, from)| from),
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("How long?     ")?;
        let (Some(seconds), Some(adapter), Some(from)) = (self.seconds, &self.adapter, self.from)
        else {
            return f.write_str(
                "Not known: nothing was measured on this adapter yet; `ralu generate` with this model learns it, as do `ralu tune` \
                 and `ralu bench step`",
            );
        };
        let (time, how) = match from {
            Work::Steps => ("About", "as steps there took"),
            Work::Kernels => {
                ("At least", "by its kernels alone; `ralu generate` with this model learns more")
            }
        };
        write!(
            f,
            "{time} {} a picture on {}, {how}; loading comes to it, and compiling kernels in the first run",
            human_time(seconds.max(1.0)),
            Escaped(adapter)
        )
    }
}
