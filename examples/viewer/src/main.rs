//! Watch the stages happen: a window in which RALU draws.
//!
//! `cargo run --release -p ralu-viewer -- [--model PATH] [--quantize TYPE] [--from PICTURE.png] [PROMPT]`, and the options of
//! `ralu generate` for parts of a model in files of their own.
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
use ralu::models::adapters::Lora;
use ralu::models::files::{ModelPaths, Role};
use ralu::models::quantise::QuantiseChoice;
use ralu::pipeline::MemoryBudget;

use app::{App, Start};
use kept::Kept;
use loss::{Before, Loss};

const USAGE: &str = "usage: ralu-viewer [--model PATH] [--diffusion-model FILE] [--clip-l FILE] [--clip-g FILE] [--t5xxl FILE] \
                     [--vae FILE] [--no-t5] [--clip-tokenizer PATH] [--t5-tokenizer PATH] [--memory-budget SIZE] \
                     [--quantize TYPE[:PARTS]] [--lora FILE[:WEIGHT]]… [--from PICTURE.png] [PROMPT]";

/// What the command line asks for.
#[derive(Default)]
struct Arguments {
    model: Option<PathBuf>,
    /// The model's parts in files of their own.
    parts: ModelPaths,
    memory_budget: Option<MemoryBudget>,
    quantize: Option<QuantiseChoice>,
    open: Option<PathBuf>,
    prompt: Option<String>,
    before: Option<Before>,
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut arguments = Arguments::default();
        let part = |arguments: &mut Arguments, role, path| {
            arguments.parts.parts.insert(role, path);
        };
        while let Some(word) = words.next() {
            let mut next = || words.next().ok_or(format!("{word} needs a path\n{USAGE}"));
            let mut value = || next().map(PathBuf::from);
            match word.as_str() {
                "--help" | "-h" => return Err(USAGE.into()),
                "--model" => arguments.model = Some(value()?),
                "--diffusion-model" => arguments.parts.diffusion_model = Some(next()?),
                "--clip-tokenizer" => arguments.parts.clip_tokenizer = Some(next()?),
                "--t5-tokenizer" => arguments.parts.t5_tokenizer = Some(next()?),
                "--no-t5" => arguments.parts.without_t5 = true,
                "--lora" => {
                    let lora = next()?.parse::<Lora>();
                    let lora = lora.map_err(|error| format!("{word}: {error}\n{USAGE}"))?;
                    arguments.parts.loras.push(lora);
                }
                "--clip-l" => part(&mut arguments, Role::ClipL, next()?),
                "--clip-g" => part(&mut arguments, Role::ClipG, next()?),
                "--t5xxl" => part(&mut arguments, Role::T5, next()?),
                "--vae" => part(&mut arguments, Role::Vae, next()?),
                "--memory-budget" | "--max-vram" => {
                    let budget = next()?.parse::<MemoryBudget>();
                    let budget = budget.map_err(|error| format!("{word}: {error}\n{USAGE}"))?;
                    arguments.memory_budget = Some(budget);
                }
                "--quantize" => {
                    let choice = next()?.parse::<QuantiseChoice>();
                    let choice = choice.map_err(|error| format!("{word}: {error}\n{USAGE}"))?;
                    arguments.quantize = Some(choice);
                }
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
    if let Some(prompt) = &arguments.prompt {
        kept.form.prompt.clone_from(prompt);
    }
    if let Some(budget) = arguments.memory_budget {
        kept.memory_budget = budget.to_string();
    }
    if let Some(quantise) = arguments.quantize {
        kept.form.quantize = quantise.to_string();
    }
    let Arguments { model, mut parts, .. } = arguments;
    let mut keep_form = true;
    if model.is_some() || !parts.is_model_alone() {
        // A denoiser with all parts given or found needs no other model.
        let model = model.or_else(|| parts.diffusion_model.take().map(PathBuf::from));
        let model = model.or_else(|| kept.model.clone());
        // Parts of another model are no parts of this one.
        let parts = Some(parts).filter(|parts| !parts.is_model_alone());
        keep_form = (&model, &parts) == (&kept.model, &kept.model_parts);
        (kept.model, kept.model_parts) = (model, parts);
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
