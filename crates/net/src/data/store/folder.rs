//! The store's folder: one sealed file for each blob.
//!
//! | path | content |
//! |---|---|
//! | `blobs/XX/HASH` | a blob; XX are the hash's first two digits |
//! | `programs/XX/HASH` | a second file of a blob that a task needs executable, where tasks get links |
//! | `proofs/XX/HASH` | the proof of a large blob |
//! | `arriving/HASH` | the verified beginning of a large blob |
//! | `retired/HASH` | a blob that was given up a short while ago |
//! | `temp/N` | a file that is being written |
//!
//! A file gets its name in `blobs` once its content was hashed, by a rename. What a process that was killed left in
//! `arriving`, `retired` and `temp` is removed when the folder is opened.

use super::super::digest::{Digest, LONG_BYTES, Proof};
use hedge_model::Hash;
use rustix::fs::{AtFlags, FlockOperation, Mode, RenameFlags};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Owns sealed files where the process is root: no task runs as this user, so that none may write to a file, or change
/// its mode, through a link.
const SEAL_UID: u32 = 0x7fff_4ed6;
const MODE_SEALED: u32 = 0o444;
const MODE_PROGRAM: u32 = 0o555;

#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    temp: AtomicU64,
    /// Sealed files belong to [`SEAL_UID`].
    links: bool,
    /// Cleared once the file system refused to clone a file.
    clones: AtomicBool,
    /// One process at a time uses the folder.
    lock: File,
}

