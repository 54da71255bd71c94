//! Reading single files of a job's results part by part, without writing them to a place of the user's.

use super::inputs::InUse;
use super::results::Results;
use super::{Client, Grid, local};
use crate::ClientError;
use bytes::Bytes;
use hedge_model::{Data, Hash};
use hedge_net::DataStore;

/// A file of a job's results whose content is on this machine.
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
    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The content from a position on, verified: at least a byte unless the position is at the end, at most 1 MiB.
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
    /// Fetches the content of the first file with this hash among results; none where no file has it.
    ///
    /// # Errors
    /// Nobody delivers the content, or it cannot be kept.
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
                let (store, _) = self.content_tools().await?;
                OpenContent::Stored {
                    store: store.clone(),
                    hash: *hash,
                    _in_use: in_use,
                }
            }
        };
        Ok(Some(OpenFile { content, size }))
    }

    /// Keeps a blob in this client's own store from now on; the store of a supervisor in this process keeps what it
    /// needs by itself.
    pub(super) async fn use_blob(&self, hash: Hash) -> Result<Option<InUse>, ClientError> {
        match &self.0.grid {
            Grid::Here(..) => Ok(None),
            Grid::Remote(remote) => {
                let content = remote.content().await?;
                Ok(Some(InUse::new(content, vec![hash])))
            }
        }
    }
}
