//! Files that were uploaded for jobs to come: kept by their hash until they have not been used for a while.

use crate::parts::Frames;
use crate::problem::{Kind, Problem};
use hedge_model::Hash;
use hedge_model::units::show_bytes;
use hedge_node::Temporary;
use hedge_node::client::{Digest, InputFiles};
use hyper::StatusCode;
use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest file, bytes: what a disk of a usual machine has free.
pub const FILE_BYTES_MAX: u64 = 256 << 30;
/// Files that are kept at a time: each costs an entry in memory and one on the disk.
const FILES_MAX: usize = 100_000;
/// A file that no submission used for so long is removed.
const KEPT_FOR: Duration = Duration::from_hours(1);
/// Space that stays free on the disk.
const ROOM_KEPT_BYTES: u64 = 1 << 30;
/// Bytes of a file that are read at once.
const PART_BYTES: u64 = 1 << 20;

/// Uploaded files.
#[derive(Debug)]
pub struct Uploads {
    folder: Temporary,
    /// What submissions without files find them in.
    empty: PathBuf,
    known: Mutex<HashMap<Hash, Upload>>,
}

/// A folder with the files of a submission. One of its own is removed with this.
#[derive(Debug)]
pub enum SubmittedFiles {
    /// There are none.
    Empty(PathBuf),
    /// The folder is for them alone.
    Own(TempDir),
}

impl SubmittedFiles {
    /// Where they are.
    pub fn path(&self) -> &Path {
        match self {
            Self::Empty(path) => path,
            Self::Own(folder) => folder.path(),
        }
    }
}

#[derive(Clone, Debug)]
struct Upload {
    bytes: u64,
    used: Instant,
    /// What the client needs to serve it, once a submission had it read.
    digest: Option<Digest>,
}

/// A file of a submission: under which name it lies beside the job file.
#[derive(Clone, Debug)]
pub struct Named {
    /// Relative path.
    pub path: String,
    /// Its content.
    pub content: FileContent,
    /// Whether it may be run.
    pub executable: bool,
}

/// The content of a file of a submission.
#[derive(Clone, Debug)]
pub enum FileContent {
    /// It was uploaded before.
    Uploaded(Hash),
    /// It comes with the submission.
    Here(Vec<u8>),
}

impl Uploads {
    /// Keeps files in a folder for temporary files.
    ///
    /// # Errors
    /// Nothing can be written there.
    pub fn open() -> io::Result<Self> {
        let folder = Temporary::private("hedge-gateway-")?;
        let empty = folder.path().join("empty");
        fs::create_dir(&empty)?;
        Ok(Self {
            folder,
            empty,
            known: Mutex::default(),
        })
    }

    /// Length of a file in bytes, if it is here.
    pub fn size(&self, hash: Hash) -> Option<u64> {
        let mut known = self.lock();
        let upload = known.get_mut(&hash)?;
        upload.used = Instant::now();
        Some(upload.bytes)
    }

    /// Takes a file in; gives its length, and whether it is new.
    ///
    /// # Errors
    /// The content has another hash, is too long or breaks off, or the disk is full. Nothing is kept then.
    pub async fn add(&self, hash: Hash, frames: Frames) -> Result<(u64, bool), Problem> {
        if let Some(bytes) = self.size(hash) {
            return Ok((bytes, false));
        }
        let (_, bytes) = self.receive(frames, Some(hash)).await?;
        Ok((bytes, true))
    }

    /// Takes a file in whose hash the client does not know; gives that and its length.
    ///
    /// # Errors
    /// As for [`Uploads::add`].
    pub async fn add_unnamed(&self, frames: Frames) -> Result<(Hash, u64), Problem> {
        self.receive(frames, None).await
    }

    async fn receive(
        &self,
        mut frames: Frames,
        expected: Option<Hash>,
    ) -> Result<(Hash, u64), Problem> {
        self.remove_old();
        if self.lock().len() >= FILES_MAX {
            let why = format!(
                "{FILES_MAX} uploaded files are kept at most; nothing was kept: submit what uses them first"
            );
            return Err(Problem::busy(why));
        }
        let broken = |error: io::Error| {
            Problem::local(format!(
                "the file cannot be written: {error}; nothing was kept"
            ))
        };
        let file = tempfile::NamedTempFile::new_in(self.folder.path()).map_err(broken)?;
        let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
        while let Some(part) = frames.next().await? {
            self.check_room(part.len() as u64)?;
            hasher.update(&part);
            // A copy into the page cache; the disk is not waited for.
            file.as_file().write_all(&part).map_err(broken)?;
            bytes += part.len() as u64;
        }
        let hash = Hash(*hasher.finalize().as_bytes());
        if let Some(expected) = expected.filter(|expected| *expected != hash) {
            let why = format!(
                "the content has the BLAKE3 hash {hash}, and not {expected}; nothing was kept"
            );
            return Err(Problem::bad(why));
        }
        file.persist(self.path(hash))
            .map_err(|error| broken(error.error))?;
        let used = Instant::now();
        let upload = Upload {
            bytes,
            used,
            digest: None,
        };
        self.lock().insert(hash, upload);
        Ok((hash, bytes))
    }

