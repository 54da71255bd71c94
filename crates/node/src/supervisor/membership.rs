//! Carries out what [`hedge_core::group`] decides about the group of supervisors, and sends this supervisor's
//! requests to join and to vote to the leader.

use super::core_loop::{Input, Loop};
use super::links::PeerLinks;
use super::ticket_files;
use crate::pause::Pause;
use hedge_core::group::{self, Change, Refusal, Revocation};
use hedge_model::group::{GroupMember, NodeId};
use hedge_model::msg::Role;
use hedge_model::{Hash, PeerAddr, PeerId};
use hedge_store::{Group, Journal, StoreError};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, watch};

/// How long another supervisor may take to reply about the group.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// The delay between two requests for a vote.
const VOTE_AGAIN: Duration = Duration::from_millis(100);
/// A request of one supervisor to another about the group.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum GroupRequest {
    /// Let this member follow.
    Join {
        /// Its id in the group.
        id: NodeId,
        /// The member.
        member: GroupMember,
    },
    /// Give this member a vote as soon as it is up to date.
    Vote(NodeId),
    /// Make a ticket for peers of this role, to replace one that is not valid.
    Ticket {
        /// The role of its holders.
        role: Role,
        /// The present ticket.
        have: Option<Hash>,
    },
}

/// The reply to a [`GroupRequest`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum GroupReply {
    /// Done.
    Ok,
    /// Not yet; ask again.
    Later,
    /// Another supervisor leads: ask it.
    NotLeading,
    /// Refused, with the reason as a sentence.
    No(String),
    /// The text of a ticket.
    Ticket(String),
}

/// Makes changes to the group one at a time. They have an effect only on the leader.
#[derive(Clone)]
pub(crate) struct Changes {
    journal: Journal,
    one: Arc<Mutex<()>>,
}

/// The lock for one change. The group does not change otherwise until it is dropped.
pub(crate) struct Turn {
    changes: Changes,
    _one: OwnedMutexGuard<()>,
}

impl Turn {
    /// Returns the present group.
    pub fn group(&self) -> Group {
        self.changes.group()
    }

    /// Makes a change that was decided while this lock was held.
    pub async fn make(&self, change: Change) -> Result<(), StoreError> {
        self.changes.make(change).await
    }
}

impl Changes {
    pub fn new(journal: Journal) -> Self {
        Self {
            journal,
            one: Arc::default(),
        }
    }

    /// Adds a member without a vote, or records its new address or format.
    pub async fn join(&self, id: NodeId, member: &GroupMember) -> GroupReply {
        self.plan(|group| group.join(id, member)).await
    }

    /// Gives a member a vote and removes its former ids.
    pub async fn vote(&self, id: NodeId) -> GroupReply {
        self.plan(|group| group.vote(id)).await
    }

    /// Takes the lock for a change; none while another change is in progress.
    pub fn turn(&self) -> Option<Turn> {
        let one = self.one.clone().try_lock_owned().ok()?;
        Some(Turn {
            changes: self.clone(),
            _one: one,
        })
    }

    async fn plan(
        &self,
        plan: impl FnOnce(group::Group<'_>) -> Result<Vec<Change>, Refusal>,
    ) -> GroupReply {
        let _one = self.one.lock().await;
        let changes = match plan(view(&self.group())) {
            Ok(changes) => changes,
            Err(refusal) => return refusal.into(),
        };
        for change in changes {
            if let Err(error) = self.make(change).await {
                return refused(error);
            }
        }
        GroupReply::Ok
    }

    async fn make(&self, change: Change) -> Result<(), StoreError> {
        match change {
            Change::Add(id, member) => self.journal.add(id, member).await,
            Change::Update(id, member) => self.journal.update_member(id, member).await,
            Change::Promote(id) => self.journal.promote(id).await,
            Change::Remove(id) => self.journal.remove(id).await,
            Change::Replace { absent, by } => self.journal.replace(absent, by).await,
        }
    }

    fn group(&self) -> Group {
        self.journal.group().borrow().clone()
    }
}

impl Loop {
    /// Gives the vote of a supervisor that has been absent for long to one on standby.
    pub(super) fn replace_absent(&mut self) {
        let after = self.core.state().settings().promote_after;
        let open = self.setup.links.open();
        let now = self.setup.clock.uptime();
        let connected = |peer| open.contains(&peer);
        self.absences
            .observe(now, &view(&self.group.borrow()), connected);
        // Another change is in progress. This is called again soon.
        let Some(turn) = self.changes.turn() else {
            return;
        };
        let group = turn.group();
        let due = self
            .absences
            .replacement(now, &view(&group), connected, after);
        let Some(change) = due else { return };
        tracing::warn!("a supervisor has been absent for long; one that stands by gets its vote");
        tokio::spawn(async move {
            if let Err(error) = turn.make(change).await {
                tracing::warn!(%error, "a supervisor that is absent was not replaced");
            }
        });
    }

