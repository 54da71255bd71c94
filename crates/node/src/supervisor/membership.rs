//! Who is in the group of supervisors: joining it, getting a vote in it, taking the place of one that is gone.
//! The journal makes each change; nothing here decides about jobs.

use super::core_loop::Input;
use super::invitations;
use super::links::PeerLinks;
use crate::pause::Pause;
use hedge_model::msg::Role;
use hedge_model::{Hash, PeerAddr, PeerId};
use hedge_store::{Group, Journal, Member, NodeId, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc, watch};

/// How long another supervisor may take to answer about the group.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// Between two questions of one that waits for its vote.
const VOTE_AGAIN: Duration = Duration::from_millis(100);
/// So many entries behind, a member counts as up to date: it has the rest before its vote is agreed on.
const BEHIND_MAX: u64 = 200;

/// A question of one supervisor to another about the group.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum GroupAsk {
    /// Let this member follow.
    Join {
        /// Its name in the group.
        id: NodeId,
        /// Who it is.
        member: Member,
    },
    /// Give this member a vote as soon as it is up to date.
    Vote(NodeId),
    /// A ticket for peers of this role, in place of one that is not valid.
    Ticket {
        /// Who joins by it.
        role: Role,
        /// The one that there is.
        have: Option<Hash>,
    },
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum GroupReply {
    /// Done.
    Ok,
    /// Not yet; ask again.
    Later,
    /// Another leads: ask there.
    NotLeading,
    /// It cannot be; a sentence.
    No(String),
    /// A ticket's text.
    Ticket(String),
}

/// Changes to the group, one at a time, on whichever supervisor leads.
#[derive(Clone)]
pub(crate) struct Changes {
    journal: Journal,
    one: Arc<Mutex<()>>,
}

impl Changes {
    pub fn new(journal: Journal) -> Self {
        Self {
            journal,
            one: Arc::default(),
        }
    }

    /// Lets a member follow, or notes where one of the group is now; members of the same peer that never voted were earlier lives of it.
    pub async fn join(&self, id: NodeId, member: Member) -> GroupReply {
        let _one = self.one.lock().await;
        let group = self.group();
        if !group.leading {
            return GroupReply::NotLeading;
        }
        let peer = member.peer.peer;
        if let Some(seat) = group.seats.get(&id) {
            if seat.member.peer.peer != peer {
                return GroupReply::No("this seat is another supervisor's".into());
            }
            if seat.member == member {
                return GroupReply::Ok;
            }
            return done(self.journal.move_member(id, member).await);
        }
        let earlier = group
            .seats
            .iter()
            .filter(|(_, seat)| seat.member.peer.peer == peer && !seat.voter);
        for (earlier, _) in earlier {
            if let Err(error) = self.journal.remove(*earlier).await {
                return refused(error);
            }
        }
        done(self.journal.add(id, member).await)
    }

    /// Gives a member a vote, if it is up to date, and takes the place of its earlier lives.
    pub async fn vote(&self, id: NodeId) -> GroupReply {
        let _one = self.one.lock().await;
        let group = self.group();
        if !group.leading {
            return GroupReply::NotLeading;
        }
        let Some(seat) = group.seats.get(&id) else {
            // Its joining was lost with the leader that it had asked: it joins again.
            return GroupReply::Later;
        };
        if !seat.voter {
            if !up_to_date(&group, id) {
                return GroupReply::Later;
            }
            if let Err(error) = self.journal.promote(id).await {
                return refused(error);
            }
        }
        let peer = seat.member.peer.peer;
        let others = group.seats.iter();
        let earlier = others.filter(|(other, seat)| **other != id && seat.member.peer.peer == peer);
        for (earlier, _) in earlier {
            if let Err(error) = self.journal.remove(*earlier).await {
                return refused(error);
            }
        }
        GroupReply::Ok
    }

    /// Takes a peer out of the group.
    pub async fn remove(&self, peer: PeerId) -> Result<(), StoreError> {
        let _one = self.one.lock().await;
        let group = self.group();
        let seats = group.seats.iter();
        for (id, _) in seats.filter(|(_, seat)| seat.member.peer.peer == peer) {
            self.journal.remove(*id).await?;
        }
        Ok(())
    }

