//! Other programs at work: processor time that neither this worker nor its tasks use.
//!
//! `/proc/stat` is read often, and all processes only while the machine is busy beyond the threshold. What is
//! ours is told by descent: everything that a task starts stays below its worker, what makes itself a daemon
//! included, because the spawner takes in orphans. Other workers of this program are nobody's owner either.

use crate::source::{Covers, Ended, Options, Outlet, Source, Trouble};
use hedge_model::owner::Activity;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Between two looks at the machine's use.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Over how long the use of the others is measured: short bursts are not work.
const WINDOW: Duration = Duration::from_millis(400);
/// How long the others must stay below the threshold before they count as over.
const OVER_AFTER: Duration = Duration::from_secs(2);
/// Processes that are looked at, at most.
const PROCESSES_MAX: usize = 65_536;

struct Load {
    threshold: f64,
    meter: Meter,
}

/// Measures the processor time of processes that are not ours.
struct Meter {
    own: i32,
    program: Option<(u64, u64)>,
    ticks: f64,
    last: Option<Scan>,
}

struct Scan {
    at: Instant,
    processes: HashMap<(i32, u64), Process>,
}

#[derive(Clone, Copy)]
struct Process {
    parent: i32,
    /// Its own time, ticks.
    own: u64,
    /// That of its children that have ended, ticks.
    children: u64,
    /// Of the kernel, not of a program.
    kernel: bool,
    foreign: bool,
}

/// Opens `/proc`.
pub(crate) fn open(options: &Options) -> Result<Box<dyn Source>, Trouble> {
    if busy_ticks().is_none() {
        return Err(Trouble::Absent("/proc/stat cannot be read".to_owned()));
    }
    Ok(Box::new(Load {
        threshold: options.foreign_cores,
        meter: Meter::new(),
    }))
}

impl Source for Load {
    fn covers(&self) -> Covers {
        Covers {
            what: format!("other programs that use more than {} cores", self.threshold),
            kinds: vec![Activity::Processes],
        }
    }

    fn run(&mut self, out: &mut Outlet) -> Ended {
        let mut busy = busy_ticks().map(|ticks| (Instant::now(), ticks));
        let mut above: Option<Instant> = None;
        while out.wait(&[], Some(LOOK_EVERY)) {
            let (Some(now), Some((since, before))) = (busy_ticks(), busy) else {
                return Ended::Broken("/proc/stat cannot be read any more".to_owned());
            };
            let at = Instant::now();
            busy = Some((at, now));
            let all = now.saturating_sub(before) as f64
                / self.meter.ticks
                / at.duration_since(since).as_secs_f64().max(0.001);
            if all < self.threshold {
                self.meter.last = None;
            } else if let Some(cores) = self.meter.look(at)
                && cores >= self.threshold
            {
                above = Some(at);
                out.lasting(Activity::Processes, true);
            }
            if above.is_some_and(|last| at.duration_since(last) >= OVER_AFTER) {
                above = None;
                out.lasting(Activity::Processes, false);
            }
        }
        Ended::Stopped
    }
}

impl Meter {
    fn new() -> Meter {
        let program = fs::metadata("/proc/self/exe").ok();
        // SAFETY: only returns a number.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Meter {
            own: std::process::id() as i32,
            program: program.map(|about| (about.dev(), about.ino())),
            ticks: ticks.max(1) as f64,
            last: None,
        }
    }

    /// Cores that others used since the last look, where that was long enough ago.
    fn look(&mut self, at: Instant) -> Option<f64> {
        let span = self.last.as_ref().map(|last| at.duration_since(last.at));
        if span.is_some_and(|span| span < WINDOW - LOOK_EVERY / 2) {
            return None;
        }
        let processes = self.scan();
        let before = self.last.replace(Scan { at, processes });
        let (Some(before), Some(span), Some(last)) = (before, span, &self.last) else {
            return None;
        };
        let used = foreign_ticks(&before.processes, &last.processes);
        Some(used as f64 / self.ticks / span.as_secs_f64().max(0.001))
    }

    fn scan(&self) -> HashMap<(i32, u64), Process> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return HashMap::new();
        };
        let pids = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let mut found: HashMap<(i32, u64), Process> = pids
            .take(PROCESSES_MAX)
            .filter_map(|pid| {
                let (start, process) = read(pid)?;
                Some(((pid, start), process))
            })
            .collect();
        let ours = self.ours(&found);
        for ((pid, _), process) in &mut found {
            process.foreign = !process.kernel && !ours.contains(pid);
        }
        found
    }

    /// This process, other ones of this program, and everything below them.
    fn ours(&self, found: &HashMap<(i32, u64), Process>) -> HashSet<i32> {
        let known = self.last.as_ref().map(|last| &last.processes);
        let mut ours = HashSet::from([self.own]);
        for (key, process) in found {
            // What was foreign stays so: only what is new is asked for its program.
            let foreign = known
                .and_then(|known| known.get(key))
                .is_some_and(|known| known.foreign);
            if !process.kernel && !foreign && self.program.is_some() {
                let path = PathBuf::from(format!("/proc/{}/exe", key.0));
                let program = fs::metadata(path).ok();
                if program.map(|about| (about.dev(), about.ino())) == self.program {
                    ours.insert(key.0);
                }
            }
        }
        let parents: HashMap<i32, i32> = found
            .iter()
            .map(|((pid, _), process)| (*pid, process.parent))
            .collect();
        for pid in parents.keys() {
            let mut path = Vec::new();
            let mut at = *pid;
            while !ours.contains(&at) && at > 1 && path.len() < parents.len() {
                path.push(at);
                at = parents.get(&at).copied().unwrap_or(0);
            }
            if ours.contains(&at) {
                ours.extend(path);
            }
        }
        ours
    }
}

