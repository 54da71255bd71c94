//! Passes requests of clients to the core.

use super::core_loop::{Input, Loop};
use super::pending_requests::ReplyTo;
use super::spec::{check, check_apart, decode, decode_checked, decode_groups, fetch_spec};
use super::ticket_text;
use hedge_core::supervisor::{Action, Event, Offer, Requester};
use hedge_model::msg::{Answer, Refusal, RefusalKind, Reply, Request, Role, SharedExtension};
use hedge_model::{Data, Hash, InputServer, JobId, JobSpec, PeerAddr, SubmitKey};
use std::sync::Arc;

/// A submission without its content.
#[derive(Debug)]
pub(crate) struct NewJob {
    key: SubmitKey,
    from: InputServer,
    /// The open job to extend; none for a new job.
    extends: Option<JobId>,
}

/// The content of a submission.
#[derive(Debug)]
pub(crate) enum Submitted {
    Job(Arc<JobSpec>),
    Groups(SharedExtension),
}

impl Loop {
    /// Handles a request of this process, with the supervisor's identity and in this role.
    pub(super) fn ask_here(&mut self, role: Role, request: Request, reply_to: ReplyTo) {
        let peer = self.setup.addr.peer;
        self.ask(Requester::Here { peer, role }, request, reply_to);
    }

    pub(super) fn ask(&mut self, requester: Requester, request: Request, reply_to: ReplyTo) {
        let role = match requester {
            Requester::Peer(peer) => self.core.state().member(peer),
            Requester::Here { role, .. } => Some(role),
        };
        let asked = self.setup.audit.asked(requester.peer(), role, &request);
        let (request_id, too_many) = self.pending.add(reply_to, asked);
        if too_many {
            let why = "the supervisor has too many questions open; ask again later";
            return self.reply(request_id, no(RefusalKind::Busy, why));
        }
        if self.may_be_replaced() {
            self.pending.hold(requester, request_id, request);
        } else {
            self.ask_core(requester, request_id, request);
        }
    }

    /// Returns whether another supervisor may lead meanwhile, because no majority was heard for the duration of a
    /// lease. What this one knows may then be outdated, so it answers no requests from it.
    fn may_be_replaced(&self) -> bool {
        let group = self.group.borrow();
        let led = self.core.is_live() && group.leading && group.quorum_at.is_some();
        led && !group.surely_leads(&self.setup.timing)
    }

    /// Continues with the kept requests once this supervisor surely leads or surely does not.
    pub(super) fn ask_held(&mut self) {
        while self.pending.holds_any() && !self.may_be_replaced() {
            if let Some((requester, request_id, request)) = self.pending.next_held() {
                self.ask_core(requester, request_id, request);
            }
        }
    }

    fn ask_core(&mut self, requester: Requester, request_id: u64, request: Request) {
        match request {
            Request::Submit { key, spec, from } => {
                let extends = None;
                self.ask_submit(requester, request_id, NewJob { key, from, extends }, spec);
            }
            Request::Extend {
                job,
                key,
                extension,
                from,
            } => {
                let extends = Some(job);
                let job = NewJob { key, from, extends };
                self.ask_submit(requester, request_id, job, extension);
            }
            Request::Ticket {
                role, valid_for, ..
            } => {
                let valid_s = valid_for.map(|span| span.as_secs());
                self.ask_ticket(requester, request_id, request, role, valid_s);
            }
            request => self.feed(Event::Request {
                requester,
                request_id,
                request,
                secret: None,
            }),
        }
    }

