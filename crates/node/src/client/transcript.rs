//! Remembers what was shown of a task's output stream, so that another attempt with the same output is not shown
//! twice.

/// Bytes that one hash covers.
const BLOCK: usize = 64 << 10;
/// The most blocks remembered: 4 GiB of output in 2 MiB of memory. Beyond it, outputs of attempts cannot be compared.
const BLOCKS_MAX: usize = 64 << 10;

/// What was shown of a stream.
#[derive(Debug, Default)]
pub struct Transcript {
    blocks: Vec<blake3::Hash>,
    /// The bytes after the blocks, less than one block.
    rest: Vec<u8>,
    /// Whether output was too long to remember, or a part of it was not kept.
    partial: bool,
}

/// Compares another attempt's stream with a [`Transcript`].
#[derive(Debug, Default)]
pub struct Repetition {
    at: u64,
    /// The bytes read of the present block.
    block: Vec<u8>,
}

/// The attempts did not print the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Differs;

impl Transcript {
    /// Returns whether nothing was shown.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.rest.is_empty() && !self.partial
    }

    /// Records that these bytes were shown; `cut` bytes before them were not kept.
    pub fn add(&mut self, cut: u64, bytes: &[u8]) {
        self.partial |= cut > 0;
        for part in bytes.chunks(BLOCK) {
            self.rest.extend_from_slice(part);
            while self.rest.len() >= BLOCK {
                let block: Vec<u8> = self.rest.drain(..BLOCK).collect();
                if self.blocks.len() >= BLOCKS_MAX {
                    self.partial = true;
                } else {
                    self.blocks.push(blake3::hash(&block));
                }
            }
        }
    }

    fn total(&self) -> u64 {
        (self.blocks.len() * BLOCK + self.rest.len()) as u64
    }
}

impl Repetition {
    /// Compares the next bytes of the other attempt. Returns how many of them were shown before.
    ///
    /// # Errors
    /// They differ from what was shown. Up to a block of differing bytes may have counted as equal before.
    pub fn take(&mut self, shown: &Transcript, bytes: &[u8]) -> Result<usize, Differs> {
        if shown.partial {
            return Err(Differs);
        }
        let before = shown
            .total()
            .saturating_sub(self.at)
            .min(bytes.len() as u64) as usize;
        let mut left = &bytes[..before];
        while !left.is_empty() {
            let number = (self.at / BLOCK as u64) as usize;
            let Some(hash) = shown.blocks.get(number) else {
                let offset = self.at as usize % BLOCK;
                if shown.rest.get(offset..offset + left.len()) != Some(left) {
                    return Err(Differs);
                }
                self.at += left.len() as u64;
                break;
            };
            let (now, later) = left.split_at(left.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            self.at += now.len() as u64;
            if self.block.len() == BLOCK {
                if blake3::hash(&self.block) != *hash {
                    return Err(Differs);
                }
                self.block.clear();
            }
            left = later;
        }
        Ok(before)
    }

    /// Returns whether the other attempt has printed everything that was shown.
    pub fn is_whole(&self, shown: &Transcript) -> bool {
        !shown.partial && self.at >= shown.total()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn what_is_the_same_is_not_shown_again_however_it_is_cut() {
        for shown in [1, 1000, BLOCK, BLOCK + 1, 3 * BLOCK - 1] {
            let all = text(shown + 5000);
            let mut transcript = Transcript::default();
            all[..shown]
                .chunks(777)
                .for_each(|part| transcript.add(0, part));
            for cut in [1009, BLOCK, BLOCK + 3, all.len()] {
                let mut again = Repetition::default();
                let mut fresh = Vec::new();
                for part in all.chunks(cut) {
                    let before = again.take(&transcript, part).unwrap();
                    fresh.extend_from_slice(&part[before..]);
                }
                assert!(again.is_whole(&transcript));
                assert!(fresh == all[shown..], "{shown} bytes in parts of {cut}");
            }
        }
    }

    #[test]
    fn what_differs_is_found_within_a_block() {
        for (shown, other) in [
            (10, 3),
            (BLOCK, 3),
            (2 * BLOCK + 9, BLOCK + 1),
            (2 * BLOCK + 9, 2 * BLOCK + 8),
        ] {
            let mut transcript = Transcript::default();
            transcript.add(0, &text(shown));
            let mut changed = text(3 * BLOCK);
            changed[other] ^= 1;
            let mut again = Repetition::default();
            let mut parts = changed.chunks(BLOCK);
            assert!(
                parts.any(|part| again.take(&transcript, part) == Err(Differs)),
                "{shown} {other}"
            );
        }
    }

    #[test]
    fn one_that_printed_less_or_lost_a_part_is_not_the_same() {
        let mut transcript = Transcript::default();
        assert!(transcript.is_empty());
        transcript.add(0, b"one two");
        let mut again = Repetition::default();
        assert_eq!(again.take(&transcript, b"one"), Ok(3));
        assert!(!again.is_whole(&transcript));
        transcript.add(4, b"three");
        assert_eq!(again.take(&transcript, b" two"), Err(Differs));
    }
}
