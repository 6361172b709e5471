//! FLUX.2 [klein]: what its files say, what it costs, its presets, and damaged models. Whole runs are in `pipeline.rs`.

use std::path::{Path, PathBuf};

use crate::common::Random;
use ralu::checkpoint::source::Memory;
use ralu::checkpoint::weights::{TensorInfo, Weights};
use ralu::gpu::block_on;
use ralu::models::builtin;
use ralu::models::config::{ModelConfig, TransformerConfig, folder, stem};
use ralu::models::cost::{self, Parameters};
use ralu::models::flux2::{BASE, DISTILLED, Flux2Config};
use ralu::pipeline::plan::plan;
use ralu::pipeline::{
    Event, NamedTensor, Options, Pipeline, Plan, RaluChoice, Request, Rng, Settings, check_model,
};
use ralu::sampling::CustomStages;
use ralu::sampling::ntdm::{js_distance, solve_with};
use ralu::sampling::{Preset, torch_randn};
use ralu::tensor::Caps;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A fixture's model in memory, to be changed.
fn files(name: &str) -> Memory {
    fn add(memory: &mut Memory, folder: &Path, prefix: &str) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                add(memory, &path, &format!("{name}/"));
            } else {
                memory.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let mut memory = Memory::new("klein");
    add(&mut memory, &fixture(name).join("model"), "");
    memory
}

/// A fixture whose file `path` has other fields; null removes one.
fn edited(name: &str, path: &str, fields: Value) -> Memory {
    let mut memory = files(name);
    let text = std::fs::read_to_string(fixture(name).join("model").join(path)).unwrap();
    let mut whole: Value = serde_json::from_str(&text).unwrap();
    let object = whole.as_object_mut().unwrap();
    for (field, value) in fields.as_object().unwrap() {
        match value {
            Value::Null => drop(object.remove(field)),
            value => drop(object.insert(field.clone(), value.clone())),
        }
    }
    memory.insert(path.to_owned(), whole.to_string());
    memory
}

#[track_caller]
fn refused(source: &Memory, words: &[&str]) {
    let message = check_model(source).unwrap_err().to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
}

#[test]
fn the_files_say_what_the_model_is() {
    for (name, distilled, steps, scale) in
        [("klein-a", true, 4, 1.0), ("klein-base-b", false, 50, 4.0)]
    {
        let config = ModelConfig::load(&files(name)).unwrap();
        assert_eq!((config.family().name(), config.distilled), ("flux2", distilled), "{name}");
        let own = config.defaults();
        assert_eq!((own.steps, own.true_cfg, own.guidance), (steps, scale, None), "{name}");
        assert_eq!((own.width, own.height, own.max_sequence_length), (1024, 1024, 512));
        let transformer = config.transformer_as::<Flux2Config>().unwrap();
        assert_eq!((transformer.mlp, transformer.out_channels), (192, 128));
        let vae = &config.vae;
        assert_eq!((vae.scaling_factor, vae.shift_factor), (1.0, 0.0));
        assert_eq!(vae.batch_norm_eps, Some(1e-4));
    }
    // Without the word of model_index.json a model is no distilled one.
    let silent = edited("klein-a", "model_index.json", json!({"is_distilled": null}));
    assert!(!ModelConfig::load(&silent).unwrap().distilled);
    // diffusers' defaults are those of FLUX.2 [dev].
    let fields = json!({
        "in_channels": null, "num_layers": null, "num_single_layers": null, "mlp_ratio": null,
        "attention_head_dim": null, "num_attention_heads": null, "axes_dims_rope": null,
        "rope_theta": null, "eps": null, "timestep_guidance_channels": null, "patch_size": null,
    });
    let config = ModelConfig::load(&edited("klein-a", "transformer/config.json", fields)).unwrap();
    let found = config.transformer_as::<Flux2Config>().unwrap();
    assert_eq!((found.num_layers, found.num_single_layers, found.mlp), (8, 48, 18_432));
    assert_eq!((found.in_channels, found.num_attention_heads), (128, 48));
    // A decoder of its own width.
    let fields = json!({"decoder_block_out_channels": [8, 8, 16, 24]});
    let config = ModelConfig::load(&edited("klein-a", "vae/config.json", fields)).unwrap();
    assert_eq!(config.vae.block_out_channels, [8, 8, 16, 24]);
}

