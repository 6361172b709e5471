//! Events as plain objects: `RaluEvent` in `package/ralu.d.ts`, which is [`Event`]'s JSON in JavaScript's spelling, with
//! pictures and tensors, and large lists as typed arrays.

use js_sys::{BigInt64Array, Float32Array, Uint8ClampedArray, Uint32Array};
use ralu::names;
use ralu::pipeline::{Event, NamedTensor, NamedTensors, Picture};
use serde_json::Value;
use wasm_bindgen::prelude::*;

use crate::about::About;
use crate::error::shown;
use crate::object::Object;

/// `None` for events that have no JSON.
pub fn to_js(event: &Event, about: &About) -> Option<JsValue> {
    if let Event::Estimate { image, stage, step, picture } = event {
        let number = |n: usize| JsValue::from(n as f64);
        let object = Object::new().with("type", "estimate").with("image", number(*image));
        let object = object.with("stage", number(*stage)).with("step", number(*step));
        return Some(object.with("picture", image_data(picture)?).into());
    }
    let Ok(Value::Object(fields)) = serde_json::to_value(event) else { return None };
    let mut object = Object::new();
    for (name, value) in &fields {
        object = match (name.as_str(), value) {
            ("event", Value::String(name)) => object.with("type", names::camel(name)),
            // Names of ours, and no texts.
            ("part" | "kind", Value::String(value)) => object.with(name, names::camel(value)),
            ("message", Value::String(message)) => object.with("message", shown(message)),
            // A string, as a seed may have 64 bits.
            ("seed", seed) => object.with("seed", seed.to_string()),
            // Below.
            ("selected" | "density", _) => object,
            (name, value) => object.with(&names::camel(name), plain(value)),
        };
    }
    Some(JsValue::from(match event {
        Event::Regions { selected, score, .. } => object
            .with("selected", Uint32Array::from(&selected[..]))
            .with("score", Float32Array::from(&score[..])),
        Event::StagePicture { picture, .. } => object.with("picture", image_data(picture)?),
        Event::Image { seed, picture, tensors, report, .. } => {
            let object = object
                .with("picture", image_data(picture)?)
                .with("texts", texts_to_js(&about.texts(*seed, report.products)));
            match tensors {
                Some(tensors) => object.with("tensors", tensors_to_js(tensors)),
                None => object,
            }
        }
        _ => object,
    }))
}

fn plain(value: &Value) -> JsValue {
    match value {
        Value::Null => JsValue::NULL,
        Value::Bool(value) => (*value).into(),
        // JavaScript's numbers hold integers up to 2^53 exactly.
        Value::Number(number) => number.as_f64().into(),
        Value::String(text) => text.into(),
        Value::Array(values) => values.iter().map(plain).collect::<js_sys::Array>().into(),
        Value::Object(fields) => {
            let set = |object: Object, (name, value): (&String, &Value)| {
                object.with(&names::camel(name), plain(value))
            };
            fields.iter().fold(Object::new(), set).into()
        }
    }
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
