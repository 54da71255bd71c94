//! Reads single result files part by part, without writing them to a place of the user's.

use super::inputs::InUse;
use super::results::Results;
use super::{Client, Grid, local};
use crate::ClientError;
use bytes::Bytes;
use hedge_model::{Data, Hash};
use hedge_net::DataStore;

/// A result file whose content is on this machine.
#[derive(Debug)]
pub struct OpenFile {
    content: OpenContent,
    size: u64,
}

#[derive(Debug)]
enum OpenContent {
    Inline(Bytes),
    Stored {
        store: DataStore,
        hash: Hash,
        /// Keeps the blob in the store.
        _in_use: Option<InUse>,
    },
}

impl OpenFile {
    /// Returns the length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns verified content from a position on: at least a byte unless the position is at the end, at most 1 MiB.
    ///
    /// # Errors
    /// The disk failed or changed the content.
    pub async fn read(&self, from: u64) -> Result<Bytes, ClientError> {
        match &self.content {
            OpenContent::Inline(bytes) => {
                let from = from.min(bytes.len() as u64) as usize;
                Ok(bytes.slice(from..))
            }
            OpenContent::Stored { store, hash, .. } => {
                store.read_from(*hash, from).await.map_err(local)
            }
        }
    }
}

impl Client {
    /// Fetches the content of the first result file with this hash; none if no file has it.
    ///
    /// # Errors
    /// No source delivers the content, or it cannot be stored.
    pub async fn open_file(
        &self,
        results: &Results,
        hash: Hash,
    ) -> Result<Option<OpenFile>, ClientError> {
        let Some((file, access, again)) = results.find(hash) else {
            return Ok(None);
        };
        let size = file.file.data.size();
        let content = match &file.file.data {
            Data::Inline(bytes) => OpenContent::Inline(Bytes::copy_from_slice(bytes)),
            Data::Blob { hash, size } => {
                let in_use = self.use_blob(*hash).await?;
                self.bring(*hash, *size, access, again).await?;
                let (store, _) = self.blob_tools().await?;
                OpenContent::Stored {
                    store: store.clone(),
                    hash: *hash,
                    _in_use: in_use,
                }
            }
        };
        Ok(Some(OpenFile { content, size }))
    }

    /// Keeps a blob in this client's store from now on. The store of a supervisor in this process keeps what it needs
    /// by itself.
    pub(super) async fn use_blob(&self, hash: Hash) -> Result<Option<InUse>, ClientError> {
        match &self.0.grid {
            Grid::Here(..) => Ok(None),
            Grid::Remote(remote) => {
                let blobs = remote.blobs().await?;
                Ok(Some(InUse::new(blobs, vec![hash])))
            }
        }
    }
}
