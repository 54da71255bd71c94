//! What the cache writes, keeps, removes and finds damaged.

use super::*;
use hedge_model::tree::{TreeEntry, TreeFile, TreeKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::AtomicUsize;
use tempfile::TempDir;

/// A worker's store and cache, in folders of their own.
struct Place {
    store: DataStore,
    cache: TreeCache,
    folder: TempDir,
    fetched: AtomicUsize,
}

impl Place {
    async fn new(bytes_max: u64) -> Self {
        let folder = TempDir::new().unwrap();
        Self {
            store: DataStore::open(&folder.path().join("content"))
                .await
                .unwrap(),
            cache: TreeCache::open(&folder.path().join("trees"), bytes_max).unwrap(),
            folder,
            fetched: AtomicUsize::new(0),
        }
    }

    /// As a worker that starts again.
    fn reopen(&mut self, bytes_max: u64) {
        self.cache = TreeCache::open(&self.folder.path().join("trees"), bytes_max).unwrap();
    }

    /// Takes a tree whose blobs come from the test.
    async fn take(&self, tree: &Packed) -> Result<Arc<Tree>, Ending> {
        if let Some(tree) = self.cache.get(tree.mount.manifest.0) {
            return Ok(tree);
        }
        let (store, fetched, blobs) = (&self.store, &self.fetched, &tree.blobs);
        let fetch = |_| async move {
            fetched.fetch_add(1, Ordering::Relaxed);
            for blob in blobs {
                store.add_bytes(blob.clone()).await.unwrap();
            }
            Ok::<(), Ending>(())
        };
        self.cache.take(&self.store, &tree.mount, &[], fetch).await
    }

    /// The folders of the cache.
    fn folders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join("trees")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn fetched(&self) -> usize {
        self.fetched.swap(0, Ordering::Relaxed)
    }
}

struct Packed {
    mount: MountedTree,
    blobs: Vec<Vec<u8>>,
}

fn hash(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

/// A tree with a program, a link, an empty file, and a file of this content under two names.
fn packed(content: &str, lie: bool) -> Packed {
    let pack = format!("#!/bin/sh\n{content}").into_bytes();
    let file = |executable, from: usize, to: usize| {
        let bytes = &pack[from..to];
        TreeKind::File(TreeFile {
            executable,
            modified: 1_000_000_007,
            size: bytes.len() as u64,
            hash: if lie { Hash([5; 32]) } else { hash(bytes) },
            pack: 0,
            from: from as u64,
        })
    };
    let all = [
        ("bin", TreeKind::Folder),
        ("bin/tool", file(true, 0, 10)),
        ("bin/link", TreeKind::Link("../a".into())),
        ("a", file(false, 10, pack.len())),
        ("b", file(false, 10, pack.len())),
        (
            "none",
            TreeKind::File(TreeFile {
                executable: false,
                modified: -5,
                size: 0,
                hash: hash(b""),
                pack: 0,
                from: 0,
            }),
        ),
    ];
    let entries = all.into_iter().map(|(path, kind)| TreeEntry {
        path: path.into(),
        kind,
    });
    let packs = vec![(hash(&pack), pack.len() as u64)];
    let manifest = Manifest {
        packs: packs.clone(),
        entries: entries.collect(),
    };
    let manifest = manifest.encode().unwrap();
    Packed {
        mount: MountedTree {
            at: "/ref".into(),
            manifest: (hash(&manifest), manifest.len() as u64),
            packs,
        },
        blobs: vec![manifest, pack],
    }
}

/// What one of these trees takes: six blocks.
const TREE_BYTES: u64 = 6 * 4096;

fn read(tree: &Tree, path: &str) -> String {
    std::fs::read_to_string(tree.root().join(path)).unwrap()
}

#[tokio::test]
async fn a_tree_is_written_once_and_shown_again() {
    let place = Place::new(1 << 30).await;
    let packed = packed("sound", false);
    let tree = place.take(&packed).await.unwrap();
    assert_eq!(
        (read(&tree, "a"), read(&tree, "b")),
        ("sound".into(), "sound".into())
    );
    assert_eq!(
        (read(&tree, "bin/link"), read(&tree, "none")),
        ("sound".into(), String::new())
    );
    let about = |path: &str| tree.root().join(path).metadata().unwrap();
    assert_eq!(about("bin/tool").permissions().mode() & 0o777, 0o755);
    assert_eq!(about("a").permissions().mode() & 0o777, 0o644);
    assert_eq!(
        (about("a").mtime(), about("none").mtime()),
        (1_000_000_007, -5)
    );
    assert!(place.fetched() > 0);
    assert!(
        place.store.list().is_empty(),
        "its packs are not kept beside it"
    );
    let again = place.take(&packed).await.unwrap();
    assert!(Arc::ptr_eq(&tree, &again));
    assert_eq!((place.fetched(), place.folders().len()), (0, 1));
}

#[tokio::test]
async fn attempts_that_need_a_tree_at_the_same_time_share_the_work() {
    let place = Place::new(1 << 30).await;
    let packed = packed("sound", false);
    let (one, two) = tokio::join!(place.take(&packed), place.take(&packed));
    assert!(Arc::ptr_eq(&one.unwrap(), &two.unwrap()));
    assert_eq!(
        (place.fetched(), place.folders().len()),
        (2, 1),
        "manifest and packs once"
    );
}

#[tokio::test]
async fn the_tree_that_was_not_used_for_longest_is_evicted_and_one_in_use_stays() {
    let place = Place::new(2 * TREE_BYTES).await;
    let [a, b, c] = ["a", "b", "c"].map(|content| packed(content, false));
    let used = place.take(&a).await.unwrap();
    drop(place.take(&b).await.unwrap());
    place.fetched();
    drop(place.take(&c).await.unwrap());
    assert_eq!(place.folders().len(), 2);
    assert_eq!(read(&used, "a"), "a");
    drop(place.take(&a).await.unwrap());
    assert_eq!(place.fetched(), 2, "c alone was fetched");
    let other = place.take(&c).await.unwrap();
    let refused = place.take(&b).await.unwrap_err();
    let why = refused.to_string();
    assert!(
        why.contains("the other trees of this worker are in use"),
        "{why}"
    );
    assert!(matches!(&refused, Ending::Input { missing, .. } if missing.is_empty()));
    drop((used, other));
    drop(place.take(&a).await.unwrap());
    drop(place.take(&b).await.unwrap());
    assert!(
        place.cache.get(c.mount.manifest.0).is_none(),
        "c was not used for longer than a"
    );
    assert!(place.cache.get(a.mount.manifest.0).is_some());
    let small = Place::new(TREE_BYTES - 1).await;
    let why = small.take(&a).await.unwrap_err().to_string();
    assert!(why.contains("this worker's cache for trees has"), "{why}");
    assert!(small.folders().is_empty());
}

#[tokio::test]
async fn trees_stay_over_a_restart_within_the_limit() {
    let mut place = Place::new(1 << 30).await;
    let [a, b] = ["a", "b"].map(|content| packed(content, false));
    drop(place.take(&a).await.unwrap());
    drop(place.take(&b).await.unwrap());
    std::fs::create_dir_all(place.folder.path().join("trees/arriving-7/root")).unwrap();
    place.fetched();
    place.reopen(1 << 30);
    assert_eq!(place.folders().len(), 2, "what was not finished is removed");
    let root = place.take(&a).await.unwrap().root();
    assert_eq!(place.fetched(), 0);
    drop(place.take(&b).await.unwrap());
    // As if time had passed between the two.
    let manifest = File::options()
        .append(true)
        .open(root.with_file_name(MANIFEST));
    manifest
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH)
        .unwrap();
    place.reopen(TREE_BYTES);
    assert!(place.cache.find(a.mount.manifest.0).is_none());
    drop(place.take(&b).await.unwrap());
    assert_eq!((place.fetched(), place.folders().len()), (0, 1));
}

#[tokio::test]
async fn a_start_reads_no_manifest() {
    let mut place = Place::new(1 << 30).await;
    let packed = packed("sound", false);
    let root = place.take(&packed).await.unwrap().root();
    std::fs::write(root.with_file_name(MANIFEST), "rotten").unwrap();
    place.reopen(1 << 30);
    assert_eq!(
        place.cache.find(packed.mount.manifest.0).unwrap().bytes,
        TREE_BYTES
    );
    // It is read before an attempt gets the tree.
    assert_ne!(place.take(&packed).await.unwrap().root(), root);
}

#[tokio::test]
async fn an_attempt_does_not_wait_for_the_time_of_use_to_be_written() {
    let place = Place::new(1 << 30).await;
    let packed = packed("sound", false);
    let tree = place.take(&packed).await.unwrap();
    let manifest = tree.folder.join(MANIFEST);
    let written = || manifest.metadata().unwrap().modified().unwrap();
    let before = lock(&tree.state).used;
    let file = File::options().append(true).open(&manifest).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    drop(place.take(&packed).await.unwrap());
    assert!(lock(&tree.state).used > before);
    assert_eq!(written(), SystemTime::UNIX_EPOCH, "it was noted just now");
    lock(&tree.state).noted = SystemTime::UNIX_EPOCH;
    drop(place.take(&packed).await.unwrap());
    while written() == SystemTime::UNIX_EPOCH {
        // Another thread writes it.
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn damage_is_found_before_the_first_attempt_after_a_start() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 7] = [
        ("a flipped byte", |root| {
            let about = root.join("a").metadata().unwrap();
            std::fs::write(root.join("a"), "sounc").unwrap();
            let file = File::options().append(true).open(root.join("a")).unwrap();
            file.set_modified(about.modified().unwrap()).unwrap();
        }),
        ("a file that is gone", |root| {
            std::fs::remove_file(root.join("none")).unwrap()
        }),
        ("a file more", |root| {
            std::fs::write(root.join("bin/site.pth"), "import x").unwrap()
        }),
        ("another link", |root| {
            std::fs::remove_file(root.join("bin/link")).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", root.join("bin/link")).unwrap();
        }),
        ("a link in a file's place", |root| {
            std::fs::rename(root.join("a"), root.join("../a")).unwrap();
            std::os::unix::fs::symlink("../a", root.join("a")).unwrap();
        }),
        ("another mode", |root| {
            let mode = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(root.join("bin/tool"), mode).unwrap();
        }),
        ("another manifest", |root| {
            let path = root.with_file_name(MANIFEST);
            let other = Manifest::default().encode().unwrap();
            std::fs::write(path, other).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let mut place = Place::new(1 << 30).await;
        let packed = packed("sound", false);
        let root = place.take(&packed).await.unwrap().root();
        damage(&root);
        place.reopen(1 << 30);
        place.fetched();
        let tree = place.take(&packed).await.unwrap();
        assert_eq!(place.fetched(), 2, "{what}");
        assert_ne!(
            tree.root(),
            root,
            "a view of the old one never shows the new one"
        );
        assert_eq!(
            check::check(&tree.folder, packed.mount.manifest.0),
            Ok(()),
            "{what}"
        );
        assert_eq!(read(&tree, "a"), "sound", "{what}");
    }
}

#[tokio::test]
async fn a_damaged_tree_that_is_in_use_stays_until_it_is_not() {
    let place = Place::new(1 << 30).await;
    let packed = packed("sound", false);
    let old = place.take(&packed).await.unwrap();
    std::fs::write(old.root().join("a"), "rotten").unwrap();
    lock(&old.state).checked = None;
    let new = place.take(&packed).await.unwrap();
    assert_eq!(
        (read(&old, "a"), read(&new, "a")),
        ("rotten".into(), "sound".into())
    );
    let folder = old.folder.clone();
    drop(old);
    let since = Instant::now();
    while folder.exists() {
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "it is not removed"
        );
        std::thread::yield_now();
    }
    assert_eq!(read(&new, "a"), "sound");
}

#[tokio::test]
async fn a_tree_that_lies_about_its_content_is_the_tasks_fault() {
    let place = Place::new(1 << 30).await;
    let refused = place.take(&packed("sound", true)).await.unwrap_err();
    assert!(matches!(&refused, Ending::NotStarted { why } if why.contains("holds something else")));
    let bytes = b"no manifest".to_vec();
    let odd = Packed {
        mount: MountedTree {
            at: "/ref".into(),
            manifest: (hash(&bytes), bytes.len() as u64),
            packs: Vec::new(),
        },
        blobs: vec![bytes],
    };
    let refused = place.take(&odd).await.unwrap_err();
    assert!(matches!(&refused, Ending::NotStarted { why } if why.contains("is not valid")));
    assert!(place.cache.find(odd.mount.manifest.0).is_none());
}
