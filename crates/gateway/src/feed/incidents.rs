//! Incidents: the gateway compares successive views of the grid, and reports faults, owners and leaders that changed.

use hedge_model::view::WorkerView;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::SystemTime;
use utoipa::ToSchema;

/// The most incidents that are kept. Each client receives all of them when it connects.
pub const INCIDENTS_MAX: usize = 1000;

/// Something that happened to a machine or to the grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Incident {
    /// Counts the incidents of this gateway.
    pub number: u64,
    /// When the gateway saw it, milliseconds of Unix time.
    pub at_unix_ms: u64,
    /// What happened.
    pub kind: IncidentKind,
    /// The id of the worker, or of the supervisor that leads; none for the grid as a whole.
    pub peer: Option<String>,
    /// The worker's machine.
    pub host: Option<String>,
    /// Kinds of an owner's activity, or further words.
    pub why: Vec<String>,
    /// For how long: of a machine that is heard again how long it was silent, of an owner that left how long it was there,
    /// milliseconds.
    pub lasted_ms: Option<f64>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// The gateway begins to look, because somebody follows. What happened before is not known.
    WatchBegins,
    /// It looks no longer, because nobody follows.
    WatchPauses,
    /// A worker came.
    Joined,
    /// A worker is no longer listed.
    Left,
    /// Heartbeats are missing: copies of its critical tasks start elsewhere.
    Suspected,
    /// It was suspected and heard again between two looks.
    BrieflySuspected,
    /// It was declared dead.
    Dead,
    /// It is heard again.
    Recovered,
    /// Its owner is back.
    OwnerBack,
    /// What runs there is given up for its owner.
    Vacates,
    /// Its owner is away again.
    OwnerLeft,
    /// It is given no tasks for a while, or its link is too slow.
    Excluded,
    /// It is given tasks again.
    Admitted,
    /// No supervisor answers.
    Unreachable,
    /// One answers again.
    Reachable,
    /// Another supervisor leads.
    Leader,
}

/// Compares views of the grid with the ones before.
#[derive(Debug, Default)]
pub struct Observer {
    workers: BTreeMap<String, Seen>,
    leader: Option<String>,
    unreachable: bool,
    watch: Watch,
    found: Vec<Incident>,
}

/// Whether the grid is watched for somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Watch {
    #[default]
    Paused,
    /// The workers have not been listed yet, so none of them counts as new or gone.
    Begun,
    Listed,
}

/// A worker as it was seen last.
#[derive(Clone, Debug)]
struct Seen {
    host: String,
    down: Down,
    suspicions: u64,
    silent_ms: f64,
    owner: Option<Vec<String>>,
    away_ms: f64,
    vacates: bool,
    excluded: bool,
}

/// Whether a worker is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Down {
    Heard,
    Suspect,
    Dead,
}

impl Seen {
    fn of(view: &WorkerView) -> Self {
        let owner = view.owner.as_ref();
        Self {
            host: view.host.clone(),
            down: match &*view.liveness {
                "suspect" => Down::Suspect,
                "dead" => Down::Dead,
                _ => Down::Heard,
            },
            suspicions: view.suspicions,
            silent_ms: view.silent_ms,
            owner: owner.map(|owner| owner.why.clone()),
            away_ms: owner.map_or(0.0, |owner| owner.away_ms),
            vacates: owner.is_some_and(|owner| owner.response == "vacate"),
            excluded: view.admission != "admitted",
        }
    }
}

impl Observer {
    /// Records that somebody follows the events, or that nobody does any more.
    pub fn watch(&mut self, watching: bool) {
        let (watch, kind) = match (watching, self.watch) {
            (true, Watch::Paused) => (Watch::Begun, IncidentKind::WatchBegins),
            (false, Watch::Begun | Watch::Listed) => (Watch::Paused, IncidentKind::WatchPauses),
            _ => return,
        };
        self.watch = watch;
        self.note(kind, None, Vec::new(), None);
    }

