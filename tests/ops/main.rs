//! Every op on the GPU against its reference, over a table of cases per op. The same tables run in a browser
//! (`browser.rs`, `scripts/browser-test`).
//!
//! Each table runs with several sets of capabilities, so that both kinds of kernels, matrices in bands,
//! weights in shards and dispatches in slices are met. Operands are views into larger matrices of NaN, and
//! what surrounds a result must survive. Tolerances are derived where they stand; see [`common::Tolerance`].

#[path = "../common/mod.rs"]
mod common;
mod tables;

macro_rules! native {
    ($($op:ident::$test:ident,)*) => {$(
        #[test]
        fn $test() {
            common::block_on(tables::$op::$test());
        }
    )*};
}
tables::every_test!(native);
