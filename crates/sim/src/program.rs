//! What the tasks of a virtual grid do, written in their command so that any job can be simulated.

use hedge_model::{AttemptId, Data, FileEntry, Hash};
use std::sync::Arc;
use std::time::Duration;

/// What a virtual task leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Nothing.
    None,
    /// A small file that travels inside messages.
    Inline,
    /// A blob that is the same in each attempt of the task.
    Blob,
    /// A blob that differs between attempts.
    Vary,
    /// A blob that differs between attempts, and one that does not.
    Both,
    /// A blob that every task of this kind leaves.
    Same,
}

const NAMES: [(Output, &str); 6] = [
    (Output::None, "none"),
    (Output::Inline, "inline"),
    (Output::Blob, "blob"),
    (Output::Vary, "vary"),
    (Output::Both, "both"),
    (Output::Same, "same"),
];

/// What a virtual task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// What it leaves.
    pub output: Output,
    /// How long it usually runs.
    pub mean: Duration,
    /// How often of a thousand attempts it fails by its own fault.
    pub fail_permille: u32,
}

impl Program {
    /// A program that never fails.
    pub fn new(output: Output, mean: Duration) -> Self {
        Self {
            output,
            mean,
            fail_permille: 0,
        }
    }

    /// The command that stands for it in a job.
    pub fn command(&self) -> Vec<Arc<str>> {
        let name = NAMES.iter().find(|(output, _)| *output == self.output);
        vec![
            "sim".into(),
            name.map_or("none", |(_, name)| name).into(),
            self.mean.as_micros().to_string().into(),
            self.fail_permille.to_string().into(),
        ]
    }

    /// Reads a command; anything that is not understood leaves nothing and takes 10 ms.
    pub fn of(command: &[Arc<str>]) -> Self {
        let number = |at: usize| command.get(at).and_then(|word| word.parse::<u64>().ok());
        let word = command.get(1).map_or("none", |word| &**word);
        let output = NAMES.iter().find(|(_, name)| *name == word);
        Self {
            output: output.map_or(Output::None, |(output, _)| *output),
            mean: Duration::from_micros(number(2).unwrap_or(10_000)),
            fail_permille: number(3).unwrap_or(0) as u32,
        }
    }

    /// What an attempt leaves when it succeeds; `salt` tells attempts apart.
    pub fn outputs(&self, attempt: AttemptId, salt: u64) -> Vec<FileEntry> {
        let task = [1, attempt.task.job.0, u64::from(attempt.task.number)];
        // Others read the outputs of several tasks together.
        let name = |kind: &str| format!("{kind}-{}", attempt.task.number);
        let fixed = || blob(&name("out"), &task);
        let varying = || blob(&name("log"), &[2, task[1], task[2], salt]);
        match self.output {
            Output::None => Vec::new(),
            Output::Inline => vec![FileEntry {
                path: name("note").into(),
                executable: false,
                data: Data::Inline(Arc::from(&b"note"[..])),
            }],
            Output::Blob => vec![fixed()],
            Output::Vary => vec![varying()],
            Output::Both => vec![fixed(), varying()],
            Output::Same => vec![blob(&name("same"), &[3])],
        }
    }
}

/// A file whose content is named after `parts`.
pub(crate) fn blob(path: &str, parts: &[u64]) -> FileEntry {
    FileEntry {
        path: path.into(),
        executable: false,
        data: Data::Blob {
            hash: content(parts),
            size: 100_000,
        },
    }
}

/// A name for made-up content: the same parts, the same name.
pub(crate) fn content(parts: &[u64]) -> Hash {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut mix = |value: u64| {
        state = (state ^ value).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state ^= state >> 29;
        state = state.wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 32;
        state
    };
    parts.iter().for_each(|part| {
        mix(*part);
    });
    let mut hash = [0; 32];
    for (at, chunk) in hash.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&mix(at as u64).to_le_bytes());
    }
    Hash(hash)
}
