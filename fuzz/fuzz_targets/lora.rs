#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ralu_fuzz::targets::run("lora", data));
