//! Virtual clients: they submit, submit again what was not answered, ask around, cancel and vanish.

use crate::actors::{ConnId, Event, Peer, addr};
use crate::grid::{Grid, Violation};
use crate::shadow::inputs_of;
use hedge_core::supervisor::{self, Offer};
use hedge_model::msg::{Answer, RefusalKind, Reply, Request};
use hedge_model::spec::Extension;
use hedge_model::view::JobState;
use hedge_model::{Epoch, Hash, JobId, JobSpec, SubmitKey};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Client {
    pub present: bool,
    /// One connection to each supervisor, as far as they are there.
    pub conns: Vec<Option<ConnId>>,
    /// The one to the leader with the highest epoch that it has heard of.
    pub conn: Option<ConnId>,
    epoch: Epoch,
    pub files: BTreeSet<Hash>,
    pub submissions: Vec<Submission>,
    asked: BTreeMap<u64, (ConnId, Asked)>,
    last_ask: u64,
}

#[derive(Debug)]
pub(crate) struct Submission {
    key: SubmitKey,
    pub spec: Arc<JobSpec>,
    pub accepted: Option<JobId>,
    pub cancel: bool,
    /// How the client was told that it ended.
    pub heard: Option<JobState>,
    /// It names files that the client does not have.
    stolen: bool,
    /// It was refused for that.
    refused: bool,
    /// What is still to be done with it where it is open, the next step last.
    steps: Vec<Step>,
}

/// What a client does with an open job.
#[derive(Clone, Debug)]
enum Step {
    Extend(SubmitKey, Arc<Extension>),
    /// What tasks left up to this number is released.
    Release(u32),
    Close,
}

impl Submission {
    /// Whether the client waits for nothing more.
    pub fn over(&self) -> bool {
        self.heard.is_some() || self.refused
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Submit(usize),
    Watch(usize),
    /// The next step with an open job.
    Step(usize),
    Other,
}

impl Client {
    pub fn new(supervisors: usize) -> Self {
        Self {
            present: true,
            conns: vec![None; supervisors],
            conn: None,
            epoch: Epoch(0),
            files: BTreeSet::new(),
            submissions: Vec::new(),
            asked: BTreeMap::new(),
            last_ask: 0,
        }
    }

    /// Adds a submission of files that the client has from now on.
    pub fn add(&mut self, key: u64, spec: Arc<JobSpec>) -> usize {
        self.files.extend(inputs_of(&spec));
        self.add_as_is(key, spec)
    }

    /// Adds a submission, whatever files the client has.
    pub fn add_as_is(&mut self, key: u64, spec: Arc<JobSpec>) -> usize {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&key.to_le_bytes());
        let stolen = !inputs_of(&spec).is_subset(&self.files);
        self.submissions.push(Submission {
            key: SubmitKey(bytes),
            spec,
            accepted: None,
            cancel: false,
            heard: None,
            stolen,
            refused: false,
            steps: Vec::new(),
        });
        self.submissions.len() - 1
    }

    /// An open submission is extended by these, and closed then.
    pub fn extend_later(&mut self, at: usize, extensions: Vec<Extension>) {
        let mut steps = vec![Step::Close];
        let mut tasks = self.submissions[at].spec.task_count();
        let mut planned = Vec::new();
        for (number, extension) in (1u8..).zip(extensions) {
            self.files
                .extend(extension.input_blobs().map(|(hash, _)| hash));
            let mut key = self.submissions[at].key;
            key.0[15] = number;
            if number % 3 == 0 {
                planned.push(Step::Release(tasks / 2));
            }
            tasks += extension.task_count();
            planned.push(Step::Extend(key, Arc::new(extension)));
        }
        steps.extend(planned.into_iter().rev());
        self.submissions[at].steps = steps;
    }

    fn ask(&mut self, conn: ConnId, what: Asked) -> u64 {
        self.last_ask += 1;
        self.asked.insert(self.last_ask, (conn, what));
        self.last_ask
    }
}

impl Grid {
    pub(crate) fn connect_client(&mut self, ix: usize, sup: usize) -> Result<(), Violation> {
        if !self.clients[ix].present || self.clients[ix].conns[sup].is_some() {
            return Ok(());
        }
        match self.accept(Peer::Client(ix), sup)? {
            Ok(conn) => self.clients[ix].conns[sup] = Some(conn),
            Err(_) => {
                let after = self.dice.millis(100, 700);
                self.after(after, Event::Connect(Peer::Client(ix), sup));
            }
        }
        Ok(())
    }

    pub(crate) fn client_closed(&mut self, ix: usize, conn: ConnId) {
        let sup = self.conns[conn].sup;
        let client = &mut self.clients[ix];
        if client.conns[sup] == Some(conn) {
            client.conns[sup] = None;
            client.asked.retain(|_, (over, _)| *over != conn);
            if client.conn == Some(conn) {
                client.conn = None;
            }
            let after = self.dice.millis(1, 1000);
            self.after(after, Event::Connect(Peer::Client(ix), sup));
        }
    }

