//! Frames: how every file of the journal is made, so that no byte of it can change unnoticed.
//!
//! A frame is its body's length, a CRC-32C, and the body. The checksum goes on from that of the frame before
//! (or of the file's head), so that frames can neither be exchanged nor left out.

use crate::StoreError;
use crate::files::{damaged, read};
use std::path::Path;

/// The newest format of the files.
pub(crate) const FILES_VERSION: u32 = 1;

/// Bytes before a frame's body.
pub(crate) const FRAME_HEAD: usize = 8;

/// The longest body that is believed.
pub(crate) const BODY_MAX: usize = 256 << 20;

/// Bytes before the first frame of a file: what it is, of which format, and their checksum.
pub(crate) const FILE_HEAD: usize = 16;

/// Appends a frame whose body is made of parts. Returns the checksum to go on from.
pub(crate) fn put(out: &mut Vec<u8>, chain: u32, parts: &[&[u8]]) -> u32 {
    let length = parts.iter().map(|part| part.len()).sum::<usize>() as u32;
    let length = length.to_le_bytes();
    let chain = parts
        .iter()
        .fold(crc32c::crc32c_append(chain, &length), |chain, part| {
            crc32c::crc32c_append(chain, part)
        });
    out.extend_from_slice(&length);
    out.extend_from_slice(&chain.to_le_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    chain
}

/// The checksum of a frame with this body.
pub(crate) fn sum(chain: u32, body: &[u8]) -> u32 {
    let length = (body.len() as u32).to_le_bytes();
    crc32c::crc32c_append(crc32c::crc32c_append(chain, &length), body)
}

/// The frame at the front of some bytes: its body, and the checksum to go on from. `None` if it is cut or
/// not what was written.
pub(crate) fn take(bytes: &[u8], chain: u32) -> Option<(&[u8], u32)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let long = u32::from_le_bytes(*length) as usize;
    let body = rest.get(..long).filter(|_| long <= BODY_MAX)?;
    let chain = self::sum(chain, body);
    (chain == u32::from_le_bytes(*sum)).then_some((body, chain))
}

/// The head of a file. Returns the checksum to go on from.
pub(crate) fn put_head(out: &mut Vec<u8>, magic: &[u8; 8]) -> u32 {
    out.extend_from_slice(magic);
    out.extend_from_slice(&FILES_VERSION.to_le_bytes());
    let sum = crc32c::crc32c(&out[out.len() - 12..]);
    out.extend_from_slice(&sum.to_le_bytes());
    sum
}

/// Checks the head of a file. Returns the checksum to go on from.
pub(crate) fn take_head(path: &Path, bytes: &[u8], magic: &[u8; 8]) -> Result<u32, StoreError> {
    let Some(head) = bytes.first_chunk::<FILE_HEAD>() else {
        return Err(damaged(path, bytes.len() as u64, "the file is cut off"));
    };
    let sum = crc32c::crc32c(&head[..12]);
    if sum.to_le_bytes() != head[12..] || &head[..8] != magic {
        return Err(damaged(path, 0, "this is not the head that was written"));
    }
    let found = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if found > FILES_VERSION {
        return Err(StoreError::Newer {
            what: path.display().to_string(),
            found,
            known: FILES_VERSION,
        });
    }
    Ok(sum)
}

/// A small file of one frame.
pub(crate) fn small_file(magic: &[u8; 8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FILE_HEAD + FRAME_HEAD + body.len());
    let chain = put_head(&mut out, magic);
    put(&mut out, chain, &[body]);
    out
}

/// The body of a small file, or nothing if there is no such file.
pub(crate) fn read_small_file(path: &Path, magic: &[u8; 8]) -> Result<Option<Vec<u8>>, StoreError> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read(path)?;
    let chain = take_head(path, &bytes, magic)?;
    match take(&bytes[FILE_HEAD..], chain) {
        Some((body, _)) if FILE_HEAD + FRAME_HEAD + body.len() == bytes.len() => {
            Ok(Some(body.to_vec()))
        }
        _ => Err(damaged(
            path,
            FILE_HEAD as u64,
            "its content is not what was written",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_is_found() {
        let mut bytes = Vec::new();
        let chain = put(&mut bytes, 7, &[b"one", b" entry"]);
        put(&mut bytes, chain, &[b"and the next"]);
        let whole = |bytes: &[u8]| {
            let (first, chain) = take(bytes, 7)?;
            assert_eq!(first, b"one entry");
            Some(take(&bytes[FRAME_HEAD + first.len()..], chain)?.0.to_vec())
        };
        assert_eq!(whole(&bytes).as_deref(), Some(&b"and the next"[..]));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                let first = take(&bad, 7);
                let found = first.is_none_or(|(body, chain)| {
                    take(&bad[FRAME_HEAD + body.len()..], chain).is_none()
                });
                assert!(found, "byte {at}, bit {bit}");
            }
        }
        assert!(
            take(&bytes[FRAME_HEAD + 9..], 7).is_none(),
            "a frame left out is found"
        );
    }
}