#[test]
fn what_does_not_fit_is_refused() {
    for (path, fields, words) in [
        ("transformer/config.json", json!({"guidance_embeds": true}), ["guidance_embeds", "dev"]),
        ("transformer/config.json", json!({"guidance_embeds": null}), ["guidance_embeds", "dev"]),
        ("transformer/config.json", json!({"eps": 1e-5}), ["eps", "1e-6"]),
        ("transformer/config.json", json!({"patch_size": 2}), ["patch_size", "supported: 1"]),
        ("transformer/config.json", json!({"mlp_ratio": 0}), ["mlp_ratio", "is 0"]),
        ("transformer/config.json", json!({"mlp_ratio": 3.02}), ["mlp_ratio", "not 193"]),
        ("transformer/config.json", json!({"mlp_ratio": 1e9}), ["mlp_ratio", "1000000"]),
        ("transformer/config.json", json!({"rope_theta": 0.5}), ["rope_theta", "at least 1"]),
        ("transformer/config.json", json!({"axes_dims_rope": [16, 8, 8]}), ["axes", "4 even"]),
        ("transformer/config.json", json!({"axes_dims_rope": [7, 9, 8, 8]}), ["axes", "4 even"]),
        (
            "transformer/config.json",
            json!({"timestep_guidance_channels": 128}),
            ["timestep_guidance_channels", "256"],
        ),
        (
            "transformer/config.json",
            json!({"joint_attention_dim": 100}),
            ["joint_attention_dim", "hidden_size x 3"],
        ),
        ("transformer/config.json", json!({"in_channels": 64}), ["in_channels", "128"]),
        ("transformer/config.json", json!({"mlp_ratio": 2}), ["linear_in", "[256, 64]"]),
        ("model_index.json", json!({"is_distilled": "yes"}), ["is_distilled", "true or false"]),
        ("vae/config.json", json!({"batch_norm_eps": 2}), ["batch_norm_eps", "small number"]),
        ("vae/config.json", json!({"patch_size": [1, 1]}), ["patch_size", "[2, 2]"]),
        (
            "vae/config.json",
            json!({"decoder_block_out_channels": [8, 16]}),
            ["decoder_block_out_channels", "4 levels"],
        ),
        ("vae/config.json", json!({"_class_name": "AutoencoderKL"}), ["_class_name", "KLFlux2"]),
        ("text_encoder/config.json", json!({"num_hidden_layers": 26}), ["26", "at least 27"]),
        ("text_encoder/config.json", json!({"model_type": "qwen3_vl"}), ["qwen3_vl", "qwen3"]),
        ("tokenizer/tokenizer_config.json", json!({"padding_side": "left"}), ["left", "right"]),
    ] {
        refused(&edited("klein-a", path, fields), &words);
    }
}

