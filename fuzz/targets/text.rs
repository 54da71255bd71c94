#![no_main]
#![allow(dead_code, missing_docs)]

#[path = "../feeds/text.rs"]
mod feed;
#[path = "../../crates/cli/src/jobfile/mod.rs"]
mod jobfile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // One byte says which reader; job files and traces have crates of their own.
    match data.split_first() {
        Some((0, text)) => job_file("fuzz.toml", text),
        Some((1, text)) => job_file("fuzz.json", text),
        Some((2, text)) => drop(hedge_sim::eval::Trace::read(&String::from_utf8_lossy(text))),
        Some((3, text)) => drop(hedge_sim::eval::Workflow::from_wfformat(
            &String::from_utf8_lossy(text),
        )),
        _ => feed::text(data),
    }
});

fn job_file(name: &str, text: &[u8]) {
    if let Err(mistakes) = jobfile::JobFile::parse(name, String::from_utf8_lossy(text).into()) {
        // Pointing at the mistakes slices the text.
        drop(mistakes.to_string());
    }
}
