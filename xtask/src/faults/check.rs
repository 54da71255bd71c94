//! Compares what clients were told with what the journals say and with what an undisturbed run gives.

use super::clients::Known;
use super::jobs::Expected;
use super::journal::{Entries, Job, Story, difference, entries};
use super::log::Log;
use super::peers::{Peers, SUPERVISORS};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a campaign found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What must never be; empty, if all is well.
    pub wrong: Vec<String>,
    /// Figures.
    pub figures: BTreeMap<&'static str, Value>,
}

/// Looks at everything after all has ended.
pub fn check(peers: &Peers, log: &Log, clients: &[Vec<Known>]) -> Verdict {
    let mut verdict = Verdict::default();
    let all: Vec<&Known> = clients.iter().flatten().collect();
    processes(peers, &mut verdict);
    let logs = journals(peers, &mut verdict);
    // The longest has everything that was committed: the others were caught up with when they were stopped.
    let longest = logs
        .iter()
        .max_by_key(|log| log.keys().next_back().copied());
    let story = longest.map(Story::new).unwrap_or_default();
    verdict.wrong.extend(story.wrong.iter().cloned());
    for known in &all {
        job(known, &story, &mut verdict);
    }
    figures(&all, &story, log, &mut verdict);
    verdict
}

/// No process ended by a mistake of its own.
fn processes(peers: &Peers, verdict: &mut Verdict) {
    use std::os::unix::process::ExitStatusExt;
    let ends = peers.own_ends();
    for (number, status) in &ends {
        if status.code() == Some(70) || status.signal().is_some() {
            verdict
                .wrong
                .push(format!("peer {number} ended by itself: {status}"));
        }
    }
    for number in 0..super::peers::CLIENT {
        let told = peers.errors(number);
        if let Some(line) = told.lines().find(|line| line.contains("panicked at")) {
            verdict.wrong.push(format!("peer {number}: {line}"));
        }
    }
    let ended = json!(ends.len());
    verdict
        .figures
        .insert("processes_ended_by_themselves", ended);
}

/// All journals can be read, and agree wherever two of them have an entry.
fn journals(peers: &Peers, verdict: &mut Verdict) -> Vec<Entries> {
    let mut logs = Vec::new();
    for number in 0..SUPERVISORS {
        match peers.dump(number) {
            Ok(lines) => logs.push(entries(&lines)),
            Err(error) => verdict.wrong.push(format!(
                "the journal of supervisor {number} cannot be read: {error:#}"
            )),
        }
    }
    for (number, log) in logs.iter().enumerate().skip(1) {
        if let Some(index) = difference(&logs[0], log) {
            verdict.wrong.push(format!(
                "the journals of two supervisors differ at entry {index} (0 and {number})"
            ));
        }
    }
    logs
}

fn job(known: &Known, story: &Story, verdict: &mut Verdict) {
    let mut wrong = |what: String| {
        let number = known.number.map_or("?".into(), |number| number.to_string());
        verdict
            .wrong
            .push(format!("job {number} ({}): {what}", known.job.shape));
    };
    if let Some(refused) = &known.refused {
        wrong(format!("refused: {refused}"));
    }
    // Never acknowledged: its outcome is unknown, and nothing was promised.
    let Some(number) = known.number else { return };
    let Some(recorded) = story.jobs.get(&number) else {
        return wrong("acknowledged, and in no journal".into());
    };
    let Some((state, files)) = &known.ended else {
        let end = recorded.end.as_deref().unwrap_or("nothing");
        return wrong(format!(
            "acknowledged, and no end heard of; the journal says {end}"
        ));
    };
    if recorded.end.as_deref().map(str::to_lowercase).as_deref() != Some(state) {
        wrong(format!(
            "the client heard {state}, the journal says {:?}",
            recorded.end
        ));
    }
    for told in &known.costs {
        if let Some(what) = recorded.bill.differs(told) {
            wrong(format!("its cost differs from the journal's: {what}"));
        }
    }
    let as_expected = match &known.job.expected {
        Expected::Failed => state == "failed",
        Expected::Cancelled => state == "cancelled" || state == "done",
        _ => state == "done",
    };
    if !as_expected {
        wrong(format!(
            "ended as {state}; expected {:?}",
            kind(&known.job.expected)
        ));
    }
    if let Some(what) = results(known, state, files, recorded, story) {
        wrong(what);
    }
}

