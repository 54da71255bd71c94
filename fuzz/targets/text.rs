#![no_main]
#![allow(missing_docs)]

#[path = "../feeds/text.rs"]
mod feed;

use hedge_job::{JobFile, Syntax};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // One byte says which reader; job files and traces have crates of their own.
    match data.split_first() {
        Some((0, text)) => job_file(Syntax::Toml, text),
        Some((1, text)) => job_file(Syntax::Json, text),
        Some((2, text)) => drop(hedge_sim::eval::Trace::read(&String::from_utf8_lossy(text))),
        Some((3, text)) => drop(hedge_sim::eval::Workflow::from_wfformat(
            &String::from_utf8_lossy(text),
        )),
        _ => feed::text(data),
    }
});

fn job_file(syntax: Syntax, text: &[u8]) {
    if let Err(bad) = JobFile::parse("fuzz", syntax, &*String::from_utf8_lossy(text)) {
        // Pointing at the mistakes slices the text.
        drop(bad.located());
    }
}
