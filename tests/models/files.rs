//! Models put together from files: what they are taken for, where parts are found, and what is refused in words.
//!
//! Whole runs are in `tests/pipeline/formats.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ralu::advice::Advice;
use ralu::checkpoint::source::{Folder, Memory, Source};
use ralu::checkpoint::weights::{TensorInfo, Weights};
use ralu::models::config::ModelConfig;
use ralu::models::files::{Contents, FilesError, ModelFiles, ModelPaths, PartOrigin, Role};
use ralu::pipeline::check_model;
use serde_json::{Map, Value, json};

use crate::folders::assert_mentions;

pub(super) fn formats(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats").join(path)
}

pub(super) const FLUX: &str = "flux-bfl-bf16/flux1-dev.safetensors";
pub(super) const CLIP_L: &str = "common/clip_l.safetensors";
pub(super) const T5: &str = "common/t5xxl_fp16.safetensors";
pub(super) const VAE: &str = "common/ae.safetensors";
pub(super) const SD3: &str = "sd35m-aio/sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors";

pub(super) fn text(path: PathBuf) -> String {
    path.to_str().unwrap().to_owned()
}

/// The paths of a model with the test's tokenizers.
fn paths(model: impl Into<String>) -> ModelPaths {
    ModelPaths::default().with(|paths| {
        paths.model = model.into();
        paths.clip_tokenizer = Some(text(formats("tokenizers/clip")));
        paths.t5_tokenizer = Some(text(formats("tokenizers/t5/tokenizer.json")));
    })
}

/// The model in separate files.
pub(super) fn separate() -> ModelPaths {
    paths(text(formats(FLUX))).with(|paths| {
        paths.parts = [(Role::ClipL, CLIP_L), (Role::T5, T5), (Role::Vae, VAE)]
            .map(|(role, path)| (role, text(formats(path))))
            .into();
    })
}

pub(super) fn open(paths: &ModelPaths) -> Result<ModelFiles, FilesError> {
    ModelFiles::open(Arc::new(Folder::anywhere()), paths)
}

/// A file of tensors: name, type, shape. All numbers are zero.
fn file(tensors: &[(&str, &str, &[usize])]) -> Vec<u8> {
    let mut header = Map::new();
    let mut end = 0;
    for (name, dtype, shape) in tensors {
        let bytes = if *dtype == "F32" { 4 } else { 2 };
        let start = end;
        end += bytes * shape.iter().product::<usize>();
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        header.insert((*name).to_owned(), entry);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; end]].concat()
}

