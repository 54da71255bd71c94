//! Runs a corpus again, without a fuzzer.

use std::path::Path;

/// Feeds every input of the corpus `name`: a line in hexadecimal for each.
pub fn replay(name: &str, feed: fn(&[u8])) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(format!("{name}.hex"));
    let text = std::fs::read_to_string(&file).expect("the corpus is part of the repository");
    assert!(!text.is_empty(), "no corpus {name}");
    for line in text.lines() {
        println!("{line}");
        let digits = line.as_bytes().chunks(2);
        let bytes = digits.map(|pair| {
            let pair = std::str::from_utf8(pair).expect("hexadecimal");
            u8::from_str_radix(pair, 16).expect("hexadecimal")
        });
        feed(&bytes.collect::<Vec<u8>>());
    }
}