/// The file of weights at `path` in a fixture, with other numbers in the tensor `name`.
fn with_weights(path: &str, name: &str, change: impl Fn(Vec<f32>) -> Vec<f32>) -> Memory {
    let bytes = std::fs::read(fixture("klein-a").join("model").join(path)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let old = tensors.tensor(name).unwrap();
    let number = |b: &[u8]| half::bf16::from_le_bytes([b[0], b[1]]).to_f32();
    let values = change(old.data().chunks_exact(2).map(number).collect());
    let new: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let changed = tensors.tensors().into_iter().map(|(own, view)| match own == name {
        true => (own, TensorView::new(Dtype::F32, old.shape().to_vec(), &new).unwrap()),
        false => (own, view),
    });
    let mut memory = files("klein-a");
    memory.insert(path.to_owned(), safetensors::serialize(changed, None).unwrap());
    memory
}

fn draw(source: Memory, mut request: Request) -> Result<ralu::pipeline::NamedTensors, String> {
    let pipeline = Pipeline::open(crate::common::gpu(), Box::new(source), Options::default());
    let pipeline = pipeline.map_err(|error| error.to_string())?;
    request.collect_tensors = true;
    let mut run = pipeline.start(request).map_err(|error| error.to_string())?;
    loop {
        match block_on(pipeline.gpu(), run.next()).map_err(|error| error.to_string())? {
            Some(Event::Image { tensors, .. }) => return Ok(tensors.unwrap()),
            Some(_) => {}
            None => panic!("no picture"),
        }
    }
}

fn small() -> Request {
    Request::new("a").size(32, 48).with(|request| {
        request.ralu = RaluChoice::Off;
        request.steps = Some(1);
        request.max_sequence_length = Some(32);
    })
}

#[test]
fn a_negative_variance_is_an_error() {
    let path = "vae/diffusion_pytorch_model.safetensors";
    let broken = with_weights(path, "bn.running_var", |mut values| {
        values[3] = -0.5;
        values
    });
    let message = draw(broken, small()).unwrap_err();
    for word in ["bn.running_var", "-0.5", "element 3", "fetch it again"] {
        assert!(message.contains(word), "{message}");
    }
}

/// Noise like torch's is drawn as diffusers draws it: tokens' numbers at a pixel. What is saved can be given.
#[test]
fn noise_is_drawn_given_and_saved_in_the_form_of_diffusers() {
    let request = small().with(|request| {
        request.rng = Rng::Torch;
        request.seed = 7;
    });
    let made = draw(files("klein-a"), request.clone()).unwrap();
    let Some(NamedTensor::F32 { shape, data }) = made.0.get("initial_noise") else {
        panic!("no noise")
    };
    assert_eq!(shape, &[1, 128, 3, 2]);
    assert_eq!(*data, torch_randn(7, 128 * 3 * 2));
    let mut given = small().with(|request| request.seed = 8);
    given.given.0.insert("initial_noise".into(), made.0["initial_noise"].clone());
    let again = draw(files("klein-a"), given.clone()).unwrap();
    for name in ["initial_noise", "latents", "image"] {
        assert_eq!(again.0[name], made.0[name], "{name}");
    }
    let mut random = Random::named("noise");
    given.given.insert("initial_noise", &[1, 32, 6, 4], random.numbers(768, 1.0));
    let message = draw(files("klein-a"), given).unwrap_err();
    assert!(message.contains("initial_noise") && message.contains("128"), "{message}");
}

/// The configuration tells the number of parameters.
#[test]
fn parameters_are_those_of_the_checkpoints() {
    let source = files("klein-a");
    let count = |dir: &str, parts: &[&str]| -> u64 {
        let weights = Weights::open(&source, dir, stem::DIFFUSERS).unwrap();
        let read =
            weights.iter().filter(|info| parts.iter().any(|part| info.name.starts_with(part)));
        read.map(TensorInfo::n_elements).sum()
    };
    let found = Parameters::of(&ModelConfig::load(&source).unwrap());
    assert_eq!(found.transformer, count(folder::TRANSFORMER, &[""]));
    assert_eq!(found.vae_decoder, count(folder::VAE, &["decoder.", "post_quant_conv."]));
}

#[test]
fn known_models_are_those_of_the_reference() {
    // 10^6: transformer, text encoder without unread layers, decoder. Reference: the released configurations.
    for (name, transformer, decoder) in
        [("flux.2-klein-4b", 3875.5, 49.6), ("flux.2-klein-9b", 9078.6, 49.6)]
    {
        let config = builtin::get(name).unwrap();
        let found = Parameters::of(&config);
        for (found, expected) in [(found.transformer, transformer), (found.vae_decoder, decoder)] {
            assert!((found as f64 / 1e6 - expected).abs() < 0.05, "{name}: {found}");
        }
        let base = builtin::get(&name.replace("klein", "klein-base")).unwrap();
        assert_eq!((config.distilled, base.distilled), (true, false));
        assert_eq!(*config.transformer, *base.transformer);
    }
    let named = builtin::get("black-forest-labs/FLUX.2-klein-4B");
    assert_eq!(named, builtin::get("flux.2-klein-4b"));
    // Two operations for each of 27 layers' 100.9 million numbers and each of 512 tokens.
    let encoder = cost::text_encoders(&named.unwrap(), 512).linear / 1e12;
    assert!((encoder - 2.0 * 27.0 * 100.9e-6 * 512.0).abs() < 1e-3, "{encoder}");
    // 151936 tokens of 2560 numbers, 27 layers of 100.9 million.
    for (name, token_table, layer) in
        [("flux.2-klein-4b", 389.0, 100.9), ("flux.2-klein-9b", 622.3, 192.9)]
    {
        let found = Parameters::of(&builtin::get(name).unwrap()).text_encoders[0] as f64 / 1e6;
        assert!((found - (token_table + 27.0 * layer)).abs() < 2.0, "{name}: {found}");
    }
}

/// What a step is made of is what it costs: `26 d^2` for each token and block, `4 d` for each pair of tokens and block.
#[test]
fn a_step_costs_what_its_formula_says() {
    for (name, blocks, d, per_token) in
        [("flux.2-klein-4b", 25.0, 3072.0, 6.136e9), ("flux.2-klein-9b", 32.0, 4096.0, 13.961e9)]
    {
        let model = builtin::get(name).unwrap();
        let config = &model.transformer;
        let step = |m, t| config.step_flops(m, t);
        // Blocks share their modulations.
        let ends = Flux2Config {
            num_layers: 0,
            num_single_layers: 0,
            ..model.transformer_as::<Flux2Config>().unwrap().clone()
        };
        let ends = (&ends as &dyn TransformerConfig).step_flops(1000, 100);
        let blocks_linear = step(1000, 100).linear - ends.linear;
        assert_eq!(blocks_linear, 26.0 * d * d * blocks * 1100.0, "{name}");
        assert_eq!(step(1000, 100).attention, 4.0 * d * blocks * 1100.0 * 1100.0, "{name}");
        let token = (step(1001, 100).linear - step(1000, 100).linear) / per_token;
        assert!((token - 1.0).abs() < 1e-3, "{name}: {token}");
    }
}

fn planned(model: &str, request: Request) -> Plan {
    let config = builtin::get(model).unwrap();
    let settings = Settings::resolve(&request, &config).unwrap();
    plan(&config, None, &settings, Caps::default(), Options::default()).unwrap()
}

/// One step at 1024 x 1024, in 10^12 operations: linear ones, and all.
#[test]
fn plans_have_the_operations_of_the_reference() {
    for (name, linear, all) in [("flux.2-klein-4b", 28.3, 34.8), ("flux.2-klein-9b", 64.4, 75.5)] {
        let plan = planned(name, Request::new("").ralu(RaluChoice::Off).size(1024, 1024));
        let step = plan.stages[0].tflops_per_step;
        assert!((step.linear - linear).abs() < 0.06, "{name}: {}", step.linear);
        assert!((step.with_attention - all).abs() < 0.06, "{name}: {}", step.with_attention);
        assert_eq!((plan.text_tokens, plan.evaluations_per_step, plan.steps), (512, 1, 4));
    }
    // 4 steps against 2, 1, 1: the formula of the reference leaves the text encoder out.
    let text = |model: &str| cost::text_encoders(&builtin::get(model).unwrap(), 512);
    for (name, preset, linear, all) in [
        ("flux.2-klein-4b", Preset::Distilled, 1.64, 1.76),
        ("flux.2-klein-9b", Preset::Distilled, 1.73, 1.82),
        ("flux.2-klein-base-4b", Preset::X4, 4.15, 4.33),
        ("flux.2-klein-base-4b", Preset::X7, 7.07, 7.33),
    ] {
        let request = Request::new("").ralu(RaluChoice::Preset(preset)).size(1024, 1024);
        let plan = planned(name, request);
        let text = text(name);
        let branches = plan.evaluations_per_step as f64;
        let [run, base] = [plan.tflops, plan.baseline.tflops].map(|all| {
            let without = |all: f64, text: f64| all - branches * text / 1e12;
            [without(all.linear, text.linear), without(all.with_attention, text.total())]
        });
        let found = [base[0] / run[0], base[1] / run[1]];
        println!("{name} {preset}: {found:?}, expected {linear}, {all}");
        for (found, expected) in found.into_iter().zip([linear, all]) {
            assert!((found / expected - 1.0).abs() < 0.006, "{name} {preset}: {found}");
        }
    }
}

/// Presets are near what NT-DM finds, given their Z, and have the distances of the reference.
#[test]
fn presets_match_their_schedule() {
    for (table, distances) in [(&DISTILLED, &[0.077][..]), (&BASE, &[0.033, 0.031, 0.052])] {
        for (row, expected) in table.rows.iter().zip(distances) {
            let p = row.params();
            p.validate().unwrap();
            let found =
                js_distance(&p.stage_steps, &p.stage_ends, &p.shifts, p.z, p.base_time_shift);
            let best =
                solve_with(&p.stage_steps, &p.stage_ends, p.base_time_shift, None, Some(p.z));
            let best = best.unwrap().distance;
            println!(
                "{} {}: {found:.4}, expected {expected}, best {best:.4}",
                table.models, row.preset
            );
            assert!((found - expected).abs() < 1e-3, "{}: {found}", row.preset);
            assert!(found < 1.02 * best, "{}: {found}, the best is {best}", row.preset);
        }
    }
    // The settings of a run without a choice.
    let plan = planned("flux.2-klein-4b", Request::new(""));
    assert_eq!((plan.ralu.as_str(), plan.z), ("distilled", Some(2.0)));
    let steps: Vec<usize> = plan.stages.iter().map(|stage| stage.steps).collect();
    assert_eq!(steps, [2, 1, 1]);
    // The first stage's steps are those of the plain schedule.
    let plain = planned("flux.2-klein-4b", Request::new("").ralu(RaluChoice::Off).size(1024, 1024));
    for (found, expected) in plain.stages[0].sigmas.iter().zip([1.0, 0.9674, 0.9081, 0.7672, 0.0]) {
        assert!((found - expected).abs() < 5e-5, "{found}, expected {expected}");
    }
    for (found, expected) in plan.stages[0].sigmas.iter().zip(&plain.stages[0].sigmas) {
        assert!((found - expected).abs() < 1e-4, "{found}, expected {expected}");
    }
    assert_eq!(builtin::get("flux.2-klein-base-4b").unwrap().defaults().steps, 50);
}

/// diffusers ignores the guidance of a distilled model. True guidance can be asked for all the same.
#[test]
fn guidance_is_for_base_models() {
    let resolve = |name: &str, request: Request| {
        Settings::resolve(&request, &builtin::get(name).unwrap()).unwrap()
    };
    let guided = Request::new("").with(|request| request.guidance = Some(3.0));
    let distilled = resolve("flux.2-klein-4b", guided.clone());
    assert_eq!((distilled.true_cfg, distilled.evaluations_per_step()), (1.0, 1));
    let warned = distilled.warnings.iter().any(|warning| warning.contains("no effect"));
    assert!(warned, "{:?}", distilled.warnings);
    let asked = Request::new("").with(|request| request.true_cfg = Some(2.0));
    assert_eq!(resolve("flux.2-klein-4b", asked).evaluations_per_step(), 2);
    let base = resolve("flux.2-klein-base-4b", guided);
    assert_eq!((base.true_cfg, base.evaluations_per_step()), (3.0, 2));
    assert_eq!(base.negative_prompt.as_deref(), Some(""));
}

/// The base time shift is that of the picture's size, also where shifts are solved for.
#[test]
fn the_base_time_shift_follows_the_size() {
    let config = builtin::get("flux.2-klein-base-4b").unwrap();
    for (side, expected) in [(512, 5.485), (1024, 7.564)] {
        let ralu = RaluChoice::Custom(CustomStages {
            stage_steps: vec![2, 2, 2],
            stage_ends: vec![0.15, 0.25, 1.0],
            up_ratio: 0.3,
            stage_shifts: None,
            stage_z: None,
        });
        let request = Request::new("").ralu(ralu).size(side, side);
        let settings = Settings::resolve(&request, &config).unwrap();
        let found = settings.ralu.unwrap().base_time_shift;
        assert!((found - expected).abs() < 6e-4, "{side}: {found}");
    }
}
