//! What the leader knows of one worker.

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

/// A worker, as the leader knows it.
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
    /// A worker that this leader has just heard of.
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

    /// It has attached, has nothing in hand and offers this. If its owner is there, it says so next.
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

    /// What it said of itself when it attached, without what it held and had in hand then.
    pub fn info(&self) -> &WorkerInfo {
        &self.info
    }

    /// Its attempts, and what of its resources is free.
    pub fn load(&self) -> &Load {
        &self.load
    }

    pub fn load_mut(&mut self) -> &mut Load {
        &mut self.load
    }

    /// Whether it finishes what it has, and leaves then.
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// It is to finish what it has, and leave; says whether that is new.
    pub fn drain(&mut self) -> bool {
        !std::mem::replace(&mut self.draining, true)
    }

    /// How it stands to its owner.
    pub fn owner(&self) -> &OwnerStanding {
        &self.owner
    }

    pub fn owner_mut(&mut self) -> &mut OwnerStanding {
        &mut self.owner
    }

    /// How it has done so far.
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

    /// Whether it is one of the faster ones.
    pub fn class(&self) -> Class {
        self.class
    }

    pub fn set_class(&mut self, class: Class) {
        self.class = class;
    }

    /// Work that it does in a second, in seconds at standard speed.
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

    /// What is known of its link.
    pub fn link(&self) -> &LinkState {
        &self.link
    }

    pub fn link_mut(&mut self) -> &mut LinkState {
        &mut self.link
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
            && self.owner.response().is_none()
            && self.reliability.exclusion().is_none()
            && self.link.kept_out().is_none()
    }

    /// Whether it gives up what it runs and can save how far it is.
    pub fn gives_up(&self) -> bool {
        self.owner.vacates() || (self.draining && !self.owner.stops())
    }

    /// Whether what runs there had better be repeated elsewhere: it is to leave, or its owner stopped it.
    pub fn leaving(&self) -> bool {
        self.draining || self.owner.stops()
    }
}