    /// Gives the vote of a member that is gone to one that stands by.
    async fn replace(&self, gone: NodeId, by: NodeId) -> Result<(), StoreError> {
        let _one = self.one.lock().await;
        self.journal.promote(by).await?;
        self.journal.remove(gone).await
    }

    fn group(&self) -> Group {
        self.journal.group().borrow().clone()
    }
}

fn done(changed: Result<(), StoreError>) -> GroupReply {
    match changed {
        Ok(()) => GroupReply::Ok,
        Err(error) => refused(error),
    }
}

fn refused(error: StoreError) -> GroupReply {
    match error {
        StoreError::NotLeading { .. } => GroupReply::NotLeading,
        // The only one that another leader, or the next moment, does not change.
        error @ StoreError::TooOld { .. } => GroupReply::No(error.to_string()),
        error => {
            tracing::info!(%error, "the group was not changed yet");
            GroupReply::Later
        }
    }
}

fn up_to_date(group: &Group, id: NodeId) -> bool {
    let last = group.log.last.unwrap_or(0);
    let matched = group.seats.get(&id).and_then(|seat| seat.matched);
    matched.is_some_and(|matched| matched + BEHIND_MAX >= last)
}

/// Answers a question about the group.
pub(crate) async fn answer(
    ask: GroupAsk,
    changes: Changes,
    inputs: mpsc::Sender<Input>,
) -> GroupReply {
    match ask {
        GroupAsk::Join { id, member } => changes.join(id, member).await,
        GroupAsk::Vote(id) => changes.vote(id).await,
        GroupAsk::Ticket { role, have } => invitations::invite(&inputs, role, have).await,
    }
}

/// Joins a group. Goes on until this member is in it; an error says that it never will be.
pub(crate) async fn join(
    changes: &Changes,
    links: &PeerLinks,
    me: &Member,
) -> Result<Vec<PeerAddr>, String> {
    let mut group = changes.journal.group();
    let id = changes.journal.id();
    let mut pause = Pause::new();
    let ask = ask_to_join(id, me);
    while !group.borrow_and_update().seats.contains_key(&id) {
        if ask_leader(links, &ask).await? {
            // The leader sends the log next.
            _ = tokio::time::timeout(ASK_WITHIN, group.changed()).await;
        } else {
            pause.wait().await;
        }
    }
    let group = group.borrow();
    let seats = group.seats.values();
    Ok(seats.map(|seat| seat.member.peer.clone()).collect())
}

fn ask_to_join(id: NodeId, me: &Member) -> GroupAsk {
    let member = me.clone();
    GroupAsk::Join { id, member }
}

/// Asks for a vote, until it has it and nothing of its earlier lives is left in the group.
pub(crate) async fn get_vote(
    changes: &Changes,
    links: &PeerLinks,
    me: &Member,
) -> Result<(), String> {
    let group = changes.journal.group();
    let id = changes.journal.id();
    while !settled(&group) {
        let here = matches!(changes.vote(id).await, GroupReply::Ok);
        if !here && !ask_leader(links, &GroupAsk::Vote(id)).await? && !votes(&group) {
            // The seat that is known here may be one that no leader knows of.
            ask_leader(links, &ask_to_join(id, me)).await?;
        }
        if !settled(&group) {
            tokio::time::sleep(VOTE_AGAIN).await;
        }
    }
    Ok(())
}

fn votes(group: &watch::Receiver<Group>) -> bool {
    let group = group.borrow();
    group.seats.get(&group.me).is_some_and(|seat| seat.voter)
}

/// Whether this member votes, and is in the group once only.
fn settled(group: &watch::Receiver<Group>) -> bool {
    let group = group.borrow();
    let Some(mine) = group.seats.get(&group.me).filter(|seat| seat.voter) else {
        return false;
    };
    let peer = mine.member.peer.peer;
    let lives = group.seats.values();
    lives.filter(|seat| seat.member.peer.peer == peer).count() == 1
}

