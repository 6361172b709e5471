//! What a run tells, as JSON lines: one object a line.
//!
//! Every line has the field `event`:
//!
//! | `event` | fields |
//! | --- | --- |
//! | `start` | `version`, `model`, `adapter`, `backend`, `width`, `height`, `ralu`, `stages`, `steps`, `seed`, `count` |
//! | `request` | `image` (number of its first picture), `prompt`, `width`, `height`, `ralu`, `stages`, `steps`, `seed`, `count`; one for each of `--prompts`, where `start` has those of the first and all pictures' `count` |
//! | `lora` | `file`, `family`, `form`, `weight`, `layers`, `text_layers`, `ranks`, `kinds`, `unused` (keys), `repeated`, `without_effect` (layers), `has_merged`, `bytes`, `few_steps` (`steps`, `weight`, `guidance`, if its name says that it is for few); one for each `--lora` |
//! | `warning` | `message` |
//! | `tuning` | `done`, `of` (parts of the measuring of kernels), `what`; only in the first run on an adapter |
//! | `tuned` | `seconds`, `choices` (for each op `op`, `class`, `kernel`, `shaders`), `file` (null if it could not be kept) |
//! | `loading` | `part` (`text_encoders`, `denoiser`), `bytes`, `total_bytes` |
//! | `encoded` | `tokens`, `seconds` |
//! | `stage` | `image`, `stage`, `of`, `tokens`, `steps`, `bytes`, `reused_bytes`, `allocated_bytes`; so far in this process `buffers`, `bind_groups`, `pipelines`, `gpu_bytes`, `gpu_peak_bytes` |
//! | `step` | `image`, `stage`, `step`, `of`, `sigma`, `seconds`, `done` (share of the picture, 0 to 1), `reused` (by the temporal cache) |
//! | `stage_end` | `image`, `stage`, `seconds`; since the stage's first step `buffers_created`, `bind_groups_created` |
//! | `regions` | `image`, `rows`, `columns`, `selected`, `density` (edge pixels, or what else the region score is), `seconds` |
//! | `stage_picture` | `image`, `stage`, `kind` (`estimate`, `edges`, `regions`), `width`, `height`, `file` (null without `--stages`) |
//! | `image` | `image`, `seed`, `width`, `height`, `file`, `tensors` (null without `--save-tensors`), `seconds`, `steps_computed`, `steps_reused`, `computed` (for each stage and step), `tflops`, `products` (`f16` where kernels on cooperative matrices ran, else `f32`), `scaled` (blocks that left f16's range and were done again with activations divided by 256), `in_f32` (those that left it even so, and were done in f32) |
//! | `done` | `images`, `seconds`, `gpu_peak_bytes` |
//! | `error` | `message`, `exit_code`; the last line of a run that failed or was cancelled |

use std::path::Path;

use ralu::gpu::Counters;
use ralu::models::adapters::AdapterReport;
use ralu::pipeline::Event;
use ralu::pipeline::tune::{Measured, TuningEvent, TuningRecord};
use serde_json::{Value, json};

/// The line of an event: its own JSON, and what is only known here. `files` are those that were written because of it.
/// `None` for events that have no JSON.
pub fn value(event: &Event, files: &Files<'_>, counters: Counters) -> Option<Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(event) else { return None };
    let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    match event {
        Event::Stage(_) => {
            add("buffers", counters.buffers.into());
            add("bind_groups", counters.bind_groups.into());
            add("pipelines", counters.pipelines.into());
            add("gpu_bytes", counters.bytes_alive.into());
            add("gpu_peak_bytes", counters.bytes_peak.into());
        }
        Event::StagePicture { .. } => {
            add("file", files.picture.map(shown).into());
        }
        Event::Image { .. } => {
            add("file", files.picture.map(shown).into());
            add("tensors", files.tensors.map(shown).into());
        }
        _ => {}
    }
    Some(Value::Object(fields))
}

/// The line that says what a file of changes changes.
pub fn lora_value(report: &AdapterReport) -> Value {
    let mut value = serde_json::to_value(report).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.insert("event".into(), "lora".into());
    }
    value
}

/// The line of an event while kernels are measured.
pub fn tuning_value(event: &TuningEvent) -> Option<Value> {
    Some(match event {
        TuningEvent::Measured { done, of, what } => {
            json!({ "event": "tuning", "done": done, "of": of, "what": what })
        }
        TuningEvent::Failed { what, reason } => {
            let message = format!("{what} failed and is left out: {reason}");
            json!({ "event": "warning", "message": message })
        }
        _ => return None,
    })
}

/// The line that says which kernels were found to be best.
pub fn tuned_value(record: &TuningRecord, file: Option<&Path>) -> Value {
    let choice = |measured: &Measured| {
        let chosen = measured.kernels.iter().find(|kernel| kernel.chosen);
        json!({
            "op": measured.op,
            "class": measured.class,
            "kernel": chosen.map(|kernel| &kernel.kernel),
            "shaders": chosen.map(|kernel| &kernel.shaders),
        })
    };
    json!({
        "event": "tuned",
        "seconds": record.seconds,
        "choices": record.measured.iter().map(choice).collect::<Vec<_>>(),
        "file": file.map(shown),
    })
}

/// A line of output: the object with its `event` first, for those who read along.
pub fn line(value: &Value) -> String {
    let mut rest = value.clone();
    let event = rest.as_object_mut().and_then(|fields| fields.remove("event"));
    let (event, rest) = (event.unwrap_or_default(), rest.to_string());
    match rest.strip_prefix('{') {
        Some("}") | None => format!("{{\"event\":{event}}}"),
        Some(fields) => format!("{{\"event\":{event},{fields}"),
    }
}

/// What was written because of an event.
#[derive(Default)]
pub struct Files<'a> {
    /// The file of the picture.
    pub picture: Option<&'a Path>,
    /// The file of the tensors.
    pub tensors: Option<&'a Path>,
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
