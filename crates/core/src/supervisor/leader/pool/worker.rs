//! What the leader knows of one worker.

use crate::monitor::Attention;
use crate::supervisor::leader::attempts::load::Load;
use crate::supervisor::leader::pool::capacity::BENCHMARK_AGAIN_AFTER;
use crate::supervisor::leader::pool::link::LinkState;
use crate::supervisor::leader::pool::state::{WorkerEvent, WorkerState};
use hedge_model::capacity::Class;
use hedge_model::msg::WorkerInfo;
use hedge_model::owner::{OwnerResponse, OwnerState};
use hedge_model::{JobId, PeerId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A worker, as the leader knows it.
#[derive(Debug)]
pub(crate) struct Worker {
    pub peer: PeerId,
    pub info: WorkerInfo,
    state: WorkerState,
    pub load: Load,
    pub draining: bool,
    /// How it stands to its owner, and when it said so; none while it works as if nobody were there.
    pub owner: Option<(OwnerState, Time)>,
    /// The last change of that which was heard of.
    pub owner_change: u32,
    pub exclusion: Option<Exclusion>,
    /// Times that it failed a task that another could do, since it last did one itself.
    pub outdone: u32,
    /// Exclusions for that.
    pub times_outdone: u32,
    /// Exclusions for faults of its own or its machine's, since it last did a task.
    pub faults: u32,
    /// Versions of the bodies it was sent.
    pub bodies: BTreeMap<(JobId, u32), u32>,
    /// Bodies whose content it holds.
    pub staged: BTreeSet<(JobId, u32, u32)>,
    pub done: u64,
    pub failed: u64,
    pub lost_count: u64,
    /// Whether it is one of the faster ones.
    pub class: Class,
    /// Work that it does in a second, in seconds at standard speed.
    pub speed: f64,
    /// Whether it was asked for benchmark tasks and has not said what they found.
    pub benchmark_asked: bool,
    /// Whether that is to be looked at once it has nothing in hand.
    pub benchmark_waits: bool,
    /// When it is to be asked again.
    pub benchmark_again: Duration,
    /// What is known of its link.
    pub link: LinkState,
}

/// A worker that is given nothing for a while.
#[derive(Debug)]
pub(crate) struct Exclusion {
    /// What it did, as a clause without a subject.
    pub why: String,
    pub until: Time,
}

impl Worker {
    /// A worker that this leader has just heard of.
    pub fn new(peer: PeerId, info: WorkerInfo, state: WorkerState) -> Self {
        Self {
            peer,
            load: Load::new(info.resources.clone()),
            info,
            state,
            draining: false,
            owner: None,
            owner_change: 0,
            exclusion: None,
            outdone: 0,
            times_outdone: 0,
            faults: 0,
            bodies: BTreeMap::new(),
            staged: BTreeSet::new(),
            done: 0,
            failed: 0,
            lost_count: 0,
            class: Class::default(),
            speed: 1.0,
            benchmark_asked: false,
            benchmark_waits: false,
            benchmark_again: BENCHMARK_AGAIN_AFTER,
            link: LinkState::default(),
        }
    }

    /// Changes whether it is there; says whether it may be given work or be talked to otherwise than before.
    pub fn transition(&mut self, event: WorkerEvent) -> bool {
        let there = |state: &WorkerState| (state.connected(), state.reachable(), state.suspected());
        let before = there(&self.state);
        self.state = self.state.after(event);
        there(&self.state) != before
    }

    /// Whether it is there.
    pub fn state(&self) -> &WorkerState {
        &self.state
    }

    /// Has it watched this closely; says whether that is new.
    pub fn watch(&mut self, attention: Attention) -> bool {
        self.state.watch(attention)
    }

    /// Ends the watch; says whether there was one.
    pub fn unwatch(&mut self) -> bool {
        self.state.unwatch()
    }

    /// Whether it may be given work.
    pub fn usable(&self) -> bool {
        self.state.reachable()
            && !self.state.suspected()
            && !self.draining
            && self.owner.is_none()
            && self.exclusion.is_none()
            && self.link.kept_out.is_none()
    }

    /// Whether what runs there had better be repeated elsewhere: it is to leave, or its owner stopped it.
    pub fn leaving(&self) -> bool {
        let stopped = |owner: &OwnerState| {
            matches!(owner.response, OwnerResponse::Pause | OwnerResponse::Vacate)
        };
        self.draining || self.owner.as_ref().is_some_and(|(owner, _)| stopped(owner))
    }
}