/// Tells the group where this member is now, where the journal says something else: it has started again at
/// another port, or its machine has other addresses.
#[derive(Clone, Default)]
pub(crate) struct Moved {
    telling: Arc<AtomicBool>,
}

impl Moved {
    /// Looks again; what there is to tell is told beside the caller.
    pub fn look(&self, changes: &Changes, links: &PeerLinks, format_max: u32) {
        let group = changes.group();
        let Some(seat) = group.seats.get(&group.me) else {
            return;
        };
        let member = Member {
            peer: links.local_addr(),
            format_max,
        };
        if seat.member == member || self.telling.swap(true, Ordering::Relaxed) {
            return;
        }
        let (id, leading) = (group.me, group.leading);
        let (changes, links, telling) = (changes.clone(), links.clone(), self.telling.clone());
        tokio::spawn(async move {
            let told = if leading {
                matches!(changes.join(id, member).await, GroupReply::Ok)
            } else {
                let ask = GroupAsk::Join { id, member };
                ask_leader(&links, &ask).await.unwrap_or_default()
            };
            if told {
                tracing::info!("the group knows where this supervisor is now");
            }
            telling.store(false, Ordering::Relaxed);
        });
    }
}

/// Asks all in turn until the one that leads has done it.
async fn ask_leader(links: &PeerLinks, ask: &GroupAsk) -> Result<bool, String> {
    for peer in links.open() {
        let answer = links.ask(peer, ask, ASK_WITHIN).await;
        let answer = answer
            .ok()
            .and_then(|bytes| postcard::from_bytes(&bytes).ok());
        match answer {
            Some(GroupReply::Ok) => return Ok(true),
            Some(GroupReply::No(why)) => return Err(why),
            _ => {}
        }
    }
    Ok(false)
}

/// A ticket from the one that leads, in place of one that is not valid.
pub(crate) async fn ticket(links: &PeerLinks, role: Role, have: Option<Hash>) -> GroupReply {
    let ask = GroupAsk::Ticket { role, have };
    for peer in links.open() {
        let answer = links.ask(peer, &ask, ASK_WITHIN).await;
        let answer = answer
            .ok()
            .and_then(|bytes| postcard::from_bytes(&bytes).ok());
        match answer {
            None | Some(GroupReply::Later | GroupReply::NotLeading) => {}
            Some(answer) => return answer,
        }
    }
    GroupReply::NotLeading
}

/// Who is gone from the group, as the leader sees it, and for how long.
#[derive(Default)]
pub(crate) struct Absent {
    since: HashMap<NodeId, Instant>,
}

impl Absent {
    /// Looks again. A voter that was gone for `after` is replaced by a member without a vote that is there
    /// and up to date.
    pub fn look(&mut self, changes: &Changes, links: &PeerLinks, after: Duration) {
        let group = changes.group();
        if !group.leading {
            self.since.clear();
            return;
        }
        let open = links.open();
        let here = |id: &NodeId| {
            let seat = &group.seats[id];
            *id == group.me || open.contains(&seat.member.peer.peer)
        };
        let ids = || group.seats.keys();
        self.since
            .retain(|id, _| group.seats.contains_key(id) && !here(id));
        for id in ids().filter(|id| !here(id)) {
            self.since.entry(*id).or_insert_with(Instant::now);
        }
        let gone = self
            .since
            .iter()
            .find(|(id, since)| group.seats[*id].voter && since.elapsed() >= after);
        let stands_by =
            ids().find(|id| !group.seats[*id].voter && here(id) && up_to_date(&group, **id));
        if let (Some((gone, _)), Some(by)) = (gone, stands_by) {
            let (changes, gone, by) = (changes.clone(), *gone, *by);
            tracing::warn!(
                "a supervisor has been gone for long; another that stands by takes its place"
            );
            tokio::spawn(async move {
                if let Err(error) = changes.replace(gone, by).await {
                    tracing::warn!(%error, "the place of a supervisor that is gone could not be taken");
                }
            });
        }
    }
}
