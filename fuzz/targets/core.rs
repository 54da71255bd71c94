#![no_main]

#[path = "../feeds/core.rs"]
mod feed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| feed::core(data));
