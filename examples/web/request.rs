//! Requests as JavaScript writes them: `GenerateRequest` in `package/ralu.d.ts`, which is [`Request`] in JavaScript's
//! spelling.

use js_sys::{
    Array, BigInt64Array, Float32Array, JSON, Object, Reflect, Uint8Array, Uint8ClampedArray,
};
use ralu::names;
use ralu::pipeline::{NamedTensors, Request};
use serde_json::{Map, Value};
use wasm_bindgen::{JsCast, JsValue};

/// Reads an object; says what is wrong with it if it is no request.
pub fn parse(object: &JsValue) -> Result<Request, String> {
    let no_object = "the request is no plain object";
    if !object.is_object() {
        return Err(no_object.to_owned());
    }
    let (object, given) = without_tensors(object)?;
    let (object, estimates) = without_estimates(&object)?;
    let mut request = parse_json(&object)?;
    request.given = given;
    request.estimates = estimates;
    Ok(request)
}

/// The part of a request that has JSON, and the pixels of its mask.
fn parse_json(object: &JsValue) -> Result<Request, String> {
    let no_object = "the request is no plain object";
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

/// A copy of a request without its given tensors, and these. Tensors that a run does not take are left alone, so that those of
/// an earlier picture can be given as they are.
fn without_tensors(request: &JsValue) -> Result<(JsValue, NamedTensors), String> {
    let mut tensors = NamedTensors::default();
    let given = Reflect::get(request, &"given".into()).unwrap_or_default();
    if given.is_undefined() {
        return Ok((request.clone(), tensors));
    }
    let bad =
        |name: &str, what: &str| Err(format!("the request is not valid: given{name}: {what}"));
    if !given.is_object() {
        return bad("", "expected an object with tensors by name");
    }
    for name in NamedTensors::GIVEN {
        let tensor = Reflect::get(&given, &name.into()).unwrap_or_default();
        if tensor.is_undefined() {
            continue;
        }
        let field = |field: &str| Reflect::get(&tensor, &field.into()).unwrap_or_default();
        let (shape, data) = (field("shape"), field("data"));
        let name_of = format!(".{name}");
        let Some(shape) = shape.dyn_ref::<Array>() else {
            return bad(&name_of, "expected a shape, a list of numbers");
        };
        let sides: Vec<usize> =
            shape.iter().filter_map(|side| Some(side.as_f64()? as usize)).collect();
        let elements = sides.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
        let found = if let Some(numbers) = data.dyn_ref::<Float32Array>() {
            let found = numbers.length() as usize;
            if elements == Some(found) {
                tensors.insert(name, &sides, numbers.to_vec());
            }
            found
        } else if let Some(indices) = data.dyn_ref::<BigInt64Array>() {
            let found = indices.length() as usize;
            if elements == Some(found) {
                tensors.insert_indices(name, &sides, indices.to_vec());
            }
            found
        } else {
            return bad(&name_of, "expected data, a Float32Array or a BigInt64Array");
        };
        if elements != Some(found) {
            return bad(&name_of, &format!("the shape {sides:?} does not make {found} numbers"));
        }
    }
    tensors.check_finite().map_err(|error| error.to_string())?;
    let copy: JsValue = Object::assign(&Object::new(), request.unchecked_ref()).into();
    // Setting a field of a new object cannot fail. What is undefined is not in JSON.
    let _ = Reflect::set(&copy, &"given".into(), &JsValue::UNDEFINED);
    Ok((copy, tensors))
}

/// A copy of a request without the field `estimates`, which is in no request's JSON, and this.
fn without_estimates(request: &JsValue) -> Result<(JsValue, bool), String> {
    let estimates = Reflect::get(request, &"estimates".into()).unwrap_or_default();
    if estimates.is_undefined() {
        return Ok((request.clone(), false));
    }
    let Some(estimates) = estimates.as_bool() else {
        return Err("the request is not valid: estimates: expected true or false".to_owned());
    };
    let copy: JsValue = Object::assign(&Object::new(), request.unchecked_ref()).into();
    // Setting a field of a new object cannot fail. What is undefined is not in JSON.
    let _ = Reflect::set(&copy, &"estimates".into(), &JsValue::UNDEFINED);
    Ok((copy, estimates))
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
