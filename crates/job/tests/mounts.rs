//! Trees: which folders are found, what is refused where, and how they are packed.

use hedge_job::{JobFile, Program, Syntax, Upload};
use hedge_model::data::FileEntry;
use hedge_model::spec::{MOUNTS_LABEL, Mount};
use hedge_model::tree::{Manifest, TreeFile, TreeKind};
use hedge_model::{Hash, JobSpec};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

fn hash(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

fn env(folder: &Path) -> PathBuf {
    let env = folder.join("env");
    fs::create_dir_all(env.join("bin")).unwrap();
    fs::create_dir_all(env.join("lib/empty")).unwrap();
    fs::write(env.join("bin/tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(env.join("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/usr/bin/python3", env.join("bin/python")).unwrap();
    fs::write(env.join("lib/none.py"), "").unwrap();
    for number in 0..100 {
        fs::write(env.join(format!("lib/{number}.py")), content(number)).unwrap();
    }
    fs::write(env.join("lib/again.py"), content(7)).unwrap();
    fs::write(env.join("lib/big.so"), vec![3; 5 << 20]).unwrap();
    env
}

/// Content of about 100 KiB that differs.
fn content(number: u64) -> Vec<u8> {
    let words = (0..12_800_u64).map(|word| word.wrapping_mul(number * 2 + 1));
    words.flat_map(u64::to_le_bytes).collect()
}

/// Reads and packs a job file's trees: the job, and the manifest of its first tree with the content of its packs.
fn packed(folder: &Path, mounts: &str) -> (JobSpec, Manifest, Vec<Vec<u8>>) {
    let text = format!("[[task]]\nid = \"a\"\ncommand = [\"true\"]\nmounts = {mounts}\n");
    let file = JobFile::parse("job.toml", Syntax::Toml, text).unwrap();
    let mut found = file.find(folder).unwrap();
    let spool = tempfile::tempdir().unwrap();
    found.pack(spool.path()).unwrap();
    let read = |upload: &Upload| fs::read(&upload.path).unwrap();
    let uploads: Vec<_> = found.uploads().iter().map(read).collect();
    let told: Vec<_> = uploads
        .iter()
        .map(|it| (hash(it), it.len() as u64))
        .collect();
    let job = found.job(&told).unwrap();
    let mount = &job.groups()[0].mounts[0];
    let files = mount.files(job.files());
    let blob = |file: &FileEntry| {
        let wanted = file.data.hash().unwrap();
        uploads
            .iter()
            .find(|it| hash(it) == wanted)
            .unwrap()
            .clone()
    };
    let manifest = Manifest::decode(&blob(&files[0])).unwrap();
    let packs = files[1..].iter().map(blob).collect();
    (job, manifest, packs)
}

fn file<'a>(manifest: &'a Manifest, path: &str) -> &'a TreeFile {
    let entry = manifest.entries.iter().find(|entry| &*entry.path == path);
    match &entry.unwrap().kind {
        TreeKind::File(file) => file,
        kind => panic!("{path} is {kind:?}"),
    }
}

#[test]
fn a_tree_is_packed_with_all_that_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let env = env(folder.path());
    let (job, manifest, packs) = packed(folder.path(), r#"[{ tree = "./x/../env/" }]"#);
    let group = &job.groups()[0];
    assert_eq!(
        group.labels,
        [(MOUNTS_LABEL.0.into(), MOUNTS_LABEL.1.into())]
    );
    assert_eq!(&*group.mounts[0].at, env.to_str().unwrap());
    for entry in &manifest.entries {
        let path = env.join(&*entry.path);
        match &entry.kind {
            TreeKind::Folder => assert!(path.symlink_metadata().unwrap().is_dir()),
            TreeKind::Link(to) => assert_eq!(fs::read_link(path).unwrap(), Path::new(&**to)),
            TreeKind::File(file) => {
                let whole = fs::read(&path).unwrap();
                let from = file.from as usize;
                let pack = packs.get(file.pack as usize).filter(|_| file.size > 0);
                let packed = pack.map_or(&[][..], |pack| &pack[from..from + file.size as usize]);
                assert!(
                    packed == whole && file.hash == hash(&whole),
                    "{}",
                    entry.path
                );
                let about = path.metadata().unwrap();
                let modified = std::os::unix::fs::MetadataExt::mtime(&about);
                assert_eq!(file.modified, modified);
                assert_eq!(file.executable, &*entry.path == "bin/tool");
            }
        }
    }
    assert_eq!(manifest.entries.len(), 108);
    let (again, seventh) = (file(&manifest, "lib/again.py"), file(&manifest, "lib/7.py"));
    assert_eq!(
        (again.pack, again.from),
        (seventh.pack, seventh.from),
        "once"
    );
    let big = file(&manifest, "lib/big.so");
    assert_eq!(
        manifest.packs[big.pack as usize],
        (big.hash, big.size),
        "a pack of its own"
    );
}

#[test]
fn a_changed_file_changes_few_packs() {
    let folder = tempfile::tempdir().unwrap();
    let env = env(folder.path());
    for number in 100..400 {
        fs::write(env.join(format!("lib/{number}.py")), content(number)).unwrap();
    }
    let (_, before, _) = packed(folder.path(), r#"[{ tree = "env" }]"#);
    fs::write(env.join("lib/2.py"), "changed").unwrap();
    let (_, after, _) = packed(folder.path(), r#"[{ tree = "env" }]"#);
    let known: BTreeSet<_> = before.packs.iter().collect();
    let new = after.packs.iter().filter(|pack| !known.contains(pack));
    let (new, all) = (new.count(), after.packs.len());
    assert!(
        all > 5 && (1..=3).contains(&new),
        "{new} of {all} packs are new"
    );
    assert!(before.packs.iter().all(|(_, size)| *size <= 16 << 20));
}

#[test]
fn one_folder_in_several_tasks_is_packed_once() {
    let folder = tempfile::tempdir().unwrap();
    env(folder.path());
    let text = r#"
[[task]]
id = "a"
command = ["true"]
mounts = [{ tree = "env" }, { tree = "env/lib", at = "/alone" }]
[[task]]
id = "b"
command = ["true"]
mounts = [{ tree = "./env", at = "/env" }]
"#;
    let file = JobFile::parse("job.toml", Syntax::Toml, text).unwrap();
    let mut found = file.find(folder.path()).unwrap();
    assert!(found.has_trees());
    let spool = tempfile::tempdir().unwrap();
    found.pack(spool.path()).unwrap();
    let read = |upload: &Upload| (hash(&fs::read(&upload.path).unwrap()), upload.bytes);
    let content: Vec<_> = found.uploads().iter().map(read).collect();
    let job = found.job(&content).unwrap();
    let first = |group: usize, at: usize| {
        let Mount { first, packs, .. } = &job.groups()[group].mounts[at];
        (*first, *packs)
    };
    assert_eq!(first(0, 0), first(1, 0));
    assert_ne!(first(0, 0), first(0, 1));
}

#[test]
fn a_tree_that_changes_while_it_is_read_is_not_submitted() {
    let folder = tempfile::tempdir().unwrap();
    env(folder.path());
    let text = "[[task]]\nid = \"a\"\ncommand = [\"true\"]\nmounts = [{ tree = \"env\" }]\n";
    let file = JobFile::parse("job.toml", Syntax::Toml, text).unwrap();
    let found = file.find(folder.path()).unwrap();
    let error = found.job(&[]).unwrap_err().to_string();
    assert!(error.contains("is not packed"), "{error}");
    let mut found = file.find(folder.path()).unwrap();
    let spool = tempfile::tempdir().unwrap();
    found.pack(spool.path()).unwrap();
    let other = found
        .uploads()
        .iter()
        .map(|upload| (Hash([9; 32]), upload.bytes));
    let other: Vec<_> = other.collect();
    let error = found.job(&other).unwrap_err().to_string();
    assert!(error.contains("has changed while it was read"), "{error}");
}

#[test]
fn mistakes_in_mounts_have_their_line() {
    let folder = tempfile::tempdir().unwrap();
    env(folder.path());
    std::os::unix::net::UnixListener::bind(folder.path().join("env/lib/empty/socket")).unwrap();
    fs::create_dir_all(folder.path().join("good/deep")).unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let many = vec![r#"{ tree = "good", at = "/x" }"#; 17].join(", ");
    for (mounts, said) in [
        (r#"".venv""#, "`mounts` is a text here, but must be a list"),
        (
            r#"[".venv"]"#,
            "a mount is a text here, but must be a table",
        ),
        (r#"[{ at = "/x" }]"#, "this mount has no `tree`"),
        (
            r#"[{ tree = 1 }]"#,
            "`tree` is a number here, but must be a text",
        ),
        (
            r#"[{ tree = "good", ats = "/x" }]"#,
            "`ats` is not a key of a mount",
        ),
        (r#"[{ tree = "" }]"#, "the tree has no name"),
        (r#"[{ tree = "god" }]"#, "the tree \"god\" does not exist"),
        (
            r#"[{ tree = "file" }]"#,
            "the tree \"file\" is not a folder",
        ),
        (
            r#"[{ tree = "good", at = "x" }]"#,
            "the path \"x\" is not absolute",
        ),
        (
            r#"[{ tree = "good", at = "/x/../y" }]"#,
            "has no meaning there",
        ),
        (
            r#"[{ tree = "good", at = "/usr/x" }]"#,
            "tasks have /usr of their own",
        ),
        (
            r#"[{ tree = "/usr/share/doc" }]"#,
            "tasks have /usr of their own",
        ),
        (
            r#"[{ tree = "good", at = "/x" }, { tree = "good/deep", at = "/x/y" }]"#,
            "the tree at \"/x/y\" and the one at \"/x\" overlap",
        ),
        (r#"[{ tree = "env" }]"#, "which is no regular file"),
        (&format!("[{many}]"), "here is one tree too many"),
    ] {
        let text = format!("[[task]]\nid = \"a\"\ncommand = [\"true\"]\nmounts = {mounts}\n");
        let file = JobFile::parse("job.toml", Syntax::Toml, text);
        let error = match file.and_then(|file| file.find(folder.path())) {
            Ok(_) => panic!("{mounts} is taken"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(said), "{mounts}: {error}");
        assert!(error.contains("job.toml:4:"), "{mounts}: {error}");
    }
}

#[test]
fn a_program_in_a_tree_runs_where_the_tree_is() {
    let folder = tempfile::tempdir().unwrap();
    let env = env(folder.path());
    let own = env.join("bin/tool").to_str().unwrap().to_owned();
    for (mount, runs) in [("env", &*own), ("./env/:/ref", "/ref/bin/tool")] {
        let program = Program {
            words: vec!["env/bin/tool".to_owned()],
            mounts: vec![mount.to_owned()],
            ..Program::default()
        };
        let found = program.find(folder.path()).unwrap();
        assert!(found.has_trees() && found.uploads().is_empty());
        let group = &found.tasks().groups()[0];
        assert_eq!(&*group.command[0], runs);
        assert_eq!(&*group.labels[0].0, MOUNTS_LABEL.0);
    }
    let program = Program {
        words: vec!["true".to_owned()],
        mounts: vec!["env:/usr".to_owned()],
        ..Program::default()
    };
    let why = program.find(folder.path()).unwrap_err();
    assert!(why.contains("tasks have /usr of their own"), "{why}");
}

#[test]
fn a_submission_over_http_brings_its_trees_packed() {
    let folder = tempfile::tempdir().unwrap();
    let env = env(folder.path());
    let job = |mounts: &str| {
        let text = format!("[[task]]\nid = \"a\"\ncommand = [\"true\"]\nmounts = {mounts}\n");
        JobFile::parse("job.toml", Syntax::Toml, text).unwrap()
    };
    for (mounts, said) in [
        (
            r#"[{ tree = "env", at = "/ref" }]"#,
            "the tree \"env\" does not come with the submission",
        ),
        (r#"[{ tree = "env" }]"#, "has no path at which tasks see it"),
        (
            r#"[{ tree = "../env", at = "/ref" }]"#,
            "is outside of the submission",
        ),
    ] {
        let error = job(mounts).find_within(folder.path()).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    let (spool, sent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = hedge_job::pack_folder(&env, spool.path()).unwrap();
    let blobs = [&[tree.manifest][..], &tree.packs].concat();
    fs::create_dir(sent.path().join("env")).unwrap();
    let numbers = (0..tree.packs.len()).map(|number| number.to_string());
    let names = ["manifest".to_owned()].into_iter().chain(numbers);
    for (name, blob) in names.zip(&blobs) {
        fs::copy(&blob.path, sent.path().join("env").join(name)).unwrap();
    }
    let mounts = r#"[{ tree = "env", at = "/ref" }]"#;
    let mut found = job(mounts).find_within(sent.path()).unwrap();
    found.pack(sent.path()).unwrap();
    let read = |upload: &Upload| (hash(&fs::read(&upload.path).unwrap()), upload.bytes);
    let content: Vec<_> = found.uploads().iter().map(read).collect();
    let there = found.job(&content).unwrap();
    let at = format!("[{{ tree = {env:?}, at = \"/ref\" }}]");
    let (here, ..) = packed(folder.path(), &at);
    assert_eq!(there.files(), here.files());
    assert_eq!(there.groups(), here.groups());
}

#[test]
fn an_environment_without_its_interpreter_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (env, base) = (folder.path().join("env"), folder.path().join("base"));
    fs::create_dir_all(base.join("bin")).unwrap();
    fs::create_dir_all(&env).unwrap();
    let lacks = |home: &Path, mounts: &[&str]| {
        let config = format!("home = {}\nversion = 3.11.2\n", home.display());
        fs::write(env.join("pyvenv.cfg"), config).unwrap();
        let program = Program {
            words: vec!["env/bin/python".to_owned()],
            mounts: mounts.iter().map(|mount| (*mount).to_owned()).collect(),
            ..Program::default()
        };
        program.find(folder.path()).unwrap().without_interpreter()
    };
    let home = base.join("bin");
    assert_eq!(lacks(&home, &["env"]), [(env.clone(), base.clone())]);
    assert_eq!(lacks(&home, &["env", "base:/elsewhere"]).len(), 1);
    assert_eq!(lacks(&home, &["env", "base"]), []);
    assert_eq!(lacks(Path::new("/usr/bin"), &["env"]), [], "the worker's");
}
