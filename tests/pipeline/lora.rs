//! LoRA and its relatives: whole runs against diffusers on weights with the same changes (`tests/fixtures/lora`), and what must
//! hold whatever the numbers are.

use std::path::Path;
use std::sync::Arc;

use ralu::checkpoint::source::{Folder, Source};
use ralu::gpu::{Counters, Gpu};
use ralu::models::adapters::{Lora, LoraWeight};
use ralu::models::config::ModelConfig;
use ralu::models::files::{ModelFiles, ModelPaths};
use ralu::models::layers::Precision;
use ralu::models::quantise::Quantise;
use ralu::pipeline::plan::plan;
use ralu::pipeline::{
    Error, MemoryBudget, NamedTensors, Options, Pipeline, RaluChoice, Request, Settings,
};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use super::references::{fixture, near, numbers, read, run};

/// Merged folders come to 1e-5; a layer that is left out moves latents by 1e-3 or more.
const LATENTS: f64 = 1e-4;
const EMBEDDINGS: f64 = 1e-4;

/// A case of the fixtures.
pub(super) struct Case {
    json: Value,
    expected: NamedTensors,
    pub(super) paths: ModelPaths,
}

impl Case {
    pub(super) fn open(name: &str) -> Case {
        let folder = fixture("lora").join(name);
        let json = std::fs::read_to_string(folder.join("case.json")).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        let lora = |lora: &Value| Lora {
            file: shown(&folder.join(lora["file"].as_str().unwrap())),
            weight: LoraWeight::Whole(lora["weight"].as_f64().unwrap()),
            sha256: None,
        };
        let loras = json["loras"].as_array().unwrap().iter().map(lora).collect();
        let paths = ModelPaths::default().with(|paths| {
            paths.model = json["base_model"].as_str().unwrap().to_owned();
            paths.loras = loras;
        });
        Case { expected: read(&folder.join("expected.safetensors")), json, paths }
    }

    /// With other weights of the files.
    pub(super) fn weighted(mut self, weight: LoraWeight) -> Case {
        self.paths.loras.iter_mut().for_each(|lora| lora.weight = weight);
        self
    }

    pub(super) fn without(mut self) -> Case {
        self.paths.loras.clear();
        self
    }

    pub(super) fn files(&self) -> ModelFiles {
        ModelFiles::open(Arc::new(Folder::anywhere()), &self.paths).unwrap()
    }

    pub(super) fn request(&self) -> Request {
        let count = |key: &str| Some(self.json[key].as_u64().unwrap() as usize);
        let given = |name: &&str| Some(((*name).to_owned(), self.expected.0.get(*name)?.clone()));
        Request::default().with(|request| {
            request.prompt = self.json["prompt"].as_str().unwrap().to_owned();
            request.negative_prompt =
                self.json.get("negative_prompt").and_then(Value::as_str).map(Into::into);
            (request.width, request.height) = (count("width"), count("height"));
            request.steps = count("steps");
            request.guidance = self.json["guidance"].as_f64();
            request.max_sequence_length = count("max_sequence_length");
            request.ralu = RaluChoice::Off;
            request.given = NamedTensors(NamedTensors::NOISES.iter().filter_map(given).collect());
        })
    }

    pub(super) fn draw(&self, options: Options) -> (NamedTensors, Vec<String>) {
        let gpu = crate::common::gpu();
        let pipeline = Pipeline::open(gpu, Box::new(self.files()), options).unwrap();
        let outcome = run(&pipeline, self.request());
        (outcome.tensors, outcome.warnings)
    }

    fn check(&self) {
        let (made, warnings) = self.draw(in_f32());
        near("latents", numbers(&made, "latents"), numbers(&self.expected, "latents"), LATENTS);
        for name in ["prompt_embeds", "pooled_prompt_embeds", "negative_prompt_embeds"] {
            if self.expected.0.contains_key(name) && made.0.contains_key(name) {
                near(name, numbers(&made, name), numbers(&self.expected, name), EMBEDDINGS);
            }
        }
        let told = warnings.join("\n");
        let unused = self.json["unused_keys"].as_array().unwrap();
        unused.iter().for_each(|key| assert!(told.contains(key.as_str().unwrap()), "{told}"));
        assert_eq!(told.contains("unused key"), !unused.is_empty(), "{told}");
    }
}

fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

pub(super) fn in_f32() -> Options {
    Options::default().with(|options| options.precision = Precision::F32)
}

pub(super) fn bits(tensors: &NamedTensors) -> Vec<u32> {
    numbers(tensors, "latents").iter().map(|value| value.to_bits()).collect()
}

/// Relative L2 distance.
pub(super) fn distance(a: &NamedTensors, b: &NamedTensors) -> f64 {
    let [a, b] = [a, b].map(|tensors| numbers(tensors, "latents"));
    let difference: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (difference / b.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()).sqrt()
}

/// PEFT's names; ranks differ.
#[test]
fn diffusers_names() {
    Case::open("flux-diffusers").check();
}

/// Fused layers, one with blocks of zeros, CLIP and T5, alpha missing in places.
#[test]
fn kohya() {
    Case::open("flux-kohya").check();
}

/// alpha in the header alone.
#[test]
fn alpha_in_metadata() {
    Case::open("flux-metadata").check();
}

#[test]
fn xlabs() {
    Case::open("flux-xlabs").check();
}

#[test]
fn factors_in_fp8() {
    Case::open("flux-fp8").check();
}

/// Norms of columns over all of a fused layer's rows; T5 under CLIP-G's number.
#[test]
fn onetrainer_with_dora() {
    Case::open("flux-onetrainer-dora").check();
}

#[test]
fn parts_of_fused_layers_by_number() {
    Case::open("flux-onetrainer-bfl").check();
}

#[test]
fn lokr() {
    Case::open("flux-lokr").check();
}

#[test]
fn loha() {
    Case::open("flux-loha").check();
}

/// Differences of weights and biases, and norms that are replaced.
#[test]
fn whole_differences() {
    Case::open("flux-diff").check();
}

/// Weights of 0.7 and -0.4, names in two forms.
#[test]
fn two_files() {
    Case::open("flux-two").check();
}

#[test]
fn unknown_keys_are_told() {
    Case::open("flux-unknown-keys").check();
}

#[test]
fn layers_under_two_names_count_once() {
    let case = Case::open("flux-twice");
    case.check();
    let report = &case.files().adapters()[0].clone();
    assert_eq!((report.layers, report.repeated.len()), (2, 2), "{report:?}");
}

/// Dual attention, a convolution, swapped halves, two CLIPs and T5.
#[test]
fn kohya_on_sd35_medium() {
    Case::open("sd35m-kohya").check();
}

#[test]
fn lycoris_on_sd35_medium() {
    Case::open("sd35m-lycoris").check();
}

/// For products and for what is merged.
#[test]
fn a_weight_of_0_gives_the_bits_of_the_model() {
    for name in ["flux-kohya", "flux-diff"] {
        let (plain, _) = Case::open(name).without().draw(in_f32());
        let (weightless, _) = Case::open(name).weighted(LoraWeight::Whole(0.0)).draw(in_f32());
        assert!(bits(&plain) == bits(&weightless), "{name}");
    }
}

/// Blocks of 8 bits and less, to which a change of 3 % could not be added, keep it whole.
#[test]
fn a_quantised_model_keeps_the_effect() {
    let case = || Case::open("flux-two");
    let (plain, _) = case().without().draw(in_f32());
    let (changed, _) = case().draw(in_f32());
    let quantised = |text: &str| {
        in_f32().with(|options| options.quantise = Some(text.parse::<Quantise>().unwrap()))
    };
    for (format, limit) in [("q8_0", 0.03), ("q4_0", 0.3)] {
        let (plain_q, _) = case().without().draw(quantised(format));
        let (changed_q, _) = case().draw(quantised(format));
        let (effect, effect_q) = (distance(&changed, &plain), distance(&changed_q, &plain_q));
        let off = distance(&changed_q, &changed);
        println!("{format}: effect {effect:.4} and {effect_q:.4}, off by {off:.4}");
        assert!((effect_q / effect - 1.0).abs() < limit, "{format}: {effect_q} of {effect}");
        // Not further from the wide model's picture than the models are from each other, twice.
        assert!(off < 2.0 * distance(&plain_q, &plain) + 1e-4, "{format}: {off}");
    }
}