    /// Removes revoked supervisors from the group.
    pub(super) fn remove_revoked(&self) {
        let Some(turn) = self.changes.turn() else {
            return;
        };
        let group = turn.group();
        let revoked = |peer| self.core.state().is_revoked(peer);
        let due = view(&group).revocations(revoked, self.fit_to_lead());
        if due.is_empty() {
            return;
        }
        let journal = self.setup.journal.clone();
        tokio::spawn(async move {
            for revocation in due {
                let done = match revocation {
                    Revocation::HandOver(successor) => journal.transfer_leader(successor).await,
                    Revocation::Remove(id) => turn.make(Change::Remove(id)).await,
                };
                if let Err(error) = done {
                    tracing::warn!(%error, "a supervisor that was revoked is still in the group");
                }
            }
        });
    }

    /// Returns whether a peer can lead: it is connected, was not revoked, and can store.
    fn fit_to_lead(&self) -> impl Fn(PeerId) -> bool {
        let open = self.setup.links.open();
        move |peer| {
            let revoked = self.core.state().is_revoked(peer);
            open.contains(&peer) && !revoked && self.core.has_disk(peer)
        }
    }

    /// Returns the best voter to lead after this one.
    pub(super) fn successor(&self) -> Option<NodeId> {
        let group = self.group.borrow();
        view(&group).successor(self.fit_to_lead())
    }
}

/// Converts the group for the core.
pub(super) fn view(group: &Group) -> group::Group<'_> {
    group::Group {
        me: group.me,
        leading: group.leading,
        last: group.log.last.unwrap_or(0),
        seats: &group.seats,
    }
}

impl From<Refusal> for GroupReply {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotLeading => Self::NotLeading,
            Refusal::NotYet => Self::Later,
            Refusal::SeatTaken => Self::No("this seat is another supervisor's".into()),
        }
    }
}

fn refused(error: StoreError) -> GroupReply {
    match error {
        StoreError::NotLeading { .. } => GroupReply::NotLeading,
        // The only error that neither another leader nor time will resolve.
        error @ StoreError::TooOld { .. } => GroupReply::No(error.to_string()),
        error => {
            tracing::info!(%error, "the group was not changed yet");
            GroupReply::Later
        }
    }
}

/// Answers a request about the group.
pub(crate) async fn answer(
    request: GroupRequest,
    changes: Changes,
    inputs: mpsc::Sender<Input>,
) -> GroupReply {
    match request {
        GroupRequest::Join { id, member } => changes.join(id, &member).await,
        GroupRequest::Vote(id) => changes.vote(id).await,
        GroupRequest::Ticket { role, have } => {
            ticket_files::valid_ticket(&inputs, role, have).await
        }
    }
}

/// Joins a group: repeats the request until this member is in the group. An error means that it never will be.
pub(crate) async fn join(
    changes: &Changes,
    links: &PeerLinks,
    me: &GroupMember,
) -> Result<Vec<PeerAddr>, String> {
    let mut group = changes.journal.group();
    let id = changes.journal.id();
    let mut pause = Pause::new();
    let request = ask_to_join(id, me);
    while !group.borrow_and_update().seats.contains_key(&id) {
        if ask_leader(links, &request).await? {
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

fn ask_to_join(id: NodeId, me: &GroupMember) -> GroupRequest {
    let member = me.clone();
    GroupRequest::Join { id, member }
}

/// Requests a vote until this member has it and its former ids are removed from the group.
pub(crate) async fn get_vote(
    changes: &Changes,
    links: &PeerLinks,
    me: &GroupMember,
) -> Result<(), String> {
    let group = changes.journal.group();
    let id = changes.journal.id();
    while !settled(&group) {
        let here = matches!(changes.vote(id).await, GroupReply::Ok);
        if !here && !ask_leader(links, &GroupRequest::Vote(id)).await? && !votes(&group) {
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

fn settled(group: &watch::Receiver<Group>) -> bool {
    let group = group.borrow();
    view(&group).is_settled(group.me)
}

/// Tells the group this supervisor's address if it differs from the one in the journal: after a restart at another
/// port, or when its machine has other addresses.
#[derive(Clone, Default)]
pub(crate) struct Moved {
    telling: Arc<AtomicBool>,
}

impl Moved {
    /// Compares the addresses, and reports a difference in a separate task.
    pub fn look(&self, changes: &Changes, links: &PeerLinks, format_max: u32) {
        let group = changes.group();
        let Some(seat) = group.seats.get(&group.me) else {
            return;
        };
        let member = GroupMember {
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
                matches!(changes.join(id, &member).await, GroupReply::Ok)
            } else {
                let request = GroupRequest::Join { id, member };
                ask_leader(&links, &request).await.unwrap_or_default()
            };
            if told {
                tracing::info!("the group knows where this supervisor is now");
            }
            telling.store(false, Ordering::Relaxed);
        });
    }
}

/// Asks all in turn until the one that leads has done it.
async fn ask_leader(links: &PeerLinks, request: &GroupRequest) -> Result<bool, String> {
    for peer in links.open() {
        let answer = links.ask(peer, request, ASK_WITHIN).await;
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

/// Requests a ticket from the leader, to replace one that is not valid.
pub(crate) async fn ticket(links: &PeerLinks, role: Role, have: Option<Hash>) -> GroupReply {
    let request = GroupRequest::Ticket { role, have };
    for peer in links.open() {
        let answer = links.ask(peer, &request, ASK_WITHIN).await;
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