/// A file with another header.
fn edited(path: &str, edit: impl FnOnce(&mut Map<String, Value>)) -> Vec<u8> {
    let bytes = fs::read(formats(path)).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: Map<String, Value> = serde_json::from_slice(header).unwrap();
    edit(&mut header);
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// What a file is refused with.
fn refusal(bytes: &[u8]) -> String {
    let source = Memory::new("m").with("f.safetensors", bytes);
    let paths = ModelPaths::default().with(|paths| paths.model = "f.safetensors".into());
    match ModelFiles::open(Arc::new(source), &paths) {
        Err(error) => error.to_string(),
        Ok(files) => check_model(&files).unwrap_err().to_string(),
    }
}

#[test]
fn models_that_are_not_supported_are_named() {
    const NORM: (&str, &str, &[usize]) =
        ("double_blocks.0.img_attn.norm.key_norm.scale", "BF16", &[4]);
    type Tensors = &'static [(&'static str, &'static str, &'static [usize])];
    let cases: [(Tensors, &str); 12] = [
        (&[NORM, ("img_in.weight", "BF16", &[4, 128])], "Canny"),
        (&[NORM, ("img_in.weight", "BF16", &[4, 384])], "Fill"),
        (
            &[
                NORM,
                ("img_in.weight", "BF16", &[4, 64]),
                ("distilled_guidance_layer.norms.0.scale", "BF16", &[4]),
            ],
            "Chroma",
        ),
        (&[("redux_up.weight", "BF16", &[4, 4]), ("redux_down.weight", "BF16", &[4, 4])], "Redux"),
        (&[("double_stream_modulation_img.lin.weight", "BF16", &[4, 4])], "FLUX.2"),
        (&[("lora_unet_double_blocks_0.lora_up.weight", "BF16", &[4, 4])], "LoRA"),
        (&[("a.lora_A.weight", "BF16", &[4, 4])], "LoRA"),
        (
            &[("layers.0.attn.qweight", "F32", &[4]), ("layers.0.attn.wscales", "F32", &[4])],
            "SVDQuant",
        ),
        (
            &[
                ("decoder.conv_in.weight", "F32", &[4, 4, 3, 3]),
                ("decoder.up.0.block.0.norm1.weight", "F32", &[4]),
            ],
            "4 latent channels",
        ),
        (&[("model.diffusion_model.input_blocks.0.0.weight", "F32", &[4])], "U-Net"),
        (
            &[
                ("encoder.block.0.layer.0.SelfAttention.q.weight", "F16", &[1, 1]),
                ("shared.weight", "F16", &[256_384, 1]),
            ],
            "UMT5",
        ),
        (&[("encoder.block.0.layer.0.SelfAttention.q.weight", "F16", &[4, 4])], "version 1.0"),
    ];
    for (tensors, what) in cases {
        let said = if what == "LoRA" { "as a LoRA of it" } else { "not supported" };
        assert_mentions(&refusal(&file(tensors)), &["f.safetensors", what, said]);
        // Under a prefix, too.
        let renamed: Vec<_> = tensors
            .iter()
            .map(|(name, dtype, shape)| (format!("model.diffusion_model.{name}"), *dtype, *shape))
            .collect();
        let renamed: Vec<_> = renamed.iter().map(|(name, d, s)| (name.as_str(), *d, *s)).collect();
        if tensors[0] == NORM || what == "FLUX.2" {
            assert_mentions(&refusal(&file(&renamed)), &["f.safetensors", what]);
        }
    }
    let message = refusal(&file(&[("a.weight", "F32", &[4]), ("b", "F32", &[1])]));
    assert_mentions(&message, &["f.safetensors", "2 tensors", "a.weight", "FLUX.1-dev"]);
    let message = refusal(&fs::read(formats(T5)).unwrap());
    assert_mentions(&message, &["f.safetensors", "expected a denoiser", "T5 text encoder"]);
    let pickle = b"PK\x03\x04\x00\x00\x00\x00\x00\x00archive/data.pkl";
    assert_mentions(&refusal(pickle), &["pickled", "ComfyUI", "stable-diffusion.cpp"]);
}

#[test]
fn incomplete_files_are_named() {
    let without =
        |start: &str| edited(FLUX, |header| header.retain(|name, _| !name.starts_with(start)));
    let says = |bytes: Vec<u8>, parts: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flux.safetensors");
        fs::write(&path, bytes).unwrap();
        let paths = separate().with(|paths| paths.model = text(path));
        let message = match open(&paths) {
            Err(error) => error.to_string(),
            Ok(files) => check_model(&files).unwrap_err().to_string(),
        };
        assert_mentions(&message, &[&["flux.safetensors"], parts].concat());
    };
    says(without("single_blocks.0."), &["no single_blocks.0", "incomplete download"]);
    says(
        without("single_blocks.1.linear2.bias"),
        &["single_transformer_blocks.1.proj_out.bias", "missing"],
    );
    let shape = |name: &'static str, shape: Value| {
        edited(FLUX, move |header| header[name]["shape"] = shape)
    };
    says(shape("double_blocks.0.img_attn.qkv.bias", json!([32, 6])), &["shape"]);
    says(
        shape("double_blocks.0.img_attn.qkv.weight", json!([64, 192])),
        &["[64, 192]", "a multiple of 3"],
    );
    says(
        shape("single_blocks.0.linear1.weight", json!([64, 448])),
        &["[64, 448]", "more than 3 x 64"],
    );
    says(shape("double_blocks.0.img_attn.norm.query_norm.scale", json!([4, 8])), &["1 sides"]);
}

