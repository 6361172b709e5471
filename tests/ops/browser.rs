//! The tables of ops in a browser: a page calls one test after the other by name. See `tests/browser/ops.mjs`.
#![cfg(target_arch = "wasm32")]

#[path = "../common/mod.rs"]
mod common;
mod tables;

use wasm_bindgen::prelude::*;

macro_rules! by_name {
    ($($op:ident::$test:ident,)*) => {
        /// The names of all tests.
        #[wasm_bindgen]
        pub fn names() -> Vec<String> {
            vec![$(stringify!($test).to_owned()),*]
        }

        /// Runs one of them. What fails panics: the message goes to the console, and the page's promise is rejected
        /// or never settled, so whoever waits must watch the page's errors.
        #[wasm_bindgen]
        pub async fn run(name: String) -> Result<(), JsError> {
            std::panic::set_hook(Box::new(|panic| {
                common::console::error(&panic.to_string());
            }));
            match name.as_str() {
                $(stringify!($test) => tables::$op::$test().await,)*
                _ => return Err(JsError::new(&format!("there is no test {name:?}"))),
            }
            Ok(())
        }
    };
}
tables::every_test!(by_name);
