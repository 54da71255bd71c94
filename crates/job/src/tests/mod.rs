mod each;
mod keys;
mod parameters;

use super::*;
use hedge_model::spec::{Input, Measure, Redundancy, Runtime, Top, Unplaceable};
use hedge_model::{Data, Hash, JobSpec};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const FULL: &str = r#"
name = "zoom"
[qos]
redundancy = "critical"
copies = 3
need = "100%"
unplaceable = "fail"
[critical]
by = ["precedence"]
top = "25%"
[[task]]
id = "frame"
array = "2..5"
command = ["povray", "+K${index}", "$${HOME}"]
env = { MODE = "fast", A = "1" }
stdin = { text = "hello\n" }
inputs = ["scene.pov", "part-${index}.txt", "data", "maps/*.png"]
outputs = ["frame-${index}.png"]
resources = { cpus = 0.5, memory = "1 GiB", disk = "2 MB", gpus = 2, licence = 1 }
labels = { os = "linux", arch = "x86_64" }
priority = -4
retries = 7
time_limit = "1h 30m"
estimate = { cpu_time = "1s", memory = "32 MiB", disk = "1 MiB" }
[[task]]
id = "sheet"
command = ["sh", "-c", "cat *"]
stdin = "list.txt"
deps = ["frame"]
inputs = [{ task = "frame" }, "./scene.pov"]
outputs = ["sheet.png"]
critical = true
"#;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write("scene.pov", b"sphere");
    write("list.txt", b"1\n2\n");
    for index in 2..5 {
        write(&format!("part-{index}.txt"), format!("{index}").as_bytes());
    }
    write("data/deep/big.bin", &[7; 100_000]);
    write("data/run.sh", b"#!/bin/sh\n");
    write("data/.hidden", b"h");
    write("maps/a.png", b"a");
    write("maps/b.png", b"b");
    write("maps/c.txt", b"c");
    write("maps/.d.png", b"d");
    write("maps/sub/e.png", b"e");
    let script = folder.path().join("data/run.sh");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn job(folder: &Path, text: &str) -> Result<JobSpec, BadJobFile> {
    let path = folder.join("job.toml");
    fs::write(&path, text).unwrap();
    let found = JobFile::read(&path, &[])?.find(folder)?;
    let content = |upload: &Upload| (Hash([9; 32]), upload.bytes);
    let content: Vec<_> = found.uploads().iter().map(content).collect();
    Ok(found.job(&content).unwrap())
}

fn mistake(folder: &Path, inputs: &str) -> String {
    let text = format!(
        "[[task]]\nid = \"a\"\narray = \"0..2\"\ncommand = [\"true\"]\ninputs = {inputs}\n"
    );
    job(folder, &text).unwrap_err().to_string()
}

#[test]
fn every_key_arrives_in_the_job() {
    let folder = folder();
    let spec = job(folder.path(), FULL).unwrap();
    assert_eq!((spec.name(), spec.task_count()), ("zoom", 4));
    let qos = spec.qos();
    assert_eq!(
        (qos.redundancy, qos.copies, qos.unplaceable),
        (Redundancy::Critical, 3, Unplaceable::Fail)
    );
    assert_eq!(spec.critical().by, [(Measure::Precedence, 1.0)]);
    assert_eq!(spec.critical().top, Top::Share(0.25));
    let frame = &spec.groups()[0];
    assert_eq!((&*frame.id, frame.array), ("frame", Some((2, 5))));
    assert_eq!(&*frame.command[2], "$${HOME}");
    assert_eq!(
        frame.env,
        [("MODE".into(), "fast".into()), ("A".into(), "1".into())]
    );
    assert_eq!(frame.stdin, Some(Data::Inline(b"hello\n"[..].into())));
    let needs = &frame.resources;
    assert_eq!(
        (needs.cpus_milli, needs.memory, needs.disk),
        (500, 1 << 30, 2_000_000)
    );
    assert_eq!(needs.named, [("gpus".into(), 2), ("licence".into(), 1)]);
    assert_eq!(frame.labels[0], ("arch".into(), "x86_64".into()));
    assert_eq!((frame.priority, frame.retries), (-4, 7));
    assert_eq!(frame.time_limit, Some(Duration::from_secs(5400)));
    assert_eq!(frame.estimate.cpu_time, Some(Duration::from_secs(1)));
    assert_eq!(
        (frame.estimate.memory, frame.estimate.disk),
        (Some(32 << 20), Some(1 << 20))
    );
    let sheet = &spec.groups()[1];
    assert!(sheet.critical && !frame.critical);
    assert_eq!(sheet.stdin, Some(Data::Inline(b"1\n2\n"[..].into())));
    assert_eq!(sheet.inputs, [Input::Task("frame".into()), Input::File(0)]);
}

