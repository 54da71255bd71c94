//! A job that is one program on a command line.

use crate::Found;
use crate::inputs::{with_program, without_files};
use crate::read::parse_array;
use hedge_model::spec::{CriticalRule, Draft, Group, Qos};
use std::path::Path;
use std::sync::Arc;

/// System folders: a program there is taken to be on every worker, others travel with the job.
const SYSTEM: [&str; 7] = [
    "/usr/", "/bin/", "/sbin/", "/lib", "/opt/", "/nix/", "/etc/",
];

/// The job that runs `words`, as an array where `array` is given (`"0..60"`). A program given by its path outside the
/// system's folders becomes an input; a relative path starts at `folder`.
///
/// # Errors
/// One sentence: an array that is none, or a program that does not exist. Nothing was submitted.
pub fn program(
    words: &[String],
    array: Option<&str>,
    critical: bool,
    folder: &Path,
) -> Result<Found, String> {
    let first = words.first().map_or("", String::as_str);
    let mut group = Group::program(&id(first), &[]);
    group.command = words.iter().map(|word| Arc::from(word.as_str())).collect();
    group.critical = critical;
    if let Some(text) = array {
        let array = parse_array(text)
            .map_err(|what| format!("{what}; write --array 0..60 for the indexes 0 to 59"))?;
        group.array = Some(array);
    }
    let draft = Draft {
        name: group.id.clone(),
        qos: Qos::default(),
        critical: CriticalRule {
            by: Vec::new(),
            ..CriticalRule::default()
        },
        files: Vec::new(),
        groups: vec![group],
    };
    let travels = first.contains('/')
        && !first.starts_with("${")
        && !SYSTEM.iter().any(|system| first.starts_with(system));
    if travels {
        return with_program(draft, folder, Path::new(first));
    }
    without_files(draft).map_err(|error| error.to_string())
}

/// A program's file name as a task's id.
fn id(program: &str) -> String {
    let name = program.rsplit('/').next().unwrap_or(program);
    let id: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(64)
        .collect();
    let id = id.trim_matches('-');
    if id.is_empty() {
        "program".to_owned()
    } else {
        id.to_owned()
    }
}
