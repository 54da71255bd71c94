//! The table of pending requests: where each reply goes. Each request gets a number of its own, which tells the
//! connections of one peer apart.

use super::audit::Asked;
use super::core_loop::{ConnId, Input};
use hedge_core::supervisor::Requester;
use hedge_model::msg::{Answer, Reply, Request, Role};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use tokio::sync::{mpsc, oneshot};

/// The most pending requests of all clients, including watches.
const ASKED_MAX: usize = 65_536;

/// Where the replies to a request go.
#[derive(Debug)]
pub(crate) enum ReplyTo {
    Remote {
        conn: ConnId,
        request_id: u64,
        watch: bool,
    },
    Once(Option<oneshot::Sender<Reply>>),
    Watch(mpsc::Sender<Reply>),
}

impl Input {
    /// Returns a request from within this process in this role, and the receiver of its one reply.
    pub fn ask(role: Role, request: Request) -> (Self, oneshot::Receiver<Reply>) {
        let (reply, answer) = oneshot::channel();
        let local = Self::Local {
            role,
            request,
            reply_to: ReplyTo::Once(Some(reply)),
        };
        (local, answer)
    }
}

#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    last: u64,
    open: HashMap<u64, (ReplyTo, Option<Asked>)>,
    /// Requests that are kept until it is certain who leads.
    held: VecDeque<(Requester, u64, Request)>,
}

impl PendingRequests {
    /// Adds a request, with its entry for the audit log. Returns its number, and whether there are too many already.
    pub fn add(&mut self, reply_to: ReplyTo, asked: Option<Asked>) -> (u64, bool) {
        let full = self.open.len() >= ASKED_MAX;
        self.last += 1;
        self.open.insert(self.last, (reply_to, asked));
        (self.last, full)
    }

    /// Keeps a request until it is certain who leads.
    pub fn hold(&mut self, requester: Requester, request_id: u64, request: Request) {
        self.held.push_back((requester, request_id, request));
    }

    /// Returns whether any request is kept.
    pub fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Removes and returns the request that was kept for longest.
    pub fn next_held(&mut self) -> Option<(Requester, u64, Request)> {
        self.held.pop_front()
    }

    /// Removes the requests of a closed connection, and returns their numbers.
    pub fn forget(&mut self, conn: ConnId) -> Vec<u64> {
        let here = |_: &u64, open: &mut (ReplyTo, Option<Asked>)| matches!(&open.0, ReplyTo::Remote { conn: at, .. } if *at == conn);
        let gone: HashSet<u64> = self
            .open
            .extract_if(here)
            .map(|(request_id, _)| request_id)
            .collect();
        self.held
            .retain(|(_, request_id, _)| !gone.contains(request_id));
        gone.into_iter().collect()
    }

    /// Sends a reply to the requester in this process, or adds it to the messages for its connection. Returns the entry
    /// for the audit log.
    pub fn answer(
        &mut self,
        id: u64,
        reply: Reply,
        remote: &mut BTreeMap<ConnId, Vec<Answer>>,
    ) -> Option<(Asked, Reply)> {
        let over = is_last(&reply);
        let (reply_to, asked) = self.open.get_mut(&id)?;
        let noted = asked.take().map(|asked| (asked, reply.clone()));
        let over = match reply_to {
            ReplyTo::Remote {
                conn,
                request_id,
                watch,
            } => {
                let answer = Answer {
                    id: *request_id,
                    reply,
                };
                remote.entry(*conn).or_default().push(answer);
                over || !*watch
            }
            ReplyTo::Once(sender) => {
                if let Some(sender) = sender.take() {
                    _ = sender.send(reply);
                }
                true
            }
            ReplyTo::Watch(sender) => {
                // A slow watcher misses intermediate replies, but never the last.
                if sender.try_send(reply.clone()).is_err() && over {
                    let sender = sender.clone();
                    tokio::spawn(async move { _ = sender.send(reply).await });
                }
                over
            }
        };
        if over {
            self.open.remove(&id);
        }
        noted
    }
}

/// Returns whether a watch ends with this reply.
fn is_last(reply: &Reply) -> bool {
    !matches!(reply, Reply::Job(view) if !view.state.ended())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hedge_model::{JobId, PeerId};

    #[test]
    fn what_was_held_back_for_a_connection_ends_with_it() {
        let mut pending = PendingRequests::default();
        let peer = Requester::Peer(PeerId([1; 32]));
        for conn in [1, 2, 1] {
            let reply_to = ReplyTo::Remote {
                conn,
                request_id: 7,
                watch: true,
            };
            let (request_id, full) = pending.add(reply_to, None);
            assert!(!full);
            pending.hold(peer, request_id, Request::Watch(JobId(1)));
        }
        let mut gone = pending.forget(1);
        gone.sort_unstable();
        assert_eq!(gone, [1, 3]);
        assert_eq!(
            pending.next_held().map(|(_, request_id, _)| request_id),
            Some(2)
        );
        assert!(!pending.holds_any());
    }
}
