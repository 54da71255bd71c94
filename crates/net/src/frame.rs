//! Frames: a length, a format version and a batch of messages.

use crate::NetError;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// Longest frame in bytes, header not counted. Larger content travels by its hash.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// The version of the frame format, carried by every frame.
pub const FRAME_VERSION: u8 = 1;

/// Bytes before a frame's body: its length (u32, little-endian, counting the version) and its version.
pub(crate) const HEADER_BYTES: usize = 5;

/// Encodes a batch of messages as one frame, header included, to be sent to any number of peers.
///
/// Fails with [`NetError::TooLarge`] where the frame would be longer than [`FRAME_BYTES_MAX`]; messages
/// must not be of zero size.
pub fn encode<T: Serialize>(batch: &[T]) -> Result<Bytes, NetError> {
    // A `Vec` takes whole slices where a `BytesMut` takes one byte after the other.
    let mut frame = Vec::with_capacity(256);
    frame.extend_from_slice(&[0; 4]);
    frame.push(FRAME_VERSION);
    let frame = postcard::to_extend(batch, frame).map_err(NetError::Encode)?;
    finish(frame)
}

/// Decodes the body of a frame, its version byte first, as a batch of messages.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<Vec<T>, NetError> {
    let Some((&version, batch)) = body.split_first() else {
        return Err(NetError::Decode(postcard::Error::DeserializeUnexpectedEnd));
    };
    if version != FRAME_VERSION {
        return Err(NetError::FrameVersion(version));
    }
    let (batch, rest) = postcard::take_from_bytes::<Vec<T>>(batch).map_err(NetError::Decode)?;
    if rest.is_empty() {
        Ok(batch)
    } else {
        Err(NetError::Decode(postcard::Error::DeserializeBadEncoding))
    }
}

fn finish(mut frame: Vec<u8>) -> Result<Bytes, NetError> {
    let length = frame.len() - 4;
    if length > FRAME_BYTES_MAX {
        return Err(NetError::TooLarge {
            bytes: length,
            limit: FRAME_BYTES_MAX,
        });
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_survives_its_frame() {
        let batch = vec![("a".to_owned(), 1u64), ("ü".to_owned(), u64::MAX)];
        let frame = encode(&batch).unwrap();
        assert_eq!(frame[..4], (frame.len() as u32 - 4).to_le_bytes());
        assert_eq!(decode::<(String, u64)>(&frame[4..]).unwrap(), batch);
    }

    #[test]
    fn what_is_left_over_missing_or_of_another_version_is_refused() {
        let frame = encode(&[7u32, 8]).unwrap();
        let mut long = frame[4..].to_vec();
        long.push(0);
        assert!(matches!(decode::<u32>(&long), Err(NetError::Decode(_))));
        assert!(matches!(
            decode::<u32>(&frame[4..frame.len() - 1]),
            Err(NetError::Decode(_))
        ));
        assert!(matches!(decode::<u32>(&[]), Err(NetError::Decode(_))));
        assert!(matches!(
            decode::<u32>(&[9, 0]),
            Err(NetError::FrameVersion(9))
        ));
    }

    #[test]
    fn a_frame_over_the_limit_is_not_made() {
        let batch = [vec![0u8; FRAME_BYTES_MAX]];
        assert!(matches!(encode(&batch), Err(NetError::TooLarge { .. })));
    }
}
