#![no_main]

#[path = "../feeds/wire.rs"]
mod feed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| feed::wire(data));
