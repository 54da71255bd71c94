//! Hashes of blobs, and the chaining values by which parts of a large blob are verified alone.
//!
//! A blob of more than [`GROUP_BYTES`] is cut into groups. The BLAKE3 chaining values of all groups, in their order,
//! are the blob's *proof*: the blob's hash follows from them, and each group can be verified against its own.

use super::parallel;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use hedge_model::Hash;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a group: a power of two, and what a transfer holds in memory.
pub(super) const GROUP_BYTES: usize = 1 << 20;

/// Files of at least this length are hashed by several threads, whose start would take longer than a short file.
pub(super) const LONG_BYTES: u64 = 16 << 20;

/// A blob's hash and length in bytes, with the proof of a large one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// BLAKE3 of the content.
    pub hash: Hash,
    /// Length in bytes.
    pub size: u64,
    pub(super) proof: Option<Proof>,
}

impl Digest {
    /// Reads a file to its end, a long one on all processors. The buffer's capacity is used again by the next call.
    pub(super) fn of_file(path: &Path, buffer: &mut Vec<u8>) -> io::Result<Digest> {
        Digest::of_open(&File::open(path)?, buffer)
    }

    /// The same for a file that is open, from its beginning.
    pub(super) fn of_open(mut file: &File, buffer: &mut Vec<u8>) -> io::Result<Digest> {
        let size = file.metadata()?.len();
        if size >= LONG_BYTES
            && let Some(digest) = Digest::of_groups(file, size)?
        {
            return Ok(digest);
        }
        file.rewind()?;
        Digest::of(file, buffer, |_| Ok(()))
    }

    /// None if the file's length changes meanwhile.
    fn of_groups(file: &File, size: u64) -> io::Result<Option<Digest>> {
        let groups: Vec<u64> = (0..size.div_ceil(GROUP_BYTES as u64)).collect();
        let hashed = parallel::map(&groups, parallel::THREADS_MAX, |group, buffer| {
            let offset = group * GROUP_BYTES as u64;
            buffer.resize((size - offset).min(GROUP_BYTES as u64) as usize, 0);
            file.read_exact_at(buffer, offset)?;
            Ok(group_hasher(offset, buffer).finalize_non_root())
        });
        let groups = match hashed.into_iter().collect::<io::Result<Vec<_>>>() {
            Ok(groups) if file.metadata()?.len() == size => groups.into(),
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            _ => return Ok(None),
        };
        let proof = Proof { groups, size };
        Ok(Some(Digest {
            hash: proof.hash(),
            size,
            proof: Some(proof),
        }))
    }

    /// Reads files to their ends, on all processors; the results are in the same order. Blocks.
    pub fn of_files(paths: &[PathBuf]) -> Vec<io::Result<Digest>> {
        parallel::map(paths, parallel::THREADS_MAX, |path, buffer| {
            Digest::of_file(path, buffer)
        })
    }

    /// Reads to the end and hands each piece on after it was hashed.
    pub(super) fn of(
        mut from: impl Read,
        buffer: &mut Vec<u8>,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Digest> {
        let (mut size, mut groups, mut root) = (0, Vec::new(), *blake3::hash(b"").as_bytes());
        loop {
            buffer.clear();
            let read = (&mut from).take(GROUP_BYTES as u64).read_to_end(buffer)?;
            if read > 0 {
                let hasher = group_hasher(size, buffer);
                if size == 0 {
                    root = *hasher.finalize().as_bytes();
                }
                groups.push(hasher.finalize_non_root());
                size += read as u64;
                sink(buffer)?;
            }
            if read < GROUP_BYTES {
                break;
            }
        }
        if groups.len() <= 1 {
            return Ok(Digest {
                hash: Hash(root),
                size,
                proof: None,
            });
        }
        let proof = Proof {
            groups: groups.into(),
            size,
        };
        Ok(Digest {
            hash: proof.hash(),
            size,
            proof: Some(proof),
        })
    }
}

/// The chaining values of a large blob's groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    groups: Arc<[ChainingValue]>,
    size: u64,
}

impl Proof {
    /// Bytes of an encoded proof for a blob of this length.
    pub(super) fn encoded_bytes(size: u64) -> u64 {
        size.div_ceil(GROUP_BYTES as u64) * 32
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        self.groups.concat()
    }

