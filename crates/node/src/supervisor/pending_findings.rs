//! Findings of the monitor that wait for the core's queue. Under a backlog, what a newer finding about the same worker
//! or attempt replaces is dropped, so the number of findings has a bound and the core learns the newest ones.

use super::core_loop::ConnId;
use hedge_core::monitor::{Finding, Found};
use hedge_model::{AttemptId, PeerId};
use std::collections::{BTreeMap, VecDeque};

/// The most attempts of one connection with findings that wait. Findings about further ones are dropped: this is far
/// more than a worker runs at once, so the attempts that wait have probably ended.
const ATTEMPTS_MAX: usize = 1024;

/// Findings that wait, the connections that wait longest first.
#[derive(Debug, Default)]
pub(super) struct PendingFindings {
    order: VecDeque<ConnId>,
    by_connection: BTreeMap<ConnId, ConnectionFindings>,
}

/// What waits about one worker.
#[derive(Debug)]
struct ConnectionFindings {
    peer: PeerId,
    /// The worker was heard again, before `silent`.
    back: Option<Found>,
    silent: Option<Found>,
    owner: Option<Found>,
    attempts: BTreeMap<AttemptId, AttemptFindings>,
}

#[derive(Clone, Copy, Debug, Default)]
struct AttemptFindings {
    /// That it is stalled, or no longer is.
    stall: Option<Found>,
    progress: Option<Found>,
}

impl ConnectionFindings {
    fn add(&mut self, found: Found) {
        match found {
            Found::Back { .. } => (self.back, self.silent) = (Some(found), None),
            Found::Silent { .. } => self.silent = Some(found),
            Found::Owner(_) => self.owner = Some(found),
            Found::Stalled { attempt, .. } | Found::Moving(attempt) => {
                if let Some(findings) = self.attempt(attempt) {
                    findings.stall = Some(found);
                }
            }
            Found::Progress(attempt, _) => {
                if let Some(findings) = self.attempt(attempt) {
                    findings.progress = Some(found);
                }
            }
        }
    }

    fn attempt(&mut self, id: AttemptId) -> Option<&mut AttemptFindings> {
        let full = self.attempts.len() >= ATTEMPTS_MAX && !self.attempts.contains_key(&id);
        (!full).then(|| self.attempts.entry(id).or_default())
    }

    fn take(&mut self) -> Option<Found> {
        let first = [&mut self.back, &mut self.silent, &mut self.owner];
        if let Some(found) = first.into_iter().find_map(Option::take) {
            return Some(found);
        }
        let mut entry = self.attempts.first_entry()?;
        let findings = entry.get_mut();
        match findings.stall.take() {
            Some(stall) if findings.progress.is_some() => Some(stall),
            Some(stall) => {
                entry.remove();
                Some(stall)
            }
            None => entry.remove().progress,
        }
    }
}

impl PendingFindings {
    /// Returns whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Adds a finding, which replaces an older one about the same worker or attempt.
    pub fn add(&mut self, conn: ConnId, finding: Finding) {
        let findings = self.by_connection.entry(conn).or_insert_with(|| {
            self.order.push_back(conn);
            ConnectionFindings {
                peer: finding.peer,
                back: None,
                silent: None,
                owner: None,
                attempts: BTreeMap::new(),
            }
        });
        findings.add(finding.what);
    }

    /// Removes and returns the next finding.
    pub fn take(&mut self) -> Option<(ConnId, Finding)> {
        while let Some(conn) = self.order.front().copied() {
            let next = self.by_connection.get_mut(&conn).and_then(|findings| {
                let (peer, what) = (findings.peer, findings.take()?);
                Some(Finding { peer, what })
            });
            if let Some(finding) = next {
                return Some((conn, finding));
            }
            self.by_connection.remove(&conn);
            self.order.pop_front();
        }
        None
    }

    /// Drops what waits about a closed connection.
    pub fn forget(&mut self, conn: ConnId) {
        if self.by_connection.remove(&conn).is_some() {
            self.order.retain(|other| *other != conn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hedge_core::monitor::{Liveness, Progress};
    use hedge_model::{Epoch, JobId, TaskId};
    use std::time::Duration;

    fn worker(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn silent(liveness: Liveness) -> Found {
        let silent = Duration::from_secs(1);
        Found::Silent { liveness, silent }
    }

    fn back(was: Liveness) -> Found {
        let silent = Duration::from_secs(1);
        Found::Back { was, silent }
    }

    fn attempt(number: u32) -> AttemptId {
        let job = JobId(1);
        AttemptId {
            task: TaskId { job, number },
            generation: 0,
            epoch: Epoch(1),
            number: 1,
        }
    }

    fn progress(number: u32, permille: u16) -> Found {
        let progress = Progress {
            permille: Some(permille),
            ..Progress::default()
        };
        Found::Progress(attempt(number), progress)
    }

    fn add(pending: &mut PendingFindings, number: u8, what: Found) {
        let peer = worker(number);
        pending.add(u64::from(number), Finding { peer, what });
    }

    fn all(pending: &mut PendingFindings) -> Vec<(u64, Found)> {
        let next = std::iter::from_fn(|| pending.take());
        next.map(|(conn, finding)| (conn, finding.what)).collect()
    }

    #[test]
    fn a_newer_finding_replaces_an_older_one_about_the_same_worker_or_attempt() {
        let mut pending = PendingFindings::default();
        let stalled = Found::Stalled {
            attempt: attempt(7),
            idle: Duration::from_secs(60),
        };
        for what in [
            silent(Liveness::Suspect),
            progress(7, 100),
            silent(Liveness::Dead),
            progress(7, 200),
            stalled,
            progress(8, 5),
        ] {
            add(&mut pending, 1, what);
        }
        add(&mut pending, 2, silent(Liveness::Late));
        assert_eq!(
            all(&mut pending),
            [
                (1, silent(Liveness::Dead)),
                (1, stalled),
                (1, progress(7, 200)),
                (1, progress(8, 5)),
                (2, silent(Liveness::Late)),
            ]
        );
        assert!(pending.is_empty());
    }

    #[test]
    fn a_worker_that_was_heard_in_between_is_reported_as_heard_and_then_as_silent() {
        let mut pending = PendingFindings::default();
        for what in [
            silent(Liveness::Dead),
            back(Liveness::Dead),
            silent(Liveness::Late),
            silent(Liveness::Suspect),
        ] {
            add(&mut pending, 1, what);
        }
        let expected = [(1, back(Liveness::Dead)), (1, silent(Liveness::Suspect))];
        assert_eq!(all(&mut pending), expected);
        add(&mut pending, 1, silent(Liveness::Suspect));
        add(&mut pending, 1, back(Liveness::Suspect));
        assert_eq!(all(&mut pending), [(1, back(Liveness::Suspect))]);
    }

    #[test]
    fn the_findings_of_a_connection_have_a_bound_and_end_with_it() {
        let mut pending = PendingFindings::default();
        for round in 0..3 {
            for number in 0..2 * ATTEMPTS_MAX as u32 {
                add(&mut pending, 1, progress(number, round));
            }
            add(&mut pending, 1, silent(Liveness::Late));
        }
        let found = all(&mut pending);
        assert_eq!(found.len(), ATTEMPTS_MAX + 1);
        assert_eq!(found[1], (1, progress(0, 2)));
        add(&mut pending, 1, silent(Liveness::Late));
        add(&mut pending, 2, silent(Liveness::Dead));
        pending.forget(1);
        assert_eq!(all(&mut pending), [(2, silent(Liveness::Dead))]);
    }
}
