//! A peer's secret key, kept in its folder.

use crate::NetError;
use hedge_model::PeerId;
pub use iroh::SecretKey;
use iroh::{EndpointId, PublicKey};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const FILE_NAME: &str = "identity";

/// The ed25519 key in `dir/identity`, made at random where there is none.
///
/// The file is readable by its owner alone and appears whole or not at all; two processes that start
/// together get the same key. Every error names the path.
pub fn load_or_create_identity(dir: &Path) -> Result<SecretKey, NetError> {
    let path = dir.join(FILE_NAME);
    match load(&path) {
        Err(NetError::IdentityFile { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        loaded => return loaded,
    }
    match create(dir, &path) {
        Ok(()) => {}
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => {
            return Err(NetError::IdentityFile {
                what: "make",
                path,
                source,
            });
        }
    }
    load(&path)
}

/// The id under which others know the holder of this key.
pub fn peer_id(key: &SecretKey) -> PeerId {
    PeerId(*key.public().as_bytes())
}

/// The public key that a peer id is; an error where the bytes are no key.
pub fn public_key(peer: PeerId) -> Result<EndpointId, NetError> {
    PublicKey::from_bytes(&peer.0).map_err(|_| NetError::BadPeer { peer })
}

fn load(path: &Path) -> Result<SecretKey, NetError> {
    let failed = |source| NetError::IdentityFile {
        what: "read",
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
        return Err(NetError::IdentityExposed {
            path: path.to_owned(),
        });
    }
    let mut text = String::new();
    match file.take(100).read_to_string(&mut text) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => text.clear(),
        read => _ = read.map_err(failed)?,
    }
    let bytes = data_encoding::HEXLOWER.decode(text.trim().as_bytes()).ok();
    match bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
        Some(bytes) => Ok(SecretKey::from_bytes(&bytes)),
        None => Err(NetError::IdentityDamaged {
            path: path.to_owned(),
        }),
    }
}

fn create(dir: &Path, path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| io::Error::other(e.to_string()))?;
    let temporary = dir.join(format!("{FILE_NAME}.{}", std::process::id()));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = writeln!(file, "{}", data_encoding::HEXLOWER.encode(&seed))
        .and_then(|()| file.sync_all())
        // A link, unlike a rename, never replaces the key that another process has just made.
        .and_then(|()| fs::hard_link(&temporary, path));
    fs::remove_file(&temporary)?;
    written?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("a/b");
        let key = load_or_create_identity(&home).unwrap();
        assert_eq!(
            peer_id(&load_or_create_identity(&home).unwrap()),
            peer_id(&key)
        );
        let path = home.join(FILE_NAME);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
        assert_eq!(public_key(peer_id(&key)).unwrap(), key.public());

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            load_or_create_identity(&home),
            Err(NetError::IdentityExposed { .. })
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"\xff\xfe nonsense").unwrap();
        let error = load_or_create_identity(&home).unwrap_err();
        assert!(matches!(error, NetError::IdentityDamaged { .. }));
        assert!(error.to_string().contains(path.to_str().unwrap()));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let error = load_or_create_identity(&dir.path().join("file/x")).unwrap_err();
        assert!(error.to_string().contains("file/x/identity"), "{error}");
    }
}