#[test]
fn a_dense_change_of_a_quantised_weight_is_refused() {
    let folder = fixture("formats/flux-gguf");
    let json = std::fs::read_to_string(folder.join("case.json")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let args = json["model_args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    let args: Vec<&str> = args.collect();
    let open = |ends: [&str; 2], shapes: [[usize; 2]; 2]| {
        let lora = tempfile::NamedTempFile::with_suffix(".safetensors").unwrap();
        let bytes = shapes.map(|[rows, cols]| vec![0; 4 * rows * cols]);
        let tensors = (0..2).map(|i| {
            let view = TensorView::new(Dtype::F32, shapes[i].to_vec(), &bytes[i]).unwrap();
            (format!("transformer.single_transformer_blocks.0.proj_out.{}", ends[i]), view)
        });
        std::fs::write(lora.path(), safetensors::serialize(tensors, None).unwrap()).unwrap();
        let weight = LoraWeight::default();
        let paths = super::formats::paths(&folder, &args).with(|paths| {
            paths.loras = vec![Lora { file: shown(lora.path()), weight, sha256: None }];
        });
        ModelFiles::open(Arc::new(Folder::anywhere()), &paths).map_err(|error| error.to_string())
    };
    // LoKr of 16 x 16 and 16 x 80, and a product for the same layer.
    let error = open(["lokr_w1", "lokr_w2"], [[16, 16], [16, 80]]).err().expect("an error");
    assert!(error.contains("stored in") && error.contains("16 or 32 bits"), "{error}");
    assert!(open(["lora_A.weight", "lora_B.weight"], [[4, 1280], [256, 4]]).is_ok());
}

/// Blocks that come and go bring no factors, and change nothing. What is planned is what is taken.
#[test]
fn streamed_blocks_change_nothing() {
    let case = Case::open("flux-kohya");
    let (expected, free) = planned_and_drawn(&case, case.request(), None);
    let least = match planned(&case, &case.request(), Some(1), &crate::common::gpu()) {
        Err(Error::MemoryBudget { least, .. }) => least,
        other => panic!("{other:?}"),
    };
    assert!(least < free, "{least} of {free}");
    let (streamed, _) = planned_and_drawn(&case, case.request(), Some(least));
    assert!(bits(&expected) == bits(&streamed));
}

fn within(budget: Option<u64>) -> Options {
    let budget = budget.map_or(MemoryBudget::Auto, MemoryBudget::Bytes);
    in_f32().with(|options| options.memory_budget = budget)
}

/// The peak of a run.
fn planned(case: &Case, request: &Request, budget: Option<u64>, gpu: &Gpu) -> Result<u64, Error> {
    let files = case.files();
    let source: &dyn Source = &files;
    let config = ModelConfig::load(source).unwrap();
    let settings = Settings::resolve(request, &config).unwrap();
    let plan = plan(&config, Some(source), &settings, gpu.caps(), within(budget))?;
    Ok(plan.memory.peak_bytes)
}

pub(super) fn planned_and_drawn(
    case: &Case,
    request: Request,
    budget: Option<u64>,
) -> (NamedTensors, u64) {
    let gpu = crate::common::gpu();
    let planned = planned(case, &request, budget, &gpu).unwrap();
    let pipeline = Pipeline::open(gpu, Box::new(case.files()), within(budget)).unwrap();
    let outcome = run(&pipeline, request);
    let Counters { bytes_peak, buffers, .. } = pipeline.gpu().counters();
    // Buffers are multiples of 16 bytes.
    let close = (planned..=planned + 16 * buffers).contains(&bytes_peak);
    assert!(close, "{bytes_peak} bytes, planned {planned}");
    (outcome.tensors, planned)
}
