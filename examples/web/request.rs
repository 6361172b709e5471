//! Requests as JavaScript writes them: `GenerateRequest` in `package/ralu.d.ts`, which is [`Request`] in JavaScript's
//! spelling.

use js_sys::{JSON, Object, Reflect, Uint8Array, Uint8ClampedArray};
use ralu::names;
use ralu::pipeline::Request;
use serde_json::{Map, Value};
use wasm_bindgen::{JsCast, JsValue};

/// Reads an object; says what is wrong with it if it is no request.
pub fn parse(object: &JsValue) -> Result<Request, String> {
    let no_object = "the request is no plain object";
    if !object.is_object() {
        return Err(no_object.to_owned());
    }
    let (object, luma) = without_pixels(object);
    let json = JSON::stringify(&object).ok().and_then(|json| json.as_string()).ok_or(no_object)?;
    let value: Value = serde_json::from_str(&json).map_err(|error| error.to_string())?;
    let mut value = in_snake_case(value);
    if let (Some(luma), Some(Value::Object(mask))) = (luma, value.get_mut("mask")) {
        mask.insert("luma".to_owned(), luma.into());
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner().to_string();
        match path.as_str() {
            "." => format!("the request is not valid: {}", in_camel_case(&reason)),
            _ => {
                let path = names::camel(&path);
                format!("the request is not valid: {path}: {}", in_camel_case(&reason))
            }
        }
    })
}

/// A copy of a request without the pixels of its mask, and these: JSON has no bytes.
fn without_pixels(request: &JsValue) -> (JsValue, Option<Vec<u8>>) {
    let field = |object: &JsValue, name: &str| Reflect::get(object, &name.into()).ok();
    let Some(mask) = field(request, "mask").filter(JsValue::is_object) else {
        return (request.clone(), None);
    };
    let luma = field(&mask, "luma").unwrap_or_default();
    let luma = match luma.dyn_ref::<Uint8Array>() {
        Some(luma) => Some(luma.to_vec()),
        None => luma.dyn_ref::<Uint8ClampedArray>().map(|luma| luma.to_vec()),
    };
    if luma.is_none() {
        return (request.clone(), None);
    }
    let copy = |object: &JsValue| Object::assign(&Object::new(), object.unchecked_ref());
    let (request, mask) = (copy(request), copy(&mask));
    // Setting a field of a new object cannot fail. What is undefined is not in JSON.
    let _ = Reflect::set(&mask, &"luma".into(), &JsValue::UNDEFINED);
    let _ = Reflect::set(&request, &"mask".into(), &mask);
    (request.into(), luma)
}

fn in_snake_case(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter();
            fields
                .map(|(name, value)| (names::snake(&name), in_snake_case(value)))
                .collect::<Map<_, _>>()
                .into()
        }
        // Lists are of numbers.
        other => other,
    }
}

/// A message in which the names of fields, which stand in backticks, are spelled as the page spelled them.
fn in_camel_case(message: &str) -> String {
    let parts = message.split('`').enumerate();
    let parts =
        parts.map(|(i, part)| if i % 2 == 1 { names::camel(part) } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("`")
}
