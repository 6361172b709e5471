//! The command line from outside: the built program with its arguments, files and exit codes.
//!
//! Needs an adapter, software will do. The variables of `tests/common` choose it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::command::{
    command_for, fails, json, on_adapter, ralu, root, run, stderr, stdout, succeeds,
};
use crate::picture::{MODEL, RALU, SMALL, bytes, folder, names, plain, small};
use serde_json::Value;

// ---- the program -------------------------------------------------------------------------------

/// `ralu generate` on the adapter under test.
fn ralu_generate() -> Command {
    on_adapter("generate")
}

struct Png {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    texts: Vec<(String, String)>,
}

impl Png {
    fn read(path: &Path) -> Png {
        let decoder = png::Decoder::new(std::io::Cursor::new(bytes(path)));
        let mut reader = decoder.read_info().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
        reader.next_frame(&mut pixels).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let info = reader.info();
        let texts = info
            .utf8_text
            .iter()
            .map(|chunk| (chunk.keyword.clone(), chunk.get_text().expect("a text")))
            .collect();
        Png { width: info.width, height: info.height, pixels, texts }
    }

    fn text(&self, keyword: &str) -> &str {
        let found = self.texts.iter().find(|(key, _)| key == keyword);
        found.map(|(_, text)| text.as_str()).unwrap_or_else(|| panic!("no text {keyword:?}"))
    }
}

/// Links a model folder, so that single files can be replaced.
fn linked_model(to: &Path) -> PathBuf {
    fn link(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from).expect("the model") {
            let from = entry.expect("an entry").path();
            let to = to.join(from.file_name().expect("a name"));
            if from.is_dir() {
                link(&from, &to);
            } else if fs::hard_link(&from, &to).is_err() {
                // Another file system.
                fs::copy(&from, &to).expect("a copy");
            }
        }
    }
    let model = to.join("model");
    link(Path::new(MODEL), &model);
    model
}

/// Replaces a file without touching what it is linked to.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).expect("the old file");
    fs::write(path, bytes).expect("the new file");
}

/// Header and data of a safetensors file.
fn split(bytes: &[u8]) -> (Value, Vec<u8>) {
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    (header, bytes[8 + length..].to_vec())
}