#[test]
fn inputs_are_files_folders_globs_and_one_for_each_index() {
    let folder = folder();
    let spec = job(folder.path(), FULL).unwrap();
    let shown: Vec<String> = spec.groups()[0]
        .inputs
        .iter()
        .flat_map(|input| match input {
            Input::File(at) => vec![*at],
            Input::FileEach(first) => (*first..*first + 3).collect(),
            Input::Task(_) | Input::TaskEach(_) => vec![],
        })
        .map(|at| {
            let file = &spec.files()[at as usize];
            let kind = if file.data.hash().is_some() {
                "blob"
            } else {
                "inline"
            };
            format!(
                "{} {kind} {} {}",
                file.path,
                file.data.size(),
                file.executable
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "scene.pov inline 6 false",
            "part-2.txt inline 1 false",
            "part-3.txt inline 1 false",
            "part-4.txt inline 1 false",
            "data/.hidden inline 1 false",
            "data/deep/big.bin blob 100000 false",
            "data/run.sh inline 10 true",
            "maps/a.png inline 1 false",
            "maps/b.png inline 1 false",
        ]
    );
}

#[test]
fn absolute_inputs_lie_under_their_own_name() {
    let folder = folder();
    let here = folder.path().display();
    let text = format!(
        "[[task]]\nid = \"a\"\ncommand = [\"true\"]\ninputs = [\"{here}/scene.pov\", \"{here}/data/deep\", \"{here}/maps/**/*.png\"]\n"
    );
    let spec = job(folder.path(), &text).unwrap();
    let paths: Vec<&str> = spec.files().iter().map(|file| &*file.path).collect();
    assert_eq!(
        paths,
        ["scene.pov", "deep/big.bin", "a.png", "b.png", "sub/e.png"]
    );
}

#[test]
fn links_are_followed_to_files_alone() {
    let folder = folder();
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
    };
    fs::create_dir(folder.path().join("links")).unwrap();
    link("../scene.pov", "links/good");
    let text = "[[task]]\nid = \"a\"\ncommand = [\"true\"]\ninputs = [\"links\"]\n";
    let spec = job(folder.path(), text).unwrap();
    assert_eq!(&*spec.files()[0].path, "links/good");
    assert_eq!(spec.files()[0].data, Data::Inline(b"sphere"[..].into()));
    link("../data", "links/folder");
    let told = job(folder.path(), text).unwrap_err().to_string();
    assert!(told.contains("is a link to a folder"), "{told}");
    fs::remove_file(folder.path().join("links/folder")).unwrap();
    link("nowhere", "links/broken");
    let told = job(folder.path(), text).unwrap_err().to_string();
    assert!(told.contains("links/broken is a link to nothing"), "{told}");
}

#[test]
fn inputs_that_cannot_be_are_told() {
    let folder = folder();
    let here = folder.path();
    for (inputs, part) in [
        ("[\"sceen.pov\"]", "did you mean \"scene.pov\"?"),
        ("[\"../scene.pov\"]", "leaves the job's folder"),
        ("[\"maps/*.jpg\"]", "no file matches"),
        ("[\"maps/[\"]", "is no valid glob"),
        ("[\"part-${index}.txt\"]", "\"part-0.txt\" does not exist"),
        ("[\"${hedge}\"]", "`${hedge}` is not known"),
        (
            "[\"maps/a.png\", \"/dev/null\"]",
            "neither a file nor a folder",
        ),
        ("[{ file = \"x\" }]", "`file` is not a key of an input"),
        ("[3]", "is a number here, but must be a table"),
    ] {
        let told = mistake(here, inputs);
        assert!(told.contains(part), "{inputs}: {told}");
    }
    fs::create_dir(here.join("other")).unwrap();
    fs::write(here.join("other/scene.pov"), "cube").unwrap();
    let clash = format!("[\"scene.pov\", \"{}/other/scene.pov\"]", here.display());
    assert!(mistake(here, &clash).contains("would lie at \"scene.pov\""));
}

