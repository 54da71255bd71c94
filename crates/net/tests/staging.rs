//! Many small blobs on their way: how many requests and writes to the disk they take, and who may change what.

mod common;

use common::peer::*;
use hedge_model::Hash;
use hedge_net::{
    DataStore, Digest, FetchError, Grant, PlaceMode, Placement, SecretKey, SourceFailure,
};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const FILES: usize = 5_000;

fn grant(leader: &SecretKey, reader: &Peer, blobs: &[(Hash, u64)]) -> Grant {
    let hashes = blobs.iter().map(|(hash, _)| *hash).take(4096).collect();
    Grant::sign(leader, reader.net.peer(), hashes, 1, soon())
}

/// Has a peer serve files from where they lie.
fn offer(holder: &Peer, paths: &[PathBuf]) -> Vec<(Hash, u64)> {
    let hashed: Vec<Digest> = Digest::of_files(paths)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let blobs = hashed.iter().map(|it| (it.hash, it.size)).collect();
    let named = paths.iter().cloned().zip(hashed).collect();
    holder.store.add_references(named).unwrap();
    blobs
}

/// Files of different content and lengths.
fn files(folder: &Path, count: usize) -> Vec<PathBuf> {
    fs::create_dir_all(folder).unwrap();
    let write = |number: usize| {
        let path = folder.join(number.to_string());
        fs::write(&path, format!("{number} ").repeat(1 + number % 300)).unwrap();
        path
    };
    (0..count).map(write).collect()
}