fn join(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

// ---- bad models --------------------------------------------------------------------------------

/// Breaks one file of a model and checks that `ralu generate` says so, and leaves what was there before.
#[track_caller]
fn broken(file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>, parts: &[&str]) {
    let folder = folder();
    let model = linked_model(folder.path());
    let path = model.join(file);
    replace(&path, &change(bytes(&path)));
    let out = folder.path().join("out");
    fs::create_dir(&out).expect("a folder");
    fs::write(out.join("old.png"), "what was there before").expect("a file");
    let mut command = ralu_generate();
    command.args(["a fox", "--steps", "1", "--model"]).arg(&model).args(SMALL);
    command.arg("--output").arg(out.join("old.png"));
    fails(&mut command, 1, parts);
    assert_eq!(names(&out), ["old.png"]);
    assert_eq!(bytes(&out.join("old.png")), b"what was there before");
}

const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const VAE_NAME: &str = "vae/diffusion_pytorch_model.safetensors";
const CLIP: &str = "text_encoder/model.safetensors";

#[test]
fn a_missing_model_folder_is_named() {
    let out = folder();
    let mut command = ralu_generate();
    command.args(["a fox", "--model", "no/such/model", "-o"]).arg(out.path().join("a.png"));
    fails(&mut command, 1, &["no/such/model", "no such folder", "model_index.json"]);
    assert!(names(out.path()).is_empty());
}

#[test]
fn a_file_of_one_part_is_no_model() {
    let mut command = ralu_generate();
    command.args(["a fox", "--model"]).arg(Path::new(MODEL).join(VAE));
    fails(&mut command, 1, &[VAE_NAME, "expected a denoiser", "a VAE"]);
    let mut command = ralu_generate();
    command.args(["a fox", "--model"]).arg(Path::new(MODEL).join("model_index.json"));
    fails(&mut command, 1, &["model_index.json", "found a file", "give the folder"]);
}

#[test]
fn a_known_name_without_weights_says_what_it_is_for() {
    fails(
        ralu_generate().args(["a fox", "--model", "flux.1-dev"]),
        1,
        &["flux.1-dev", "ralu pull flux.1-dev", "licence"],
    );
}

#[test]
fn truncated_weights_are_reported() {
    broken(VAE, |bytes| bytes[..bytes.len() / 2].to_vec(), &[VAE_NAME, "not a valid safetensors"]);
    // So short that not even the header is whole.
    broken(CLIP, |bytes| bytes[..100].to_vec(), &[CLIP, "not a valid safetensors"]);
}

#[test]
fn zero_length_weights_are_reported() {
    broken(VAE, |_| vec![], &[VAE_NAME, "empty"]);
}

#[test]
fn wrong_magic_is_reported() {
    let text = b"<html><body>404, this is not the file that you want</body></html>";
    broken(VAE, |_| text.to_vec(), &[VAE_NAME, "not a valid safetensors"]);
}

#[test]
fn a_header_of_2_to_the_60_bytes_is_reported() {
    let huge = |mut bytes: Vec<u8>| {
        bytes[..8].copy_from_slice(&(1u64 << 60).to_le_bytes());
        bytes
    };
    broken(VAE, huge, &[VAE_NAME, "1152921504606846976"]);
}

#[test]
fn overlapping_offsets_are_reported() {
    let overlap = |bytes: Vec<u8>| {
        let (mut header, data) = split(&bytes);
        let first = header["decoder.conv_out.bias"]["data_offsets"].clone();
        let size = |offsets: &Value| offsets[1].as_u64().unwrap() - offsets[0].as_u64().unwrap();
        let other = header
            .as_object_mut()
            .expect("an object")
            .iter_mut()
            .find(|(name, tensor)| {
                *name != "decoder.conv_out.bias" && tensor["data_offsets"].is_array()
            })
            .expect("another tensor")
            .1;
        let moved = first[0].as_u64().unwrap();
        let end = moved + size(&other["data_offsets"]);
        other["data_offsets"] = serde_json::json!([moved, end]);
        join(&header, &data)
    };
    broken(VAE, overlap, &[VAE_NAME, "overlap"]);
}

#[test]
fn a_weight_of_the_wrong_shape_is_named_with_both_shapes() {
    let reshape = |bytes: Vec<u8>| {
        let (mut header, data) = split(&bytes);
        assert_eq!(header["decoder.conv_out.bias"]["shape"], serde_json::json!([3]));
        header["decoder.conv_out.bias"]["shape"] = serde_json::json!([1, 3]);
        join(&header, &data)
    };
    broken(VAE, reshape, &["decoder.conv_out.bias", "[1, 3]", "[3]"]);
}

#[test]
fn a_missing_weight_is_named() {
    let remove = |bytes: Vec<u8>| {
        let (mut header, data) = split(&bytes);
        let tensor = header["decoder.conv_out.bias"].take();
        header.as_object_mut().expect("an object").remove("decoder.conv_out.bias");
        header["something.else"] = tensor;
        join(&header, &data)
    };
    broken(VAE, remove, &["decoder.conv_out.bias", "missing"]);
}

#[test]
fn nan_in_weights_is_an_error_and_not_a_black_picture() {
    let nan = |name: &'static str| {
        move |bytes: Vec<u8>| {
            let (header, mut data) = split(&bytes);
            assert_eq!(header[name]["dtype"], "F32");
            let start = header[name]["data_offsets"][0].as_u64().expect("an offset") as usize;
            data[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
            join(&header, &data)
        }
    };
    broken(VAE, nan("decoder.conv_in.weight"), &["decoder.conv_in.weight", "NaN", VAE_NAME]);
    broken(VAE, nan("decoder.conv_norm_out.bias"), &["decoder.conv_norm_out.bias", "NaN"]);
}

#[test]
fn a_config_without_a_needed_field_is_named_with_the_field() {
    let remove = |bytes: Vec<u8>| {
        let mut config: Value = serde_json::from_slice(&bytes).expect("a config");
        config.as_object_mut().expect("an object").remove("block_out_channels").expect("the field");
        config.to_string().into_bytes()
    };
    broken("vae/config.json", remove, &["vae/config.json", "block_out_channels", "missing"]);
}

#[test]
fn an_unknown_pipeline_class_names_what_is_supported() {
    let rename = |bytes: Vec<u8>| {
        let mut index: Value = serde_json::from_slice(&bytes).expect("an index");
        index["_class_name"] = "KandinskyPipeline".into();
        index.to_string().into_bytes()
    };
    broken("model_index.json", rename, &["KandinskyPipeline", "FluxPipeline"]);
}

// ---- bad settings ------------------------------------------------------------------------------

#[test]
fn impossible_sizes_and_steps_are_refused() {
    let out = folder();
    let path = out.path().join("a.png");
    let with = |options: &[&str], parts: &[&str]| {
        let mut command = ralu_generate();
        command.args(["a fox", "--model", MODEL, "--output"]).arg(&path).args(options);
        fails(&mut command, 1, parts);
    };
    for width in ["0", "1", "7", "100000"] {
        with(&["--width", width, "--steps", "1"], &["width", width, "16", "8192"]);
        with(&["--height", width, "--steps", "1"], &["height", width, "16", "8192"]);
    }
    with(&["--steps", "0"], &["0 steps", "expected 1"]);
    with(&["--count", "0"], &["number of pictures", "0"]);
    with(&["--guidance", "-1"], &["guidance", "-1"]);
    with(&["--max-sequence-length", "0"], &["text length", "0"]);
    let custom = |ratio: &'static str| {
        let mut options = RALU;
        options[7] = ratio;
        [SMALL.as_slice(), options.as_slice()].concat()
    };
    with(&custom("2"), &["up ratio", "2", "0 to 1"]);
    with(&custom("-0.1"), &["up ratio", "-0.1"]);
    assert!(names(out.path()).is_empty());
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_right() {
    let with = |options: &[&str], parts: &[&str]| {
        fails(ralu().arg("generate").args(["--model", MODEL]).args(options), 2, parts);
    };
    with(&[], &["prompt", "missing", "--from"]);
    with(&["a fox", "--width", "wide"], &["--width", "wide", "whole number"]);
    with(&["a fox", "--width", "-64"], &["--width", "-64", "whole number"]);
    with(&["a fox", "--seed", "-1"], &["--seed", "18446744073709551615"]);
    with(&["a fox", "--ralu", "9x"], &["--ralu", "9x", "2x", "3x", "4x", "5x", "7x", "custom"]);
    with(&["a fox", "--rng", "dice"], &["--rng", "torch", "philox"]);
    with(&["a fox", "--ralu", "custom"], &["--stage-steps", "--stage-ends", "--up-ratio"]);
    with(&["a fox", "--stage-z", "6"], &["--stage-z", "--ralu custom"]);
    with(&["a fox", "--ralu", "4x", "--up-ratio", "0.5"], &["--up-ratio", "--ralu custom"]);
    with(&["a fox", "--stage-steps", "5,6"], &["--stage-steps", "three numbers"]);
    with(&["a fox", "--regions-add"], &["--regions"]);
    with(&["a fox", "--given-names", "initial_noise"], &["--given"]);
    with(&["a fox", "--output", "fox.gif"], &["fox.gif", ".png"]);
    with(&["a fox", "--no-such-option"], &["--no-such-option"]);
    let unknown = ["a fox", "--given", "x.safetensors", "--given-names", "initial_noise,colour"];
    with(&unknown, &["colour", "initial_noise", "prompt_embeds", "ralu_selected"]);
    // Without anything, the help.
    let output = run(&mut ralu());
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("generate"), "{}", stderr(&output));
}

