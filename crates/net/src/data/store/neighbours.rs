//! Blobs handed over between the stores of one user on one machine, as open files instead of bytes over a connection.
//!
//! A store serves its neighbours at a socket in a folder that is common to them, which only their user may enter. A
//! request is a hash; the answer is one byte, and with [`HELD`] the open file. The asking store gives a sealed file a
//! second name where it can, and copies any other; it trusts neither, as with what comes over the network.

use super::{DataStore, Held, Inner};
use hedge_model::Hash;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::fs::{self, DirBuilder, File};
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

const HELD: u8 = 1;
const NOT_HELD: u8 = 0;
/// Requests of neighbours at a time. Each has one file open.
const SERVED_MAX: usize = 16;
/// How long either side waits for the other. Both only open a file.
const PATIENCE: Duration = Duration::from_secs(2);
/// Neighbours that are asked for one blob.
const NEIGHBOURS_MAX: usize = 256;

impl DataStore {
    /// Serves the stores that joined the same folder, which is made where it is missing, and takes large blobs from
    /// them. Where the socket cannot be made, as its path may have 107 bytes, blobs come over the network as ever.
    pub fn join_neighbours(&self, folder: &Path) {
        let own = blake3::hash(self.0.folder.root().as_os_str().as_encoded_bytes());
        let socket = folder.join(&own.to_hex()[..8]);
        match listen(folder, &socket) {
            Ok(listener) => {
                tokio::spawn(serve(listener, Arc::downgrade(&self.0)));
                // A store has one place, so that a second call finds it set.
                _ = self.0.neighbours.set(socket);
            }
            Err(error) => tracing::debug!(%error, "blobs are exchanged with no neighbour"),
        }
    }

    /// Takes a blob from the first neighbour that has it. False where none has, or what it has is not the blob.
    pub(in super::super) async fn take_from_neighbours(&self, hash: Hash, size: u64) -> bool {
        let Some(own) = self.0.neighbours.get().cloned() else {
            return false;
        };
        let taken = self.blocking(move |store| {
            for socket in others(&own)? {
                if let Ok(Some(file)) = ask(&socket, hash)
                    && store.adopt(&file, hash, size)?
                {
                    return Ok(true);
                }
            }
            Ok(false)
        });
        taken.await.unwrap_or_else(|error| {
            tracing::debug!(%hash, %error, "no neighbour hands the blob over");
            false
        })
    }

    /// Keeps the file of a neighbour; false where it is not the blob. A second name of a sealed file is verified before
    /// a task gets it or it is served, like any file that a process finds when it starts.
    fn adopt(&self, file: &File, hash: Hash, size: u64) -> io::Result<bool> {
        if file.metadata()?.len() != size {
            return Ok(false);
        }
        if let Some(second) = self.0.folder.link_in(file)? {
            let mut catalog = self.catalog();
            self.0.folder.install(second, hash)?;
            catalog.insert(hash, Held::unchecked(size));
            return Ok(true);
        }
        let (copy, digest) = self.0.folder.copy(file, &mut Vec::new())?;
        if digest.hash != hash {
            return Ok(false);
        }
        self.install(Some(copy), &digest)?;
        Ok(true)
    }
}

/// A socket in a folder that only this user may enter.
fn listen(folder: &Path, socket: &Path) -> io::Result<UnixListener> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    // What an earlier process of this store left.
    _ = fs::remove_file(socket);
    UnixListener::bind(socket)
}

/// The sockets beside a store's own.
fn others(own: &Path) -> io::Result<impl Iterator<Item = PathBuf>> {
    let folder = own.parent().ok_or(io::ErrorKind::NotFound)?;
    let all = fs::read_dir(folder)?.take(NEIGHBOURS_MAX).flatten();
    let all = all.map(|entry| entry.path());
    Ok(all.filter(move |socket| socket != own))
}

