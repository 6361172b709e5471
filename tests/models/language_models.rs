//! Language models as text encoders, against transformers (in f32, on the same weights), and their configurations.

use std::path::PathBuf;

use crate::common::{Bands, Lab, Tolerance, assert_close, block_on, pack};
use ralu::checkpoint::pack::RowSource;
use ralu::checkpoint::source::{Folder, Memory, Source};
use ralu::checkpoint::weights::{Manifest, WeightError, Weights};
use ralu::models::config::{ConfigError, Qwen3Config};
use ralu::models::encoders::qwen3::{Qwen3, Qwen3Encoder, unread_weights};
use ralu::models::encoders::{TextEncoderConfig, TokenisedText};
use ralu::models::layers::{LoadContext, Loader, Precision, Upload};
use ralu::ops::{NormKind, reference};
use ralu::tensor::{AttentionKernel, Caps, Command, Recording};
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// Two computations of the fixtures' encodings in f32, in other orders of summation, differ by 4e-7 to 1e-6 of the largest
/// number. Five times the larger of these, which is 9e-5 in klein's: less than the 1e-4 that pictures bear.
const EMBEDDINGS: Tolerance = Tolerance::scale(5e-6);

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn model(name: &str) -> Folder {
    Folder::open(fixture(name).join("model")).unwrap()
}

/// What a fixture expects.
struct Expected {
    ids: Vec<u32>,
    /// `[T, width]`
    embeds: Vec<f64>,
}