    /// The digests that are known of the files of a submission, by name: these need not be read again.
    pub fn digests(&self, files: &[Named]) -> HashMap<PathBuf, Digest> {
        let known = self.lock();
        let each = files.iter().filter_map(|file| {
            let FileContent::Uploaded(hash) = file.content else {
                return None;
            };
            let digest = known.get(&hash)?.digest.clone()?;
            Some((PathBuf::from(&file.path), digest))
        });
        each.collect()
    }

    /// Notes the digests of uploaded files that a submission had read.
    pub fn learn(&self, inputs: &InputFiles) {
        let mut known = self.lock();
        for digest in inputs.digests() {
            if let Some(upload) = known.get_mut(&digest.hash) {
                upload.digest.get_or_insert_with(|| digest.clone());
            }
        }
    }

    /// A part of a file, from a position on.
    ///
    /// # Errors
    /// It is not here any more, or the disk fails.
    pub fn read(&self, hash: Hash, from: u64) -> io::Result<Vec<u8>> {
        let file = File::open(self.path(hash))?;
        let left = file.metadata()?.len().saturating_sub(from);
        let mut bytes = vec![0; left.min(PART_BYTES) as usize];
        file.read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    }

    /// A folder in which these files lie under their names.
    ///
    /// # Errors
    /// One of them was not uploaded, or a name is wrong.
    pub fn folder(&self, files: &[Named]) -> Result<SubmittedFiles, Problem> {
        if files.is_empty() {
            return Ok(SubmittedFiles::Empty(self.empty.clone()));
        }
        let failed = |error: io::Error| {
            Problem::local(format!(
                "the files of the submission cannot be put together: {error}; nothing was submitted"
            ))
        };
        let folder = tempfile::Builder::new()
            .prefix("job-")
            .tempdir_in(self.folder.path())
            .map_err(failed)?;
        for file in files {
            hedge_model::spec::check_path(&file.path).map_err(|why| {
                Problem::bad(format!(
                    "the file name {:?} {why}; nothing was submitted",
                    file.path
                ))
            })?;
            if let FileContent::Uploaded(hash) = file.content
                && self.size(hash).is_none()
            {
                return Err(Problem::new(
                    StatusCode::CONFLICT,
                    Kind::Unknown,
                    format!(
                        "the content {hash} of {:?} is not here; nothing was submitted: upload it with PUT \
                         /v1/blobs/{hash} first, and submit again",
                        file.path
                    ),
                ));
            }
            let target = folder.path().join(&file.path);
            self.put(file, &target)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                        Problem::bad(format!(
                            "two files of the submission lie at {:?}; nothing was submitted",
                            file.path
                        ))
                    }
                    _ => failed(error),
                })?;
        }
        Ok(SubmittedFiles::Own(folder))
    }

    fn put(&self, file: &Named, target: &Path) -> io::Result<()> {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let copy = match &file.content {
            FileContent::Uploaded(hash) if !file.executable => {
                return fs::hard_link(self.path(*hash), target);
            }
            // Its mode is its own.
            FileContent::Uploaded(hash) => {
                let mut copy = File::create_new(target)?;
                io::copy(&mut File::open(self.path(*hash))?, &mut copy)?;
                copy
            }
            FileContent::Here(bytes) => {
                let mut copy = File::create_new(target)?;
                copy.write_all(bytes)?;
                copy
            }
        };
        if file.executable {
            copy.set_permissions(Permissions::from_mode(0o700))?;
        }
        Ok(())
    }

    fn check_room(&self, bytes: u64) -> Result<(), Problem> {
        // Where the system does not say, writing will.
        let Ok(disk) = rustix::fs::statvfs(self.folder.path()) else {
            return Ok(());
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free >= bytes.saturating_add(ROOM_KEPT_BYTES) {
            return Ok(());
        }
        let why = format!(
            "the disk of {}, which TMPDIR decides, has {} free, of which {} stay free; nothing was kept",
            self.folder.path().display(),
            show_bytes(free),
            show_bytes(ROOM_KEPT_BYTES)
        );
        Err(Problem::new(
            StatusCode::INSUFFICIENT_STORAGE,
            Kind::Local,
            why,
        ))
    }

    fn remove_old(&self) {
        let now = Instant::now();
        let mut known = self.lock();
        let old = known.extract_if(|_, upload| now.duration_since(upload.used) >= KEPT_FOR);
        for (hash, _) in old {
            // A file that stays is removed with the folder.
            _ = fs::remove_file(self.path(hash));
        }
    }

    fn path(&self, hash: Hash) -> PathBuf {
        self.folder.path().join(hash.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Hash, Upload>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