#[test]
fn an_output_folder_that_does_not_exist_is_named() {
    let folder = folder();
    let missing = folder.path().join("no").join("such");
    let name = missing.display().to_string();
    fails(&mut plain("a fox", &missing.join("a.png")), 1, &[&name, "does not exist"]);
    let fine = folder.path().join("a.png");
    let mut tensors = plain("a fox", &fine);
    fails(tensors.arg("--save-tensors").arg(missing.join("a.safetensors")), 1, &[&name, "tensors"]);
    let mut stages = plain("a fox", &fine);
    fails(stages.arg("--stages").arg(&missing), 1, &[&name, "stage pictures"]);
    assert!(names(folder.path()).is_empty());
    // A folder in the way of the picture.
    fs::create_dir(&fine).expect("a folder");
    fails(&mut plain("a fox", &fine), 1, &["a.png", "folder"]);
}

#[cfg(unix)]
#[test]
fn a_read_only_output_folder_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let locked = folder.path().join("locked");
    fs::create_dir(&locked).expect("a folder");
    fs::set_permissions(&locked, PermissionsExt::from_mode(0o555)).expect("permissions");
    // Permissions do not stop root; a file system that makes no files does.
    let is_root = fs::write(locked.join("probe"), "").is_ok();
    let target = if is_root { PathBuf::from("/proc") } else { locked };
    if !target.is_dir() {
        return;
    }
    let name = target.display().to_string();
    fails(&mut plain("a fox", &target.join("a.png")), 1, &[&name, "cannot be written to"]);
}

