//! What one task costs the cores, without any network: `cargo run --release -p hedge-sim --example core_rate`.
//!
//! A pipeline of three arrays; one array on one worker; many groups of one task each, submitted at
//! once or added to an open job; the same on many workers. Each line gives the
//! supervisor's and the workers' own time for a task, in nanoseconds of this machine.

use hedge_core::supervisor::{self, Config, Effects, Offer, State, Supervisor};
use hedge_core::worker::{self, Worker};
use hedge_model::msg::{FromWorker, GrantedBody, Grants, Role, ToWorker, WorkerInfo};
use hedge_model::spec::{CriticalRule, Draft, Extension, Group, Network, Qos, Redundancy, Runtime};
use hedge_model::{Epoch, JobSpec, PeerAddr, PeerId, Resources, SubmitKey, Time};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn peer(ix: usize) -> PeerId {
    let mut id = [1; 32];
    id[..8].copy_from_slice(&(ix as u64).to_be_bytes());
    PeerId(id)
}

fn addr(peer: PeerId) -> PeerAddr {
    PeerAddr {
        peer,
        addrs: Vec::new(),
    }
}

/// A supervisor and its workers on one thread, joined by queues.
struct Rate {
    core: Supervisor,
    workers: Vec<Worker>,
    now: Time,
    to_core: VecDeque<supervisor::Event>,
    core_time: Duration,
    worker_time: Duration,
}

impl Rate {
    fn new(workers: usize, cpus: u64) -> Self {
        let config = Config::new(addr(PeerId([9; 32])));
        let resources = Resources::cpus(cpus * 1000);
        let mut rate = Self {
            core: Supervisor::new(config, State::default()),
            workers: (0..workers)
                .map(|_| Worker::new(resources.clone()))
                .collect(),
            now: Time(0),
            to_core: VecDeque::new(),
            core_time: Duration::ZERO,
            worker_time: Duration::ZERO,
        };
        let holds = Vec::new();
        rate.to_core.push_back(supervisor::Event::Lead {
            holds,
            secret: [7; 32],
        });
        rate.run();
        for ix in 0..workers {
            let info = WorkerInfo {
                host: "host".into(),
                pid: 1,
                resources: resources.clone(),
                labels: Vec::new(),
                shares: Vec::new(),
                network: Network::Loopback,
                addr: addr(peer(ix)),
                hardware: Default::default(),
                holds: Vec::new(),
                in_hand: Vec::new(),
            };
            let msg = FromWorker::Attach(Box::new(info));
            let peer = peer(ix);
            rate.to_core
                .push_back(supervisor::Event::FromWorker { peer, msg });
            rate.at_worker(ix, worker::Event::Connected(Epoch(1)));
        }
        rate.run();
        rate
    }

    fn at_worker(&mut self, ix: usize, event: worker::Event) {
        let mut out = Vec::new();
        let began = Instant::now();
        self.workers[ix].handle(self.now, event, &mut out);
        self.worker_time += began.elapsed();
        for action in out {
            if let worker::Action::Tell(msg) = action {
                let peer = peer(ix);
                self.to_core
                    .push_back(supervisor::Event::FromWorker { peer, msg });
            }
        }
    }

    fn run(&mut self) {
        let mut out = Effects::default();
        while let Some(event) = self.to_core.pop_front() {
            self.now = self.now + Duration::from_micros(1);
            let began = Instant::now();
            self.core.handle(self.now, event, &mut out);
            self.core_time += began.elapsed();
            for proposal in out.proposals.drain(..) {
                self.to_core.push_back(supervisor::Event::Committed {
                    proposal: Some(proposal.id),
                    record: proposal.record,
                });
            }
            for action in std::mem::take(&mut out.actions) {
                let (to, msg) = match action {
                    supervisor::Action::Send { to, msg } => (to, msg),
                    supervisor::Action::SendBody { to, body, .. } => {
                        let grants = Grants::default();
                        (to, ToWorker::Body(Arc::new(GrantedBody { body, grants })))
                    }
                    _ => continue,
                };
                let ix = usize::from_be_bytes(to.0[..8].try_into().unwrap_or_default());
                self.at_worker(ix, worker::Event::Order(Epoch(1), msg));
            }
        }
    }

    fn measure(mut self, name: &str, spec: JobSpec) {
        let tasks = spec.task_count();
        self.submit(spec);
        self.report(name, tasks);
    }

    /// The same for an open job that gets these groups one after the other, so many with each extension. Decoding is
    /// part of it, as it is of a submission.
    fn measure_open(mut self, name: &str, groups: Vec<Group>, batch: usize) {
        let tasks = groups.len() as u32;
        self.submit(job(Vec::new(), Kind::Open));
        for (at, part) in groups.chunks(batch).enumerate() {
            let extension = Extension {
                files: Vec::new(),
                groups: part.to_vec(),
            };
            let bytes = extension.encode().expect("an extension");
            let began = Instant::now();
            let extension = Extension::decode(&bytes).expect("an extension");
            self.core_time += began.elapsed();
            let mut key = [2; 16];
            key[..8].copy_from_slice(&(at as u64).to_be_bytes());
            self.to_core.push_back(supervisor::Event::Submit {
                requester: here(),
                request_id: 1,
                key: SubmitKey(key),
                offer: Offer::Groups(hedge_model::JobId(1), Arc::new(extension)),
                from: addr(PeerId([9; 32])),
                held: Vec::new(),
            });
            // Ten thousand tasks a second are added.
            self.now = self.now + Duration::from_micros(100) * part.len() as u32;
            self.run();
        }
        self.report(name, tasks);
    }

