//! Encodes a job's specification for storage and transfer, as MessagePack with named fields.
//!
//! An added field needs a default and is left out if it has that value. A version that does not know a field refuses
//! the job.

use super::{Draft, Extension, JobSpec};
use crate::record::RecordError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::io;

/// Returns whether a field is left out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl JobSpec {
    /// Encodes the specification for submissions and for records from format 3 on.
    ///
    /// # Errors
    /// It contains something that cannot be written.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        rmp_serde::to_vec_named(&self.draft).map_err(damaged)
    }

    /// Decodes a specification from `bytes`, which must contain nothing else.
    ///
    /// # Errors
    /// The bytes are not a specification, a later version wrote them, or the job is not valid.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let draft: Draft = unpacked(bytes)?;
        Self::try_from(draft).map_err(damaged)
    }

    /// Returns the length of [`JobSpec::encode`] in bytes.
    pub fn encoded_bytes(&self) -> usize {
        encoded(&self.draft)
    }
}

impl Extension {
    /// Encodes the extension for requests, like a specification.
    ///
    /// # Errors
    /// It contains something that cannot be written.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        rmp_serde::to_vec_named(self).map_err(damaged)
    }

    /// Decodes an extension from `bytes`, which must contain nothing else.
    ///
    /// # Errors
    /// The bytes are not an extension, or a later version wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        unpacked(bytes)
    }

    /// Returns the length of [`Extension::encode`] in bytes.
    pub fn encoded_bytes(&self) -> usize {
        encoded(self)
    }
}

fn unpacked<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<T, RecordError> {
    let value = rmp_serde::from_read(&mut bytes).map_err(damaged)?;
    match bytes {
        [] => Ok(value),
        _ => Err(damaged("bytes follow the specification")),
    }
}

/// Returns the encoded length of a part of a specification in bytes.
pub(super) fn encoded<T: Serialize>(value: &T) -> usize {
    let mut count = Count(0);
    let written = rmp_serde::encode::write_named(&mut count, value);
    written.map_or(usize::MAX, |()| count.0)
}

struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn damaged(why: impl ToString) -> RecordError {
    RecordError::Damaged(why.to_string())
}

/// Structured in human-readable formats, otherwise [`JobSpec::encode`].
impl Serialize for JobSpec {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            return self.draft.serialize(to);
        }
        let bytes = self.encode().map_err(ser::Error::custom)?;
        serde_bytes::serialize(&bytes, to)
    }
}

impl<'de> Deserialize<'de> for JobSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            let draft = Draft::deserialize(from)?;
            return Self::try_from(draft).map_err(de::Error::custom);
        }
        let bytes: serde_bytes::ByteBuf = serde_bytes::deserialize(from)?;
        Self::decode(&bytes).map_err(de::Error::custom)
    }
}

/// Writes a value as bytes of another encoding, in formats that are not human-readable.
fn write<T: Serialize, S: Serializer, E: std::fmt::Display>(
    value: &T,
    to: S,
    encode: impl FnOnce(&T) -> Result<Vec<u8>, E>,
) -> Result<S::Ok, S::Error> {
    if to.is_human_readable() {
        return value.serialize(to);
    }
    let bytes = encode(value).map_err(ser::Error::custom)?;
    serde_bytes::serialize(&bytes, to)
}

/// Reads what [`write()`] wrote.
fn read<'de, T: Deserialize<'de>, D: Deserializer<'de>, E: std::fmt::Display>(
    from: D,
    decode: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Result<T, D::Error> {
    if from.is_human_readable() {
        return T::deserialize(from);
    }
    let bytes: serde_bytes::ByteBuf = serde_bytes::deserialize(from)?;
    decode(&bytes).map_err(de::Error::custom)
}

/// Encodes a field of a record as MessagePack with named fields.
pub(crate) mod named {
    use super::{Deserializer, Serialize, Serializer, read, unpacked, write};
    use serde::de::DeserializeOwned;

    pub fn serialize<T: Serialize, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        write(value, to, rmp_serde::to_vec_named)
    }

    pub fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        read(from, unpacked)
    }
}

/// Encodes fields with content or many hashes as postcard, so that a hash takes 32 bytes.
pub(super) mod packed {
    use super::{Deserializer, Serialize, Serializer, read, write};
    use serde::de::DeserializeOwned;

    pub fn serialize<T: Serialize, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        write(value, to, postcard::to_stdvec)
    }

    pub fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        read(from, |bytes| match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err("bytes follow a list of files".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{CriticalRule, Group, Input, Qos};
    use crate::{Data, FileEntry, Hash};

    fn spec() -> JobSpec {
        let file = FileEntry {
            path: "in".into(),
            executable: true,
            data: Data::Blob {
                hash: Hash([0xff; 32]),
                size: 300,
            },
        };
        let group = Group {
            array: Some((0, 3)),
            stdin: Some(Data::Inline([0xff; 9].into())),
            inputs: vec![Input::File(0)],
            ..Group::program("a", &["true"])
        };
        JobSpec::new(Draft {
            name: "t".into(),
            qos: Qos::default(),
            critical: CriticalRule::default(),
            files: vec![file],
            groups: vec![group],
            outline: false,
        })
        .unwrap()
    }

    #[test]
    fn a_specification_survives_and_its_length_is_known() {
        let spec = spec();
        let bytes = spec.encode().unwrap();
        assert_eq!(JobSpec::decode(&bytes), Ok(spec.clone()));
        assert_eq!(bytes.len(), spec.encoded_bytes());
        let within = postcard::to_stdvec(&(&spec, 7)).unwrap();
        assert_eq!(postcard::from_bytes(&within), Ok((spec.clone(), 7)));
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<JobSpec>(&text).unwrap(), spec);
    }

    #[test]
    fn a_field_that_is_not_known_or_missing_is_refused() {
        for text in [
            r#"{"name": "t", "groups": [], "later": 1}"#,
            r#"{"name": "t"}"#,
        ] {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            let bytes = rmp_serde::to_vec_named(&value).unwrap();
            let refused = JobSpec::decode(&bytes).unwrap_err().to_string();
            assert!(refused.contains("field"), "{refused}");
        }
        let mut long = spec().encode().unwrap();
        long.push(0);
        assert!(JobSpec::decode(&long).is_err());
        assert!(JobSpec::decode(&long[..9]).is_err());
    }

    #[test]
    fn what_has_its_default_takes_no_bytes() {
        let bytes = spec().encoded_bytes();
        assert!(bytes < 200, "{bytes}");
    }
}