#[test]
fn no_adapter_says_how_to_get_one() {
    let folder = folder();
    let backend = if cfg!(windows) { "metal" } else { "dx12" };
    let mut command = ralu();
    command.args(["generate", "a fox", "--model", MODEL, "--steps", "1", "--backend", backend]);
    command.arg("-o").arg(folder.path().join("a.png"));
    fails(command.args(SMALL), 1, &["no graphics adapter", "mesa-vulkan-drivers", backend]);
    let mut command = ralu();
    command.args(["generate", "a fox", "--model", MODEL, "--steps", "1", "--adapter", "Voodoo 2"]);
    command.arg("-o").arg(folder.path().join("a.png"));
    fails(command.args(SMALL), 1, &["Voodoo 2", "ralu devices"]);
}

// ---- prompts -----------------------------------------------------------------------------------

#[test]
fn any_text_is_a_prompt() {
    let folder = folder();
    let long = "a fox ".repeat(100_000 / 6 + 1)[..100_000].to_owned();
    for (i, prompt) in ["", "🦊 🎨 👩‍👩‍👧", "一只在雪地里的狐狸", &long].into_iter().enumerate()
    {
        let path = folder.path().join(format!("{i}.png"));
        let output = succeeds(&mut plain(prompt, &path));
        let png = Png::read(&path);
        assert_eq!((png.width, png.height), (64, 64));
        assert_eq!(png.text("prompt"), prompt);
        let warned = stderr(&output).contains("warning:");
        assert_eq!(warned, prompt.len() > 1000, "{}", stderr(&output));
    }
    let pictures: Vec<Png> =
        (0..4).map(|i| Png::read(&folder.path().join(format!("{i}.png")))).collect();
    assert_ne!(pictures[0].pixels, pictures[3].pixels, "the prompt makes no difference");
}

#[test]
fn a_dash_reads_the_prompt_from_stdin() {
    let folder = folder();
    let (typed, piped) = (folder.path().join("typed.png"), folder.path().join("piped.png"));
    succeeds(&mut plain("eine Füchsin", &typed));
    let mut child = plain("-", &piped)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    child.stdin.take().expect("a pipe").write_all("eine Füchsin\n".as_bytes()).expect("written");
    assert!(child.wait().expect("an end").success());
    assert_eq!(bytes(&typed), bytes(&piped));
}

// ---- pictures ----------------------------------------------------------------------------------

#[test]
fn results_go_to_stdout_and_progress_to_stderr() {
    let folder = folder();
    let path = folder.path().join("a.png");
    let output = succeeds(&mut plain("a fox", &path));
    assert_eq!(stdout(&output).trim_end(), path.display().to_string());
    assert!(stderr(&output).contains("step"), "{}", stderr(&output));
    let output = succeeds(plain("a fox", &path).arg("--quiet"));
    assert_eq!(stdout(&output).trim_end(), path.display().to_string());
    assert_eq!(stderr(&output), "");
}

#[test]
fn the_default_name_has_the_random_seed_that_is_printed() {
    let folder = folder();
    let mut command = ralu_generate();
    command.args(["a fox", "--model", MODEL, "--steps", "1"]).args(SMALL);
    let output = succeeds(command.current_dir(folder.path()));
    let names = names(folder.path());
    let [name] = names.as_slice() else { panic!("{names:?}") };
    let seed = name.strip_prefix("ralu-").and_then(|name| name.strip_suffix(".png")).expect(name);
    assert!(stderr(&output).contains(&format!("seed {seed}")), "{}", stderr(&output));
    assert_eq!(Png::read(&folder.path().join(name)).text("seed"), seed);
}