    /// Many jobs of one task. So many are submitted before the first of them starts.
    fn measure_jobs(mut self, name: &str, count: usize, together: usize) {
        for first in (0..count).step_by(together) {
            for at in first..(first + together).min(count) {
                let bytes = job(vec![noop("a")], Kind::Usual).encode().expect("a job");
                let began = Instant::now();
                let spec = JobSpec::decode(&bytes).expect("a job");
                self.core_time += began.elapsed();
                let mut key = [2; 16];
                key[..8].copy_from_slice(&(at as u64).to_be_bytes());
                self.to_core.push_back(supervisor::Event::Submit {
                    requester: here(),
                    request_id: at as u64,
                    key: SubmitKey(key),
                    offer: Offer::Job(Arc::new(spec)),
                    from: addr(PeerId([9; 32])),
                    held: Vec::new(),
                });
            }
            // Ten thousand jobs a second.
            self.now = self.now + Duration::from_micros(100) * together as u32;
            self.run();
        }
        let view = self.core.job_view(hedge_model::JobId(count as u64));
        assert_eq!(view.map(|view| view.done), Some(1), "the last job is done");
        self.print(name, count as u32);
    }

    fn submit(&mut self, spec: JobSpec) {
        self.core_time = Duration::ZERO;
        self.worker_time = Duration::ZERO;
        let bytes = spec.encode().expect("a job");
        let began = Instant::now();
        let spec = JobSpec::decode(&bytes).expect("a job");
        self.core_time += began.elapsed();
        self.to_core.push_back(supervisor::Event::Submit {
            requester: here(),
            request_id: 1,
            key: SubmitKey([1; 16]),
            offer: Offer::Job(Arc::new(spec)),
            from: addr(PeerId([9; 32])),
            held: Vec::new(),
        });
        self.run();
    }

    fn report(&self, name: &str, tasks: u32) {
        let view = self.core.job_view(hedge_model::JobId(1));
        assert_eq!(view.map(|view| view.done), Some(tasks), "the job is done");
        self.print(name, tasks);
    }

    fn print(&self, name: &str, tasks: u32) {
        let each = |time: Duration| time.as_nanos() / u128::from(tasks);
        println!(
            "{name}: {tasks} tasks, supervisor {} ns a task, worker {} ns a task",
            each(self.core_time),
            each(self.worker_time)
        );
    }
}

fn here() -> supervisor::Requester {
    supervisor::Requester::Here {
        peer: PeerId([9; 32]),
        role: Role::Client,
    }
}

fn noop(id: &str) -> Group {
    Group {
        runtime: Runtime::Noop,
        ..Group::program(id, &[])
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Usual,
    /// No policy is asked for copies: it looks at all groups at intervals of time, whether a job grows or not.
    NoCopies,
    /// The same, open.
    Open,
}

fn job(groups: Vec<Group>, kind: Kind) -> JobSpec {
    let usual = Qos::default();
    let qos = Qos {
        open_timeout: (kind == Kind::Open).then_some(Duration::from_secs(3600)),
        redundancy: match kind {
            Kind::Usual => usual.redundancy,
            Kind::NoCopies | Kind::Open => Redundancy::None,
        },
        ..usual
    };
    let draft = Draft {
        name: "rate".into(),
        qos,
        critical: CriticalRule::default(),
        files: Vec::new(),
        groups,
        outline: false,
    };
    JobSpec::new(draft).expect("a job")
}

fn main() {
    let array = |count| Group {
        array: Some((0, count)),
        ..noop("a")
    };
    let single = |count: usize| (0..count).map(|at| noop(&format!("t{at}"))).collect();
    // Each task of a stage waits for the one at its place in the stage before.
    let pipeline = |count| {
        let stage = |id: &str, before: &[&str]| Group {
            array: Some((0, count)),
            deps_each: before.iter().map(|id| Arc::from(*id)).collect(),
            ..noop(id)
        };
        vec![stage("a", &[]), stage("b", &["a"]), stage("c", &["b"])]
    };
    let only = std::env::args().nth(1).unwrap_or_default();
    for workers in [1, 1000] {
        let measure_as = |name: &str, groups: Vec<Group>, kind: Kind| {
            let name = format!("{name} on {workers} workers");
            if name.starts_with(&only) {
                Rate::new(workers, 2).measure(&name, job(groups, kind));
            }
        };
        let measure = |name: &str, groups| measure_as(name, groups, Kind::Usual);
        let measure_open = |name: &str, groups: Vec<Group>, batch: usize| {
            let name = format!("{name} on {workers} workers");
            if name.starts_with(&only) {
                Rate::new(workers, 2).measure_open(&name, groups, batch);
            }
        };
        let measure_jobs = |name: &str, count: usize, together: usize| {
            let name = format!("{name} on {workers} workers");
            if name.starts_with(&only) {
                Rate::new(workers, 2).measure_jobs(&name, count, together);
            }
        };
        measure_jobs("1000 jobs", 1000, 16);
        measure_jobs("10000 jobs", 10_000, 16);
        measure_jobs("1000 jobs at once", 1000, 1000);
        measure_jobs("10000 jobs at once", 10_000, 10_000);
        measure("pipeline of 10000", pipeline(10_000));
        measure("pipeline of 1000000", pipeline(1_000_000));
        measure("one array", vec![array(200_000)]);
        measure("1000 groups", single(1000));
        measure("10000 groups", single(10_000));
        measure("100000 groups", single(100_000));
        measure_as("100000 groups, no copies", single(100_000), Kind::NoCopies);
        measure_open("100000 groups, no copies, one by one", single(100_000), 1);
        measure_open(
            "100000 groups, no copies, in extensions of 1000",
            single(100_000),
            1000,
        );
    }
}