    /// None unless these are the chaining values of that blob.
    pub(super) fn decode(bytes: &[u8], hash: Hash, size: u64) -> Option<Proof> {
        if size <= GROUP_BYTES as u64 || bytes.len() as u64 != Proof::encoded_bytes(size) {
            return None;
        }
        let (groups, _) = bytes.as_chunks::<32>();
        let groups = groups.into();
        let proof = Proof { groups, size };
        (proof.hash() == hash).then_some(proof)
    }

    pub(super) fn count(&self) -> u64 {
        self.groups.len() as u64
    }

    /// Length in bytes of a group.
    pub(super) fn group_len(&self, group: u64) -> usize {
        let left = self.size.saturating_sub(group * GROUP_BYTES as u64);
        left.min(GROUP_BYTES as u64) as usize
    }

    /// Whether these bytes are that group.
    pub(super) fn fits(&self, group: u64, bytes: &[u8]) -> bool {
        let value = group_hasher(group * GROUP_BYTES as u64, bytes).finalize_non_root();
        bytes.len() == self.group_len(group) && self.groups.get(group as usize) == Some(&value)
    }

    fn hash(&self) -> Hash {
        let (left, right) = split(&self.groups, self.size);
        Hash(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
    }
}

fn group_hasher(offset: u64, bytes: &[u8]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset);
    hasher.update(bytes);
    hasher
}

fn split(groups: &[ChainingValue], size: u64) -> (ChainingValue, ChainingValue) {
    let left_bytes = left_subtree_len(size);
    let (left, right) = groups.split_at((left_bytes / GROUP_BYTES as u64) as usize);
    (merge(left, left_bytes), merge(right, size - left_bytes))
}

fn merge(groups: &[ChainingValue], size: u64) -> ChainingValue {
    match groups {
        [group] => *group,
        _ => {
            let (left, right) = split(groups, size);
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_has_the_same_digest_on_one_thread_and_on_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for more in [0, 1, GROUP_BYTES as u64 / 2] {
            let bytes: Vec<u8> = (0..LONG_BYTES + more)
                .map(|i| ((i * i) >> 7) as u8)
                .collect();
            std::fs::write(file.path(), &bytes).unwrap();
            let one = Digest::of(&bytes[..], &mut Vec::new(), |_| Ok(())).unwrap();
            assert_eq!(Digest::of_file(file.path(), &mut Vec::new()).unwrap(), one);
            assert_eq!(one.hash.0, *blake3::hash(&bytes).as_bytes());
        }
    }

    #[test]
    fn a_proof_gives_the_hash_and_finds_a_changed_byte() {
        let all: Vec<u8> = (0..5 * GROUP_BYTES as u32 / 2)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        for size in [
            0,
            1,
            GROUP_BYTES - 1,
            GROUP_BYTES,
            GROUP_BYTES + 1,
            2 * GROUP_BYTES,
            2 * GROUP_BYTES + 1,
            all.len(),
        ] {
            let bytes = &all[..size];
            let mut copied = Vec::new();
            let sink = |piece: &[u8]| {
                copied.extend_from_slice(piece);
                Ok(())
            };
            let digest = Digest::of(bytes, &mut Vec::new(), sink).unwrap();
            assert_eq!(digest.hash.0, *blake3::hash(bytes).as_bytes(), "{size}");
            assert_eq!((digest.size, &copied[..]), (size as u64, bytes));
            assert_eq!(digest.proof.is_some(), size > GROUP_BYTES);
            let Some(proof) = digest.proof else { continue };
            let decode = |bytes: &[u8]| Proof::decode(bytes, digest.hash, digest.size);
            let mut encoded = proof.encode();
            assert_eq!(decode(&encoded), Some(proof.clone()));
            let mut last = bytes[(proof.count() as usize - 1) * GROUP_BYTES..].to_vec();
            assert!(proof.fits(proof.count() - 1, &last));
            *last.last_mut().unwrap() ^= 1;
            assert!(!proof.fits(proof.count() - 1, &last));
            assert!(decode(&encoded[32..]).is_none());
            encoded[7] ^= 1;
            assert!(decode(&encoded).is_none());
        }
    }
}