#[test]
fn a_picture_can_be_repeated_from_what_it_carries() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    // Everything that a picture depends on, away from its default.
    let mut mask = vec![0u8; 20 * 10];
    mask[..100].fill(255);
    let file = fs::File::create(path("mask.png")).expect("a file");
    let mut encoder = png::Encoder::new(file, 20, 10);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(&mask).expect("pixels");
    writer.finish().expect("an end");

    let mut command = small("a 🦊, \"quoted\"\nin two lines", &path("first.png"));
    command.args(RALU).args(["--rng", "torch", "--ralu-variant", "official"]);
    command.args(["--negative-prompt", "blurry", "--true-cfg", "2.1", "--guidance", "4.3"]);
    command.args(["--width", "70", "--precision", "f16", "--regions"]).arg(path("mask.png"));
    succeeds(&mut command);
    fs::remove_file(path("mask.png")).expect("removed");

    let from = |output: &str, options: &[&str]| {
        let mut command = ralu_generate();
        command.arg("--from").arg(path("first.png")).arg("-o").arg(path(output)).args(options);
        let said = stderr(&succeeds(&mut command));
        // The picture's own settings are not options that somebody gave.
        assert!(!options.is_empty() || !said.contains("no effect"), "{said}");
        Png::read(&path(output))
    };
    from("second.png", &[]);
    assert_eq!(bytes(&path("first.png")), bytes(&path("second.png")));

    // What is said again wins, and each of these changes the picture.
    let first = Png::read(&path("first.png"));
    assert_eq!((first.width, first.height), (70, 64));
    let changes: [&[&str]; 7] = [
        &["--seed", "2"],
        &["another prompt"],
        &["--ralu", "off", "--steps", "1"],
        &["--steps", "1"],
        &["--rng", "philox"],
        &["--true-cfg", "1"],
        &["--guidance", "1"],
    ];
    for options in changes {
        let changed = from("changed.png", options);
        assert_ne!(first.pixels, changed.pixels, "{options:?}");
    }
    assert_eq!(from("changed.png", &["--height", "96"]).height, 96);
}

#[test]
fn a_picture_without_a_request_cannot_be_repeated() {
    let folder = folder();
    let path = folder.path().join("foreign.png");
    let mut encoder = png::Encoder::new(fs::File::create(&path).expect("a file"), 1, 1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().expect("a header").write_image_data(&[0]).expect("a pixel");
    fails(ralu_generate().arg("--from").arg(&path), 1, &["foreign.png", "no request"]);
    fs::write(&path, "no picture").expect("a file");
    fails(ralu_generate().arg("--from").arg(&path), 1, &["foreign.png", "not a readable PNG"]);
    fails(ralu_generate().args(["--from", "no-such.png"]), 1, &["no-such.png"]);
}

/// Those made in browsers have no folder to name.
#[test]
fn a_picture_that_names_no_folder_asks_for_one() {
    let folder = folder();
    let path = folder.path().join("other.png");
    let request = r#"{
        "format": 1, "version": "0", "model": "other-flux", "model_path": null, "adapter": "", "prompt": "a fox",
        "negative_prompt": null, "width": 64, "height": 64, "steps": 1, "guidance": null, "true_cfg": 1.0,
        "max_sequence_length": 64, "seed": 1, "rng": "philox", "precision": "auto",
        "ralu": { "name": "off", "variant": "exact", "parameters": null, "regions": null }
    }"#;
    let mut encoder = png::Encoder::new(fs::File::create(&path).expect("a file"), 1, 1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.add_itxt_chunk("ralu".into(), request.into()).expect("a text");
    encoder.write_header().expect("a header").write_image_data(&[0]).expect("a pixel");
    let mut command = ralu_generate();
    command.arg("--from").arg(&path).arg("-o").arg(folder.path().join("again.png"));
    fails(&mut command, 2, &["other-flux", "--model"]);
    succeeds(command.args(["--model", MODEL]));
}

#[test]
fn pictures_of_a_series_equal_pictures_alone() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let mut series = small("a fox", &path("series.png"));
    series.args(RALU).args(["--count", "2", "--save-tensors"]).arg(path("series.safetensors"));
    succeeds(series.arg("--stages").arg(path("stages")));
    for (i, seed) in ["1", "2"].into_iter().enumerate() {
        let mut alone = ralu_generate();
        alone.args(["a fox", "--model", MODEL, "--seed", seed]).args(SMALL).args(RALU);
        alone.arg("-o").arg(path("alone.png")).arg("--save-tensors").arg(path("alone.safetensors"));
        succeeds(&mut alone);
        assert_eq!(bytes(&path("alone.png")), bytes(&path(&format!("series-{i}.png"))));
        let tensors = bytes(&path(&format!("series-{i}.safetensors")));
        assert_eq!(bytes(&path("alone.safetensors")), tensors);
        let estimate = Png::read(&path("stages").join(format!("{i}-stage3-estimate.png")));
        assert_eq!(estimate.pixels, Png::read(&path("alone.png")).pixels);
    }
    assert_ne!(bytes(&path("series-0.png")), bytes(&path("series-1.png")));
    assert_eq!(names(&path("stages")).len(), 2 * 5);
}