#[test]
fn parts_are_what_their_names_say() {
    let contents = |path: &str, asked| {
        let weights = Weights::open_path(&Folder::anywhere(), &text(formats(path))).unwrap();
        Contents::of(&weights, asked).unwrap()
    };
    let parts = |contents: &Contents| -> BTreeMap<Role, &str> {
        contents.parts.iter().map(|(role, found)| (*role, found.prefix)).collect()
    };
    let all = contents("flux-aio-fp8/flux1-dev-fp8-aio.safetensors", None);
    assert_eq!(
        parts(&all),
        BTreeMap::from([
            (Role::Denoiser, "model.diffusion_model."),
            (Role::ClipL, "text_encoders.clip_l.transformer."),
            (Role::T5, "text_encoders.t5xxl.transformer."),
            (Role::Vae, "vae."),
        ])
    );
    assert_eq!(all.ignored, ["text_encoders.clip_l.logit_scale"]);
    assert_eq!(all.unknown, Vec::<String>::new());
    let sd3 = contents(SD3, None);
    assert_eq!(sd3.parts.len(), 5);
    assert_eq!(sd3.parts[&Role::Vae].prefix, "first_stage_model.");
    assert_eq!(sd3.parts[&Role::Denoiser].denoiser.unwrap().0.name(), "sd3");
    for (path, role) in
        [(FLUX, Role::Denoiser), (T5, Role::T5), (VAE, Role::Vae), (CLIP_L, Role::ClipL)]
    {
        assert_eq!(parts(&contents(path, None)), BTreeMap::from([(role, "")]), "{path}");
    }
    // Its width is neither's.
    assert_eq!(parts(&contents(CLIP_L, Some(Role::ClipG))), BTreeMap::from([(Role::ClipG, "")]));
    let gguf = contents("flux-gguf/t5-v1_1-xxl-encoder-mixed.gguf", None);
    assert_eq!(parts(&gguf), BTreeMap::from([(Role::T5, "")]));
}

#[test]
fn configurations_come_from_shapes() {
    let files = open(&separate()).unwrap();
    check_model(&files).unwrap();
    let config = ModelConfig::load(&files).unwrap();
    let flux = config.transformer.to_json();
    let field = |name: &str| flux[name].clone();
    assert_eq!(field("num_layers"), 1);
    assert_eq!(field("num_single_layers"), 2);
    assert_eq!(field("axes_dims_rope"), json!([4, 14, 14]));
    assert_eq!(field("guidance_embeds"), true);
    assert_eq!(config.vae.block_out_channels, [32; 4]);
    assert_eq!((config.vae.scaling_factor, config.vae.shift_factor), (0.3611, 0.1159));
    let defaults = config.defaults();
    assert_eq!((defaults.steps, defaults.guidance, config.scheduler.shift), (28, Some(3.5), 3.0));
    // Without the guidance input it is the model of few steps.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flux1-schnell.safetensors");
    let bytes = edited(FLUX, |header| header.retain(|name, _| !name.starts_with("guidance_in.")));
    fs::write(&path, bytes).unwrap();
    let files = open(&separate().with(|paths| paths.model = text(path))).unwrap();
    check_model(&files).unwrap();
    let config = ModelConfig::load(&files).unwrap();
    let defaults = config.defaults();
    assert!(config.distilled);
    assert_eq!((defaults.steps, defaults.guidance, config.scheduler.shift), (4, None, 1.0));
    assert_eq!(defaults.max_sequence_length, 256);
}