    /// Compares the present list of workers with the last one.
    pub fn workers(&mut self, listed: &[WorkerView]) {
        // Which workers came and went while nobody watched is unknown.
        let first = self.watch != Watch::Listed;
        self.watch = Watch::Listed;
        let mut before = std::mem::take(&mut self.workers);
        for view in listed {
            let now = Seen::of(view);
            match before.remove(&view.peer) {
                Some(seen) => self.compare(view, &seen, &now),
                None if first => {}
                None => self.note(IncidentKind::Joined, Some(view), Vec::new(), None),
            }
            self.workers.insert(view.peer.clone(), now);
        }
        for (peer, seen) in before.into_iter().filter(|_| !first) {
            self.push(
                IncidentKind::Left,
                Some(peer),
                Some(seen.host),
                Vec::new(),
                None,
            );
        }
    }

    fn compare(&mut self, view: &WorkerView, seen: &Seen, now: &Seen) {
        use IncidentKind::*;
        match (seen.down, now.down) {
            (Down::Heard, Down::Suspect) => {
                self.note(Suspected, Some(view), Vec::new(), Some(view.silent_ms));
            }
            (Down::Heard | Down::Suspect, Down::Dead) => {
                self.note(Dead, Some(view), Vec::new(), Some(view.silent_ms));
            }
            (Down::Suspect | Down::Dead, Down::Heard) => {
                self.note(Recovered, Some(view), Vec::new(), Some(seen.silent_ms));
            }
            (Down::Heard, Down::Heard) if now.suspicions > seen.suspicions => {
                let times = now.suspicions - seen.suspicions;
                self.note(
                    BrieflySuspected,
                    Some(view),
                    vec![match times {
                        1 => "once".to_owned(),
                        times => format!("{times} times"),
                    }],
                    None,
                );
            }
            _ => {}
        }
        match (&seen.owner, &now.owner) {
            (None, Some(why)) => self.note(OwnerBack, Some(view), why.clone(), None),
            (Some(_), None) => {
                self.note(OwnerLeft, Some(view), Vec::new(), Some(seen.away_ms));
            }
            _ => {}
        }
        if now.vacates && !seen.vacates {
            let why = now.owner.clone().unwrap_or_default();
            self.note(Vacates, Some(view), why, None);
        }
        match (seen.excluded, now.excluded) {
            (false, true) => {
                self.note(Excluded, Some(view), vec![view.admission.clone()], None);
            }
            (true, false) => self.note(Admitted, Some(view), Vec::new(), None),
            _ => {}
        }
    }

    /// Records whether a supervisor answers; `why` says why none does.
    pub fn reachable(&mut self, why: Option<&str>) {
        let unreachable = why.is_some();
        if unreachable != self.unreachable {
            self.unreachable = unreachable;
            let kind = if unreachable {
                IncidentKind::Unreachable
            } else {
                IncidentKind::Reachable
            };
            let why = why.map(str::to_owned).into_iter().collect();
            self.push(kind, None, None, why, None);
        }
    }

    /// Records which supervisor leads.
    pub fn leader(&mut self, leader: Option<String>) {
        let Some(leader) = leader else { return };
        let before = self.leader.replace(leader.clone());
        if before.is_some_and(|before| before != leader) {
            self.push(IncidentKind::Leader, Some(leader), None, Vec::new(), None);
        }
    }

    /// Removes and returns the incidents that were found since the last call, numbered from `next` on.
    pub fn take(&mut self, next: u64) -> Vec<Incident> {
        let mut found = std::mem::take(&mut self.found);
        for (incident, number) in found.iter_mut().zip(next..) {
            incident.number = number;
        }
        found
    }

    fn note(
        &mut self,
        kind: IncidentKind,
        worker: Option<&WorkerView>,
        why: Vec<String>,
        lasted_ms: Option<f64>,
    ) {
        let peer = worker.map(|view| view.peer.clone());
        let host = worker.map(|view| view.host.clone());
        self.push(kind, peer, host, why, lasted_ms);
    }