#[test]
fn given_tensors_replace_what_would_be_drawn() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let tensors = path("a.safetensors");
    succeeds(plain("a fox", &path("a.png")).arg("--save-tensors").arg(&tensors));
    let other_seed = |output: &str| {
        let mut command = ralu_generate();
        command.args(["a fox", "--model", MODEL, "--seed", "9", "--steps", "1"]).args(SMALL);
        command.arg("-o").arg(path(output));
        command
    };
    succeeds(&mut other_seed("b.png"));
    succeeds(other_seed("c.png").arg("--given").arg(&tensors));
    let pixels = |name: &str| Png::read(&path(name)).pixels;
    assert_ne!(pixels("a.png"), pixels("b.png"));
    assert_eq!(pixels("a.png"), pixels("c.png"));

    let missing = ["--given-names", "initial_noise,ralu_noise_stage2", "--given"];
    fails(
        other_seed("d.png").args(missing).arg(&tensors),
        1,
        &["ralu_noise_stage2", "a.safetensors"],
    );
    let mut wrong_size = other_seed("d.png");
    wrong_size.args(["--width", "128", "--given"]).arg(&tensors);
    fails(&mut wrong_size, 1, &["initial_noise", "[1, 16, 8, 8]", "[1, 16, 8, 16]"]);
    let embeds = ["--given-names", "prompt_embeds,pooled_prompt_embeds", "--given"];
    let mut other_prompt = other_seed("e.png");
    succeeds(other_prompt.args(embeds).arg(&tensors));
    assert_eq!(pixels("b.png"), pixels("e.png"));
    // NaN in the right shape: found before anything is loaded, and it is not the weights' fault.
    let header = r#"{"initial_noise":{"dtype":"F32","shape":[1,16,8,8],"data_offsets":[0,4096]}}"#;
    let length = (header.len() as u64).to_le_bytes();
    fs::write(&tensors, [&length[..], header.as_bytes(), &[0xff; 4096]].concat()).expect("a file");
    let mut bad = other_seed("d.png");
    let expected = ["a.safetensors", "the given tensor initial_noise holds NaN at number 0"];
    let message = fails(bad.arg("--given").arg(&tensors), 1, &expected);
    assert!(!message.contains("loading") && !message.contains("weights"), "{message}");
    fs::write(&tensors, "nonsense").expect("a file");
    fails(other_seed("d.png").arg("--given").arg(&tensors), 1, &["a.safetensors", "safetensors"]);
    assert!(!path("d.png").exists());
}

// ---- events ------------------------------------------------------------------------------------