    /// A supervisor says something that the client did not ask for: what is open is asked where the leader is.
    pub(crate) fn client_told(&mut self, conn: ConnId, reply: &Reply) -> Result<(), Violation> {
        let (line, sup) = (&self.conns[conn], self.conns[conn].sup);
        let Peer::Client(ix) = line.peer else {
            return Ok(());
        };
        let client = &mut self.clients[ix];
        if client.conns[sup] != Some(conn) || !line.up {
            return Ok(());
        }
        match reply {
            Reply::Lead(epoch)
                if *epoch > client.epoch || (*epoch == client.epoch && client.conn.is_none()) =>
            {
                client.epoch = *epoch;
                client.conn = Some(conn);
                client.asked.retain(|_, (over, _)| *over != conn);
                self.client_acts(ix)
            }
            _ => Ok(()),
        }
    }

    /// Asks for what the client wants and has not asked for over its present connection.
    pub(crate) fn client_acts(&mut self, ix: usize) -> Result<(), Violation> {
        let Some(conn) = self.clients[ix].conn else {
            return Ok(());
        };
        for at in 0..self.clients[ix].submissions.len() {
            let client = &mut self.clients[ix];
            let submission = &client.submissions[at];
            let asked = |what| client.asked.values().any(|asked| *asked == (conn, what));
            match submission.accepted {
                None if submission.refused => {}
                None if !asked(Asked::Submit(at)) => self.send_submit(ix, conn, at),
                Some(job) if submission.heard.is_none() && !asked(Asked::Watch(at)) => {
                    if submission.cancel {
                        self.ask(ix, conn, Asked::Other, Request::Cancel(job));
                    }
                    self.ask(ix, conn, Asked::Watch(at), Request::Watch(job));
                }
                _ => {}
            }
            self.send_step(ix, conn, at);
        }
        Ok(())
    }

    /// Takes the next step with an open job, unless it is being taken.
    fn send_step(&mut self, ix: usize, conn: ConnId, at: usize) {
        let client = &mut self.clients[ix];
        let submission = &client.submissions[at];
        let what = Asked::Step(at);
        let taken = client.asked.values().any(|asked| *asked == (conn, what));
        let Some((job, step)) = submission.accepted.zip(submission.steps.last().cloned()) else {
            return;
        };
        if taken {
            return;
        }
        let request = match step {
            Step::Extend(key, extension) => {
                let request_id = client.ask(conn, what);
                let peer = Peer::Client(ix).id();
                let event = supervisor::Event::Submit {
                    requester: peer.into(),
                    request_id,
                    key,
                    offer: Offer::Groups(job, extension),
                    from: addr(peer),
                    held: Vec::new(),
                };
                return self.send_up(conn, event);
            }
            Step::Release(to) => Request::Release {
                job,
                tasks: (0..to).map(|number| number.to_string()).collect(),
            },
            Step::Close => Request::Close(job),
        };
        self.ask(ix, conn, what, request);
    }

    /// A step with an open job was taken, or cannot be: the next follows, some time later.
    fn step_taken(
        &mut self,
        ix: usize,
        at: usize,
        id: u64,
        reply: &Reply,
    ) -> Result<(), Violation> {
        let client = &mut self.clients[ix];
        client.asked.remove(&id);
        let later = match reply {
            Reply::No(no) if matches!(no.kind, RefusalKind::Busy | RefusalKind::NotLeading) => true,
            Reply::Ok | Reply::Extended(_) | Reply::No(_) => {
                client.submissions[at].steps.pop();
                false
            }
            other => return self.violated(format!("an open job was answered {other:?}")),
        };
        let after = match later {
            true => Duration::from_millis(500),
            false => self.dice.millis(0, 1500),
        };
        self.after(after, Event::Client(ix));
        Ok(())
    }

    fn send_submit(&mut self, ix: usize, conn: ConnId, at: usize) {
        let client = &mut self.clients[ix];
        let request_id = client.ask(conn, Asked::Submit(at));
        let peer = Peer::Client(ix).id();
        let (key, spec) = (
            client.submissions[at].key,
            client.submissions[at].spec.clone(),
        );
        let event = supervisor::Event::Submit {
            requester: peer.into(),
            request_id,
            key,
            offer: Offer::Job(spec),
            from: addr(peer),
            held: Vec::new(),
        };
        self.send_up(conn, event);
    }

    fn ask(&mut self, ix: usize, conn: ConnId, what: Asked, request: Request) {
        let request_id = self.clients[ix].ask(conn, what);
        let event = supervisor::Event::Request {
            requester: Peer::Client(ix).id().into(),
            request_id,
            request,
            secret: None,
        };
        self.send_up(conn, event);
    }

