//! The examples that need programs of the system, run as their readers run them, with fewer tasks.

mod common;

use common::{Place, json, told};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples")
        .join(name)
}

/// Fails where a program is missing, and names the package to install.
fn need(program: &str, package: &str) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    assert!(
        found,
        "there is no {program}: this test needs it, `apt-get install {package}`"
    );
}

/// Copies an example's files into the place, its job file changed, and runs it.
fn run(place: &Place, name: &str, files: &[&str], changes: &[(&str, &str)]) -> Value {
    let example = example(name);
    let mut job = fs::read_to_string(example.join("job.toml")).unwrap();
    for (from, to) in changes {
        assert!(job.contains(from), "{name} has no {from:?} to be replaced");
        job = job.replace(from, to);
    }
    fs::write(place.folder.join("job.toml"), job).unwrap();
    for file in files {
        fs::copy(example.join(file), place.folder.join(file)).unwrap();
    }
    let output = place.call(&[
        "run",
        "job.toml",
        "--out",
        "made",
        "--task-priority=normal",
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let ended = json(&output);
    assert_eq!(ended["state"], "done", "{ended}");
    assert_eq!(ended["done"], ended["tasks"], "{ended}");
    ended
}

#[test]
fn the_animation_makes_its_frames_and_a_contact_sheet() {
    need("povray", "povray povray-includes");
    need("montage", "imagemagick");
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    #[rustfmt::skip]
    let changes = [
        ("0..60", "0..6"), ("[0-59]", "[0-5]"), ("10x", "3x"), ("+W320", "+W160"), ("+H240", "+H120"),
    ];
    let ended = run(&place, "povray", &["scene.pov"], &changes);
    assert_eq!(ended["tasks"], 7);
    assert!(
        ended["critical"].as_u64() >= Some(1),
        "the sheet is: {ended}"
    );
    let sheet = fs::read(folder.path().join("made/sheet.png")).unwrap();
    assert!(sheet.starts_with(b"\x89PNG"));
    let number = |at: usize| u32::from_be_bytes(sheet[at..at + 4].try_into().unwrap());
    assert_eq!((number(16), number(20)), (3 * 164, 2 * 124));
}

#[test]
fn the_sweep_finds_the_periods() {
    need("awk", "mawk");
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let ended = run(&place, "sweep", &[], &[("100000", "5000")]);
    assert_eq!(ended["tasks"], 21);
    let table = fs::read_to_string(folder.path().join("made/table.txt")).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|row| row.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[..3],
        [["5", "2.8", "1"], ["5", "3.2", "2"], ["5", "3.5", "4"]],
        "{table}"
    );
    let chaos = rows[3..].iter().map(|row| row[0].parse::<u32>().unwrap());
    assert_eq!(chaos.sum::<u32>(), 5, "{table}");
}

#[test]
fn the_docking_study_ranks_its_poses() {
    need("vina", "autodock-vina");
    let protein = "/usr/share/doc/autodock-vina/test-data/protein.pdbqt.gz";
    assert!(
        Path::new(protein).is_file(),
        "there is no {protein}, which autodock-vina brings: dpkg may be set to leave out documentation"
    );
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let changes = [("1..17", "1..4"), ("\"400000\"", "\"20000\"")];
    let ended = run(&place, "docking", &["best.sh"], &changes);
    assert_eq!(ended["tasks"], 5);
    let ranking = fs::read_to_string(folder.path().join("made/ranking.txt")).unwrap();
    let energies: Vec<f64> = ranking
        .lines()
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(energies.len(), 3, "{ranking}");
    assert!(energies.is_sorted() && energies[0] < -3.0, "{ranking}");
    let best = fs::read_to_string(folder.path().join("made/best.pdbqt")).unwrap();
    let first = ranking.split(' ').next().unwrap();
    let result = best
        .lines()
        .find(|line| line.starts_with("REMARK VINA RESULT:"));
    assert!(result.unwrap().contains(first), "{result:?} is not {first}");
}