impl Expected {
    fn read(name: &str) -> Self {
        let bytes = std::fs::read(fixture(name).join("expected.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let data = |name| tensors.tensor(name).unwrap().data().to_vec();
        let id = |id: &[u8]| u64::from_le_bytes(id.try_into().unwrap()) as u32;
        let number = |v: &[u8]| f64::from(f32::from_le_bytes(v.try_into().unwrap()));
        Expected {
            ids: data("llm_ids").chunks_exact(8).map(id).collect(),
            embeds: data("prompt_embeds").chunks_exact(4).map(number).collect(),
        }
    }
}

/// An encoder on the GPU.
struct Encoder {
    lab: Lab,
    config: Qwen3Config,
    model: Qwen3,
    weights: Weights,
}

impl Encoder {
    fn open(
        source: &dyn Source,
        config: &Qwen3Config,
        n_layers: usize,
        change: fn(&mut Caps),
    ) -> Result<Self, WeightError> {
        let lab = block_on(Lab::new()).with_caps(change);
        let weights = Weights::open(source, "text_encoder", "model")?;
        let limit = lab.caps().max_binding_bytes;
        let context = LoadContext::new(&lab.ids, Precision::Auto, limit);
        let manifest = Manifest::new(&weights);
        let model = Qwen3::load(&Loader::new(manifest.root(), &context), config, n_layers);
        let unread = unread_weights(config, n_layers);
        let unread: Vec<&str> = unread.iter().map(String::as_str).collect();
        let extra = manifest.finish(&unread)?;
        assert_eq!(extra, [""; 0], "nobody reads these");
        for upload in context.uploads.take() {
            block_on(send(&lab, &weights, &upload));
        }
        Ok(Encoder { lab, config: config.clone(), model, weights })
    }

    /// The hidden states after some numbers of layers, side by side: `[T, outputs.len() * hidden]`.
    fn encode(&self, ids: &[u32], real: usize, outputs: &[usize]) -> Vec<f32> {
        self.record(ids, real, outputs).0
    }

    /// [`Encoder::encode`], and the recording that did it.
    fn record(&self, ids: &[u32], real: usize, outputs: &[usize]) -> (Vec<f32>, Recording) {
        let Encoder { lab, config, model, weights } = self;
        let (n, d) = (ids.len(), config.hidden_size);
        let embedded = model.embed(weights, ids).unwrap();
        let rotations = model.rotations(n);
        block_on(async {
            let x = lab.matrix("x", n, d, &embedded, Bands::AsNeeded).await;
            let table =
                lab.matrix("rotations", n, config.head_dim, &rotations, Bands::AsNeeded).await;
            let width = outputs.len() * d;
            let nan = vec![f32::NAN; n * width];
            let out = lab.matrix("out", n, width, &nan, Bands::AsNeeded).await;
            let recording = lab
                .run(|r, _| {
                    let whole = r.resident(&out);
                    let columns = |i| whole.col_range(i * d..(i + 1) * d);
                    let outputs: Vec<_> =
                        outputs.iter().enumerate().map(|(i, k)| (*k, columns(i))).collect();
                    model.forward(r.resident(&x), r.resident(&table), real, &outputs);
                })
                .await;
            (lab.read(&out).await, recording)
        })
    }
}

/// Uploads one weight, its numbers in the order that the model wants.
async fn send(lab: &Lab, weights: &Weights, upload: &Upload) {
    let values = |sources: &[RowSource], width: usize| {
        let mut all = Vec::new();
        for source in sources {
            let values = weights.tensor_f32(&source.tensor).unwrap();
            match &source.order {
                None => all.extend(values),
                Some(rows) => {
                    all.extend(rows.iter().flat_map(|row| &values[row * width..][..width]));
                }
            }
        }
        all
    };
    match upload {
        Upload::Vector { resident, sources } => {
            lab.store.create(&lab.gpu, resident).await.unwrap();
            let mut values = values(sources, 1);
            values.resize(resident.cols, 0.0);
            lab.store.write(&lab.gpu, resident, &values).await.unwrap();
        }
        Upload::Scales { .. } => unreachable!("these weights have no scales"),
        Upload::BatchNorm { .. } => unreachable!("language models have no batch norm"),
        Upload::Factor { .. } | Upload::FactorScales { .. } => {
            unreachable!("nothing is added to these weights")
        }
        Upload::Packed { weight, sources } => {
            lab.store.create_packed(&lab.gpu, weight).await.unwrap();
            let packed = pack(weight, &values(sources, weight.k));
            for (i, bytes) in packed.iter().enumerate() {
                lab.store.write_bytes(&lab.gpu, weight.id, i, 0, bytes).await.unwrap();
            }
        }
    }
}

/// A name, and what it changes about the capabilities of the adapter.
type Variant = (&'static str, fn(&mut Caps));

/// The adapter as it is, with plain attention, and with matrices and weights in several buffers each.
const VARIANTS: [Variant; 3] = [
    ("as it is", |_| {}),
    ("attention by rows", |caps| caps.tuning.attention = Some(AttentionKernel::Rows)),
    ("small bindings", |caps| caps.max_binding_bytes = 4096),
];

fn largest_difference(found: &[f32], expected: &[f64]) -> f64 {
    found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

/// FLUX.2 [klein]: three hidden states, padding included, whose rows attend to the text.
#[test]
fn klein_reads_what_transformers_gives() {
    let source = model("klein-a");
    let config = Qwen3Config::load(&source, "text_encoder/config.json", 27).unwrap();
    let Expected { ids, embeds } = Expected::read("klein-a");
    for (name, change) in VARIANTS {
        let encoder = Encoder::open(&source, &config, 27, change).unwrap();
        let found = encoder.encode(&ids, 26, &[9, 18, 27]);
        crate::common::say(&format!("klein, {name}: {:.1e}", largest_difference(&found, &embeds)));
        assert_close(&format!("klein, {name}"), [64, 3 * 32], &found, &embeds, EMBEDDINGS);
    }
}

/// Z-Image: the last hidden state but one, of the text alone.
#[test]
fn z_image_reads_what_transformers_gives() {
    let source = model("z-image-turbo-a");
    let config = Qwen3Config::load(&source, "text_encoder/config.json", 2).unwrap();
    let layers = config.num_hidden_layers - 1;
    let Expected { ids, embeds } = Expected::read("z-image-turbo-a");
    for (name, change) in VARIANTS {
        let encoder = Encoder::open(&source, &config, layers, change).unwrap();
        let found = encoder.encode(&ids, ids.len(), &[layers]);
        crate::common::say(&format!(
            "z-image, {name}: {:.1e}",
            largest_difference(&found, &embeds)
        ));
        assert_close(&format!("z-image, {name}"), [22, 40], &found, &embeds, EMBEDDINGS);
    }
}

/// How much padding there is, and what its embeddings are, changes nothing for the text. Each row of padding has its own
/// encoding.
#[test]
fn the_text_does_not_see_its_padding() {
    let source = model("klein-a");
    let config = Qwen3Config::load(&source, "text_encoder/config.json", 9).unwrap();
    let Expected { ids, .. } = Expected::read("klein-a");
    let encoder = Encoder::open(&source, &config, 9, |_| {}).unwrap();
    let padded = encoder.encode(&ids, 26, &[9]);
    let alone = encoder.encode(&ids[..26], 26, &[9]);
    let expected: Vec<f64> = alone.iter().map(|v| f64::from(*v)).collect();
    assert_close("alone", [26, 32], &padded[..26 * 32], &expected, EMBEDDINGS);
    let mut other = ids.clone();
    other[26..].fill(7);
    let other = encoder.encode(&other, 26, &[9]);
    assert_close("other padding", [26, 32], &other[..26 * 32], &expected, EMBEDDINGS);
    let rows: Vec<&[f32]> = padded.chunks_exact(32).collect();
    assert!(rows[62].iter().zip(rows[63]).any(|(a, b)| (a - b).abs() > 1e-3), "pads are alike");
    // Were padding a key like others, its rows would be others.
    let seen = encoder.encode(&ids, 64, &[9]);
    assert!(
        largest_difference(
            &seen[63 * 32..],
            &rows[63].iter().map(|v| f64::from(*v)).collect::<Vec<_>>()
        ) > 1e-3
    );
}

/// The first hidden state is the embeddings; that of all layers is normalised.
#[test]
fn the_ends_are_the_embeddings_and_the_final_norm() {
    let source = model("z-image-turbo-a");
    let config = Qwen3Config::load(&source, "text_encoder/config.json", 4).unwrap();
    let Expected { ids, .. } = Expected::read("z-image-turbo-a");
    let encoder = Encoder::open(&source, &config, 4, |_| {}).unwrap();
    let found = encoder.encode(&ids, 22, &[0, 4]);
    let embedded = encoder.model.embed(&encoder.weights, &ids).unwrap();
    // A model with one layer more, which is not there and not read: of that, the fourth state is not normalised.
    let deeper = Qwen3Config { num_hidden_layers: 5, ..config.clone() };
    let weights = Weights::open(&source, "text_encoder", "model").unwrap();
    let norm = weights.tensor_f32(weights.info("model.norm.weight").unwrap()).unwrap();
    let norm: Vec<f64> = norm.iter().map(|v| f64::from(*v)).collect();
    let plain = Encoder::open(&source, &deeper, 4, |_| {}).unwrap().encode(&ids, 22, &[4]);
    for (row, plain) in plain.chunks_exact(40).enumerate() {
        let (first, last) = found[row * 80..][..80].split_at(40);
        assert_eq!(first, &embedded[row * 40..][..40], "row {row}");
        let kind = NormKind::Rms { eps: config.rms_norm_eps as f32 };
        let expected = reference::norm(plain, kind, Some(&norm), None);
        assert_close("normalised", [1, 40], last, &expected, EMBEDDINGS);
    }
}

/// A bare `Qwen3Model` has the same weights without `model.` in front, and no head.
#[test]
fn names_may_be_without_a_prefix() {
    let bytes = std::fs::read(fixture("z-image-turbo-a/model/text_encoder/model.safetensors"));
    let bytes = bytes.unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let bare = tensors
        .tensors()
        .into_iter()
        .filter_map(|(name, view)| Some((name.strip_prefix("model.")?.to_owned(), view)));
    let bare = safetensors::serialize(bare, None).unwrap();
    let memory = Memory::new("bare").with("text_encoder/model.safetensors", bare);
    let source = model("z-image-turbo-a");
    let config = Qwen3Config::load(&source, "text_encoder/config.json", 3).unwrap();
    let Expected { ids, embeds } = Expected::read("z-image-turbo-a");
    let found = Encoder::open(&memory, &config, 3, |_| {}).unwrap().encode(&ids, 22, &[3]);
    assert_close("bare", [22, 40], &found, &embeds, EMBEDDINGS);
}

#[test]
fn missing_weights_are_named() {
    let source = model("z-image-turbo-a");
    let config = Qwen3Config::load(&source, "text_encoder/config.json", 2).unwrap();
    let deeper = Qwen3Config { num_hidden_layers: 6, ..config.clone() };
    let error = Encoder::open(&source, &deeper, 5, |_| {}).err().unwrap().to_string();
    assert!(error.contains("model.layers.4.self_attn.q_proj.weight is missing"), "{error}");
    let wider = Qwen3Config { num_key_value_heads: 4, ..config };
    let error = Encoder::open(&source, &wider, 2, |_| {}).err().unwrap().to_string();
    assert!(error.contains("k_proj.weight has shape [32, 40], expected [64, 40]"), "{error}");
}

/// The figures of Qwen3's own tables (4B without its head, which is tied to the token table), and what products with
/// weights 512 tokens cost.
#[test]
fn costs_are_those_of_the_released_models() {
    let small = Qwen3Config {
        vocab_size: 151_936,
        hidden_size: 2560,
        intermediate_size: 9728,
        num_hidden_layers: 36,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        head_dim: 128,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
    };
    let large = Qwen3Config { hidden_size: 4096, intermediate_size: 12_288, ..small.clone() };
    let of = |config: &Qwen3Config, n| Qwen3Encoder { config: config.clone(), taken: vec![n] };
    let millions = |config: &Qwen3Config| of(config, 36).parameters() as f64 / 1e6;
    assert!((millions(&small) - 4022.5).abs() < 0.1, "{}", millions(&small));
    assert!((millions(&large) - 7568.4).abs() < 0.1, "{}", millions(&large));
    let tera = |config: &Qwen3Config, layers| of(config, layers).flops(512).linear / 1e12;
    for (found, expected) in
        [(tera(&small, 27), 2.8), (tera(&small, 35), 3.6), (tera(&large, 27), 5.3)]
    {
        // As the figures are rounded.
        assert!((found - expected).abs() < 0.05, "{found}, expected {expected}");
    }
}

/// What an encoder is said to cost and what its dispatches are taken for agree.
#[test]
fn costs_are_those_of_the_recording() {
    let source = model("klein-a");
    let config = Qwen3Config::load(&source, "text_encoder/config.json", 9).unwrap();
    let encoder = Encoder::open(&source, &config, 9, |_| {}).unwrap();
    let Expected { ids, .. } = Expected::read("klein-a");
    let recording = encoder.record(&ids, ids.len(), &[9]).1;
    let products: f64 = recording
        .commands
        .iter()
        .filter_map(|command| match command {
            Command::Dispatch(dispatch) => Some(dispatch),
            _ => None,
        })
        .filter(|dispatch| dispatch.pipeline.shader.starts_with(['m', 'a']))
        .map(|dispatch| dispatch.flops)
        .sum();
    let expected = Qwen3Encoder { config, taken: vec![9] }.flops(ids.len()).total();
    assert!((products - expected).abs() < 1e-6 * expected, "{products}, expected {expected}");
}

// ---- configurations --------------------------------------------------------------------------

/// The configuration of klein's fixture with some fields changed; `"ABSENT"` removes one.
fn config_with(fields: Value) -> Result<Qwen3Config, String> {
    let path = fixture("klein-a/model/text_encoder/config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let object = config.as_object_mut().unwrap();
    for (name, value) in fields.as_object().unwrap() {
        match value == "ABSENT" {
            true => drop(object.remove(name)),
            false => drop(object.insert(name.clone(), value.clone())),
        }
    }
    let memory = Memory::new("model").with("text_encoder/config.json", config.to_string());
    Qwen3Config::load(&memory, "text_encoder/config.json", 27).map_err(|error| error.to_string())
}

#[test]
fn both_spellings_of_a_configuration_are_read() {
    let released = config_with(json!({})).unwrap();
    let expected = Qwen3Config {
        vocab_size: 447,
        hidden_size: 32,
        intermediate_size: 56,
        num_hidden_layers: 28,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 16,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
    };
    assert_eq!(released, expected);
    let newer = json!({
        "rope_theta": "ABSENT", "rope_scaling": "ABSENT", "layer_types": "ABSENT",
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    });
    assert_eq!(config_with(newer).unwrap(), expected);
    // Absent fields have the defaults of transformers' `Qwen3Config`.
    let absent = json!({"head_dim": "ABSENT", "rope_theta": "ABSENT", "rms_norm_eps": "ABSENT"});
    let defaults = Qwen3Config { head_dim: 128, rope_theta: 1e4, ..expected.clone() };
    assert_eq!(config_with(absent).unwrap(), defaults);
    let null = config_with(json!({"num_key_value_heads": null})).unwrap();
    assert_eq!(null, Qwen3Config { num_key_value_heads: 2, ..expected });
}

#[test]
fn other_language_models_are_refused() {
    let cases = [
        (json!({"model_type": "qwen3_vl"}), "\"model_type\" is \"qwen3_vl\""),
        (json!({"model_type": "ABSENT"}), "\"model_type\" is missing"),
        (json!({"hidden_act": "gelu"}), "\"hidden_act\" is \"gelu\", which is not supported"),
        (json!({"attention_bias": true}), "\"attention_bias\" is true"),
        (json!({"use_sliding_window": true}), "\"use_sliding_window\" is true"),
        (
            json!({"layer_types": ["full_attention", "sliding_attention"]}),
            "\"layer_types\" is \"sliding_attention\"",
        ),
        (
            json!({"rope_scaling": {"type": "yarn", "factor": 4.0}}),
            "\"rope_scaling.type\" is \"yarn\"",
        ),
        (json!({"rope_scaling": 4}), "\"rope_scaling\" is 4; expected an object, or null"),
        (
            json!({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e6}}),
            "\"rope_parameters.rope_type\" is \"linear\"",
        ),
        (json!({"rope_parameters": {"rope_theta": 1e4}}), "expected 10000, as rope_parameters"),
        (json!({"rope_parameters": {"partial_rotary_factor": 0.5}}), "partial_rotary_factor"),
        (json!({"rope_theta": 0}), "\"rope_theta\" is 0; expected a number, at least 1"),
        (json!({"num_key_value_heads": 3}), "a divisor of num_attention_heads = 2"),
        (json!({"head_dim": 18}), "\"head_dim\" is 18"),
        (json!({"head_dim": 516}), "\"head_dim\" is 516"),
        (json!({"hidden_size": 30}), "\"hidden_size\" is 30"),
        (json!({"intermediate_size": 57}), "\"intermediate_size\" is 57"),
        (json!({"num_hidden_layers": 26}), "\"num_hidden_layers\" is 26; expected at least 27"),
        (json!({"num_hidden_layers": 0}), "\"num_hidden_layers\" is 0"),
        (json!({"rms_norm_eps": 0}), "\"rms_norm_eps\" is 0"),
        (json!({"num_attention_heads": 65536, "head_dim": 512}), "65536 x 512"),
        (json!({"quantization_config": {"quant_method": "fp8"}}), "quantization_config"),
        (json!({"model_type": "\u{1b}[2J"}), "\"model_type\" is \"\\u{1b}[2J\""),
    ];
    for (fields, expected) in cases {
        match config_with(fields.clone()) {
            Ok(config) => panic!("{fields}: was accepted as {config:?}"),
            Err(message) => {
                assert!(message.starts_with("model/text_encoder/config.json: "), "{message}");
                assert!(message.contains(expected), "{fields}: {message}; expected {expected:?}");
            }
        }
    }
}

/// As a text encoder of a family: its parts are what [`Qwen3`] gives by itself.
#[test]
fn a_text_encoder_gives_its_hidden_states_side_by_side() {
    let source = model("klein-a");
    let taken = [9, 18, 27];
    let config = Qwen3Encoder::load(&source, "text_encoder/config.json", &taken).unwrap();
    let small = ConfigError::Field {
        path: format!("{}/text_encoder/config.json", source.name().trim_end_matches('/')),
        field: "num_hidden_layers".into(),
        found: "28".into(),
        expected: "at least 29, as the model reads what that layer gives".into(),
    };
    let found = Qwen3Encoder::load(&source, "text_encoder/config.json", &[9, 29]).unwrap_err();
    assert_eq!(found.to_string(), small.to_string());
    assert_eq!((config.token_dim(), &*config.token_field()), (96, "hidden_size x 3"));
    let Expected { ids, embeds } = Expected::read("klein-a");
    let tokenizer = config.tokenizer().load(&source, "tokenizer").unwrap();
    let padded = tokenizer.encode("a", 64).unwrap();
    assert_eq!((padded.ids.len(), padded.real, padded.ids[63]), (64, 1, ids[63]));

    let lab = block_on(Lab::new());
    let weights = Weights::open(&source, "text_encoder", "model").unwrap();
    let context = LoadContext::new(&lab.ids, Precision::Auto, u64::MAX);
    let manifest = Manifest::new(&weights);
    let encoder = config.load(&Loader::new(manifest.root(), &context));
    let ignored = config.ignored_weights();
    let ignored: Vec<&str> = ignored.iter().map(|name| &**name).collect();
    assert_eq!(manifest.finish(&ignored).unwrap(), [""; 0]);
    let text = TokenisedText { ids, n_real: 26 };
    let inputs = encoder.embed(&weights, &text).unwrap();
    let found = block_on(async {
        for upload in context.uploads.take() {
            send(&lab, &weights, &upload).await;
        }
        let mut matrices = vec![];
        for ((name, rows, cols), values) in encoder.inputs(64).into_iter().zip(&inputs) {
            matrices.push(lab.matrix(name, rows, cols, values, Bands::AsNeeded).await);
        }
        let (_, (name, rows, cols)) = encoder.outputs(64, true)[0];
        let out = lab.matrix(name, rows, cols, &vec![f32::NAN; rows * cols], Bands::AsNeeded).await;
        lab.run(|r, _| {
            let inputs: Vec<_> = matrices.iter().map(|matrix| r.resident(matrix)).collect();
            encoder.record(&text, &inputs, &[r.resident(&out)]);
        })
        .await;
        lab.read(&out).await
    });
    assert_close("klein", [64, 3 * 32], &found, &embeds, EMBEDDINGS);
}