async fn serve(listener: UnixListener, store: Weak<Inner>) {
    let room = Arc::new(Semaphore::new(SERVED_MAX));
    while let Ok(place) = room.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PATIENCE).await;
            continue;
        };
        let Some(store) = store.upgrade().map(DataStore) else {
            return;
        };
        tokio::spawn(async move {
            _ = tokio::time::timeout(PATIENCE, answer(stream, store)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: tokio::net::UnixStream, store: DataStore) -> io::Result<()> {
    if stream.peer_cred()?.uid() != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let mut hash = [0; 32];
    stream.read_exact(&mut hash).await?;
    let file = store
        .blocking(move |store| File::open(store.path(Hash(hash))?))
        .await;
    let give = || give(&stream, file.as_ref().ok());
    stream.async_io(Interest::WRITABLE, give).await
}

fn give(stream: &tokio::net::UnixStream, file: Option<&File>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files = file.map(AsFd::as_fd);
    let files = files.as_slice();
    let held = !files.is_empty() && ancillary.push(SendAncillaryMessage::ScmRights(files));
    let byte = [if held { HELD } else { NOT_HELD }];
    sendmsg(
        stream,
        &[IoSlice::new(&byte)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Asks a neighbour for the file of a blob. Blocks, for [`PATIENCE`] at most.
fn ask(socket: &Path, hash: Hash) -> io::Result<Option<File>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&hash.0)?;
    let mut byte = [NOT_HELD];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut byte)];
    recvmsg(&stream, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut files = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    Ok(files.next().filter(|_| byte == [HELD]).map(File::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    async fn store(peers: &Path, name: &str) -> DataStore {
        let store = DataStore::open(&peers.join(name)).await.unwrap();
        store.join_neighbours(&peers.join("neighbours"));
        store
    }

    fn large(seed: u32) -> Vec<u8> {
        let byte = |i: u32| (i.wrapping_mul(seed) >> 11) as u8;
        (0..3 << 20).map(byte).collect()
    }

    #[tokio::test]
    async fn a_blob_of_a_neighbour_gets_a_second_name_and_outlives_the_first() {
        let peers = tempfile::tempdir().unwrap();
        let (one, other) = (
            store(peers.path(), "one").await,
            store(peers.path(), "other").await,
        );
        let bytes = large(2_654_435_761);
        let hash = one.add_bytes(bytes.clone()).await.unwrap();
        let size = bytes.len() as u64;
        assert!(!other.has(hash));
        assert!(other.take_from_neighbours(hash, size).await);
        let inode = |store: &DataStore| fs::metadata(store.path(hash).unwrap()).unwrap().ino();
        assert_eq!(inode(&one), inode(&other));
        one.forget([hash]).await.unwrap();
        assert_eq!(other.read(hash, bytes.len()).await.unwrap(), bytes);
    }

    #[tokio::test]
    async fn a_file_outside_a_neighbours_store_is_copied_if_it_is_still_the_blob() {
        let peers = tempfile::tempdir().unwrap();
        let (one, other) = (
            store(peers.path(), "one").await,
            store(peers.path(), "other").await,
        );
        let file = peers.path().join("input");
        let bytes = large(40_503);
        fs::write(&file, &bytes).unwrap();
        let (hash, size) = one.add_file_by_reference(&file).await.unwrap();
        fs::write(&file, large(7)).unwrap();
        assert!(!other.take_from_neighbours(hash, size).await);
        assert!(!other.has(hash));
        fs::write(&file, &bytes).unwrap();
        assert!(other.take_from_neighbours(hash, size).await);
        fs::write(&file, b"changed later").unwrap();
        assert_eq!(other.read(hash, bytes.len()).await.unwrap(), bytes);
    }

    #[tokio::test]
    async fn a_blob_that_no_neighbour_has_is_left_to_the_network() {
        let peers = tempfile::tempdir().unwrap();
        let one = store(peers.path(), "one").await;
        // What a peer that was killed left.
        let dead = peers.path().join("neighbours/dead");
        drop(std::os::unix::net::UnixListener::bind(dead).unwrap());
        assert!(!one.take_from_neighbours(Hash([3; 32]), 2 << 20).await);
    }

    #[tokio::test]
    async fn results_that_two_stores_have_leave_as_copies() {
        let peers = tempfile::tempdir().unwrap();
        let (one, other) = (
            store(peers.path(), "one").await,
            store(peers.path(), "other").await,
        );
        let bytes = large(69_069);
        let hash = one.add_bytes(bytes.clone()).await.unwrap();
        assert!(other.take_from_neighbours(hash, bytes.len() as u64).await);
        let target = peers.path().join("result");
        other.move_out(hash, &target, false).await.unwrap();
        fs::write(&target, b"mine").unwrap();
        assert_eq!(one.read(hash, bytes.len()).await.unwrap(), bytes);
    }
}