#[test]
fn json_of_the_same_shape_gives_the_same_job() {
    let toml = r#"
name = "n"
[critical]
top = 3
[[task]]
id = "a"
array = "0..2"
command = ["echo", "ä"]
time_limit = "5s"
resources = { cpus = 2 }
[[task]]
id = "b"
command = ["true"]
deps = ["a"]
"#;
    let json = r#"{ "name": "n", "critical": { "top": 3 }, "task": [
      { "id": "a", "array": "0..2", "command": ["echo", "\u00e4"], "time_limit": "5s", "resources": { "cpus": 2 } },
      { "id": "b", "command": ["true"], "deps": ["a"] } ] }"#;
    let toml = JobFile::parse("job.toml", Syntax::Toml, toml).unwrap();
    let json = JobFile::parse("job.json", Syntax::Json, json).unwrap();
    assert_eq!(toml.tasks(), json.tasks());
}

#[test]
fn a_dependency_says_how_much_of_it_is_needed_with_or_without_its_files() {
    let spec = |waits: &str| {
        let text = format!(
            "[[task]]\nid = \"fold\"\narray = \"0..20\"\ncommand = [\"true\"]\n\
             [[task]]\nid = \"sum\"\ncommand = [\"true\"]\n{waits}\n"
        );
        job(folder().path(), &text)
    };
    let needed = |waits: &str| spec(waits).unwrap().needed(1, 0);
    assert_eq!(needed("deps = [\"fold\"]"), 20);
    assert_eq!(needed("deps = [{ task = \"fold\" }]"), 20);
    assert_eq!(needed("deps = [{ task = \"fold\", need = \"95%\" }]"), 19);
    assert_eq!(needed("deps = [{ task = \"fold\", need = 3 }]"), 3);
    assert_eq!(needed("inputs = [{ task = \"fold\", need = \"50%\" }]"), 10);
    for (waits, said) in [
        ("deps = [{ need = 3 }]", "this dependency names nothing"),
        ("inputs = [{ need = 3 }]", "this input names nothing"),
        ("deps = [{ task = \"fold\", need = 0 }]", "`need` must be"),
        ("deps = [{ task = \"flod\", need = 3 }]", "flod"),
        ("deps = [3]", "`deps` is a number here"),
    ] {
        let told = spec(waits).unwrap_err().to_string();
        assert!(told.contains(said), "{waits}: {told}");
    }
}

#[test]
fn a_program_outside_the_systems_folders_travels_with_the_job() {
    let folder = folder();
    let script = folder.path().join("data/run.sh").display().to_string();
    let run = |words: &[&str], array: Option<&str>, critical| {
        let program = Program {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            array: array.map(str::to_owned),
            critical,
            ..Program::default()
        };
        let found = program.find(folder.path());
        found.map(|found| found.job(&[]).unwrap())
    };
    let spec = run(&[&script, "x"], Some("0..4"), true).unwrap();
    let group = &spec.groups()[0];
    assert_eq!(
        (&*group.id, spec.task_count(), group.critical),
        ("run-sh", 4, true)
    );
    assert_eq!(group.command, ["./run.sh".into(), "x".into()]);
    assert!(spec.files()[0].executable);
    let spec = run(&["data/run.sh"], None, false).unwrap();
    assert_eq!(spec.groups()[0].command, ["./run.sh".into()]);
    let spec = run(&["/bin/true"], None, false).unwrap();
    assert_eq!(
        (spec.files().len(), &*spec.groups()[0].command[0]),
        (0, "/bin/true")
    );
    let told = run(&["./none"], None, false).unwrap_err();
    assert!(told.contains("./none does not exist"), "{told}");
}