impl Folder {
    pub(super) fn open(root: &Path) -> io::Result<Folder> {
        DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        let root = std::path::absolute(root)?;
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(root.join("store.lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another process uses it"))?;
        for name in ["arriving", "retired", "temp"] {
            match fs::remove_dir_all(root.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        for name in ["arriving", "retired", "temp", "blobs", "programs", "proofs"] {
            DirBuilder::new().recursive(true).create(root.join(name))?;
        }
        let mut folder = Folder {
            root,
            temp: AtomicU64::new(0),
            links: false,
            clones: AtomicBool::new(true),
            lock,
        };
        folder.links = folder.can_seal()?;
        Ok(folder)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn unlock(&self) {
        _ = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }

    /// Whether sealed files are safe to be linked into the folders of tasks that have no privileges.
    pub(super) const fn links(&self) -> bool {
        self.links
    }

    pub(super) fn blob(&self, hash: Hash) -> PathBuf {
        self.path("blobs", hash)
    }

    pub(super) fn arriving(&self, hash: Hash) -> PathBuf {
        self.root.join("arriving").join(hash.to_string())
    }

    /// Blobs in the folder with their lengths. Empty files other than the empty blob are what a loss of power left.
    pub(super) fn list(&self) -> io::Result<Vec<(Hash, u64)>> {
        let mut found = Vec::new();
        let empty = *blake3::hash(b"").as_bytes();
        for shard in fs::read_dir(self.root.join("blobs"))? {
            for entry in fs::read_dir(shard?.path())? {
                let entry = entry?;
                let name = entry.file_name();
                let hash = name.to_str().and_then(|name| name.parse::<Hash>().ok());
                let Some(hash) = hash else { continue };
                match entry.metadata()?.len() {
                    0 if hash.0 != empty => self.remove(hash),
                    size => found.push((hash, size)),
                }
            }
        }
        Ok(found)
    }

    /// A new file that only this process writes to.
    pub(super) fn temp(&self) -> io::Result<(File, Temp)> {
        self.temp_with(0o600)
    }

    fn temp_path(&self) -> PathBuf {
        let number = self.temp.fetch_add(1, Ordering::Relaxed);
        self.root.join("temp").join(number.to_string())
    }

    fn temp_with(&self, mode: u32) -> io::Result<(File, Temp)> {
        let path = self.temp_path();
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)?;
        Ok((file, Temp(Some(path))))
    }

    /// Writes these bytes, whose hash the caller has verified, to a sealed file without a name in `blobs` yet.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<Temp> {
        let (mut file, temp) = self.temp()?;
        file.write_all(bytes)?;
        self.seal(&file, false)?;
        Ok(temp)
    }

    /// Copies and hashes a file.
    pub(super) fn copy(&self, from: &File, buffer: &mut Vec<u8>) -> io::Result<(Temp, Digest)> {
        let (mut file, temp) = self.temp()?;
        let digest = if from.metadata()?.len() < LONG_BYTES {
            Digest::of(from, buffer, |piece| file.write_all(piece))?
        } else {
            // A clone where that can be done, and then all processors hash what is here.
            self.copy_into(from, &file)?;
            Digest::of_open(&file, buffer)?
        };
        self.seal(&file, false)?;
        Ok((temp, digest))
    }

    /// Moves a file here and hashes it; none, and it stays where it is, if it lies on another file system, has several
    /// names, or is open for writing.
    pub(super) fn take(
        &self,
        path: &Path,
        file: &File,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Option<(Temp, Digest)>> {
        let about = file.metadata()?;
        let to = self.temp_path();
        if about.nlink() > 1 || fs::rename(path, &to).is_err() {
            return Ok(None);
        }
        // What was opened may be another file, which a link at the path led to.
        let same = fs::symlink_metadata(&to)
            .is_ok_and(|moved| (moved.dev(), moved.ino()) == (about.dev(), about.ino()));
        if !same || is_written(file) || self.seal(file, false).is_err() {
            fs::rename(&to, path)?;
            return Ok(None);
        }
        let temp = Temp(Some(to));
        let digest = Digest::of_open(file, buffer)?;
        Ok(Some((temp, digest)))
    }

    /// Gives a sealed file of another store a second name here. None where it is not sealed as files are here, or lies on
    /// another file system.
    pub(super) fn link_in(&self, file: &File) -> io::Result<Option<Temp>> {
        let about = file.metadata()?;
        let owner = match self.links {
            true => SEAL_UID,
            false => rustix::process::geteuid().as_raw(),
        };
        if about.uid() != owner || about.mode() & 0o777 != MODE_SEALED {
            return Ok(None);
        }
        let path = self.temp_path();
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        let here = rustix::fs::CWD;
        let linked = rustix::fs::linkat(here, &open, here, &path, AtFlags::SYMLINK_FOLLOW);
        Ok(linked.is_ok().then_some(Temp(Some(path))))
    }

    pub(super) fn seal(&self, file: &File, program: bool) -> io::Result<()> {
        let mode = if program { MODE_PROGRAM } else { MODE_SEALED };
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
        if self.links {
            let owner = rustix::fs::Uid::from_raw(SEAL_UID);
            rustix::fs::fchown(file, Some(owner), None)?;
        }
        Ok(())
    }

    /// Gives a sealed file its name.
    pub(super) fn install(&self, mut temp: Temp, hash: Hash) -> io::Result<()> {
        let Some(from) = temp.0.take() else {
            return Ok(());
        };
        let moved = rename(&from, &self.blob(hash));
        if moved.is_err() {
            drop(Temp(Some(from)));
        }
        moved
    }

    /// Takes the beginning of a blob that has become complete for the blob.
    pub(super) fn install_arrived(&self, hash: Hash) -> io::Result<()> {
        let path = self.arriving(hash);
        self.seal(&File::open(&path)?, false)?;
        rename(&path, &self.blob(hash))
    }

    pub(super) fn keep_proof(&self, hash: Hash, proof: &Proof) -> io::Result<()> {
        let (mut file, mut temp) = self.temp()?;
        file.write_all(&proof.encode())?;
        match temp.0.take() {
            Some(from) => rename(&from, &self.path("proofs", hash)),
            None => Ok(()),
        }
    }

    /// The proof of a large blob, where there is a sound one.
    pub(super) fn proof(&self, hash: Hash, size: u64) -> Option<Proof> {
        let bytes = fs::read(self.path("proofs", hash)).ok()?;
        Proof::decode(&bytes, hash, size)
    }

    pub(super) fn remove(&self, hash: Hash) {
        for kind in ["blobs", "programs", "proofs"] {
            match fs::remove_file(self.path(kind, hash)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%hash, %error, "a file of the blob store was not removed");
                }
                _ => {}
            }
        }
    }

    /// Moves a blob away, where it can be had back; false where it is not there.
    pub(super) fn retire(&self, hash: Hash) -> bool {
        let moved = fs::rename(self.blob(hash), self.retired(hash)).is_ok();
        self.remove(hash);
        moved
    }

    pub(super) fn revive(&self, hash: Hash) -> bool {
        rename(&self.retired(hash), &self.blob(hash)).is_ok()
    }

    pub(super) fn remove_retired(&self, hash: Hash) {
        _ = fs::remove_file(self.retired(hash));
    }

    fn retired(&self, hash: Hash) -> PathBuf {
        self.root.join("retired").join(hash.to_string())
    }

