//! Passes requests of clients to the core.

use super::core_loop::{Input, Loop};
use super::pending_requests::ReplyTo;
use super::spec::{decode, fetch_spec};
use super::ticket_text;
use hedge_core::supervisor::{Action, Event, Requester};
use hedge_model::msg::{Answer, Refusal, RefusalKind, Reply, Request, Role};
use hedge_model::{Data, JobSpec, PeerAddr};
use std::sync::Arc;

impl Loop {
    /// A request of this process, under the supervisor's identity and in this role.
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
        let (ask, too_many) = self.pending.add(reply_to, asked);
        if too_many {
            let why = "the supervisor has too many questions open; ask again later";
            return self.reply(ask, no(RefusalKind::Busy, why));
        }
        if self.may_be_replaced() {
            self.pending.hold(requester, ask, request);
        } else {
            self.ask_core(requester, ask, request);
        }
    }

    /// Whether another may lead meanwhile: no majority was heard for as long as a lead lasts. What this one knows
    /// may be old then, and nothing is answered from it.
    fn may_be_replaced(&self) -> bool {
        let group = self.group.borrow();
        let led = self.core.is_live() && group.leading && group.quorum_at.is_some();
        led && !group.surely_leads(&self.setup.timing)
    }

    /// Goes on with the questions that were held back, once it leads surely or surely not.
    pub(super) fn ask_held(&mut self) {
        while self.pending.holds_any() && !self.may_be_replaced() {
            if let Some((requester, ask, request)) = self.pending.next_held() {
                self.ask_core(requester, ask, request);
            }
        }
    }

    fn ask_core(&mut self, requester: Requester, ask: u64, request: Request) {
        match request {
            Request::Submit {
                ref spec, ref from, ..
            } => {
                let (spec, from) = (spec.clone(), from.clone());
                self.ask_submit(requester, ask, request, spec, from);
            }
            Request::Ticket {
                role, valid_for, ..
            } => {
                let valid_s = valid_for.map(|span| span.as_secs());
                self.ask_ticket(requester, ask, request, role, valid_s);
            }
            request => self.feed(Event::Ask {
                requester,
                ask,
                request,
                secret: None,
            }),
        }
    }

    /// Hands a job to the core once its description is here: at once where it came with the request, else when
    /// it is fetched from the submitter.
    fn ask_submit(
        &mut self,
        requester: Requester,
        ask: u64,
        request: Request,
        spec: Data,
        from: PeerAddr,
    ) {
        if let Data::Inline(bytes) = &spec {
            let result = decode(bytes).map(|spec| (request, spec));
            return self.on_decoded(requester, ask, result);
        }
        let (store, fetcher, inputs, room) = (
            self.setup.store.clone(),
            self.setup.fetcher.clone(),
            self.setup.inputs.clone(),
            self.pulls.clone(),
        );
        tokio::spawn(async move {
            let _place = room.acquire_owned().await;
            let fetched = fetch_spec(&store, &fetcher, &spec, &from).await;
            if let Some(hash) = spec.hash() {
                // The core knows whether anybody else needs this content, and drops it if not.
                _ = inputs.send(Input::Pulled(vec![(hash, Ok(()))])).await;
            }
            let result = fetched.map(|spec| (request, spec));
            let submit = Input::Submit {
                requester,
                ask,
                result,
            };
            _ = inputs.send(submit).await;
        });
    }

    /// Draws a ticket's secret and asks the core for the ticket: it gets the secret's hash, and the text to answer
    /// with.
    fn ask_ticket(
        &mut self,
        requester: Requester,
        ask: u64,
        request: Request,
        role: Role,
        valid_s: Option<u64>,
    ) {
        let mut secret = [0; 16];
        if getrandom::fill(&mut secret).is_err() {
            return self.reply(
                ask,
                no(RefusalKind::Busy, "the system gives no random bytes"),
            );
        }
        let text = ticket_text(role, self.standard(), secret, valid_s);
        let secret = Some((hedge_net::secret_hash(&secret), text));
        self.feed(Event::Ask {
            requester,
            ask,
            request,
            secret,
        });
    }

    pub(super) fn on_decoded(
        &mut self,
        requester: Requester,
        ask: u64,
        result: Result<(Request, Arc<JobSpec>), String>,
    ) {
        match result {
            Ok((Request::Submit { key, from, .. }, spec)) => {
                let here = matches!(requester, Requester::Here { .. });
                self.feed(Event::Submit {
                    requester,
                    ask,
                    key,
                    spec: spec.clone(),
                    from,
                });
                if here {
                    self.notice_local_content(&spec);
                }
            }
            Ok(_) => {}
            Err(why) => self.reply(ask, no(RefusalKind::Bad, &why)),
        }
    }

    /// A submission from within this process has its inputs in this store. The core hears of them after the submission:
    /// before it, the core knows nobody who needs them.
    fn notice_local_content(&mut self, spec: &JobSpec) {
        let files = spec.files().iter().map(|file| &file.data);
        let stdin = spec
            .groups()
            .iter()
            .filter_map(|group| group.stdin.as_ref());
        for hash in files.chain(stdin).filter_map(Data::hash) {
            if self.setup.store.has(hash) {
                self.feed(Event::Pulled {
                    hash,
                    result: Ok(()),
                });
            }
        }
    }

    /// All supervisors of the grid, this one first.
    pub(super) fn supervisors_here_first(&self) -> Vec<PeerAddr> {
        let me = &self.setup.addr;
        let mut all = self.core.supervisors();
        all.retain(|addr| addr.peer != me.peer);
        all.insert(0, me.clone());
        all
    }

    fn reply(&mut self, ask: u64, reply: Reply) {
        self.actions.push(Action::Answer {
            to: self.setup.addr.peer,
            answer: Answer { id: ask, reply },
        });
    }
}

pub(super) fn no(kind: RefusalKind, why: &str) -> Reply {
    Reply::No(Refusal {
        kind,
        why: why.to_owned(),
    })
}
