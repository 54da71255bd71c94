//! What the worker and its spawner say to each other: postcard behind a 32-bit length.
//!
//! Both ends are the same program, so there is no version; the limit keeps a mistake from becoming an
//! allocation.

use crate::{Advanced, Exit, Launch, Permissions, Priority, Report};
use hedge_model::Ending;
use hedge_model::msg::{Offsets, Pieces};
use hedge_model::spec::Network;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Largest frame, bytes: arguments and environment (the kernel's own limit is about 2 MiB), or the tails
/// of both streams.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;

/// The first frame, from the worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// The slot's folder, which holds `work` and `tmp`; before [`Setup::for_slot`] that of all slots.
    pub folder: PathBuf,
    /// The slot's number.
    pub slot: u32,
    /// Most processes and threads of an attempt.
    pub processes_max: u64,
    /// Most memory of an attempt that asks for none in particular, bytes.
    pub memory_max: Option<u64>,
    /// What of the disk is to stay free, bytes.
    pub disk_reserve: u64,
    pub sandbox: bool,
    /// What the slot's attempts may use.
    pub permissions: Permissions,
    /// The most network that they get.
    pub network: Network,
    pub priority: Priority,
    pub read_only: Vec<PathBuf>,
    pub env: Vec<(String, String)>,
    pub worker: u32,
}

impl Setup {
    /// For the spawner of one slot, whose attempts have these permissions.
    pub(crate) fn for_slot(&self, slot: u32, permissions: Permissions) -> Setup {
        let asked = permissions.network.unwrap_or(self.network);
        Setup {
            folder: self.folder.join(crate::scratch::slot_name(slot)),
            slot,
            network: asked.min(self.network),
            permissions,
            ..self.clone()
        }
    }

    /// Whether attempts may use TCP: that of the machine, or over a loopback interface of their own, `own`, where they
    /// ask for it.
    pub(crate) fn has_tcp(&self, own: bool) -> bool {
        let asked = self.permissions.network >= Some(Network::Loopback);
        self.shares_network() || own && asked
    }

    /// Whether attempts share the machine's network.
    pub(crate) fn shares_network(&self) -> bool {
        self.network == Network::Any
    }
}

/// From the worker, after the setup.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Launch {
        id: u64,
        /// Whether the worker has put something into the folders.
        filled: bool,
        launch: Box<Launch>,
    },
    /// Ends the attempt; its report then says this ending, unless it had ended before.
    End { id: u64, ending: Ending },
    /// Has the attempt end by itself: it gets SIGTERM, and is ended when the grace period is over. Its report then says
    /// [`Ending::Vacated`], whatever its exit status.
    Stop { id: u64, grace: Duration },
    /// Stops all attempts where they are, or lets them go on.
    Pause(bool),
    /// Gives all attempts idle priority, or, from the next on, that of the setup again.
    Lower(bool),
    /// Looks at the progress of attempts this often, and tells of what changed.
    LookEvery(Duration),
    /// Says what an attempt has printed.
    Read {
        id: u64,
        /// Repeated by the answer.
        reading: u64,
        from: Offsets,
    },
}

/// From the spawner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Ready(Report),
    Refused {
        why: String,
    },
    /// The attempt is over: nothing of it will run again. `gone` where all its processes are.
    Exited {
        id: u64,
        gone: bool,
        exit: Exit,
    },
    /// All processes of an attempt that was over before are gone now.
    Gone {
        id: u64,
    },
    /// All attempts are stopped, or go on.
    Paused(bool),
    /// What an attempt uses, if that has changed much; for limits of all attempts together, and of its folders.
    Uses {
        id: u64,
        /// Memory, bytes.
        memory: u64,
        /// Space of files without a name that its processes have open, bytes.
        unlinked: u64,
    },
    /// An attempt ran although it was stopped; it was stopped again.
    Awake {
        id: u64,
        /// How often that was so during this pause.
        times: u32,
    },
    /// How far an attempt is now.
    Advanced {
        id: u64,
        to: Advanced,
    },
    /// What an attempt has printed; none where it does not run.
    Printed {
        reading: u64,
        pieces: Option<Pieces>,
    },
}

/// A frame that cannot be right: the other end is not what it should be.
#[derive(Debug)]
pub(crate) struct BadFrame(pub String);

/// Appends one frame. Refuses what the other end would refuse, and then leaves `out` as it was.
pub(crate) fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), BadFrame> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    if let Err(error) = postcard::to_io(value, &mut *out) {
        out.truncate(start);
        return Err(BadFrame(error.to_string()));
    }
    let length = out.len() - start - 4;
    if length > FRAME_BYTES_MAX {
        out.truncate(start);
        return Err(BadFrame(format!(
            "a frame of {length} bytes, more than {FRAME_BYTES_MAX}"
        )));
    }
    out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(())
}

/// Takes one whole frame off the front of `buffer` at `*at`, if it is all there.
pub(crate) fn decode<T: DeserializeOwned>(
    buffer: &[u8],
    at: &mut usize,
) -> Result<Option<T>, BadFrame> {
    let Some(head) = buffer.get(*at..*at + 4) else {
        return Ok(None);
    };
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(BadFrame(format!(
            "a frame of {length} bytes, more than {FRAME_BYTES_MAX}"
        )));
    }
    let Some(body) = buffer.get(*at + 4..*at + 4 + length) else {
        return Ok(None);
    };
    let value = postcard::from_bytes(body).map_err(|error| BadFrame(error.to_string()))?;
    *at += 4 + length;
    Ok(Some(value))
}

/// Byte vectors as one piece: serde's own way takes them byte by byte.
pub(crate) mod bytes {
    use serde::de::{Error, SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let request = Request::Launch {
            id: 7,
            filled: true,
            launch: Box::new(Launch {
                stdin: crate::Stdin::Placed,
                ..Launch::new("sh", ["-c", "exit 0"])
            }),
        };
        let mut out = Vec::new();
        encode(&request, &mut out).unwrap();
        for cut in 0..out.len() {
            let mut at = 0;
            assert!(decode::<Request>(&out[..cut], &mut at).unwrap().is_none());
            assert_eq!(at, 0);
        }
        let mut at = 0;
        let back: Request = decode(&out, &mut at).unwrap().unwrap();
        assert_eq!(format!("{back:?}"), format!("{request:?}"));
        assert_eq!(at, out.len());
    }

    #[test]
    fn an_oversized_frame_is_refused_by_its_head() {
        let head = (u32::MAX).to_le_bytes();
        assert!(decode::<Request>(&head, &mut 0).is_err());
    }
}
