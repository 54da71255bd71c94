//! One request to a source, and what comes back.

use super::super::digest::Proof;
use super::super::possession::{Challenge, TAG_BYTES};
use super::super::wire::{ANSWER_DATA, Request, Wanted};
use super::super::{Grant, Refusal};
use super::{Failure, STALL, SourceFailure, TURN};
use bytes::Bytes;
use hedge_model::Hash;
use iroh::endpoint::{Connection, ReadError, RecvStream};
use std::fmt;
use tokio::time::timeout;

/// A source's answer: watches its progress and the lengths that it claims.
#[derive(Debug)]
pub(super) struct Incoming {
    recv: RecvStream,
    /// The answer's first byte, until it was looked at.
    first: Option<u8>,
    /// Received so far.
    pub bytes: u64,
}

impl Incoming {
    /// Sends a request and waits until the answer begins.
    pub async fn open(
        connection: &Connection,
        wanted: Wanted,
        challenge: Option<Challenge>,
        grant: Option<&Grant>,
    ) -> Result<Incoming, Failure> {
        let grant = grant.cloned();
        let request = Request {
            wanted,
            challenge,
            grant,
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