/// Ticks that foreign processes used between two scans; those of children that came and went are found with
/// their parents.
fn foreign_ticks(before: &HashMap<(i32, u64), Process>, now: &HashMap<(i32, u64), Process>) -> u64 {
    let (mut used, mut waited, mut vanished) = (0, 0, 0);
    for (key, process) in now.iter().filter(|(_, process)| process.foreign) {
        let old = before.get(key);
        used += process.own.saturating_sub(old.map_or(0, |old| old.own));
        waited += process
            .children
            .saturating_sub(old.map_or(process.children, |old| old.children));
    }
    for (key, process) in before.iter().filter(|(_, process)| process.foreign) {
        if !now.contains_key(key) {
            vanished += process.own + process.children;
        }
    }
    used + waited.saturating_sub(vanished)
}

/// Start and use of a process, from `/proc/PID/stat`.
fn read(pid: i32) -> Option<(u64, Process)> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let behind = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(stat.get(behind + 2..)?).ok()?;
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    /// `PF_KTHREAD` of the kernel's `sched.h`.
    const KERNEL: u64 = 0x0020_0000;
    let process = Process {
        parent: fields.get(1)?.parse().ok()?,
        own: number(11)? + number(12)?,
        children: number(13)? + number(14)?,
        kernel: number(6)? & KERNEL != 0,
        foreign: false,
    };
    Some((number(19)?, process))
}

/// Ticks that all processors have worked, from the first line of `/proc/stat`.
fn busy_ticks() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let mut fields = text.lines().next()?.split_ascii_whitespace().skip(1);
    let mut number = || fields.next()?.parse::<u64>().ok();
    let (user, nice, system) = (number()?, number()?, number()?);
    Some(user + nice + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(own: u64, children: u64, foreign: bool) -> Process {
        Process {
            parent: 1,
            own,
            children,
            kernel: false,
            foreign,
        }
    }

    #[test]
    fn short_lived_children_are_found_with_their_parents_and_counted_once() {
        let before = HashMap::from([
            ((1, 1), process(100, 0, true)),
            ((2, 2), process(40, 0, true)),
            ((9, 9), process(0, 0, false)),
        ]);
        // Process 2 ended at 50 ticks, another child came and went within 30; ours computed.
        let now = HashMap::from([
            ((1, 1), process(101, 80, true)),
            ((9, 9), process(500, 500, false)),
        ]);
        assert_eq!(foreign_ticks(&before, &now), 1 + 10 + 30);
    }

    #[test]
    fn this_process_and_what_it_started_is_ours() {
        // Both end when their standard input does.
        let mut child = std::process::Command::new("sh")
            .args(["-c", "echo started; (cat; true) | cat"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        let found = Meter::new().scan();
        let foreign = |pid: i32| {
            let process = found.iter().find(|((at, _), _)| *at == pid);
            process.map(|(_, process)| process.foreign)
        };
        let answer = (
            foreign(std::process::id() as i32),
            foreign(child.id() as i32),
            foreign(1),
        );
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(answer, (Some(false), Some(false), Some(true)));
    }
}
