//! Handles the journal's events, and proposes records to it.

use super::core_loop::{End, Loop, Standing};
use crate::NodeError;
use hedge_core::commit_batcher::CommitBatcher;
use hedge_core::supervisor::{Event, Proposal, State};
use hedge_model::PeerAddr;
use hedge_model::group::PeerSupervisor;
use hedge_model::record::Record;
use hedge_store::{JournalEvent, Refused};
use tokio::time::Instant;

/// The most entries in flight. Records that arrive meanwhile go together into the next entry.
const IN_FLIGHT_MAX: usize = 2;
/// A second entry is proposed beside one in flight only if this many records wait. Each entry costs every supervisor
/// a sync and some messages, whatever its size.
const SECOND_MIN: usize = 128;
/// The most records in one entry.
const ENTRY_RECORDS_MAX: usize = 4096;
/// The most bytes of records in one entry, unless a single record is larger. An entry above 255 MiB would end the
/// journal, and a follower handles a long one slowly.
const ENTRY_BYTES_MAX: usize = 16 << 20;

impl Loop {
    pub(super) fn on_journal_event(&mut self, event: JournalEvent) -> Result<(), End> {
        match event {
            JournalEvent::Restore { state, .. } => {
                let state = State::restore(&state).map_err(|error| {
                    End::Failed(NodeError::Other(format!("the journal's snapshot: {error}")))
                })?;
                if let Some(recording) = &self.setup.recording {
                    recording.restored(&state);
                }
                self.core.restore(state);
                // Peers that later entries revoke are expelled when these are committed.
                let revoked: Vec<_> = self.core.state().revoked().collect();
                revoked.into_iter().for_each(|peer| self.expel(peer));
                self.setup.journal.use_format(self.core.state().format());
            }
            JournalEvent::Committed { first, records, .. } => {
                self.journal_at = Instant::now();
                if first.is_some() {
                    self.in_flight = self.in_flight.saturating_sub(1);
                    self.batcher.committed(self.setup.clock.uptime());
                }
                let revoked = |record: &Record| matches!(record, Record::TicketMade(ticket) if ticket.is_revoked());
                let revokes = records.iter().any(revoked);
                for (at, record) in records.iter().enumerate() {
                    self.feed(Event::Committed {
                        proposal: first.map(|first| first + at as u64),
                        record: record.clone(),
                    });
                }
                self.setup.journal.use_format(self.core.state().format());
                self.note_standing();
                if revokes {
                    self.rewrite_ticket_files();
                }
            }
            JournalEvent::Snapshot(request) => {
                let state = self.core.state().clone();
                request.give(Box::new(move |out| state.write(out)));
            }
            JournalEvent::Lead { term } => {
                tracing::info!(term, "this supervisor leads");
                self.term = term;
                self.setup.clock.raise(self.core.state().recorded_time());
                let holds = self.setup.store.list().into_iter();
                let holds = holds.map(|(hash, _)| hash).collect();
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).map_err(|error| {
                    End::Failed(NodeError::Other(format!("no random bytes: {error}")))
                })?;
                self.feed(Event::Lead { holds, secret });
            }
            JournalEvent::Deposed { leader } => {
                let leader = leader.map_or_else(|| "nobody yet".to_owned(), |peer| peer.short());
                tracing::info!(%leader, "this supervisor leads no longer");
                self.effects.proposals.clear();
                (self.in_flight, self.batcher) = (0, CommitBatcher::default());
                self.send_queued();
                self.feed(Event::Deposed);
                self.note_standing();
            }
            JournalEvent::Removed => {
                let why = hedge_net::CloseReason::Removed.to_string();
                return Err(End::Failed(NodeError::NotAllowed(why)));
            }
            JournalEvent::Failed(error) => return Err(End::Failed(error.into())),
        }
        Ok(())
    }

    fn note_standing(&mut self) {
        let live = self.core.is_live();
        self.tally.on_leadership(live);
        if self.setup.standing.borrow().live != live {
            let ended = None;
            self.setup.standing.send_replace(Standing { live, ended });
        }
    }

    /// Passes the core's proposals to the journal: at once while few entries are in flight, otherwise batched.
    pub(super) fn propose(&mut self) {
        while self.in_flight < IN_FLIGHT_MAX
            && (self.in_flight == 0 || self.effects.proposals.len() >= SECOND_MIN)
            && let Some(first) = self.effects.proposals.front()
        {
            let first = first.id;
            let now = self.setup.clock.uptime();
            if self.effects.proposals.len() < SECOND_MIN
                && self.told_group.iter().filter(|one| one.votes).count() > 1
                && self.batcher.delays(now, self.effects.proposals.len())
            {
                return;
            }
            let count = self.next_entry();
            let records = self.effects.proposals.drain(..count).map(|one| one.record);
            match self
                .setup
                .journal
                .propose_in(self.term, first, records.collect())
            {
                Ok(()) => {
                    self.batcher.proposed(now, count);
                    if self.in_flight == 0 {
                        self.journal_at = Instant::now();
                    }
                    self.in_flight += 1;
                }
                Err(not) if not.why == Refused::Full => {
                    let back = not.records.into_iter().enumerate().rev();
                    for (at, record) in back {
                        let id = first + at as u64;
                        self.effects.proposals.push_front(Proposal { id, record });
                    }
                    return;
                }
                // The journal is about to report this. Clients with pending requests ask the next leader.
                Err(_) => self.effects.proposals.clear(),
            }
        }
    }

    /// Returns how many of the waiting records go into the next entry.
    fn next_entry(&self) -> usize {
        let mut bytes = 0_usize;
        let fits = |proposal: &&Proposal| {
            bytes = bytes.saturating_add(proposal.record.weight());
            bytes <= ENTRY_BYTES_MAX
        };
        let waiting = self.effects.proposals.iter().take(ENTRY_RECORDS_MAX);
        waiting.take_while(fits).count().max(1)
    }

    /// Handles a change of the group or its leader.
    pub(super) fn on_group(&mut self) {
        let group = self.group.borrow_and_update().clone();
        if group.seats.is_empty() {
            return;
        }
        let peer_supervisor = |seat: &hedge_store::Seat| PeerSupervisor {
            addr: seat.member.peer.clone(),
            votes: seat.voter,
            format_max: seat.member.format_max,
        };
        let all: Vec<PeerSupervisor> = group.seats.values().map(peer_supervisor).collect();
        if all != self.told_group {
            let addrs: Vec<PeerAddr> = all.iter().map(|one| one.addr.clone()).collect();
            let peers = addrs.iter().map(|addr| addr.peer);
            let before = std::mem::replace(&mut self.trusted, peers.clone().collect());
            // A revoked supervisor was heard until now, because the group needed it in order to remove it.
            let left = before.difference(&self.trusted).copied();
            for peer in left.filter(|peer| self.core.state().is_revoked(*peer)) {
                self.peer_supervisors.remove(&peer);
                self.setup.links.shut_out(peer);
            }
            self.setup.trust.set_supervisors(peers);
            self.setup.links.keep(&addrs);
            if let Some(known) = &self.setup.known {
                known.save(&addrs);
            }
            self.told_group.clone_from(&all);
            self.feed(Event::Group(all));
            self.publish_ticket_contacts();
        }
    }
}
