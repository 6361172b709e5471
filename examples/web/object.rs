//! Plain JavaScript objects.

use wasm_bindgen::JsValue;

/// An object in the making.
#[derive(Default)]
pub struct Object(js_sys::Object);

impl Object {
    pub fn new() -> Self {
        Object::default()
    }

    /// Sets a field.
    pub fn with(self, name: &str, value: impl Into<JsValue>) -> Self {
        // Setting a field of a plain object cannot fail.
        let _ = js_sys::Reflect::set(&self.0, &name.into(), &value.into());
        self
    }

    /// Sets a number: JavaScript's hold integers up to 2^53 exactly.
    pub fn number(self, name: &str, value: impl IntoNumber) -> Self {
        self.with(name, value.into_number())
    }
}

impl From<Object> for JsValue {
    fn from(object: Object) -> JsValue {
        object.0.into()
    }
}

/// What JavaScript's numbers are made from.
pub trait IntoNumber {
    fn into_number(self) -> f64;
}

impl IntoNumber for f64 {
    fn into_number(self) -> f64 {
        self
    }
}

impl IntoNumber for usize {
    fn into_number(self) -> f64 {
        self as f64
    }
}

impl IntoNumber for u64 {
    fn into_number(self) -> f64 {
        self as f64
    }
}
