//! Bytes from wherever the page has them: an object with the methods `size(path)` and `read(path, start, end)`.

use std::ops::Range;

use js_sys::{Promise, Uint8Array};
use ralu::checkpoint::source::{BoxFuture, Origin};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    /// `Origin` in `package/ralu.d.ts`.
    #[wasm_bindgen(typescript_type = "Origin")]
    pub type JsOrigin;

    #[wasm_bindgen(method, structural, catch)]
    fn size(this: &JsOrigin, path: &str) -> Result<Promise, JsValue>;

    #[wasm_bindgen(method, structural, catch)]
    fn read(this: &JsOrigin, path: &str, start: f64, end: f64) -> Result<Promise, JsValue>;
}

impl Origin for JsOrigin {
    fn size<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<u64>, String>> {
        Box::pin(async move {
            let size = wait(self.size(path)).await?;
            if size.is_undefined() || size.is_null() {
                return Ok(None);
            }
            match size.as_f64() {
                Some(bytes) if bytes >= 0.0 => Ok(Some(bytes as u64)),
                _ => Err(format!("size() gave {size:?}; expected a number or undefined")),
            }
        })
    }

    fn read<'a>(
        &'a self,
        path: &'a str,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Vec<u8>, String>> {
        Box::pin(async move {
            // Files end long before 2^53, where numbers stop being exact.
            let bytes = wait(self.read(path, range.start as f64, range.end as f64)).await?;
            match bytes.dyn_into::<Uint8Array>() {
                Ok(bytes) => Ok(bytes.to_vec()),
                Err(other) => Err(format!("read() gave {other:?}; expected a Uint8Array")),
            }
        })
    }
}

async fn wait(promise: Result<Promise, JsValue>) -> Result<JsValue, String> {
    let result = match promise {
        Ok(promise) => JsFuture::from(promise).await,
        Err(error) => Err(error),
    };
    result.map_err(|error| match error.dyn_ref::<js_sys::Error>() {
        Some(error) => String::from(error.message()),
        None => format!("{error:?}"),
    })
}
