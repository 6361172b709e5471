//! Events as plain objects: `RaluEvent` in `package/ralu.d.ts`. The fields are those of the command line's
//! `--events json`, spelled as JavaScript does.

use js_sys::{BigInt64Array, Float32Array, Uint8ClampedArray, Uint32Array};
use ralu::pipeline::{Event, NamedTensor, NamedTensors, Part, Picture, PictureKind};
use wasm_bindgen::prelude::*;

use crate::about::About;
use crate::error::shown;
use crate::object::Object;

/// `None` for what this module does not know yet.
pub fn to_js(event: &Event, about: &About) -> Option<JsValue> {
    let object = |kind: &str| Object::new().with("type", kind);
    Some(JsValue::from(match event {
        Event::Warning(message) => object("warning").with("message", shown(message)),
        Event::Loading { part, bytes, of } => object("loading")
            .with(
                "part",
                match part {
                    Part::TextEncoders => "textEncoders",
                    Part::Denoiser => "denoiser",
                },
            )
            .number("bytes", *bytes)
            .number("totalBytes", *of),
        Event::Encoded { n_tokens, seconds } => {
            object("encoded").number("tokens", *n_tokens).number("seconds", *seconds)
        }
        Event::Stage(stage) => object("stage")
            .number("image", stage.image)
            .number("stage", stage.stage)
            .number("of", stage.of)
            .number("tokens", stage.n_tokens)
            .number("steps", stage.n_steps)
            .number("bytes", stage.bytes),
        Event::Step(step) => object("step")
            .number("image", step.image)
            .number("stage", step.stage)
            .number("step", step.step)
            .number("of", step.of)
            .number("sigma", step.sigma)
            .number("seconds", step.seconds)
            .number("done", step.done)
            .with("reused", step.reused),
        Event::StageEnd(end) => object("stageEnd")
            .number("image", end.image)
            .number("stage", end.stage)
            .number("seconds", end.seconds),
        Event::Regions { image, grid, selected, score, seconds } => object("regions")
            .number("image", *image)
            .number("rows", grid.rows)
            .number("columns", grid.cols)
            .with("selected", Uint32Array::from(&selected[..]))
            .with("score", Float32Array::from(&score[..]))
            .number("seconds", *seconds),
        Event::StagePicture { image, stage, kind, picture } => object("stagePicture")
            .number("image", *image)
            .number("stage", *stage)
            .with(
                "kind",
                match kind {
                    PictureKind::Estimate => "estimate",
                    PictureKind::Edges => "edges",
                    PictureKind::Regions => "regions",
                },
            )
            .with("picture", image_data(picture)?),
        Event::Image { image, seed, picture, tensors, seconds, report } => {
            let object = object("image")
                .number("image", *image)
                // A string, as a seed may have 64 bits.
                .with("seed", seed.to_string())
                .with("picture", image_data(picture)?)
                .number("seconds", *seconds)
                .number("stepsComputed", report.n_computed())
                .number("stepsReused", report.n_reused())
                .number("tflops", report.flops / 1e12)
                .with("texts", texts_to_js(&about.texts(*seed)));
            match tensors {
                Some(tensors) => object.with("tensors", tensors_to_js(tensors)),
                None => object,
            }
        }
        _ => return None,
    }))
}

/// `None` only for a picture without pixels.
fn image_data(picture: &Picture) -> Option<web_sys::ImageData> {
    let rgba: Vec<u8> =
        picture.rgb.chunks_exact(3).flat_map(|rgb| [rgb[0], rgb[1], rgb[2], 255]).collect();
    // A copy: an ImageData keeps the array it is made of, and a view of our memory would change under it.
    let pixels = Uint8ClampedArray::from(&rgba[..]);
    let (width, height) = (picture.width as u32, picture.height as u32);
    web_sys::ImageData::new_with_js_u8_clamped_array_and_sh(&pixels, width, height).ok()
}

/// `[keyword, text]` of each.
fn texts_to_js(texts: &[(&str, String)]) -> js_sys::Array {
    let pair = |(keyword, text): &(&str, String)| {
        js_sys::Array::of2(&JsValue::from(*keyword), &JsValue::from(text.as_str()))
    };
    texts.iter().map(pair).collect()
}

fn tensors_to_js(tensors: &NamedTensors) -> Object {
    let mut all = Object::new();
    for (name, tensor) in &tensors.0 {
        let shape: js_sys::Array =
            tensor.shape().iter().map(|n| JsValue::from(*n as f64)).collect();
        let data = match tensor {
            NamedTensor::F32 { data, .. } => JsValue::from(Float32Array::from(&data[..])),
            NamedTensor::I64 { data, .. } => JsValue::from(BigInt64Array::from(&data[..])),
        };
        all = all.with(name, Object::new().with("shape", shape).with("data", data));
    }
    all
}
