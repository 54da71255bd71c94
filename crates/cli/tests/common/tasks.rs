//! Tasks that leave marks in a folder and wait there for leave to go on, so that a test knows what runs and
//! decides what ends first. Their workers need `--no-sandbox`.

use super::{Place, until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

/// What a gated task runs: does what `BEFORE` says, marks its start, waits for leave, works, marks its end.
const GATED: &str = r#"
me="$HEDGE_TASK_ID@$(echo "$HEDGE_ATTEMPT" | tr / _)"
eval "$BEFORE"
: > "$MARKS/start.$me"
until [ -e "$MARKS/go.$HEDGE_TASK_ID" ] || [ -e "$MARKS/go.$me" ]; do sleep 0.02; done
eval "$WORK"
: > "$MARKS/end.$me"
"#;

/// A task of a job file that runs a piece of shell; `more` are further lines.
pub fn task(id: &str, script: &str, more: &str) -> String {
    format!("[[task]]\nid = {id:?}\ncommand = [\"sh\", \"-c\", {script:?}]\n{more}\n")
}

/// Writes a job file, submits it and waits for its end; `more` are further arguments.
pub fn submit_and_wait(place: &Place, job: &str, more: &[&str]) -> Output {
    fs::write(place.folder.join("job.toml"), job).unwrap();
    place.call(&[&["submit", "--wait"], more, &["job.toml"]].concat())
}

/// The folder of marks.
pub struct Marks(PathBuf);

impl Marks {
    pub fn new(folder: &Path) -> Marks {
        let marks = folder.join("marks");
        fs::create_dir(&marks).unwrap();
        Marks(marks)
    }

    /// A task of a job file that waits for leave and then does `work`, a piece of shell; `more` are further
    /// lines. The folder's name is an argument of its process, see [`Marks::processes`].
    pub fn task(&self, id: &str, work: &str, more: &str) -> String {
        let marks = self.0.display();
        format!(
            "[[task]]\nid = {id:?}\ncommand = [\"sh\", \"-c\", {GATED:?}, \"sh\", \"{marks}\"]\n\
             env = {{ MARKS = \"{marks}\", WORK = {work:?} }}\n{more}\n"
        )
    }

    /// Lets all attempts of a task go on; `a.3` is index 3 of an array.
    pub fn let_go(&self, task: &str) {
        fs::write(self.0.join(format!("go.{task}")), "").unwrap();
    }

    /// Lets one attempt go on.
    pub fn let_one_go(&self, task: &str, attempt: &str) {
        self.let_go(&format!("{task}@{}", attempt.replace('/', "_")));
    }

    /// The attempts that have started, by task.
    pub fn started(&self) -> BTreeMap<String, Vec<String>> {
        self.all("start.")
    }

    /// The attempts that came to their end, by task.
    pub fn finished(&self) -> BTreeMap<String, Vec<String>> {
        self.all("end.")
    }

    fn all(&self, kind: &str) -> BTreeMap<String, Vec<String>> {
        let mut all = BTreeMap::<String, Vec<String>>::new();
        for entry in fs::read_dir(&self.0).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if let Some((task, attempt)) = name.strip_prefix(kind).and_then(|n| n.split_once('@')) {
                all.entry(task.to_owned())
                    .or_default()
                    .push(attempt.replace('_', "/"));
            }
        }
        all
    }

    /// How often a task has been started.
    pub fn starts(&self, task: &str) -> usize {
        self.started().get(task).map_or(0, Vec::len)
    }

    /// Waits until a task has been started so often.
    pub fn await_starts(&self, task: &str, count: usize) -> Vec<String> {
        until(&format!("{count} starts of {task}"), || {
            let attempts = self.started().remove(task)?;
            (attempts.len() >= count).then_some(attempts)
        })
    }

    /// Processes of gated tasks.
    pub fn processes(&self) -> Vec<u32> {
        processes_with(&self.0.display().to_string())
    }

    /// Waits until no process of any gated task is left.
    pub fn await_no_processes(&self) {
        until("the tasks' processes to end", || {
            self.processes().is_empty().then_some(())
        });
    }
}

/// Processes that have this text among their arguments; this one aside.
pub fn processes_with(text: &str) -> Vec<u32> {
    let own = std::process::id();
    let all = fs::read_dir("/proc").unwrap();
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(text)
        })
        .collect()
}

/// Processes that run in this folder or below, or have it among their arguments; this one aside.
pub fn processes_below(folder: &Path) -> Vec<u32> {
    let mut found = processes_with(&folder.display().to_string());
    let all = fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    found.extend(pids.filter(|pid| {
        *pid != std::process::id()
            && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
    }));
    found.sort_unstable();
    found.dedup();
    found
}

/// Waits until no attempt has left anything below a worker's folder of scratch folders.
pub fn await_empty_scratch(worker: &Path) {
    let scratch = worker.join("scratch");
    until(&format!("{} to be empty", scratch.display()), || {
        let slots = fs::read_dir(&scratch).ok()?;
        let inner = slots
            .flatten()
            .filter_map(|slot| fs::read_dir(slot.path()).ok());
        let places = inner
            .flatten()
            .flatten()
            .filter_map(|at| fs::read_dir(at.path()).ok());
        (places.flatten().count() == 0).then_some(())
    });
}

/// A task's attempts as `hedge explain` shows them.
pub fn attempts(place: &Place, job: &str, task: &str) -> Vec<Value> {
    let told = place.ask(&["explain", job, task]);
    told["tasks"][0]["attempts"].as_array().unwrap().clone()
}

/// The workers of these attempts, each once.
pub fn workers_of(attempts: &[Value]) -> Vec<String> {
    let mut workers: Vec<String> = attempts
        .iter()
        .map(|attempt| attempt["worker"].as_str().unwrap().to_owned())
        .collect();
    workers.sort();
    workers.dedup();
    workers
}

/// How many of these attempts have this value under this key.
pub fn count(attempts: &[Value], key: &str, value: &str) -> usize {
    attempts
        .iter()
        .filter(|attempt| attempt[key] == value)
        .count()
}
