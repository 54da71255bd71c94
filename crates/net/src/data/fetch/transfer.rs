//! One request to a source, and what comes back.

use super::super::digest::Proof;
use super::super::possession::{Challenge, TAG_BYTES};
use super::super::sealed::{Expected, Offer, Sealed, Way};
use super::super::wire::{ANSWER_DATA, Request, Wanted};
use super::super::{Grant, Refusal};
use super::{Failure, STALL, SourceFailure, TURN};
use bytes::Bytes;
use hedge_model::Hash;
use iroh::endpoint::{Connection, ReadError, RecvStream};
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

/// How long the reason may take to come for which a source breaks off.
const REASON_WITHIN: Duration = Duration::from_secs(1);

/// TCP beside a request.
#[derive(Default)]
pub(super) enum Tcp {
    /// None.
    #[default]
    None,
    /// It was offered, with this stream if the source is to connect it.
    Offered(Option<Expected>),
    /// The groups come over it.
    Open(Box<Sealed>),
}

/// A source's answer: watches its progress and the lengths that it claims.
pub(super) struct Incoming {
    recv: RecvStream,
    /// The answer's first byte, until it was looked at.
    first: Option<u8>,
    /// How the groups of a large blob come, where it is not over QUIC.
    tcp: Tcp,
    /// Received so far.
    pub bytes: u64,
}

impl Incoming {
    /// Sends a request and waits until the answer begins.
    pub async fn open(
        connection: &Connection,
        wanted: Wanted,
        challenge: Option<Challenge>,
        tcp: Tcp,
        grant: Option<&Grant>,
    ) -> Result<Incoming, Failure> {
        let offer = match &tcp {
            Tcp::Offered(Some(expected)) => Some(Offer::Listens {
                port: expected.port,
                nonce: expected.nonce,
            }),
            Tcp::Offered(None) => Some(Offer::Connects),
            Tcp::None | Tcp::Open(_) => None,
        };
        let request = Request {
            wanted,
            challenge,
            tcp: offer,
            grant: grant.cloned(),
        };
        let request = request
            .encode()
            .ok_or_else(|| Failure::Local("the grant names too many hashes".to_owned()))?;
        let broken = |error: &dyn fmt::Display| SourceFailure::Broken(error.to_string());
        let opening = async {
            let (mut send, mut recv) = connection.open_bi().await.map_err(|e| broken(&e))?;
            send.write_all(&request).await.map_err(|e| broken(&e))?;
            send.finish().map_err(|e| broken(&e))?;
            let mut answer = [0];
            match recv.read(&mut answer).await.map_err(read_failure)? {
                Some(_) => Ok(Incoming {
                    recv,
                    first: Some(answer[0]),
                    tcp,
                    bytes: 0,
                }),
                None => Err(broken(&"it ended without an answer")),
            }
        };
        let stalled = Err(SourceFailure::Stalled(TURN));
        Ok(timeout(TURN, opening).await.unwrap_or(stalled)?)
    }

    /// The next small blob, or why it is refused.
    pub async fn blob(&mut self, size: u64) -> Result<Result<Bytes, Refusal>, SourceFailure> {
        match self.begin(size).await? {
            Ok(()) => Ok(Ok(self.bytes(size as usize).await?.into())),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Takes the head of the next blob's answer, or why the blob is refused.
    pub async fn begin(&mut self, size: u64) -> Result<Result<(), Refusal>, SourceFailure> {
        let code = match self.first.take() {
            Some(code) => code,
            None => self.bytes(1).await?[0],
        };
        if code != ANSWER_DATA {
            return Ok(Err(Refusal::from_code(code)));
        }
        self.size(size).await?;
        Ok(Ok(()))
    }

    /// The tag of the next group.
    pub async fn tag(&mut self) -> Result<[u8; TAG_BYTES], SourceFailure> {
        let bytes = self.bytes(TAG_BYTES).await?;
        Ok(bytes.first_chunk().copied().unwrap_or_default())
    }

    /// The proof with which a large blob begins.
    pub async fn proof(&mut self, hash: Hash, size: u64) -> Result<Proof, SourceFailure> {
        if let Some(code) = self.first.take().filter(|code| *code != ANSWER_DATA) {
            return Err(SourceFailure::Refused(Refusal::from_code(code)));
        }
        self.size(size).await?;
        let encoded = self.bytes(Proof::encoded_bytes(size) as usize).await?;
        Proof::decode(&encoded, hash, size).ok_or(SourceFailure::Unverified)
    }

    /// Opens the way on which the groups come, after the proof. Returns whether it is the one that was offered.
    pub async fn open_way(&mut self, connection: &Connection) -> Result<bool, SourceFailure> {
        let Tcp::Offered(expected) = std::mem::take(&mut self.tcp) else {
            return Ok(true);
        };
        let way = self.bytes(Way::BYTES).await?;
        let open = match (Way::decode(&way), expected) {
            (Some(Way::Quic), _) => return Ok(false),
            (Some(Way::Connected), Some(expected)) => expected.stream(connection).await,
            (Some(Way::Listens { port, nonce }), None) => {
                Sealed::connect(connection, port, nonce).await.ok()
            }
            _ => return Err(SourceFailure::Unverified),
        };
        self.tcp = Tcp::Open(Box::new(open.ok_or(SourceFailure::NoTcp)?));
        Ok(true)
    }

    /// The next group of a large blob.
    pub async fn group(&mut self, count: usize) -> Result<Vec<u8>, SourceFailure> {
        let Tcp::Open(stream) = &mut self.tcp else {
            return self.bytes(count).await;
        };
        let failed = match stream.receive(count, STALL).await {
            Ok(bytes) => {
                self.bytes += bytes.len() as u64;
                return Ok(bytes);
            }
            Err(failed) => failed,
        };
        // A source that breaks off says why over QUIC.
        match timeout(REASON_WITHIN, self.recv.read(&mut [0])).await {
            Ok(Err(error @ ReadError::Reset(_))) => Err(read_failure(error)),
            _ => Err(failed),
        }
    }

    /// So many bytes.
    pub async fn bytes(&mut self, count: usize) -> Result<Vec<u8>, SourceFailure> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match timeout(STALL, self.recv.read(&mut bytes[filled..])).await {
                Ok(Ok(Some(more))) => filled += more,
                Ok(Ok(None)) => {
                    return Err(SourceFailure::Broken("it ended too soon".to_owned()));
                }
                Ok(Err(error)) => return Err(read_failure(error)),
                Err(_) => return Err(SourceFailure::Stalled(STALL)),
            }
        }
        self.bytes += filled as u64;
        Ok(bytes)
    }

    async fn size(&mut self, expected: u64) -> Result<(), SourceFailure> {
        let bytes = self.bytes(8).await?;
        let found = bytes.first_chunk().copied().map_or(0, u64::from_le_bytes);
        match found == expected {
            true => Ok(()),
            false => Err(SourceFailure::WrongSize { expected, found }),
        }
    }
}

fn read_failure(error: ReadError) -> SourceFailure {
    match error {
        ReadError::Reset(code) => {
            let code = u8::try_from(code.into_inner()).unwrap_or(u8::MAX);
            SourceFailure::Refused(Refusal::from_code(code))
        }
        other => SourceFailure::Broken(other.to_string()),
    }
}