/// Where what a job left differs from what it had to leave.
fn results(
    known: &Known,
    state: &str,
    files: &BTreeMap<String, Vec<u8>>,
    recorded: &Job,
    story: &Story,
) -> Option<String> {
    match &known.job.expected {
        Expected::Files(expected) if state == "done" && expected != files => {
            let sizes = |all: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, usize> {
                all.iter()
                    .map(|(name, bytes)| (name.clone(), bytes.len()))
                    .collect()
            };
            Some(format!(
                "its results differ from an undisturbed run: {:?} bytes expected, {:?} brought",
                sizes(expected),
                sizes(files)
            ))
        }
        Expected::Winners(file) if state == "done" => {
            let text = files.get(file).map(|bytes| String::from_utf8_lossy(bytes));
            let text = text.unwrap_or_default();
            let made: Vec<&str> = text.lines().collect();
            let last = recorded.winners.get(&1).map(String::as_str);
            match made[..] {
                [first, second] if story.winners.contains(first) && Some(second) == last => None,
                _ => Some(format!(
                    "its results were made by {made:?}; the journal's winners are {:?}",
                    recorded.winners
                )),
            }
        }
        _ => None,
    }
}

fn kind(expected: &Expected) -> &'static str {
    match expected {
        Expected::Failed => "failed",
        Expected::Cancelled => "cancelled",
        Expected::Files(_) | Expected::Winners(_) => "done",
    }
}

fn figures(all: &[&Known], story: &Story, log: &Log, verdict: &mut Verdict) {
    let mut shapes = BTreeMap::<&str, u64>::new();
    for known in all {
        *shapes.entry(known.job.shape).or_default() += 1;
    }
    let mut accepted: Vec<u64> = all.iter().filter_map(|known| known.accepted_ms).collect();
    accepted.sort_unstable();
    let at = |share: usize| accepted.get(accepted.len().saturating_sub(1) * share / 100);
    let gap = longest_gap(log);
    let unknown = log.lines();
    let unknown = unknown.iter().filter(|line| line.what["is"] == "unknown");
    let tasks: u64 = story
        .jobs
        .values()
        .map(|job| job.winners.len() as u64)
        .sum();
    verdict.figures.extend([
        ("jobs", json!(all.len())),
        ("jobs_acknowledged", json!(accepted.len())),
        ("jobs_by_shape", json!(shapes)),
        ("tasks_done", json!(tasks)),
        ("records", json!(story.records)),
        ("records_too_late", json!(story.late)),
        ("workers_revoked", json!(story.revoked.len())),
        (
            "costs_compared",
            json!(all.iter().map(|known| known.costs.len()).sum::<usize>()),
        ),
        ("epochs", json!(story.epochs)),
        ("requests_of_unknown_outcome", json!(unknown.count())),
        ("accepted_ms_p50", json!(at(50))),
        ("accepted_ms_p95", json!(at(95))),
        ("accepted_ms_max", json!(accepted.last())),
        (
            "longest_without_answer_ms",
            json!(gap.map(|(from, to)| to - from)),
        ),
        (
            "longest_without_answer_from_ms",
            json!(gap.map(|(from, _)| from)),
        ),
    ]);
}

/// From when to when no client had an answer, in milliseconds since the start, at the longest.
fn longest_gap(log: &Log) -> Option<(u64, u64)> {
    let lines = log.lines();
    let answered = lines
        .iter()
        .filter(|line| line.who != "nemesis" && line.what["is"] == "answered");
    let answers: Vec<u64> = answered.map(|line| line.at_ms).collect();
    let gaps = answers.windows(2).map(|two| (two[0], two[1].max(two[0])));
    gaps.max_by_key(|(from, to)| to - from)
}