/// Files next to the model's: 16 bits before 8 before GGUF, ComfyUI's folders, and what is told.
#[test]
fn parts_are_found_next_to_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let put = |from: &str, to: &str| {
        let to = dir.path().join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(formats(from), &to).unwrap();
        text(to)
    };
    let model = put(FLUX, "models/unet/flux1-dev.safetensors");
    let of = |paths: &ModelPaths| -> BTreeMap<Role, String> {
        let files = open(paths).unwrap();
        check_model(&files).unwrap();
        let name =
            |path: &str| Path::new(path).strip_prefix(dir.path()).unwrap().display().to_string();
        let found = files.parts().iter().filter(|part| part.origin == PartOrigin::Found);
        let found: BTreeMap<Role, String> =
            found.map(|part| (part.role, name(&part.path))).collect();
        assert_eq!(found.len(), files.notes().len(), "{:?}", files.notes());
        found
    };
    let expected = |clip: &str, t5: &str, vae: &str| {
        let all = [(Role::ClipL, clip), (Role::T5, t5), (Role::Vae, vae)];
        all.map(|(role, path)| (role, path.to_owned())).into_iter().collect::<BTreeMap<_, _>>()
    };
    let missing = |role: Role, advice: Advice, parts: &[&str]| {
        let error = open(&paths(&model)).err().unwrap();
        assert_eq!(error.advice(), Some(advice));
        assert!(matches!(&error, FilesError::MissingPart { role: r, .. } if *r == role), "{error}");
        assert_mentions(
            &error.to_string(),
            &[&["flux1-dev.safetensors", "models/unet"], parts].concat(),
        );
    };
    missing(
        Role::ClipL,
        Advice::GiveClipL,
        &["CLIP-L", "clip_l.safetensors", "models/text_encoders"],
    );
    let clip = put(CLIP_L, "models/clip/clip_l.safetensors");
    missing(Role::T5, Advice::GiveT5, &["T5", "t5xxl_fp16.safetensors"]);
    put("common/t5xxl_fp8_e4m3fn.safetensors", "models/text_encoders/t5xxl_a_fp8.safetensors");
    missing(Role::Vae, Advice::GiveVae, &["VAE", "ae.safetensors"]);
    put(VAE, "models/vae/ae.sft");
    let (clip_found, vae) = ("models/clip/clip_l.safetensors", "models/vae/ae.sft");
    assert_eq!(
        of(&paths(&model)),
        expected(clip_found, "models/text_encoders/t5xxl_a_fp8.safetensors", vae)
    );
    put(T5, "models/text_encoders/t5xxl_z.safetensors");
    // A file that says that it is one and is none.
    put(VAE, "models/text_encoders/t5xxl_0.safetensors");
    let t5 = "models/text_encoders/t5xxl_z.safetensors";
    assert_eq!(of(&paths(&model)), expected(clip_found, t5, vae));
    // The whole folder is the model in it.
    assert_eq!(of(&paths(text(dir.path().join("models")))), expected(clip_found, t5, vae));
    // The file's own folder comes first.
    put(CLIP_L, "models/unet/clip_l.safetensors");
    assert_eq!(of(&paths(&model)), expected("models/unet/clip_l.safetensors", t5, vae));
    fs::remove_file(dir.path().join("models/unet/clip_l.safetensors")).unwrap();
    put(CLIP_L, "models/text_encoders/clip_l.safetensors");
    let error = open(&paths(&model)).err().unwrap();
    assert_eq!(error.advice(), Some(Advice::GiveClipL));
    assert_mentions(&error.to_string(), &["models/clip/clip_l", "models/text_encoders/clip_l"]);
    // What is given is not looked for.
    let given = paths(&model).with(|paths| drop(paths.parts.insert(Role::ClipL, clip.clone())));
    open(&given).unwrap();
    put(FLUX, "models/checkpoints/other.safetensors");
    let error = open(&paths(text(dir.path().join("models")))).err().unwrap().to_string();
    assert_mentions(
        &error,
        &["2 models", "unet/flux1-dev.safetensors", "checkpoints/other.safetensors"],
    );
}

#[test]
fn what_is_given_wins_and_has_to_fit() {
    let all_in_one = text(formats("flux-aio-fp8/flux1-dev-fp8-aio.safetensors"));
    let files = open(&paths(&all_in_one).with(|paths| {
        paths.parts.insert(Role::T5, text(formats(T5)));
        paths.parts.insert(Role::ClipG, text(formats(CLIP_L)));
    }))
    .unwrap();
    check_model(&files).unwrap();
    let notes = files.notes().join("\n");
    assert_mentions(
        &notes,
        &["T5 text encoder is taken from", "t5xxl_fp16", "not from", "has no CLIP-G"],
    );
    assert_eq!(files.weights("text_encoder_2").unwrap().place(), text(formats(T5)));

    let error = |paths: ModelPaths| match open(&paths) {
        Err(error) => error.to_string(),
        Ok(files) => check_model(&files).unwrap_err().to_string(),
    };
    let with = |role: Role, path: &str| {
        separate().with(|paths| drop(paths.parts.insert(role, text(formats(path)))))
    };
    // 256 numbers a token, where 64 are read.
    let message = error(with(Role::T5, "flux-gguf/t5-v1_1-xxl-encoder-mixed.gguf"));
    assert_mentions(
        &message,
        &["flux1-dev.safetensors", "64", "256", "t5-v1_1-xxl-encoder-mixed.gguf"],
    );
    let message = error(with(Role::T5, VAE));
    assert_mentions(&message, &["ae.safetensors", "expected a T5 text encoder", "a VAE"]);
    assert_mentions(
        &error(separate().with(|paths| paths.without_t5 = true)),
        &["cannot be without its T5"],
    );
    // The vocabularies that are built in belong to encoders with more rows.
    let without = |change: fn(&mut ModelPaths)| {
        let files = open(&separate().with(change)).unwrap();
        ralu::pipeline::check_model(&files).unwrap_err().advice()
    };
    assert_eq!(without(|paths| paths.t5_tokenizer = None), Some(Advice::GiveT5Tokenizer));
    assert_eq!(without(|paths| paths.clip_tokenizer = None), Some(Advice::GiveClipTokenizer));
    assert_mentions(&error(with(Role::Vae, "common/none.safetensors")), &["none.safetensors"]);
}

