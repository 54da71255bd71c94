//! The part of `hedge doctor` about owners: which kinds of activity a worker here would notice.

use super::Context;
use crate::args::Doctor;
use crate::exit::{Exit, Failure};
use crate::owner;
use crate::show::doctor::{Finding, Verdict, finding};
use hedge_host::{Found, Notice, Options, State, Watch, covering};
use hedge_model::owner::{Activity, Signal};
use hedge_node::worker::OwnerConfig;
use serde_json::json;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Notices that wait to be shown; further ones are dropped.
const NOTICES_MAX: usize = 1024;

/// Reads the owner's file, as a worker does.
pub fn config(args: &Doctor) -> Result<OwnerConfig, Failure> {
    match &args.owner {
        None => Ok(OwnerConfig::default()),
        Some(file) => owner::read(file).map_err(Failure::Arguments),
    }
}

fn cannot(error: std::io::Error) -> Failure {
    Failure::Local(format!("the owner's activity cannot be watched: {error}"))
}

/// Starts every source and reports which kinds of activity are noticed, and how access to input is granted if it is
/// denied.
pub fn findings(sources: Options) -> Result<Vec<Finding>, Failure> {
    let watch = Watch::start(sources, |_| {}).map_err(cannot)?;
    Ok(of(&watch.found()))
}

fn of(found: &[Found]) -> Vec<Finding> {
    // Only sources of input need access that can be denied.
    let denied = found.iter().find_map(|one| match &one.state {
        Some(State::Denied { mend, .. }) => Some(mend.as_str()),
        _ => None,
    });
    let input = Activity::ALL
        .iter()
        .any(|kind| kind.is_input() && !covering(found, *kind).is_empty());
    let mut findings: Vec<_> = Activity::ALL
        .into_iter()
        .filter(|kind| *kind != Activity::Input)
        .map(|kind| kind_finding(found, kind, denied))
        .collect();
    if !input {
        findings.push(finding(
            "owner's input",
            Verdict::Reduced,
            "no source of input: unless the owner's file says `unwatched = \"work\"`, a worker here takes the machine to be in \
             use, and runs nothing",
            Some(
                denied.unwrap_or("start the worker with --dedicated, if nobody uses this machine"),
            ),
        ));
    }
    findings.extend(found.iter().map(source_finding));
    findings
}

fn kind_finding(found: &[Found], kind: Activity, denied: Option<&str>) -> Finding {
    let by = covering(found, kind);
    let whole = covering(found, Activity::Input);
    if !by.is_empty() {
        finding(
            kind.name(),
            Verdict::Good,
            format!("noticed by {}", by.join(", ")),
            None,
        )
    } else if kind.is_input() && !whole.is_empty() {
        let found = format!("noticed by {}, without its kind", whole.join(", "));
        finding(kind.name(), Verdict::Good, found, denied)
    } else {
        let advice = denied.filter(|_| kind.is_input());
        finding(kind.name(), Verdict::Reduced, "not noticed", advice)
    }
}

fn source_finding(found: &Found) -> Finding {
    let (verdict, said, advice) = match &found.state {
        Some(State::Watching { what, .. }) => (Verdict::Good, what.clone(), None),
        Some(State::Absent { why, mend }) => (Verdict::Absent, why.clone(), mend.as_deref()),
        Some(State::Denied { why, mend }) => (Verdict::Reduced, why.clone(), Some(mend.as_str())),
        None => (Verdict::Reduced, "takes long to open".to_owned(), None),
    };
    finding(found.source, verdict, said, advice)
}

/// Shows what is noticed as it is noticed, until the process is interrupted.
pub fn watch(context: &Context, sources: Options) -> Result<Exit, Failure> {
    let (hand, notices) = sync_channel(NOTICES_MAX);
    let watch = Watch::start(sources, move |notice| _ = hand.try_send(notice)).map_err(cannot)?;
    for found in of(&watch.found()) {
        context.look.print(&found, || {
            crate::show::doctor::text(std::slice::from_ref(&found))
        })?;
    }
    while let Ok(notice) = notices.recv() {
        let line = json!({
            "at_ms": since_1970(&notice).as_millis() as u64,
            "source": notice.source,
            "noticed": words(notice.signal),
        });
        context
            .look
            .print(&line, || format!("{}\n", shown(&notice)))?;
    }
    Ok(Exit::Done)
}

fn since_1970(notice: &Notice) -> Duration {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.saturating_sub(notice.at.elapsed())
}

fn shown(notice: &Notice) -> String {
    let at = since_1970(notice);
    let (seconds, millis) = (at.as_secs() % 86_400, at.subsec_millis());
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let words = words(notice.signal);
    format!(
        "{hour:02}:{minute:02}:{second:02}.{millis:03} UTC  {words} ({})",
        notice.source
    )
}

fn words(signal: Signal) -> String {
    let on = |what: &str, on: bool| format!("{what}: {}", if on { "yes" } else { "no" });
    match signal {
        Signal::Seen(kind) => kind.to_string(),
        Signal::Lasting(kind, true) => format!("{kind}: begins"),
        Signal::Lasting(kind, false) => format!("{kind}: over"),
        Signal::Locked(locked) => on("session locked", locked),
        Signal::Saver(shown) => on("screensaver shown", shown),
        Signal::Battery(battery) => on("on battery", battery),
        Signal::Metered(metered) => on("metered network", metered),
        Signal::Watched(any) => on("input watched", any),
        Signal::Clock(minute) => format!("minute {minute} of the week"),
    }
}
