//! Who waits for which answer. Each question gets a number of its own, so that peers with several
//! connections are told apart.

use super::audit::Asked;
use super::core_loop::ConnId;
use hedge_core::supervisor::Requester;
use hedge_model::msg::{Answer, Reply, Request};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use tokio::sync::{mpsc, oneshot};

/// Questions without an answer, watches among them, over all clients.
const ASKED_MAX: usize = 65_536;

/// Where the answers to a question go.
#[derive(Debug)]
pub(crate) enum Asker {
    Remote { conn: ConnId, ask: u64, watch: bool },
    Once(Option<oneshot::Sender<Reply>>),
    Watch(mpsc::Sender<Reply>),
}

#[derive(Debug, Default)]
pub(super) struct Askers {
    last: u64,
    open: HashMap<u64, (Asker, Option<Asked>)>,
    /// Those that wait until it is sure who leads, by peer and number.
    held: VecDeque<(Requester, u64, Request)>,
}

impl Askers {
    /// The number of a new question, and whether there are too many already; with what is to be noted of it
    /// in the audit log.
    pub fn add(&mut self, asker: Asker, asked: Option<Asked>) -> (u64, bool) {
        let full = self.open.len() >= ASKED_MAX;
        self.last += 1;
        self.open.insert(self.last, (asker, asked));
        (self.last, full)
    }

    /// Holds a question back until it is sure who leads.
    pub fn hold(&mut self, requester: Requester, ask: u64, request: Request) {
        self.held.push_back((requester, ask, request));
    }

    /// Whether any question is held back.
    pub fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// The question that was held back for longest.
    pub fn next_held(&mut self) -> Option<(Requester, u64, Request)> {
        self.held.pop_front()
    }

    /// A connection is closed: nobody waits there any more, nor for what was held back. Gives the questions that
    /// were open.
    pub fn forget(&mut self, conn: ConnId) -> Vec<u64> {
        let here = |_: &u64, open: &mut (Asker, Option<Asked>)| matches!(&open.0, Asker::Remote { conn: at, .. } if *at == conn);
        let gone: HashSet<u64> = self.open.extract_if(here).map(|(ask, _)| ask).collect();
        self.held.retain(|(_, ask, _)| !gone.contains(ask));
        gone.into_iter().collect()
    }

    /// Hands an answer to whoever asked, or adds it to what goes to their connection. Gives what the audit log
    /// is to say.
    pub fn answer(
        &mut self,
        id: u64,
        reply: Reply,
        remote: &mut BTreeMap<ConnId, Vec<Answer>>,
    ) -> Option<(Asked, Reply)> {
        let over = is_last(&reply);
        let (asker, asked) = self.open.get_mut(&id)?;
        let noted = asked.take().map(|asked| (asked, reply.clone()));
        let over = match asker {
            Asker::Remote { conn, ask, watch } => {
                let answer = Answer { id: *ask, reply };
                remote.entry(*conn).or_default().push(answer);
                over || !*watch
            }
            Asker::Once(asker) => {
                if let Some(asker) = asker.take() {
                    _ = asker.send(reply);
                }
                true
            }
            Asker::Watch(asker) => {
                // A watcher that is behind misses news, but never the end.
                if asker.try_send(reply.clone()).is_err() && over {
                    let asker = asker.clone();
                    tokio::spawn(async move { _ = asker.send(reply).await });
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

/// Whether a watch ends with this.
fn is_last(reply: &Reply) -> bool {
    !matches!(reply, Reply::Job(view) if !view.state.ended())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hedge_model::{JobId, PeerId};

    #[test]
    fn what_was_held_back_for_a_connection_ends_with_it() {
        let mut askers = Askers::default();
        let peer = Requester::Peer(PeerId([1; 32]));
        for conn in [1, 2, 1] {
            let asker = Asker::Remote {
                conn,
                ask: 7,
                watch: true,
            };
            let (ask, full) = askers.add(asker, None);
            assert!(!full);
            askers.hold(peer, ask, Request::Watch(JobId(1)));
        }
        let mut gone = askers.forget(1);
        gone.sort_unstable();
        assert_eq!(gone, [1, 3]);
        assert_eq!(askers.next_held().map(|(_, ask, _)| ask), Some(2));
        assert!(!askers.holds_any());
    }
}