#[test]
fn names_say_what_shapes_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let put = |from: &str, to: &str| {
        fs::copy(formats(from), dir.path().join(to)).unwrap();
        text(dir.path().join(to))
    };
    let kontext = put(FLUX, "flux1-Kontext-dev.safetensors");
    let error = open(&separate().with(|paths| paths.model = kontext)).err().unwrap();
    assert_mentions(&error.to_string(), &["flux1-Kontext-dev", "Kontext", "not supported"]);
    let vae = put(VAE, "sd3_vae.safetensors");
    let files = open(&separate().with(|paths| drop(paths.parts.insert(Role::Vae, vae)))).unwrap();
    assert_mentions(&files.notes().join("\n"), &["sd3_vae", "SD3", "FLUX.1-dev", "colours"]);
    assert_eq!(open(&separate()).unwrap().notes(), Vec::<String>::new());
}

/// A folder with another denoiser, here the index of the folder's own under diffusers' names.
#[test]
fn folders_take_a_denoiser_from_a_file() {
    for fixture in ["flux-a", "sd35m-b"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(fixture)
            .join("model");
        let weights = folder.join("transformer/diffusion_pytorch_model.safetensors");
        let weights = match weights.exists() {
            true => weights,
            false => folder.join("transformer/diffusion_pytorch_model.safetensors.index.json"),
        };
        let own = Folder::open(&folder).unwrap();
        let files = open(&ModelPaths::default().with(|paths| {
            paths.model = text(folder.clone());
            paths.diffusion_model = Some(text(weights.clone()));
        }))
        .unwrap();
        check_model(&files).unwrap();
        let [ours, theirs] = [ModelConfig::load(&files).unwrap(), ModelConfig::load(&own).unwrap()];
        // How rotary positions are shared out, and for which picture a table of positions is, are in no shape; these
        // fixtures have both other than published models.
        let fields = |config: &ModelConfig| {
            let mut fields = config.transformer.to_json();
            for unknown in ["axes_dims_rope", "sample_size"] {
                fields.as_object_mut().unwrap().remove(unknown);
            }
            fields
        };
        assert_eq!(fields(&ours), fields(&theirs), "{fixture}");
        assert!(ours.text_encoders == theirs.text_encoders && ours.vae == theirs.vae);
        assert_eq!(ours.scheduler, theirs.scheduler);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sd35m-b/model");
    let error = open(&ModelPaths::default().with(|paths| {
        paths.model = text(folder);
        paths.diffusion_model = Some(text(formats(FLUX)));
    }));
    assert_mentions(&error.err().unwrap().to_string(), &["FLUX.1-dev", "SD3", "one model"]);
}

/// OpenCLIP's names: q, k and v in one, and a projection that is turned around.
#[test]
fn open_clip_names_are_read() {
    let model = text(formats(SD3));
    let without_t5 = paths(&model).with(|paths| paths.without_t5 = true);
    let plain = open(&without_t5).unwrap();
    check_model(&plain).unwrap();
    let clip = plain.weights("text_encoder_2").unwrap();
    let of = |name: &str| {
        let info = clip.info(name).unwrap();
        (info.shape.clone(), clip.tensor_f32(info).unwrap())
    };
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = vec![];
    for info in clip.iter() {
        let name = info.name.strip_prefix("text_model.").unwrap_or(&info.name);
        let layer = name.strip_prefix("encoder.layers.").and_then(|rest| rest.split_once('.'));
        let (shape, values) = of(&info.name);
        let name = match (name, layer) {
            ("text_projection.weight", _) => {
                let [n, k] = shape[..] else { panic!("{shape:?}") };
                let turned = (0..n * k).map(|i| values[i % n * k + i / n]).collect();
                tensors.push(("text_projection".into(), vec![k, n], turned));
                continue;
            }
            ("embeddings.token_embedding.weight", _) => "token_embedding.weight".into(),
            ("embeddings.position_embedding.weight", _) => "positional_embedding".into(),
            (_, None) => name.replace("final_layer_norm", "ln_final"),
            (_, Some((i, rest))) => {
                let rest = rest
                    .replace("layer_norm", "ln_")
                    .replace("self_attn.out_proj", "attn.out_proj")
                    .replace("fc1", "c_fc")
                    .replace("fc2", "c_proj");
                match rest.strip_prefix("self_attn.q_proj.") {
                    Some(suffix) => {
                        let parts = ["q", "k", "v"].map(|part| {
                            of(&info.name.replace("q_proj", &format!("{part}_proj"))).1
                        });
                        let shape = [&[3 * shape[0]], &shape[1..]].concat();
                        let name = format!("transformer.resblocks.{i}.attn.in_proj_{suffix}");
                        tensors.push((name, shape, parts.concat()));
                        continue;
                    }
                    None if rest.starts_with("self_attn.") => continue,
                    None => format!("transformer.resblocks.{i}.{rest}"),
                }
            }
        };
        tensors.push((name, shape, values));
    }
    let views: Vec<_> =
        tensors.iter().map(|(name, shape, _)| (name.as_str(), "F32", shape.as_slice())).collect();
    let mut bytes = file(&views);
    let n: usize = tensors.iter().map(|(.., values)| 4 * values.len()).sum();
    bytes.truncate(bytes.len() - n);
    bytes.extend(
        tensors.iter().flat_map(|(.., values)| values.iter().flat_map(|v| v.to_le_bytes())),
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip_g.safetensors");
    fs::write(&path, bytes).unwrap();
    let files =
        open(&without_t5.with(|paths| drop(paths.parts.insert(Role::ClipG, text(path))))).unwrap();
    check_model(&files).unwrap();
    let theirs = files.weights("text_encoder_2").unwrap();
    assert_eq!(theirs.len(), clip.len());
    for info in clip.iter() {
        let found: &TensorInfo = theirs.info(&info.name).unwrap();
        assert_eq!(found.shape, info.shape, "{}", info.name);
        assert_eq!(theirs.tensor_f32(found).unwrap(), of(&info.name).1, "{}", info.name);
    }
}

/// A CLIP without its projection has the identity in its place.
#[test]
fn a_missing_projection_is_the_identity() {
    let model = text(formats(SD3));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip_l.safetensors");
    fs::write(&path, edited(CLIP_L, |header| drop(header.remove("text_projection.weight"))))
        .unwrap();
    let files = open(&paths(&model).with(|paths| {
        paths.without_t5 = true;
        paths.parts.insert(Role::ClipL, text(path));
    }))
    .unwrap();
    check_model(&files).unwrap();
    let clip = files.weights("text_encoder").unwrap();
    let values = clip.tensor_f32(clip.info("text_projection.weight").unwrap()).unwrap();
    let expected: Vec<f32> = (0..64 * 64).map(|i| f32::from(u8::from(i / 64 == i % 64))).collect();
    assert_eq!(values, expected);
}

/// T5's vocabulary in the GGUF file of its weights goes before that of a folder whose weights are not used; a given one goes
/// before both.
#[test]
fn the_vocabulary_of_a_gguf_file_goes_before_the_folders() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/flux-a/model");
    let with = |t5: &str, tokenizer: bool| {
        let paths = ModelPaths::default().with(|paths| {
            paths.model = text(base.clone());
            paths.parts = [(Role::T5, text(formats(t5)))].into();
            paths.t5_tokenizer = tokenizer.then(|| text(formats("tokenizers/t5/tokenizer.json")));
        });
        open(&paths).unwrap().exists("tokenizer_2/tokenizer.json")
    };
    let gguf = "flux-gguf/t5-v1_1-xxl-encoder-mixed.gguf";
    assert!(with(T5, false));
    assert!(!with(gguf, false));
    assert!(with(gguf, true));
}
