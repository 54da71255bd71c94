//! Runs a corpus again, without a fuzzer.

use std::path::Path;

/// Feeds every input of the corpus `name`, in the order of their names.
pub fn replay(name: &str, feed: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(name);
    let entries = std::fs::read_dir(&folder).expect("the corpus is part of the repository");
    let mut inputs: Vec<_> = entries
        .map(|entry| entry.expect("an input").path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "no corpus {name}");
    for input in inputs {
        println!("{}", input.display());
        feed(&std::fs::read(input).expect("an input"));
    }
}