#[test]
fn input_files_are_bounded_and_many_small_ones_travel_by_hash() {
    let folder = tempfile::tempdir().unwrap();
    let many = folder.path().join("many");
    fs::create_dir(&many).unwrap();
    for number in 0..100 {
        fs::write(many.join(format!("{number}")), [number; 16 << 10]).unwrap();
    }
    let text = "[[task]]\nid = \"a\"\ncommand = [\"true\"]\ninputs = [\"many\"]\n";
    let spec = job(folder.path(), text).unwrap();
    let inline = spec
        .files()
        .iter()
        .filter(|file| file.data.hash().is_none())
        .count();
    assert_eq!((spec.files().len(), inline << 14), (100, INLINE_TOTAL_MAX));
    let long = "x".repeat(250);
    for number in 0..40_000 {
        fs::write(many.join(format!("{long}{number:05}")), "").unwrap();
    }
    let told = job(folder.path(), text).unwrap_err().to_string();
    assert!(
        told.contains("one task cannot have so many input files"),
        "{told}"
    );
}

#[test]
fn each_file_is_uploaded_once_and_its_content_comes_where_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("big"), [7; 100_000]).unwrap();
    let text = "[[task]]\nid = \"a\"\ncommand = [\"cat\"]\nstdin = \"big\"\ninputs = [\"big\"]\n\
                [[task]]\nid = \"b\"\ncommand = [\"cat\"]\ninputs = [\"big\"]\n";
    let file = JobFile::parse("job.toml", Syntax::Toml, text).unwrap();
    let found = file.find(folder.path()).unwrap();
    assert_eq!(
        found.uploads(),
        [Upload {
            path: folder.path().join("big"),
            bytes: 100_000
        }]
    );
    assert_eq!(found.tasks(), file.tasks());
    assert!(found.tasks().files().is_empty());
    let (hash, size) = (Hash([3; 32]), 100_001);
    let spec = found.job(&[(hash, size)]).unwrap();
    assert_eq!(spec.files().len(), 1);
    assert_eq!(spec.files()[0].data, Data::Blob { hash, size });
    assert_eq!(spec.groups()[0].stdin, Some(Data::Blob { hash, size }));
    let told = file.find(folder.path()).unwrap().job(&[]).unwrap_err();
    assert!(told.what.contains("big is missing"), "{told}");
}

#[test]
fn only_a_runtime_that_executes_a_command_needs_one() {
    let folder = folder();
    let task = |lines: &str| format!("[[task]]\nid = \"a\"\n{lines}\n");
    let spec = job(folder.path(), &task("runtime = \"noop\"")).unwrap();
    assert_eq!(spec.groups()[0].runtime, Runtime::Noop);
    for lines in ["", "runtime = \"process\""] {
        let told = job(folder.path(), &task(lines)).unwrap_err().to_string();
        assert!(told.contains("this task has no `command`"), "{told}");
    }
    let told = job(
        folder.path(),
        &task("runtime = \"wasm\"\ncommand = [\"true\"]"),
    )
    .unwrap_err();
    let told = told.to_string();
    assert!(told.contains("\"wasm\" is no runtime"), "{told}");
    assert!(
        told.contains("runtime = \"process\" or runtime = \"python\" or runtime = \"noop\""),
        "{told}"
    );
}

#[test]
fn a_submission_reads_no_file_outside_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("inside");
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("in"), "1").unwrap();
    fs::write(folder.path().join("secret"), "2").unwrap();
    let find = |lines: &str| {
        let word = if lines.contains("each") {
            "${line}"
        } else {
            "x"
        };
        let text = format!("[[task]]\nid = \"a\"\ncommand = [\"true\", {word:?}]\n{lines}\n");
        let file = JobFile::parse("job.toml", Syntax::Toml, text).unwrap();
        let found = file.find_within(&inside);
        found
            .map(|found| found.tasks().groups().len())
            .map_err(|bad| bad.to_string())
    };
    assert_eq!(find("inputs = [\"in\"]\nstdin = \"in\""), Ok(1));
    assert_eq!(find("each_line = \"in\""), Ok(1));
    let absolute = folder.path().join("secret").display().to_string();
    for way in [
        format!("inputs = [{absolute:?}]"),
        format!("inputs = [\"{}/*\"]", folder.path().display()),
        format!("stdin = {absolute:?}"),
        "stdin = \"../secret\"".to_owned(),
        "each_line = \"../secret\"".to_owned(),
        format!("each_line = {absolute:?}"),
    ] {
        let told = find(&way).unwrap_err();
        assert!(told.contains("outside of the submission"), "{way}: {told}");
    }
}
