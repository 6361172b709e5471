//! Watch the stages happen: a window in which RALU draws.
//!
//! `cargo run --release -p ralu-viewer -- [--model FOLDER] [--from PICTURE.png] [PROMPT]`
//!
//! [`engine`] runs the pipeline on a thread of its own, on the window's device. [`app`] takes in what it tells, as
//! [`record`]s, and shows them: [`controls`] at the left, [`canvas`] in the middle, [`figures`] at the right,
//! [`timeline`] below. [`keys`] is the list of all that can be done, [`loss`] what happens if the GPU goes away.

mod advice;
mod app;
mod canvas;
mod controls;
mod dialog;
mod engine;
mod figures;
mod files;
mod form;
mod frames;
mod kept;
mod keys;
mod loss;
mod record;
mod smooth;
mod theme;
mod timeline;
mod unfinished;
mod view;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use eframe::egui_wgpu::{WgpuConfiguration, WgpuSetup, WgpuSetupCreateNew};
use eframe::{NativeOptions, egui};
use ralu::gpu::{AdapterChoice, describe, device_descriptor};

use app::{App, Start};
use kept::Kept;
use loss::{Before, Loss};

const USAGE: &str = "usage: ralu-viewer [--model FOLDER] [--from PICTURE.png] [PROMPT]";

/// What the command line asks for.
#[derive(Default)]
struct Arguments {
    model: Option<PathBuf>,
    open: Option<PathBuf>,
    prompt: Option<String>,
    before: Option<Before>,
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut arguments = Arguments::default();
        while let Some(word) = words.next() {
            let mut next = || words.next().ok_or(format!("{word} needs a path\n{USAGE}"));
            let mut value = || next().map(PathBuf::from);
            match word.as_str() {
                "--help" | "-h" => return Err(USAGE.into()),
                "--model" => arguments.model = Some(value()?),
                "--from" => arguments.open = Some(value()?),
                "--after-loss" => {
                    let (reason, soon, unfinished) = (next()?, next()?, next()?);
                    arguments.before = Before::read(reason, &soon, unfinished);
                }
                "--" => arguments.prompt = words.next(),
                _ if word.starts_with('-') => {
                    return Err(format!("{word} is not known\n{USAGE}"));
                }
                _ => arguments.prompt = Some(word),
            }
        }
        Ok(arguments)
    }
}

fn main() -> ExitCode {
    let started = Instant::now();
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let mut kept = Kept::read();
    if let Some(prompt) = arguments.prompt {
        kept.form.prompt = prompt;
    }
    let keep_form = arguments.model.is_none() || arguments.model == kept.model;
    if let Some(model) = arguments.model {
        kept.model = Some(model);
    }
    let viewport = egui::ViewportBuilder::default()
        .with_title("ralu")
        .with_maximized(kept.maximised)
        .with_inner_size(kept.window.unwrap_or([1180.0, 780.0]));
    let options = NativeOptions { viewport, wgpu_options: wgpu_options(), ..Default::default() };
    let loss = Loss::default();
    let start = Start { keep_form, open: arguments.open, before: arguments.before.clone() };
    let noted = loss.clone();
    // egui panics where it cannot draw, as on a device that was lost a moment before.
    let made = catch_unwind(AssertUnwindSafe(|| {
        eframe::run_native(
            "ralu",
            options,
            Box::new(|creation| Ok(Box::new(App::new(creation, kept, start, noted)?))),
        )
    }));
    let reason = match &made {
        Ok(_) => loss.reason(),
        Err(_) => loss.reason_after_panic(),
    };
    if let Some(reason) = reason {
        return loss::start_again(&loss, &reason, started, arguments.before.as_ref());
    }
    match made {
        Err(panic) => resume_unwind(panic),
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!(
                "error: there is no window: {error}. A display and a Vulkan, Metal, DX12 or GL driver are needed; \
                 `ralu devices` lists what the engine can use"
            );
            ExitCode::FAILURE
        }
    }
}

/// The window's device is opened as the engine wants it, since it is the engine's too.
fn wgpu_options() -> WgpuConfiguration {
    let mut new = WgpuSetupCreateNew::without_display_handle();
    // As the engine does: no indirect dispatches, so no validation of them.
    new.instance_descriptor.flags = Default::default();
    new.native_adapter_selector = Some(Arc::new(|adapters, surface| {
        let shown = |adapter: &&eframe::wgpu::Adapter| {
            surface.is_none_or(|surface| adapter.is_surface_supported(surface))
        };
        let reports = adapters.iter().filter(shown).map(|adapter| (describe(0, adapter), adapter));
        let usable = reports.filter(|(report, _)| report.unusable.is_none());
        // Real GPUs before software, modern backends before GL.
        usable
            .min_by_key(|(report, _)| (report.backend == "gl", report.kind))
            .map(|(_, adapter)| adapter.clone())
            .ok_or_else(|| "no adapter can both draw in this window and run the engine".to_owned())
    }));
    new.device_descriptor =
        Arc::new(|adapter| device_descriptor(adapter, &AdapterChoice::default()));
    WgpuConfiguration { wgpu_setup: WgpuSetup::CreateNew(new), ..Default::default() }
}