/// All lines of stdout as JSON.
fn lines(output: &Output) -> Vec<Value> {
    let text = stdout(output);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

#[test]
fn events_tell_what_is_documented() {
    let folder = folder();
    let stages = folder.path().join("stages");
    let mut command = small("a fox", &folder.path().join("a.png"));
    command.args(RALU).args(["--events", "json", "--stages"]).arg(&stages);
    let events = lines(&succeeds(&mut command));
    let named = |name: &str| -> Vec<&Value> {
        events.iter().filter(|event| event["event"] == name).collect()
    };
    let fields = [
        ("start", 1, "version model adapter backend width height ralu stages steps seed count"),
        ("loading", 3, "part bytes total_bytes"),
        ("encoded", 1, "tokens seconds"),
        (
            "stage",
            3,
            "image stage of tokens steps bytes reused_bytes allocated_bytes buffers bind_groups pipelines \
             gpu_bytes gpu_peak_bytes",
        ),
        ("step", 3, "image stage step of sigma seconds done reused"),
        ("stage_end", 3, "image stage seconds buffers_created bind_groups_created"),
        ("regions", 1, "image rows columns selected density seconds"),
        ("stage_picture", 4, "image stage kind width height file"),
        (
            "image",
            1,
            "image seed width height file tensors seconds steps_computed steps_reused computed tflops",
        ),
        ("done", 1, "images seconds gpu_peak_bytes"),
        ("error", 0, ""),
    ];
    for (name, count, fields) in fields {
        assert_eq!(named(name).len(), count, "{name}");
        for event in named(name) {
            for field in fields.split_whitespace() {
                assert!(event.get(field).is_some(), "{name} has no {field}: {event}");
            }
        }
    }
    assert_eq!(events.first().expect("events")["event"], "start");
    assert_eq!(events.last().expect("events")["event"], "done");

    // 4 coarse tokens, one of them early.
    let tokens: Vec<u64> =
        named("stage").iter().map(|stage| stage["tokens"].as_u64().expect("a number")).collect();
    assert_eq!(tokens, [4, 4 + 3, 16]);
    assert_eq!(named("regions")[0]["selected"].as_array().map(Vec::len), Some(1));
    assert_eq!(named("regions")[0]["density"].as_array().map(Vec::len), Some(4));
    for end in named("stage_end") {
        assert_eq!((&end["buffers_created"], &end["bind_groups_created"]), (&0.into(), &0.into()));
    }
    // Memory of one stage serves the next.
    for stage in &named("stage")[1..] {
        assert_eq!(stage["allocated_bytes"], 0);
        assert_eq!(stage["reused_bytes"], stage["bytes"]);
    }
    assert_eq!(named("step")[0]["sigma"], 1.0);
    for picture in named("stage_picture") {
        let png = Png::read(Path::new(picture["file"].as_str().expect("a file")));
        assert_eq!(picture["width"], png.width);
    }
    let wanted = [
        "stage1-edges.png",
        "stage1-estimate.png",
        "stage1-regions.png",
        "stage2-estimate.png",
        "stage3-estimate.png",
    ];
    assert_eq!(names(&stages), wanted);
}

#[test]
fn a_failure_is_the_last_event() {
    let folder = folder();
    let mut command = plain("a fox", &folder.path().join("a.png"));
    command.args(["--events", "json", "--adapter", "Voodoo 2"]);
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(1));
    let events = lines(&output);
    let last = events.last().expect("an event");
    assert_eq!((&last["event"], &last["exit_code"]), (&"error".into(), &1.into()));
    let message = last["message"].as_str().expect("a message");
    assert!(message.contains("Voodoo 2") && stderr(&output).contains(message));
}

#[test]
fn a_reader_that_leaves_does_not_stop_the_picture() {
    let folder = folder();
    let path = folder.path().join("a.png");
    let mut child = plain("a fox", &path)
        .args(["--events", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let mut message = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut message).expect("a text");
    assert!(child.wait().expect("an end").success(), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(names(folder.path()), ["a.png"]);
}

/// Sends `signal` to a run in its middle; gives what it left and said.
#[cfg(unix)]
fn interrupted(signal: &str, folder: &Path) -> (Option<i32>, String) {
    let mut command = small("a fox", &folder.join("a.png"));
    command.args(["--steps", "900", "--events", "json", "--save-tensors"]);
    command.arg(folder.join("a.safetensors"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let first_step = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("\"step\"")));
    assert!(first_step.is_some(), "no step");
    let id = child.id().to_string();
    let sent = Command::new("kill").args([signal, &id]).status().expect("kill runs");
    assert!(sent.success());
    let started = std::time::Instant::now();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let output = child.wait_with_output().expect("an end");
    assert!(started.elapsed().as_secs() < 20, "took {:?}", started.elapsed());
    let last: Value = serde_json::from_str(rest.last().expect("a last line")).expect("JSON");
    assert_eq!((&last["event"], &last["exit_code"]), (&"error".into(), &130.into()));
    (output.status.code(), stderr(&output))
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_a_run_and_leaves_nothing_half_written() {
    for signal in ["-INT", "-TERM"] {
        let folder = folder();
        let (code, message) = interrupted(signal, folder.path());
        assert_eq!(code, Some(130), "{message}");
        assert!(message.contains("cancelled"), "{message}");
        assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));
    }
}

#[cfg(unix)]
#[test]
fn files_have_ordinary_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let path = folder.path().join("a.png");
    succeeds(&mut plain("a fox", &path));
    fs::write(folder.path().join("ordinary"), "").expect("a file");
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode();
    assert_eq!(mode(&path), mode(&folder.path().join("ordinary")));
}

// ---- the other commands ------------------------------------------------------------------------

