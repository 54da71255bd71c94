//! The inputs that fuzzing found worth keeping: one file for each target, a line in hexadecimal for each input.
//! The fuzzer wants a folder of files, which is unpacked beside it and never committed.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Writes each input of a target's file into a file of its own.
pub fn unpack(root: &Path, target: &str) -> Result<()> {
    let folder = root.join("fuzz/corpus").join(target);
    let packed = folder.with_extension("hex");
    let text =
        fs::read_to_string(&packed).with_context(|| format!("no corpus {}", packed.display()))?;
    fs::create_dir_all(&folder)?;
    for (number, line) in text.lines().enumerate() {
        let input = bytes(line).with_context(|| format!("line {} is no input", number + 1))?;
        fs::write(folder.join(format!("{number:05}")), input)?;
    }
    Ok(())
}

/// Puts a folder of inputs into the target's file, in the place of what was there, and removes the folder.
pub fn pack(root: &Path, target: &str) -> Result<()> {
    let folder = root.join("fuzz/corpus").join(target);
    let mut inputs = BTreeSet::new();
    let entries =
        fs::read_dir(&folder).with_context(|| format!("no folder {} to pack", folder.display()))?;
    for entry in entries {
        inputs.insert(line(&fs::read(entry?.path())?));
    }
    let text: String = inputs.iter().map(|line| format!("{line}\n")).collect();
    fs::write(folder.with_extension("hex"), text)?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}

fn line(input: &[u8]) -> String {
    let mut line = String::with_capacity(2 * input.len());
    for byte in input {
        _ = write!(line, "{byte:02x}");
    }
    line
}

fn bytes(line: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = line.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| {
        let [high, low] = pair else { return None };
        u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corpus_comes_back_as_it_was_packed() {
        let root = std::env::temp_dir().join(format!("hedge-corpus-{}", std::process::id()));
        let folder = root.join("fuzz/corpus/some");
        fs::create_dir_all(&folder).unwrap();
        let inputs: [&[u8]; 3] = [b"", b"\x00\xff", b"text\n"];
        for (number, input) in inputs.iter().enumerate() {
            fs::write(folder.join(number.to_string()), input).unwrap();
        }
        pack(&root, "some").unwrap();
        assert!(!folder.exists());
        unpack(&root, "some").unwrap();
        let mut back: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| fs::read(entry.unwrap().path()).unwrap())
            .collect();
        back.sort();
        assert_eq!(back, inputs);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(bytes("0"), None);
        assert_eq!(bytes("zz"), None);
    }
}
