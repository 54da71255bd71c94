#![no_main]

#[path = "../feeds/net.rs"]
mod feed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| feed::net(data));