    fn push(
        &mut self,
        kind: IncidentKind,
        peer: Option<String>,
        host: Option<String>,
        why: Vec<String>,
        lasted_ms: Option<f64>,
    ) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.found.push(Incident {
            number: 0,
            at_unix_ms: since.map_or(0, |since| since.as_millis() as u64),
            kind,
            peer,
            host,
            why,
            lasted_ms,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use IncidentKind::*;
    use hedge_model::view::OwnerView;

    fn worker(peer: &str, liveness: &str) -> WorkerView {
        WorkerView {
            peer: peer.into(),
            host: format!("host-{peer}"),
            pid: 1,
            liveness: liveness.into(),
            usage: "ready".into(),
            owner: None,
            admission: "admitted".into(),
            link: None,
            total: Default::default(),
            free: Default::default(),
            shares: Vec::new(),
            network: "loopback".into(),
            in_hand: 0,
            done: 0,
            failed: 0,
            lost: 0,
            heartbeat_interval_ms: 100.0,
            heartbeat_mode: "heartbeats".into(),
            heartbeats: 0,
            suspicions: 0,
            late_gaps: 0,
            missed_heartbeats: 0,
            held_up_heartbeats: 0,
            silent_ms: 50.0,
            class: "normal".into(),
            score: 1.0,
            score_from: String::new(),
        }
    }

    fn kinds(observer: &mut Observer) -> Vec<IncidentKind> {
        observer.take(1).into_iter().map(|one| one.kind).collect()
    }

    #[test]
    fn what_changes_between_two_looks_is_an_incident_once() {
        let mut observer = Observer::default();
        observer.watch(true);
        observer.workers(&[worker("a", "live")]);
        assert_eq!(kinds(&mut observer), [WatchBegins], "nobody came just now");
        observer.workers(&[worker("a", "suspect"), worker("b", "live")]);
        assert_eq!(kinds(&mut observer), [Suspected, Joined]);
        observer.workers(&[worker("a", "dead"), worker("b", "late")]);
        assert_eq!(kinds(&mut observer), [Dead]);
        observer.workers(&[worker("a", "live"), worker("b", "live")]);
        assert_eq!(kinds(&mut observer), [Recovered]);
        observer.workers(&[worker("a", "live")]);
        let found = observer.take(7);
        assert_eq!((found[0].kind, found[0].number), (Left, 7));
        assert_eq!(found[0].host.as_deref(), Some("host-b"));
        // Between two looks it was suspected and heard again.
        let brief = WorkerView {
            suspicions: 2,
            ..worker("a", "live")
        };
        observer.workers(std::slice::from_ref(&brief));
        observer.workers(std::slice::from_ref(&brief));
        assert_eq!(kinds(&mut observer), [BrieflySuspected]);
    }

    #[test]
    fn an_owner_is_there_by_kind_alone() {
        let mut observer = Observer::default();
        observer.workers(&[worker("a", "live")]);
        let owner = |response: &str| WorkerView {
            owner: Some(OwnerView {
                response: response.into(),
                why: vec!["keyboard".into()],
                away_ms: 1500.0,
            }),
            ..worker("a", "live")
        };
        observer.workers(&[owner("pause")]);
        observer.workers(&[owner("vacate")]);
        observer.workers(&[worker("a", "live")]);
        let found = observer.take(1);
        let kinds: Vec<_> = found.iter().map(|one| one.kind).collect();
        assert_eq!(kinds, [OwnerBack, Vacates, OwnerLeft]);
        assert_eq!(found[0].why, ["keyboard"]);
        assert_eq!(found[2].lasted_ms, Some(1500.0));
    }

    #[test]
    fn what_happened_while_nobody_looked_is_not_made_up() {
        let mut observer = Observer::default();
        observer.watch(true);
        observer.workers(&[worker("a", "live")]);
        observer.leader(Some("x".into()));
        observer.watch(false);
        observer.watch(true);
        observer.workers(&[worker("b", "live")]);
        observer.leader(Some("y".into()));
        assert_eq!(
            kinds(&mut observer),
            [WatchBegins, WatchPauses, WatchBegins, Leader]
        );
    }
}