    /// Links a sealed file to `target`, which must not exist. False where a copy has to do.
    pub(super) fn link(&self, hash: Hash, target: &Path, program: bool) -> io::Result<bool> {
        let from = if program {
            let path = self.path("programs", hash);
            let sealed = fs::metadata(&path).is_ok_and(|about| about.uid() == SEAL_UID);
            if !sealed {
                let (file, mut temp) = self.temp()?;
                self.copy_into(&File::open(self.blob(hash))?, &file)?;
                self.seal(&file, true)?;
                if let Some(from) = temp.0.take() {
                    rename(&from, &path)?;
                }
            }
            path
        } else {
            let path = self.blob(hash);
            // What was stored before this process was root is another user's.
            if fs::metadata(&path)?.uid() != SEAL_UID {
                return Ok(false);
            }
            path
        };
        match fs::hard_link(&from, target) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // Too many links, or another file system.
            Err(_) => Ok(false),
        }
    }

    /// Moves a sealed file to `target`, which must not exist, and makes it this user's own. False where a copy has to
    /// do.
    pub(super) fn move_out(&self, hash: Hash, target: &Path, mode: u32) -> io::Result<bool> {
        let here = rustix::fs::CWD;
        let from = self.blob(hash);
        // Another store has the same file.
        if fs::metadata(&from)?.nlink() > 1 {
            return Ok(false);
        }
        let moved = rustix::fs::renameat_with(here, &from, here, target, RenameFlags::NOREPLACE);
        match moved {
            Ok(()) => {}
            Err(error @ rustix::io::Errno::EXIST) => return Err(error.into()),
            Err(_) => return Ok(false),
        }
        let file = File::open(target)?;
        if self.links {
            rustix::fs::fchown(&file, Some(rustix::process::geteuid()), None)?;
        }
        // As if it had been made there.
        let mode = self.temp_with(mode)?.0.metadata()?.mode();
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777))?;
        self.remove(hash);
        Ok(true)
    }

    /// Copies all bytes: a clone that shares them until one side is written to, where the file system can do that.
    pub(super) fn copy_into(&self, mut from: &File, mut to: &File) -> io::Result<()> {
        if self.clones.load(Ordering::Relaxed) {
            match rustix::fs::ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                // Of two file systems only this pair is refused.
                Err(rustix::io::Errno::XDEV) => {}
                Err(_) => self.clones.store(false, Ordering::Relaxed),
            }
        }
        io::copy(&mut from, &mut to).map(drop)
    }

    /// Writes all that was stored so far to the disk: a few blobs alone, many with all of the file system at once.
    pub(super) fn sync(&self, hashes: &[Hash]) -> io::Result<()> {
        const ALONE_MAX: usize = 4;
        if hashes.len() > ALONE_MAX {
            return Ok(rustix::fs::syncfs(File::open(&self.root)?)?);
        }
        for hash in hashes {
            let path = self.blob(*hash);
            match File::open(&path) {
                Ok(file) => file.sync_all()?,
                // Kept by reference, or forgotten again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            let shard = path.parent().unwrap_or(&self.root);
            File::open(shard)?.sync_all()?;
            File::open(self.root.join("blobs"))?.sync_all()?;
        }
        Ok(())
    }

    fn path(&self, kind: &str, hash: Hash) -> PathBuf {
        let name = hash.to_string();
        let mut path = self.root.join(kind);
        path.push(&name[..2]);
        path.push(name);
        path
    }

    fn can_seal(&self) -> io::Result<bool> {
        if !rustix::process::geteuid().is_root() {
            return Ok(false);
        }
        let (file, _temp) = self.temp()?;
        let owner = rustix::fs::Uid::from_raw(SEAL_UID);
        Ok(rustix::fs::fchown(&file, Some(owner), None).is_ok())
    }
}

/// A file that is removed unless it gets its name.
#[derive(Debug)]
pub(super) struct Temp(Option<PathBuf>);

impl Drop for Temp {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            _ = fs::remove_file(path);
        }
    }
}

/// Whether a process may write to an open file: the system grants no read lease then. Nobody else must be able to open it,
/// as the lease would be broken by a signal to this process.
fn is_written(file: &File) -> bool {
    let lease = |kind: libc::c_int| {
        // SAFETY: the descriptor is open, and the call takes no memory.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) == 0 }
    };
    let written = !lease(libc::F_RDLCK);
    lease(libc::F_UNLCK);
    written
}

/// Renames a file, and makes the folder above its new name where it is missing.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(to.parent().unwrap_or(to))?;
            fs::rename(from, to)
        }
        other => other,
    }
}
