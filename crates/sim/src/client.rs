//! Virtual clients: they submit, submit again what was not answered, ask around, cancel and vanish.

use crate::actors::{ConnId, Event, Peer, addr};
use crate::grid::{Grid, Violation};
use hedge_core::supervisor;
use hedge_model::msg::{Answer, RefusalKind, Reply, Request};
use hedge_model::view::JobState;
use hedge_model::{Hash, JobId, JobSpec, SubmitKey};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Client {
    pub present: bool,
    pub conn: Option<ConnId>,
    pub files: BTreeSet<Hash>,
    pub submissions: Vec<Submission>,
    asked: BTreeMap<u64, Asked>,
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Submit(usize),
    Watch(usize),
    Other,
}

impl Client {
    pub fn new() -> Self {
        Self {
            present: true,
            conn: None,
            files: BTreeSet::new(),
            submissions: Vec::new(),
            asked: BTreeMap::new(),
            last_ask: 0,
        }
    }

    pub fn add(&mut self, key: u64, spec: Arc<JobSpec>) -> usize {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&key.to_le_bytes());
        let stdin = spec.groups().iter().filter_map(|group| group.stdin.clone());
        let files = spec.files().iter().map(|file| file.data.clone());
        self.files
            .extend(files.chain(stdin).filter_map(|data| data.hash()));
        self.submissions.push(Submission {
            key: SubmitKey(bytes),
            spec,
            accepted: None,
            cancel: false,
            heard: None,
        });
        self.submissions.len() - 1
    }

    fn ask(&mut self, what: Asked) -> u64 {
        self.last_ask += 1;
        self.asked.insert(self.last_ask, what);
        self.last_ask
    }
}

impl Grid {
    pub(crate) fn connect_client(&mut self, ix: usize) -> Result<(), Violation> {
        if !self.clients[ix].present || self.clients[ix].conn.is_some() {
            return Ok(());
        }
        match self.accept(Peer::Client(ix))? {
            Some(conn) => {
                self.clients[ix].conn = Some(conn);
                self.clients[ix].asked.clear();
                self.client_acts(ix)
            }
            None => {
                let after = self.dice.millis(100, 700);
                self.after(after, Event::Connect(Peer::Client(ix)));
                Ok(())
            }
        }
    }

    pub(crate) fn client_closed(&mut self, ix: usize, conn: ConnId) {
        if self.clients[ix].conn == Some(conn) {
            self.clients[ix].conn = None;
            let after = self.dice.millis(1, 1000);
            self.after(after, Event::Connect(Peer::Client(ix)));
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
            let asked = |what| client.asked.values().any(|asked| *asked == what);
            match submission.accepted {
                None if !asked(Asked::Submit(at)) => self.send_submit(ix, conn, at),
                Some(job) if submission.heard.is_none() && !asked(Asked::Watch(at)) => {
                    if submission.cancel {
                        self.ask(ix, conn, Asked::Other, Request::Cancel(job));
                    }
                    self.ask(ix, conn, Asked::Watch(at), Request::Watch(job));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn send_submit(&mut self, ix: usize, conn: ConnId, at: usize) {
        let client = &mut self.clients[ix];
        let ask = client.ask(Asked::Submit(at));
        let peer = Peer::Client(ix).id();
        let (key, spec) = (
            client.submissions[at].key,
            client.submissions[at].spec.clone(),
        );
        let event = supervisor::Event::Submit {
            peer,
            ask,
            key,
            spec,
            from: addr(peer),
        };
        self.send_up(conn, event);
    }

    fn ask(&mut self, ix: usize, conn: ConnId, what: Asked, request: Request) {
        let ask = self.clients[ix].ask(what);
        let event = supervisor::Event::Ask {
            peer: Peer::Client(ix).id(),
            ask,
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
        let task = self.clients[ix].submissions[at].spec.task_count() - 1;
        let request = match self.dice.below(9) {
            0 => Request::Jobs,
            1 => Request::Job(job),
            2 => Request::Workers,
            3 => Request::Explain(job, None),
            4 => Request::Explain(job, Some(task.to_string())),
            5 => Request::Results(job),
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
        if let Some(conn) = self.clients[ix].conn.take() {
            self.break_conn(conn);
        }
    }

    pub(crate) fn answered(&mut self, conn: ConnId, answer: Answer) -> Result<(), Violation> {
        let Peer::Client(ix) = self.conns[conn].peer else {
            return Ok(());
        };
        if self.clients[ix].conn != Some(conn) || !self.conns[conn].up {
            return Ok(());
        }
        let client = &mut self.clients[ix];
        let Some(what) = client.asked.get(&answer.id).copied() else {
            let what = format!("client {ix} is answered what it did not ask");
            return self.violated(what);
        };
        match (what, answer.reply) {
            (Asked::Submit(at), Reply::Accepted(job)) => {
                let submission = &mut client.submissions[at];
                let before = submission.accepted.replace(job);
                if before.is_some_and(|before| before != job) {
                    let what = format!("one submission of client {ix} became two jobs");
                    return self.violated(what);
                }
                self.client_acts(ix)
            }
            (Asked::Submit(_), Reply::No(no)) if no.kind == RefusalKind::Busy => {
                client.asked.remove(&answer.id);
                self.after(Duration::from_millis(500), Event::Client(ix));
                Ok(())
            }
            (Asked::Submit(_), reply) => {
                self.violated(format!("a submission was answered {reply:?}"))
            }
            (Asked::Watch(at), Reply::Job(view)) => {
                if view.state != JobState::Running {
                    client.submissions[at].heard = Some(view.state);
                }
                Ok(())
            }
            (Asked::Watch(_), Reply::No(no)) if no.kind == RefusalKind::Busy => {
                client.asked.remove(&answer.id);
                self.after(Duration::from_millis(500), Event::Client(ix));
                Ok(())
            }
            (Asked::Watch(at), reply) => {
                let job = client.submissions[at].accepted;
                self.violated(format!("accepted job {job:?} is answered {reply:?}"))
            }
            (Asked::Other, _) => Ok(()),
        }
    }
}