    /// The client asks for something that it has a right to see, or sends a submission again.
    pub(crate) fn client_asks_around(&mut self, ix: usize) {
        let Some(conn) = self.clients[ix].conn else {
            return;
        };
        let count = self.clients[ix].submissions.len();
        if count == 0 {
            return;
        }
        let at = self.dice.below(count as u64) as usize;
        let Some(job) = self.clients[ix].submissions[at].accepted else {
            return self.send_submit(ix, conn, at);
        };
        let task = self.clients[ix].submissions[at]
            .spec
            .task_count()
            .saturating_sub(1);
        let failed = self.clients[ix].submissions[at].heard == Some(JobState::Failed);
        let request = match self.dice.below(10) {
            8 if failed => Request::Retry(job),
            0 => Request::Jobs(None),
            1 => Request::Job(job),
            2 => Request::Workers,
            3 => Request::Explain(job, None),
            4 => Request::Explain(job, Some(task.to_string())),
            5 => Request::Results { job, from: 0 },
            6 => Request::Logs(job, task.to_string()),
            7 => return self.send_submit(ix, conn, at),
            _ => Request::Job(JobId(job.0 + 1000)),
        };
        self.ask(ix, conn, Asked::Other, request);
    }

    /// The client cancels one of its jobs, as soon as it is accepted.
    pub fn cancel(&mut self, client: usize, submission: usize) {
        let owner = &mut self.clients[client];
        owner.submissions[submission].cancel = true;
        if let (Some(conn), Some(job)) = (owner.conn, owner.submissions[submission].accepted) {
            self.ask(client, conn, Asked::Other, Request::Cancel(job));
        }
    }

    /// An operator asks a worker to finish and leave.
    pub fn drain(&mut self, client: usize, worker: usize) {
        if let Some(conn) = self.clients[client].conn {
            let name = format!("host-{worker}");
            self.ask(client, conn, Asked::Other, Request::Drain(name));
        }
    }

    pub(crate) fn client_vanishes(&mut self, ix: usize) {
        self.clients[ix].present = false;
        self.clients[ix].conn = None;
        let open = std::mem::take(&mut self.clients[ix].conns);
        self.clients[ix].conns = vec![None; open.len()];
        open.into_iter()
            .flatten()
            .for_each(|conn| self.break_conn(conn));
    }

    /// An operator shuts a worker out for good.
    pub(crate) fn revoke(&mut self, client: usize, worker: usize) {
        if let Some(conn) = self.clients[client].conn {
            let name = Peer::Worker(worker).id().to_string();
            self.ask(client, conn, Asked::Other, Request::Revoke(name));
        }
    }

    pub(crate) fn answered(&mut self, conn: ConnId, answer: Answer) -> Result<(), Violation> {
        let Peer::Client(ix) = self.conns[conn].peer else {
            return Ok(());
        };
        let sup = self.conns[conn].sup;
        if self.clients[ix].conns[sup] != Some(conn) || !self.conns[conn].up {
            return Ok(());
        }
        let client = &mut self.clients[ix];
        let Some((over, what)) = client.asked.get(&answer.id).copied() else {
            // Asked before this supervisor said that it leads again.
            return if answer.id <= client.last_ask {
                Ok(())
            } else {
                self.violated(format!("client {ix} is answered what it did not ask"))
            };
        };
        if over != conn {
            let what = format!("client {ix} is answered by another than it asked");
            return self.violated(what);
        }
        match (what, answer.reply) {
            (Asked::Submit(at), Reply::Accepted(job)) => self.accepted(ix, at, job),
            (Asked::Submit(at), Reply::No(no))
                if client.submissions[at].stolen && no.kind == RefusalKind::Busy =>
            {
                client.asked.remove(&answer.id);
                client.submissions[at].refused = true;
                Ok(())
            }
            (Asked::Submit(_) | Asked::Watch(_), Reply::No(no))
                if matches!(no.kind, RefusalKind::Busy | RefusalKind::NotLeading) =>
            {
                client.asked.remove(&answer.id);
                self.after(Duration::from_millis(500), Event::Client(ix));
                Ok(())
            }
            (Asked::Submit(_), reply) => {
                self.violated(format!("a submission was answered {reply:?}"))
            }
            (Asked::Step(at), reply) => self.step_taken(ix, at, answer.id, &reply),
            (Asked::Watch(at), Reply::Job(view)) => {
                if view.state.ended() {
                    client.submissions[at].heard = Some(view.state);
                    let job = client.submissions[at].accepted;
                    let ended = job.and_then(|job| self.truth().jobs.get(&job));
                    if ended.is_none_or(|job| job.ended.is_none()) {
                        return self.violated(format!("job {job:?} is said to have ended"));
                    }
                }
                Ok(())
            }
            (Asked::Watch(at), reply) => {
                let job = client.submissions[at].accepted;
                self.violated(format!("accepted job {job:?} is answered {reply:?}"))
            }
            (Asked::Other, _) => Ok(()),
        }
    }

    /// What a client is told to be accepted must be in the journal, under its name.
    fn accepted(&mut self, ix: usize, at: usize, job: JobId) -> Result<(), Violation> {
        let peer = Peer::Client(ix).id();
        let submission = &mut self.clients[ix].submissions[at];
        let before = submission.accepted.replace(job);
        let key = submission.key;
        if before.is_some_and(|before| before != job) {
            let what = format!("one submission of client {ix} became two jobs");
            return self.violated(what);
        }
        if self.truth().keys.get(&(peer, key)) != Some(&job) {
            let what = format!("job {job} is acknowledged and not in the journal");
            return self.violated(what);
        }
        self.client_acts(ix)
    }
}