fn place(hash: Hash, target: PathBuf, executable: bool, way: PlaceMode) -> Placement {
    Placement {
        hash,
        target,
        executable,
        way,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_files_take_a_few_requests_and_one_write_to_the_disk() {
    let (leader, [holder, reader]) = grid().await;
    let paths = files(&holder.dir.path().join("in"), FILES);
    let blobs = offer(&holder, &paths);

    for part in blobs.chunks(4096) {
        let grant = grant(&leader, &reader, part);
        assert_eq!(reader.fetch_all(part, &holder, &grant).await.len(), 0);
    }
    assert!(
        holder.server.requests() <= 12,
        "{}",
        holder.server.requests()
    );
    reader
        .store
        .persist(blobs.iter().map(|(hash, _)| *hash).collect())
        .await
        .unwrap();
    assert_eq!(reader.store.syncs(), 1);

    let out = reader.dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let targets = paths.iter().map(|path| out.join(path.file_name().unwrap()));
    let placements = blobs.iter().zip(targets);
    let placements =
        placements.map(|((hash, _), target)| place(*hash, target, false, PlaceMode::Copy));
    reader.store.place(placements.collect()).await.unwrap();
    for path in &paths {
        let copy = out.join(path.file_name().unwrap());
        assert_eq!(fs::read(path).unwrap(), fs::read(copy).unwrap());
    }

    // What is held already is not asked for again, and a new blob alone is.
    let before = holder.served();
    let new = holder.store.add_bytes(vec![7; 1000]).await.unwrap();
    let mut more = blobs[..100].to_vec();
    more.push((new, 1000));
    let grant = grant(&leader, &reader, &more);
    assert_eq!(reader.fetch_all(&more, &holder, &grant).await.len(), 0);
    let served = holder.served() - before;
    assert_eq!(served, 1009);

    // Nor is what was given up just now.
    let hashes: Vec<Hash> = blobs.iter().map(|(hash, _)| *hash).collect();
    reader.store.forget(hashes.clone()).await.unwrap();
    assert!(hashes.iter().all(|hash| !reader.store.has(*hash)));
    let requests = holder.server.requests();
    assert_eq!(reader.fetch_all(&blobs, &holder, &grant).await.len(), 0);
    assert_eq!(holder.server.requests(), requests);
    let found = reader.store.read(blobs[7].0, 1 << 20).await.unwrap();
    assert_eq!(found, fs::read(&paths[7]).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_want_the_same_blobs_transfer_them_once() {
    let (leader, [holder, reader]) = grid().await;
    let paths = files(&holder.dir.path().join("in"), 1000);
    let mut blobs = holder.store.add_files(paths, |_| ()).await.unwrap();
    let large = vec![9; 5 << 20];
    blobs.push((holder.store.add_bytes(large).await.unwrap(), 5 << 20));
    let grant = grant(&leader, &reader, &blobs);
    let reversed: Vec<(Hash, u64)> = blobs.iter().rev().copied().collect();
    let (first, second) = tokio::join!(
        reader.fetch_all(&blobs, &holder, &grant),
        reader.fetch_all(&reversed, &holder, &grant)
    );
    assert_eq!((first.len(), second.len()), (0, 0));
    let bytes: u64 = blobs.iter().map(|(_, size)| size + 9).sum();
    assert_eq!(holder.served(), bytes + 5 * 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_since_it_was_hashed_fails_alone() {
    let (leader, [holder, reader]) = grid().await;
    let mut paths = files(&holder.dir.path().join("in"), 50);
    let large = holder.dir.path().join("large");
    fs::write(&large, vec![1; 3 << 20]).unwrap();
    paths.push(large.clone());
    let blobs = offer(&holder, &paths);
    fs::write(&paths[17], "another content").unwrap();
    let mut changed = vec![1; 3 << 20];
    changed[2 << 20] = 2;
    fs::write(&large, changed).unwrap();

    let grant = grant(&leader, &reader, &blobs);
    let failed = reader.fetch_all(&blobs, &holder, &grant).await;
    let mut hashes: Vec<Hash> = failed.iter().map(FetchError::hash).collect();
    hashes.sort();
    let mut expected = vec![blobs[17].0, blobs[50].0];
    expected.sort();
    assert_eq!(hashes, expected);
    let refused = SourceFailure::Refused(hedge_net::Refusal::Damaged);
    for error in failed {
        let FetchError::Sources { failures, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(failures, [(holder.net.peer(), refused.clone())]);
    }
    assert_eq!(reader.store.list().len(), 49);
    assert!(!holder.store.has(blobs[17].0) && !holder.store.has(blobs[50].0));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_files_of_another_user_and_copies_are_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = DataStore::open(&dir.path().join("data")).await.unwrap();
    assert_eq!(store.links(), rustix::process::geteuid().is_root());
    let hash = store.add_bytes(vec![3; 70_000]).await.unwrap();
    for (name, executable, way) in [
        ("a", false, PlaceMode::Link),
        ("b", true, PlaceMode::Link),
        ("c", true, PlaceMode::Link),
        ("d", false, PlaceMode::Copy),
        ("e", true, PlaceMode::Copy),
    ] {
        let target = dir.path().join(name);
        let placement = place(hash, target.clone(), executable, way);
        store.place(vec![placement.clone()]).await.unwrap();
        let about = fs::metadata(&target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), vec![3; 70_000]);
        assert_eq!(about.mode() & 0o111 != 0, executable);
        let is_link = way == PlaceMode::Link && store.links();
        assert_eq!(about.nlink() > 1, is_link, "{name}");
        assert_eq!(about.permissions().readonly(), is_link, "{name}");
        assert_eq!(about.uid() != rustix::process::geteuid().as_raw(), is_link);
        assert!(store.place(vec![placement]).await.is_err());
        fs::remove_file(&target).unwrap();
    }
    assert_eq!(store.read(hash, 1 << 20).await.unwrap(), vec![3; 70_000]);
    // A file that was written to in the folder is never handed out.
    let path = stored(&dir.path().join("data"), hash);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, vec![4; 70_000]).unwrap();
    let target = dir.path().join("f");
    let changed = SystemTime::now() - std::time::Duration::from_secs(5);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(changed)
        .unwrap();
    let placed = store
        .place(vec![place(hash, target.clone(), false, PlaceMode::Link)])
        .await;
    assert!(matches!(placed, Err(hedge_net::NetError::Damaged(it)) if it == hash));
    assert!(!target.exists() && !store.has(hash));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_moved_out_leaves_the_store_and_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = DataStore::open(&dir.path().join("data")).await.unwrap();
    for size in [0, 1000, 3 << 20] {
        let hash = store.add_bytes(vec![5; size]).await.unwrap();
        let target = dir.path().join(format!("out-{size}"));
        fs::write(&target, "mine").unwrap();
        let placement = place(hash, target.clone(), true, PlaceMode::Move);
        assert!(store.place(vec![placement.clone()]).await.is_err());
        assert_eq!(fs::read(&target).unwrap(), b"mine");
        assert!(store.has(hash));
        fs::remove_file(&target).unwrap();
        store.place(vec![placement]).await.unwrap();
        let about = fs::metadata(&target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), vec![5; size]);
        assert_eq!(about.mode() & 0o777, 0o755);
        assert_eq!(about.uid(), rustix::process::geteuid().as_raw());
        assert!(!store.has(hash));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_content_and_left_overs_of_a_killed_process_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = DataStore::open(dir.path()).await.unwrap();
    let kept = store.add_bytes(vec![1; 300_000]).await.unwrap();
    let gone = store.add_bytes(vec![2; 4 << 20]).await.unwrap();
    let empty = store.add_bytes(Vec::new()).await.unwrap();
    store.persist(vec![kept]).await.unwrap();
    assert!(stored(dir.path(), gone).exists());
    store.forget([gone]).await.unwrap();
    assert!(stored(dir.path(), kept).exists() && !stored(dir.path(), gone).exists());
    let retired = dir.path().join(format!("retired/{gone}"));
    assert!(retired.exists());
    store.close();
    drop(store);
    // What a kill in the middle of a copy and of a transfer, and a loss of power, leave behind.
    let torn = Hash([7; 32]);
    let left = [
        retired,
        dir.path().join("temp/3"),
        dir.path().join(format!("arriving/{torn}")),
    ];
    left.iter()
        .for_each(|path| fs::write(path, "half").unwrap());
    fs::create_dir_all(stored(dir.path(), torn).parent().unwrap()).unwrap();
    fs::write(stored(dir.path(), torn), "").unwrap();

    let store = DataStore::open(dir.path()).await.unwrap();
    assert!(!left.iter().any(|path| path.exists()) && !stored(dir.path(), torn).exists());
    let mut held = store.list();
    held.sort();
    let mut expected = [(kept, 300_000), (empty, 0)];
    expected.sort();
    assert_eq!(held, expected);
    assert_eq!(store.read(kept, 1 << 20).await.unwrap(), vec![1; 300_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_nobody_needs_are_moved_unless_somebody_may_still_write_to_them() {
    let (_, [holder]) = grid().await;
    let path = |name: &str| holder.path(name);
    for name in ["moved", "linked", "written"] {
        fs::write(path(name), name.repeat(1000)).unwrap();
    }
    fs::hard_link(path("linked"), path("other")).unwrap();
    std::os::unix::fs::symlink(path("moved"), path("symbolic")).unwrap();
    let open = |name: &str| fs::File::options().append(true).open(path(name)).unwrap();
    let mut written = open("written");
    let take = async |names: &[&str]| {
        let paths = names.iter().map(|name| path(name)).collect();
        holder.store.take_files(paths, |_| ()).await.unwrap()
    };
    let twice = take(&["symbolic", "moved"]).await;
    assert_eq!(twice[0], twice[1], "the link leads to the file");
    assert!(path("moved").exists(), "it is moved for neither");
    let added = take(&["moved", "linked", "written"]).await;
    assert!(!path("moved").exists(), "nobody needs it");
    assert!(path("linked").exists() && path("written").exists());
    // What is written to them now is in no blob.
    open("linked").write_all(b"more").unwrap();
    written.write_all(b"more").unwrap();
    for (name, (hash, _)) in ["moved", "linked", "written"].into_iter().zip(added) {
        let content = holder.store.read(hash, 1 << 20).await.unwrap();
        assert_eq!(content, name.repeat(1000), "{name}");
    }
}
