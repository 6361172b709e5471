//! `ralu convert`: one file from a model's weights.

use std::fs;
use std::path::Path;

use ralu::checkpoint::source::Folder;
use ralu::checkpoint::weights::Weights;
use ralu::models::files::{Contents, Role};

use crate::command::{MODEL, fails, ralu, stdout, succeeds};

fn convert(input: &str, output: &Path, options: &[&str]) -> std::process::Command {
    let mut command = ralu();
    command.args(["--quiet", "convert", input]).arg(output).args(options);
    command
}

fn open(path: &Path) -> Weights {
    let folder = Folder::open(path.parent().unwrap()).unwrap();
    Weights::open_file(&folder, path.file_name().unwrap().to_str().unwrap()).unwrap()
}

/// The tensors of a denoiser's file under the names that the network asks for.
fn views(weights: &Weights) -> Weights {
    let contents = Contents::of(weights, None).unwrap();
    let found = &contents.parts[&Role::Denoiser];
    let (_, file) = found.denoiser.expect("a denoiser");
    (file.views)(&found.tensors).unwrap()
}

/// What is left of numbers is near them, and what is not quantised is equal. The file has the makers' names.
#[test]
fn a_model_folder_becomes_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(MODEL).unwrap();
    let model = Weights::open(&folder, "transformer", "diffusion_pytorch_model").unwrap();
    let path = dir.path().join("m.safetensors");
    // The last one replaces the first. A number of fp8 is off by a 16th of itself at most, but for the smallest ones; one
    // of NF4 by 0.152 of its block's largest.
    for (format, dtype, off) in [("fp8", "F8_E4M3", 1.0 / 16.0), ("nf4:all", "NF4", 0.25)] {
        let said = stdout(&succeeds(&mut convert(MODEL, &path, &["--quantize", format])));
        let (name, _) = format.split_once(':').unwrap_or((format, ""));
        assert!(said.contains(name) && said.contains("m.safetensors"), "{said}");
        let file = open(&path);
        assert!(file.info("double_blocks.0.img_attn.qkv.weight").is_some());
        assert!(file.info("double_blocks.0.img_attn.norm.query_norm.scale").is_some());
        let found = views(&file);
        let mut quantised = 0;
        assert_eq!(found.names().collect::<Vec<_>>(), model.names().collect::<Vec<_>>());
        for info in model.iter() {
            let other = found.info(&info.name).unwrap();
            let (a, b) = (model.tensor_f32(info).unwrap(), found.tensor_f32(other).unwrap());
            if other.scaling.is_none() {
                assert_eq!((a, &other.dtype), (b, &info.dtype), "{}", info.name);
                continue;
            }
            quantised += 1;
            assert_eq!((other.dtype.name(), &other.shape), (dtype, &info.shape), "{}", info.name);
            let square = |x: f32| f64::from(x) * f64::from(x);
            let size = a.iter().map(|a| square(*a)).sum::<f64>().sqrt();
            let far = a.iter().zip(&b).map(|(a, b)| square(a - b)).sum::<f64>().sqrt();
            assert!(far > 0.0 && far <= off * size, "{}: {far} of {size}", info.name);
        }
        assert!(quantised > 10, "{quantised}");
        let files: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(files.len(), 1, "{files:?}");
    }
    // A file of its own, and nothing left to quantise.
    let again = dir.path().join("again.safetensors");
    let input = path.to_str().unwrap();
    let nothing = ["m.safetensors", "nothing to quantise to fp8"];
    fails(&mut convert(input, &again, &["--quantize", "fp8"]), 1, &nothing);
    assert!(!again.exists());
    // Files of other programs: as it is written, what it was.
    let gguf = dir.path().join("m.gguf");
    succeeds(&mut convert(MODEL, &gguf, &["--quantize", "q8_0"]));
    let bytes = fs::read(&gguf).unwrap();
    assert_eq!((&bytes[..4], bytes.len() % 32), (&b"GGUF"[..], 0));
    let found = open(&gguf);
    assert_eq!(found.gguf().unwrap().text("general.architecture"), Some("flux"));
    assert_eq!(views(&found).names().collect::<Vec<_>>(), model.names().collect::<Vec<_>>());
    // What fp8 was read as is written as numbers.
    let input = dir.path().join("fp8.safetensors");
    succeeds(&mut convert(MODEL, &input, &["--quantize", "fp8"]));
    let plain = dir.path().join("plain.safetensors");
    succeeds(&mut convert(input.to_str().unwrap(), &plain, &[]));
    let (fp8, plain) = (open(&input), open(&plain));
    for info in fp8.iter() {
        let other = plain.info(&info.name).unwrap();
        assert_eq!(other.dtype.name(), "F32", "{}", info.name);
        assert_eq!(
            fp8.tensor_f32(info).unwrap(),
            plain.tensor_f32(other).unwrap(),
            "{}",
            info.name
        );
    }
}

#[test]
fn what_cannot_be_converted_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name);
    for (input, output, options, code, parts) in [
        (MODEL, "m.bin", &["--quantize", "fp8"][..], 2, &["m.bin", ".gguf or .safetensors"][..]),
        (MODEL, "m.gguf", &["--quantize", "fp8"], 2, &["fp8", "GGUF files have", "q8_0"]),
        (
            MODEL,
            "m.safetensors",
            &["--quantize", "q4_k"],
            2,
            &["q4_k", "safetensors files have", "nf4"],
        ),
        (MODEL, "m.gguf", &["--quantize", "q9"], 2, &["q9", "number format", "q8_0"]),
        (
            MODEL,
            "m.gguf",
            &["--quantize", "q8_0:vae"],
            2,
            &["vae", "denoiser", "t5", "text-encoders"],
        ),
        ("missing", "m.gguf", &["--quantize", "q8_0"], 1, &["missing"]),
        (MODEL, "no/m.gguf", &["--quantize", "q8_0"], 1, &["no", "does not exist"]),
    ] {
        fails(&mut convert(input, &out(output), options), code, parts);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{output}");
    }
    let file = out("m.safetensors");
    fs::copy(Path::new(MODEL).join("vae/diffusion_pytorch_model.safetensors"), &file).unwrap();
    let itself = convert(file.to_str().unwrap(), &file, &["--quantize", "fp8"]);
    fails(&mut { itself }, 2, &["m.safetensors", "would replace the model"]);
}
