//! Has a peer prove that it holds blobs of the own store, and reads a peer's blob without storing it.

use super::super::digest::GROUP_BYTES;
use super::super::possession::{Challenge, Tagger};
use super::super::wire::Wanted;
use super::batch::{Batch, batches_of};
use super::transfer::{Incoming, Tcp};
use super::{AbortOnDrop, Failure, FetchError, Fetcher, SMALL_MAX, SourceFailure};
use bytes::Bytes;
use futures_util::StreamExt;
use hedge_model::{Hash, PeerAddr};
use iroh::endpoint::Connection;

impl Fetcher {
    /// Has a peer prove that it holds blobs that the own store holds too, given with their lengths. Both read them; what
    /// travels is 32 bytes for each MiB. Returns an error for each blob that is not proven: the peer does not hold it, or
    /// cannot be reached, or it cannot be read here.
    pub async fn prove(&self, holder: &PeerAddr, blobs: &[(Hash, u64)]) -> Vec<FetchError> {
        let started = batches_of(blobs).into_iter().map(|batch| {
            let (fetcher, holder, blobs) = (self.clone(), holder.clone(), batch.clone());
            let task = self.0.runtime.spawn(async move {
                let mut batch = Batch::new(blobs);
                match fetcher.prove_batch(&holder, &mut batch).await {
                    Ok(()) => {}
                    Err(Failure::Source(failure)) => batch.fail_left(holder.peer, &failure),
                    Err(Failure::Local(why)) => return batch.fail_here(&why).failed,
                }
                batch.into_fetched().failed
            });
            async move {
                let mut task = AbortOnDrop(task);
                let ended = (&mut task.0).await;
                ended.unwrap_or_else(|error| {
                    let why = format!("the proof ended early: {error}");
                    Batch::new(batch).fail_here(&why).failed
                })
            }
        });
        let mut running = futures_util::stream::iter(started).buffer_unordered(SMALL_MAX);
        let mut failed = Vec::new();
        while let Some(more) = running.next().await {
            failed.extend(more);
        }
        failed
    }

    async fn prove_batch(&self, holder: &PeerAddr, batch: &mut Batch) -> Result<(), Failure> {
        let no_challenge = || Failure::Local("the system gives no random bytes".to_owned());
        let challenge = Challenge::draw().ok_or_else(no_challenge)?;
        let tagger = Tagger::new(challenge, self.0.net.peer());
        let used = self.open_for(holder, 0).await?;
        let first = self
            .prove_over(&used.0, holder, batch, challenge, &tagger)
            .await;
        match self.open_again(holder, &used, &first).await? {
            Some(new) => {
                self.prove_over(&new, holder, batch, challenge, &tagger)
                    .await
            }
            None => first,
        }
    }

    async fn prove_over(
        &self,
        connection: &Connection,
        holder: &PeerAddr,
        batch: &mut Batch,
        challenge: Challenge,
        tagger: &Tagger,
    ) -> Result<(), Failure> {
        if let [(hash, size)] = batch.left[..]
            && size > GROUP_BYTES as u64
        {
            self.prove_large(connection, (hash, size), challenge, tagger)
                .await?;
            batch.left.clear();
            return Ok(());
        }
        self.prove_small(connection, holder, batch, challenge, tagger)
            .await
    }

    async fn prove_small(
        &self,
        connection: &Connection,
        holder: &PeerAddr,
        batch: &mut Batch,
        challenge: Challenge,
        tagger: &Tagger,
    ) -> Result<(), Failure> {
        let blobs = batch.left.clone();
        let hashes: Vec<Hash> = blobs.iter().map(|(hash, _)| *hash).collect();
        let wanted = Wanted::Small(hashes.clone());
        let mut incoming =
            Incoming::open(connection, wanted, Some(challenge), Tcp::None, None).await?;
        let mut own = self.0.store.read_some(hashes, usize::MAX).await.into_iter();
        for (hash, size) in blobs {
            let local = |error: crate::NetError| Failure::Local(error.to_string());
            let own = own.next().transpose().map_err(local)?;
            let own = own.ok_or_else(|| Failure::Local("it is not held".to_owned()))?;
            match incoming.begin(size).await? {
                Err(refusal) => batch.refuse(hash, holder.peer, SourceFailure::Refused(refusal)),
                Ok(()) if incoming.tag().await? == tagger.tag(0, &own) => {
                    batch.left.retain(|(other, _)| *other != hash);
                }
                Ok(()) => batch.refuse(hash, holder.peer, SourceFailure::Unverified),
            }
        }
        Ok(())
    }

    async fn prove_large(
        &self,
        connection: &Connection,
        (hash, size): (Hash, u64),
        challenge: Challenge,
        tagger: &Tagger,
    ) -> Result<(), Failure> {
        let local = |error: crate::NetError| Failure::Local(error.to_string());
        let wanted = Wanted::Large { hash, group: 0 };
        let mut incoming =
            Incoming::open(connection, wanted, Some(challenge), Tcp::None, None).await?;
        if let Err(refusal) = incoming.begin(size).await? {
            return Err(SourceFailure::Refused(refusal).into());
        }
        let proof = self.0.store.proof(hash).await.map_err(local)?;
        for group in 0..proof.count() {
            let bytes = self.0.store.read_group(hash, &proof, group).await;
            let expected = tagger.tag(group, &bytes.map_err(local)?);
            if incoming.tag().await? != expected {
                return Err(SourceFailure::Unverified.into());
            }
        }
        Ok(())
    }

    /// A blob of one peer, verified and not stored, whatever the own store holds. It is held in memory: the caller bounds
    /// its length.
    pub async fn read(
        &self,
        hash: Hash,
        size: u64,
        source: &PeerAddr,
    ) -> Result<Bytes, FetchError> {
        let read = async {
            let used = self.open_for(source, size).await?;
            let first = read_over(&used.0, hash, size).await;
            match self.open_again(source, &used, &first).await? {
                Some(new) => read_over(&new, hash, size).await,
                None => first,
            }
        };
        read.await.map_err(|failure| match failure {
            Failure::Local(why) => FetchError::Local { hash, why },
            Failure::Source(failure) => {
                let failures = vec![(source.peer, failure)];
                FetchError::Sources { hash, failures }
            }
        })
    }
}

async fn read_over(connection: &Connection, hash: Hash, size: u64) -> Result<Bytes, Failure> {
    if size <= GROUP_BYTES as u64 {
        let wanted = Wanted::Small(vec![hash]);
        let mut incoming = Incoming::open(connection, wanted, None, Tcp::None, None).await?;
        let bytes = incoming.blob(size).await?.map_err(SourceFailure::Refused)?;
        return match *blake3::hash(&bytes).as_bytes() == hash.0 {
            true => Ok(bytes),
            false => Err(SourceFailure::Unverified.into()),
        };
    }
    let wanted = Wanted::Large { hash, group: 0 };
    let mut incoming = Incoming::open(connection, wanted, None, Tcp::None, None).await?;
    let proof = incoming.proof(hash, size).await?;
    let mut all = Vec::new();
    for group in 0..proof.count() {
        let bytes = incoming.bytes(proof.group_len(group)).await?;
        if !proof.fits(group, &bytes) {
            return Err(SourceFailure::Unverified.into());
        }
        all.extend_from_slice(&bytes);
    }
    Ok(all.into())
}
