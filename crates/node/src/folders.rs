//! Directories of peers: one for each role below the state directory.

use crate::NodeError;
use hedge_model::msg::Role;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// The directories of one user's peers on this machine.
#[derive(Clone, Debug)]
pub struct Folders {
    root: PathBuf,
}

impl Folders {
    /// Uses `dir`, or the XDG state directory (`~/.local/state/hedgerow`).
    pub fn new(dir: Option<PathBuf>) -> Result<Self, NodeError> {
        let state = || {
            let home =
                || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
            let xdg = std::env::var_os("XDG_STATE_HOME")
                .map(PathBuf::from)
                .filter(|path| path.is_absolute());
            xdg.or_else(home).map(|path| path.join("hedgerow"))
        };
        let root = dir.or_else(state);
        let root = root.ok_or_else(|| {
            NodeError::Other("no folder for state: set HOME, or use --dir".into())
        })?;
        Ok(Self { root })
    }

    /// The supervisor's directory.
    pub fn supervisor(&self) -> PathBuf {
        self.root.join("supervisor")
    }

    /// The directory of a standby supervisor in a worker's process.
    pub fn standby(&self) -> PathBuf {
        self.root.join("standby")
    }

    /// The worker's directory.
    pub fn worker(&self) -> PathBuf {
        self.root.join("worker")
    }

    /// The relay's directory.
    pub fn relay(&self) -> PathBuf {
        self.root.join("relay")
    }

    /// The gateway's directory.
    pub fn gateway(&self) -> PathBuf {
        self.root.join("gateway")
    }

    /// The directory of a client in this role. An administrator is a separate member, so that a ticket for clients
    /// gives its holder exactly the rights of a client.
    pub fn client(&self, role: Role) -> PathBuf {
        self.root.join(match role {
            Role::Admin => "admin",
            _ => "client",
        })
    }

    /// The ticket with which clients on this machine find its supervisor.
    pub fn client_ticket(&self) -> PathBuf {
        self.supervisor().join("client.ticket")
    }

    /// The ticket with which workers on this machine find its supervisor.
    pub fn worker_ticket(&self) -> PathBuf {
        self.supervisor().join("worker.ticket")
    }
}

/// Creates a directory that only its owner may enter.
pub(crate) fn make_private(path: &Path) -> Result<(), NodeError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|source| NodeError::io("make the folder", path, source))
}

/// Keeps other processes out of a peer's directory until it is dropped.
#[derive(Debug)]
pub(crate) struct FolderLock(
    #[expect(dead_code, reason = "the system ends the lock with it")] File,
);

/// Creates a directory that only its owner may enter, and locks it for this process.
pub(crate) fn occupy(dir: &Path) -> Result<FolderLock, NodeError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    make_private(dir)?;
    let path = dir.join("lock");
    let io = |source| NodeError::io("lock", &path, source);
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let mut file = opened.map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = std::fs::read_to_string(&path).unwrap_or_default();
            let by = match pid.trim().parse::<u32>() {
                Ok(pid) => format!("another hedge process, {pid}"),
                Err(_) => "another hedge process".to_owned(),
            };
            let dir = dir.to_owned();
            return Err(NodeError::InUse { dir, by });
        }
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    let written = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(io)?;
    Ok(FolderLock(file))
}

/// Writes a file that only its owner may read, atomically.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), NodeError> {
    use std::io::Write;
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = tempfile::NamedTempFile::new_in(folder)
        .and_then(|mut file| file.write_all(text.as_bytes()).map(|()| file))
        .and_then(|file| file.persist(path).map_err(|error| error.error));
    written
        .map(drop)
        .map_err(|source| NodeError::io("write", path, source))
}

/// Opens a file that only its owner may read, for appending.
pub(crate) fn private_file(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}