#[test]
fn devices_lists_what_can_be_used() {
    let list = json(ralu().args(["devices", "--json"]));
    let adapters = list["adapters"].as_array().expect("a list");
    assert!(adapters.iter().any(|adapter| adapter["usable"] == true), "{list}");
    for field in ["index", "name", "backend", "driver", "type", "features", "limits"] {
        assert!(adapters[0].get(field).is_some(), "no {field}");
    }
    let text = stdout(&succeeds(ralu().arg("devices")));
    assert!(text.contains(adapters[0]["name"].as_str().expect("a name")), "{text}");
}

/// A plan needs no tokenizer, but a run does.
#[test]
fn plan_warns_of_a_model_that_cannot_be_run() {
    let folder = folder();
    let model = linked_model(folder.path());
    replace(&model.join("tokenizer/tokenizer.json"), b"{");
    let output = ralu().arg("plan").arg("--model").arg(&model).output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in ["warning", "cannot be run", "tokenizer/tokenizer.json"] {
        assert!(said.contains(part), "{said}");
    }
    let output = ralu().arg("plan").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
}

#[test]
fn plan_knows_published_models_by_name() {
    let plan = |options: &[&str]| json(ralu().args(["plan", "--json", "--model"]).args(options));
    let size = ["--width", "1024", "--height", "1024"];
    let seven = plan(&[["flux.1-dev", "--ralu", "7x"].as_slice(), &size].concat());
    assert_eq!(seven["stages"].as_array().map(Vec::len), Some(3));
    assert_eq!(seven["stages"][1]["tokens"], 1024 + 3 * 102);
    let speedup = seven["speedup"].as_f64().expect("a number");
    assert!((7.0..7.1).contains(&speedup), "{speedup}");
    let plain = plan(&[["flux.1-schnell", "--ralu", "off"].as_slice(), &size].concat());
    assert_eq!(plain["steps"], 4);
    let text = stdout(&succeeds(ralu().args(["plan", "--model", "flux.1-dev", "--ralu", "4x"])));
    assert!(text.contains("1945") && text.contains("speed-up"), "{text}");
    fails(ralu().args(["plan", "--model", "flux.9"]), 1, &["flux.9", "flux.1-dev"]);
    fails(ralu().args(["plan", "--model", "flux.1-dev", "--width", "7"]), 1, &["width", "7"]);
}

#[test]
fn inspect_says_what_is_there_and_what_is_wrong() {
    let report = json(ralu().args(["inspect", "--json", MODEL]));
    assert_eq!((&report["class"], &report["supported"]), (&"FluxPipeline".into(), &true.into()));
    let parts = report["parts"].as_array().expect("parts");
    let transformer = parts.iter().find(|part| part["name"] == "transformer").expect("a part");
    assert_eq!(transformer["files"].as_array().map(Vec::len), Some(3));
    assert!(transformer["dtypes"]["F32"].as_u64().is_some_and(|count| count > 100));

    let file = json(ralu().args(["inspect", "--json"]).arg(Path::new(MODEL).join(VAE)));
    let tensors = file["tensors"].as_array().expect("tensors");
    assert!(tensors.iter().any(|tensor| tensor["name"] == "decoder.conv_in.weight"));
    assert_eq!(json(ralu().args(["inspect", "--json", "flux.1-schnell"]))["kind"], "builtin");

    let folder = folder();
    let model = linked_model(folder.path());
    fs::remove_file(model.join(VAE)).expect("removed");
    let message = fails(ralu().arg("inspect").arg(&model), 1, &["vae", "no weights"]);
    assert!(!message.contains("transformer/"), "{message}");
    fails(ralu().args(["inspect", "nonsense"]), 1, &["nonsense", "flux.1-dev"]);
}

#[test]
fn the_bundled_model_is_found_from_inside_the_repository_only() {
    let below = root().join("tests").join("fixtures");
    let text = stdout(&succeeds(ralu().arg("plan").current_dir(below)));
    assert!(text.contains("\ntiny-flux: "), "{text}");

    let elsewhere = folder();
    // Under another name, so that a runner which knows the program starts nothing else in its place.
    let copy = elsewhere.path().join(if cfg!(windows) { "alone.exe" } else { "alone" });
    fs::copy(env!("CARGO_BIN_EXE_ralu"), &copy).expect("a copy");
    let mut command = command_for(&copy);
    command.args(["generate", "a fox"]).current_dir(elsewhere.path());
    command.env("XDG_DATA_HOME", elsewhere.path());
    fails(&mut command, 1, &["models/tiny-flux", "--model"]);
}
