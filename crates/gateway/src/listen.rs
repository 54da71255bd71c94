//! Where the gateway listens: a socket that its owner alone may open, or an address on the loopback interface.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, UnixListener};

/// The address at which the gateway listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At a Unix socket of this path.
    Socket(PathBuf),
    /// At an address on the loopback interface.
    Loopback(SocketAddr),
}

/// Why the gateway cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address can be reached from other machines.
    #[error(
        "{0} can be reached from other machines, and the gateway has no encryption; nothing was started: use an address \
         like 127.0.0.1:7780, and ssh from elsewhere"
    )]
    NotLoopback(SocketAddr),
    /// Another gateway listens there.
    #[error(
        "another gateway listens at {}; nothing was started: use that one, or give this one another path with --socket",
        .0.display()
    )]
    InUse(PathBuf),
    /// Something that is no socket has the path.
    #[error("{} exists and is no socket; nothing was started: remove it, or name another path", .0.display())]
    NoSocket(PathBuf),
    /// The system refuses.
    #[error("cannot listen at {at}: {error}; nothing was started")]
    System {
        /// Where.
        at: String,
        /// Why not.
        error: io::Error,
    },
}

/// An open socket.
#[derive(Debug)]
pub enum Listener {
    /// A Unix socket, which is removed with the listener.
    Socket(
        UnixListener,
        #[expect(dead_code, reason = "the socket's file is removed with it")] SocketFile,
    ),
    /// A TCP socket.
    Loopback(TcpListener),
}

/// The file of a socket. It is removed when this is dropped, unless another gateway has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = |about: fs::Metadata| about.ino() == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(same) {
            // If the file stays, the next gateway finds that nobody listens and replaces it.
            _ = fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Opens the socket.
    ///
    /// # Errors
    /// Another process has it, or the system refuses.
    pub async fn open(listen: &Listen) -> Result<Self, ListenError> {
        match listen {
            Listen::Socket(path) => socket(path),
            Listen::Loopback(address) if !address.ip().is_loopback() => {
                Err(ListenError::NotLoopback(*address))
            }
            Listen::Loopback(address) => {
                let opened = TcpListener::bind(address).await;
                opened
                    .map(Self::Loopback)
                    .map_err(|error| ListenError::System {
                        at: address.to_string(),
                        error,
                    })
            }
        }
    }
}

/// Binds the socket in a folder that no other user may enter, and moves it to its place once it is private, so that no
/// other user can ever open it.
fn socket(path: &Path) -> Result<Listener, ListenError> {
    let failed = |error| ListenError::System {
        at: path.display().to_string(),
        error,
    };
    match fs::symlink_metadata(path) {
        Ok(about) => {
            use std::os::unix::fs::FileTypeExt;
            if !about.file_type().is_socket() {
                return Err(ListenError::NoSocket(path.to_owned()));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(ListenError::InUse(path.to_owned()));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let open = || {
        let private = tempfile::Builder::new().prefix(".g").tempdir_in(parent)?;
        let made = private.path().join("s");
        let listener = UnixListener::bind(&made)?;
        fs::set_permissions(&made, Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(&made)?.ino();
        fs::rename(&made, path)?;
        Ok::<_, io::Error>((listener, inode))
    };
    let (listener, inode) = open().map_err(failed)?;
    let path = path.to_owned();
    Ok(Listener::Socket(listener, SocketFile { path, inode }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_private_taken_once_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listen = Listen::Socket(path.clone());
        let first = Listener::open(&listen).await.unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let second = Listener::open(&listen).await;
        assert!(matches!(second, Err(ListenError::InUse(_))));
        drop(first);
        assert!(!path.exists());
        // What a killed gateway left is replaced.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        Listener::open(&listen).await.unwrap();
        fs::write(&path, "").unwrap();
        let file = Listener::open(&listen).await;
        assert!(matches!(file, Err(ListenError::NoSocket(_))));
    }

    #[tokio::test]
    async fn other_machines_cannot_reach_it() {
        for address in ["0.0.0.0:0", "192.0.2.1:80", "[::]:0"] {
            let listen = Listen::Loopback(address.parse().unwrap());
            let opened = Listener::open(&listen).await;
            assert!(
                matches!(opened, Err(ListenError::NotLoopback(_))),
                "{address}"
            );
        }
    }
}
