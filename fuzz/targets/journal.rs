#![no_main]

#[path = "../feeds/journal.rs"]
mod feed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| feed::journal(data));