    /// Passes a job to the core once its specification is here and checked: at once if it came with the request and
    /// the check is short.
    fn ask_submit(&mut self, requester: Requester, request_id: u64, job: NewJob, spec: Data) {
        if let Requester::Peer(peer) = requester
            && !hedge_net::serves_for(peer, &job.from)
        {
            let why = format!(
                "{} does not say that it serves inputs for this client; nothing was accepted; submit again \
                 with this version of hedge",
                job.from.addr.peer.short()
            );
            return self.reply(request_id, no(RefusalKind::Bad, &why));
        }
        let slow = match spec {
            Data::Inline(bytes) if job.extends.is_some() => {
                let decoded = decode_groups(&bytes);
                return self.on_decoded(requester, request_id, job, decoded);
            }
            Data::Inline(bytes) => match decode(&bytes) {
                Ok(spec) if spec.checks_slowly() => Slow::Check(Box::new(spec)),
                decoded => {
                    let checked = decoded.and_then(check).map(Submitted::Job);
                    return self.on_decoded(requester, request_id, job, checked);
                }
            },
            Data::Blob { hash, size } => Slow::Fetch(hash, size),
        };
        let (fetcher, inputs, room) = (
            self.setup.fetcher.clone(),
            self.setup.inputs.clone(),
            self.fetches.clone(),
        );
        tokio::spawn(async move {
            let _place = room.acquire_owned().await;
            let result = match slow {
                Slow::Check(spec) => check_apart(*spec).await.map(Submitted::Job),
                Slow::Fetch(hash, size) => {
                    let read = match job.extends {
                        Some(_) => decode_groups,
                        None => decode_checked,
                    };
                    fetch_spec(&fetcher, hash, size, &job.from.addr, read).await
                }
            };
            let submit = Input::Submit {
                requester,
                request_id,
                job,
                result,
            };
            _ = inputs.send(submit).await;
        });
    }

    /// Draws a ticket's secret and passes the request to the core, with the secret's hash and the text to reply with.
    fn ask_ticket(
        &mut self,
        requester: Requester,
        request_id: u64,
        request: Request,
        role: Role,
        valid_s: Option<u64>,
    ) {
        let mut secret = [0; 16];
        if getrandom::fill(&mut secret).is_err() {
            return self.reply(
                request_id,
                no(RefusalKind::Busy, "the system gives no random bytes"),
            );
        }
        let text = ticket_text(role, self.ticket_contacts(), secret, valid_s);
        let secret = Some((hedge_net::secret_hash(&secret), text));
        self.feed(Event::Request {
            requester,
            request_id,
            request,
            secret,
        });
    }

    pub(super) fn on_decoded(
        &mut self,
        requester: Requester,
        request_id: u64,
        job: NewJob,
        result: Result<Submitted, String>,
    ) {
        let NewJob { key, from, extends } = job;
        let from = from.addr;
        let offer = match (result, extends) {
            (Ok(Submitted::Job(spec)), _) => Offer::Job(spec),
            (Ok(Submitted::Groups(extension)), Some(job)) => Offer::Groups(job, extension),
            (Ok(Submitted::Groups(_)), None) => {
                return self.reply(request_id, no(RefusalKind::Bad, "groups are no job"));
            }
            (Err(why), _) => return self.reply(request_id, no(RefusalKind::Bad, &why)),
        };
        let held = self.held_inputs(requester, &offer);
        self.feed(Event::Submit {
            requester,
            request_id,
            key,
            offer,
            from,
            held,
        });
    }

    /// Returns inputs that are in this supervisor's store. A client within this process has put all of them there.
    fn held_inputs(&self, requester: Requester, offer: &Offer) -> Vec<Hash> {
        let held = |hash: &Hash| self.setup.store.has(*hash);
        match requester {
            Requester::Here { .. } => {
                let inputs = offer.input_blobs().map(|(hash, _)| hash);
                inputs.filter(held).collect()
            }
            Requester::Peer(_) => Vec::new(),
        }
    }

    /// Returns all supervisors of the grid, this one first.
    pub(super) fn supervisors_here_first(&self) -> Vec<PeerAddr> {
        let me = &self.setup.addr;
        let mut all = self.core.supervisors();
        all.retain(|addr| addr.peer != me.peer);
        all.insert(0, me.clone());
        all
    }

    fn reply(&mut self, request_id: u64, reply: Reply) {
        self.effects.actions.push(Action::Answer {
            to: self.setup.addr.peer,
            answer: Answer {
                id: request_id,
                reply,
            },
        });
    }
}

/// Work that takes a while before a job is passed to the core.
enum Slow {
    Check(Box<JobSpec>),
    /// A fetch, by hash and length.
    Fetch(Hash, u64),
}

pub(super) fn no(kind: RefusalKind, why: &str) -> Reply {
    Reply::No(Refusal {
        kind,
        why: why.to_owned(),
    })
}
