//! The leader's state of one worker.

use crate::monitor::Attention;
use crate::supervisor::leader::attempts::load::Load;
use crate::supervisor::leader::pool::capacity::BenchmarkState;
use crate::supervisor::leader::pool::link::LinkState;
use crate::supervisor::leader::pool::owner::OwnerStanding;
use crate::supervisor::leader::pool::reliability::Reliability;
use crate::supervisor::leader::pool::sent::SentBodies;
use crate::supervisor::leader::pool::state::{WorkerEvent, WorkerState};
use hedge_model::PeerId;
use hedge_model::capacity::Class;
use hedge_model::msg::WorkerInfo;

/// The leader's state of one worker.
#[derive(Debug)]
pub(crate) struct Worker {
    peer: PeerId,
    info: WorkerInfo,
    state: WorkerState,
    load: Load,
    draining: bool,
    owner: OwnerStanding,
    reliability: Reliability,
    bodies: SentBodies,
    class: Class,
    speed: f64,
    benchmark: BenchmarkState,
    link: LinkState,
}

impl Worker {
    /// Creates a worker that this leader did not know.
    pub fn new(peer: PeerId, info: WorkerInfo, state: WorkerState) -> Self {
        Self {
            peer,
            load: Load::new(info.resources.clone()),
            info,
            state,
            draining: false,
            owner: OwnerStanding::default(),
            reliability: Reliability::default(),
            bodies: SentBodies::default(),
            class: Class::default(),
            speed: 1.0,
            benchmark: BenchmarkState::default(),
            link: LinkState::default(),
        }
    }

    /// Resets the state for a worker that attached with these resources and nothing in hand. It reports its owner's
    /// activity next, if any.
    pub fn attach(&mut self, info: WorkerInfo) {
        self.load.offer(info.resources.clone());
        self.bodies = SentBodies::default();
        self.draining = false;
        self.owner = OwnerStanding::default();
        self.info = info;
    }

    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// What it reported about itself when it attached, without what it held and had in hand.
    pub fn info(&self) -> &WorkerInfo {
        &self.info
    }

    /// Its attempts and its free resources.
    pub fn load(&self) -> &Load {
        &self.load
    }

    pub fn load_mut(&mut self) -> &mut Load {
        &mut self.load
    }

    /// Whether it drains: it completes what it has in hand and then leaves.
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// Starts to drain it. Returns false if it drains already.
    pub fn drain(&mut self) -> bool {
        !std::mem::replace(&mut self.draining, true)
    }

    /// Its response to its owner's activity.
    pub fn owner(&self) -> &OwnerStanding {
        &self.owner
    }

    pub fn owner_mut(&mut self) -> &mut OwnerStanding {
        &mut self.owner
    }

    /// Its failure score and exclusion.
    pub fn reliability(&self) -> &Reliability {
        &self.reliability
    }

    pub fn reliability_mut(&mut self) -> &mut Reliability {
        &mut self.reliability
    }

    /// The bodies that it was sent.
    pub fn bodies_mut(&mut self) -> &mut SentBodies {
        &mut self.bodies
    }

    /// Its class, `higher` or `normal`.
    pub fn class(&self) -> Class {
        self.class
    }

    pub fn set_class(&mut self, class: Class) {
        self.class = class;
    }

    /// Seconds of work at standard speed that it does per second.
    pub fn speed(&self) -> f64 {
        self.speed
    }

    pub fn set_speed(&mut self, speed: f64) {
        self.speed = speed;
    }

    /// When it is asked for benchmark tasks.
    pub fn benchmark(&self) -> &BenchmarkState {
        &self.benchmark
    }

    pub fn benchmark_mut(&mut self) -> &mut BenchmarkState {
        &mut self.benchmark
    }

    /// What is known about its link.
    pub fn link(&self) -> &LinkState {
        &self.link
    }

    pub fn link_mut(&mut self) -> &mut LinkState {
        &mut self.link
    }

    /// Changes its connection state. Returns whether it is now connected, reachable or suspected where it was not, or
    /// the reverse.
    pub fn transition(&mut self, event: WorkerEvent) -> bool {
        let there = |state: &WorkerState| (state.connected(), state.reachable(), state.suspected());
        let before = there(&self.state);
        self.state = self.state.after(event);
        there(&self.state) != before
    }

    /// Its connection state.
    pub fn state(&self) -> &WorkerState {
        &self.state
    }

    /// Sets how closely it is watched. Returns whether that changed.
    pub fn watch(&mut self, attention: Attention) -> bool {
        self.state.watch(attention)
    }

    /// Ends the watch. Returns whether there was one.
    pub fn unwatch(&mut self) -> bool {
        self.state.unwatch()
    }

    /// Returns whether it may be given work.
    pub fn usable(&self) -> bool {
        self.state.reachable()
            && !self.state.suspected()
            && !self.draining
            && self.owner.response().is_none()
            && self.reliability.exclusion().is_none()
            && self.link.kept_out().is_none()
    }

    /// Returns whether it gives up what it runs and can save checkpoints before.
    pub fn gives_up(&self) -> bool {
        self.owner.vacates() || (self.draining && !self.owner.stops())
    }

    /// Returns whether its attempts should be repeated elsewhere: it drains, or its owner keeps them from running.
    pub fn leaving(&self) -> bool {
        self.draining || self.owner.stops()
    }
}
