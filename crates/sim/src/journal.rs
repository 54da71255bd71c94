//! A model of the journal that supervisors agree on: one leads and proposes; a record is committed once most
//! supervisors have it, in one order for all; others hear of it late. When the leadership moves, some of what
//! was proposed is committed all the same, the rest is lost, and the old leader hears of neither at once.

use crate::actors::{Event, Peer};
use crate::grid::{Grid, Violation};
use crate::shadow::{Change, Shadow};
use hedge_core::supervisor::{Event as Heard, ProposalId, State};
use hedge_model::msg::Role;
use hedge_model::record::{Record, Ticket};
use hedge_model::{Hash, Time};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::time::Duration;

/// Until a leader without most of the others, or a group without a leader, tries again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// A supervisor that lacks more records than this is given a snapshot.
const BEHIND_MAX: usize = 400;

#[derive(Debug)]
pub(crate) struct Journal {
    /// Whether committed records are kept, for supervisors that start again or lag behind.
    pub stored: bool,
    entries: Vec<Entry>,
    /// What the entries say.
    pub shadow: Shadow,
    /// Whose proposals can be committed.
    pub leader: Option<usize>,
    pub term: u64,
    in_flight: VecDeque<Entry>,
    last_commit: Time,
    /// Digests of the state after so many records.
    digests: BTreeMap<usize, u64>,
}

/// A record, and by which supervisor it was proposed, in which term and under which name.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    record: Record,
    by: (usize, u64, ProposalId),
}

impl Journal {
    pub fn new(stored: bool) -> Self {
        Self {
            stored,
            entries: Vec::new(),
            shadow: Shadow::default(),
            leader: None,
            term: 0,
            in_flight: VecDeque::new(),
            last_commit: Time(0),
            digests: BTreeMap::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What the first `count` records say.
    pub fn shadow_at(&self, count: usize) -> Shadow {
        let mut shadow = Shadow::default();
        for entry in &self.entries[..count] {
            shadow.apply(&entry.record);
        }
        shadow
    }
}

impl Grid {
    /// The state after the first `count` records.
    pub(crate) fn state_at(&self, count: usize) -> State {
        let mut state = State::default();
        let mut join = |peer: Peer, role: Role| {
            let ticket = Ticket {
                hash: Hash([role as u8 + 1; 32]),
                role,
                expires: None,
                uses: None,
            };
            let (peer, ticket_hash) = (peer.id(), ticket.hash);
            state.apply(&Record::TicketMade(ticket));
            state.apply(&Record::MemberJoined {
                peer,
                role,
                ticket: ticket_hash,
                at: Time(0),
            });
        };
        (0..self.clients.len()).for_each(|ix| join(Peer::Client(ix), Role::Admin));
        (0..self.workers.len()).for_each(|ix| join(Peer::Worker(ix), Role::Worker));
        for entry in &self.journal.entries[..count] {
            state.apply(&entry.record);
        }
        state
    }

    /// A supervisor wants a record committed. Where it does not lead, nothing comes of it.
    pub(crate) fn propose(&mut self, sup: usize, proposal: ProposalId, record: Record) {
        let term = self.journal.term;
        if self.journal.leader != Some(sup) || self.sups[sup].leads != Some(term) {
            return;
        }
        let (low, high) = self.options.commit_ms;
        let at = self.now + self.dice.millis(low, high);
        let at = at.max(self.journal.last_commit);
        self.journal.last_commit = at;
        let by = (sup, term, proposal);
        self.journal.in_flight.push_back(Entry { record, by });
        self.after(at.since(self.now), Event::Commit(term));
    }

    /// Most supervisors have the oldest record in flight.
    pub(crate) fn commit(&mut self, term: u64) -> Result<(), Violation> {
        let Some(leader) = self.journal.leader.filter(|_| term == self.journal.term) else {
            return Ok(());
        };
        if self.journal.in_flight.is_empty() {
            return Ok(());
        }
        if !self.has_most(leader) {
            self.after(AGAIN_AFTER, Event::Commit(term));
            return Ok(());
        }
        let Some(entry) = self.journal.in_flight.pop_front() else {
            return Ok(());
        };
        if !self.journal.stored {
            return self.hear(leader, entry);
        }
        self.enter(entry);
        let upto = self.journal.len();
        self.apply(leader, self.sups[leader].life, upto)?;
        self.let_others_hear();
        Ok(())
    }

    fn enter(&mut self, entry: Entry) {
        let change = self.journal.shadow.apply(&entry.record);
        self.count(change);
        self.journal.entries.push(entry);
    }

    /// Every supervisor hears in its own time of all that is committed by now.
    fn let_others_hear(&mut self) {
        let upto = self.journal.len();
        for sup in 0..self.sups.len() {
            if self.sups[sup].applied < upto && self.journal.leader != Some(sup) {
                let late = self.delay() + self.dice.millis(0, 2 * self.options.commit_ms.1);
                self.after(late, Event::Apply(sup, self.sups[sup].life, upto));
            }
        }
    }

    /// A supervisor hears of what is committed, up to `upto` records.
    pub(crate) fn apply(&mut self, sup: usize, life: u64, upto: usize) -> Result<(), Violation> {
        let it = &self.sups[sup];
        if it.core.is_none() || it.life != life {
            return Ok(());
        }
        let cut = it.cut_until > self.now && self.journal.leader != Some(sup);
        if it.frozen_until > self.now || cut {
            let back = it.frozen_until.max(it.cut_until).since(self.now);
            self.after(back + AGAIN_AFTER, Event::Apply(sup, life, upto));
            return Ok(());
        }
        if upto > it.applied + BEHIND_MAX && it.leads.is_none() {
            self.give_snapshot(sup, upto)?;
        }
        while self.sups[sup].applied < upto && self.sups[sup].life == life {
            let at = self.sups[sup].applied;
            let entry = self.journal.entries[at].clone();
            self.sups[sup].applied += 1;
            self.hear(sup, entry)?;
        }
        if self.dice.permille(20) {
            self.compare(sup)?;
        }
        Ok(())
    }

    fn hear(&mut self, sup: usize, entry: Entry) -> Result<(), Violation> {
        let (by, term, proposal) = entry.by;
        let own = by == sup && self.sups[sup].leads == Some(term);
        // Once another leads, the proposer may be told that the record was its own, or not.
        let told = own && (self.journal.leader == Some(sup) || self.dice.permille(500));
        let event = Heard::Committed {
            proposal: told.then_some(proposal),
            record: entry.record,
        };
        self.sup_handle(sup, event)
    }

    /// A supervisor that is far behind is given the state instead of the records.
    fn give_snapshot(&mut self, sup: usize, upto: usize) -> Result<(), Violation> {
        let state = self.through_bytes(self.state_at(upto))?;
        let shadow = self.journal.shadow_at(upto);
        let it = &mut self.sups[sup];
        it.applied = upto;
        it.shadow = shadow;
        if let Some(core) = &mut it.core {
            core.restore(state);
        }
        if self.tracing() {
            self.note(format_args!(
                "supervisor {sup} <- snapshot of {upto} records"
            ));
        }
        Ok(())
    }

    /// A state written and read again, which must be the same.
    pub(crate) fn through_bytes(&self, state: State) -> Result<State, Violation> {
        let mut bytes = Vec::new();
        if let Err(error) = state.write(&mut bytes) {
            return self.violated(format!("a snapshot cannot be written: {error}"));
        }
        let again = match State::restore(&bytes) {
            Ok(again) => again,
            Err(error) => return self.violated(format!("a snapshot cannot be read: {error}")),
        };
        if digest(&again) != digest(&state) {
            return self.violated("a snapshot is not what was written".into());
        }
        Ok(again)
    }

    /// After the same records all supervisors have the same state.
    pub(crate) fn compare(&mut self, sup: usize) -> Result<(), Violation> {
        let it = &self.sups[sup];
        let Some(core) = &it.core else {
            return Ok(());
        };
        let (applied, mine) = (it.applied, digest(core.state()));
        let other = *self.journal.digests.entry(applied).or_insert(mine);
        if mine != other {
            return self.violated(format!(
                "supervisor {sup} differs from another after {applied} records"
            ));
        }
        Ok(())
    }

    /// Whether a supervisor is in touch with most of the group.
    fn has_most(&self, sup: usize) -> bool {
        let well = |sup: &usize| self.sups[*sup].serves(self.now);
        let touch = |sup: &usize| well(sup) && self.sups[*sup].cut_until <= self.now;
        let with = (0..self.sups.len()).filter(touch).count();
        let alone = self.sups.len() == 1;
        (alone || touch(&sup)) && well(&sup) && with * 2 > self.sups.len()
    }

    /// Something happened to the leader, or is done to it: the others may elect another.
    pub(crate) fn unsettle(&mut self, forced: bool) {
        let after = if self.sups.len() == 1 {
            self.dice.millis(0, 20)
        } else {
            self.dice.millis(150, 700)
        };
        self.after(after, Event::Elect(self.journal.term, forced));
    }

    pub(crate) fn elect(&mut self, term: u64, forced: bool) -> Result<(), Violation> {
        if term != self.journal.term {
            return Ok(());
        }
        let old = self.journal.leader;
        let leading = |leader: &usize| {
            self.has_most(*leader) && self.sups[*leader].leads == Some(self.journal.term)
        };
        if !forced && old.filter(leading).is_some() {
            return Ok(());
        }
        let mut able: Vec<usize> = (0..self.sups.len())
            .filter(|sup| self.has_most(*sup))
            .collect();
        if forced && able.len() > 1 {
            able.retain(|sup| Some(*sup) != old);
        }
        if able.is_empty() {
            self.after(AGAIN_AFTER * 4, Event::Elect(term, false));
            return Ok(());
        }
        let new = *self.dice.pick(&able);
        let kept = self.dice.below(self.journal.in_flight.len() as u64 + 1) as usize;
        let in_flight = std::mem::take(&mut self.journal.in_flight);
        in_flight
            .into_iter()
            .take(kept)
            .for_each(|entry| self.enter(entry));
        self.journal.term += 1;
        self.journal.leader = Some(new);
        if self.tracing() {
            let term = self.journal.term;
            self.note(format_args!("supervisor {new} is elected in term {term}"));
        }
        self.begin_term(new, old)
    }

    fn begin_term(&mut self, new: usize, old: Option<usize>) -> Result<(), Violation> {
        if let Some(old) = old.filter(|old| *old != new) {
            let after = self.dice.millis(0, 400);
            self.after(after, Event::Depose(old, self.sups[old].life));
        }
        let upto = self.journal.len();
        if self.sups[new].leads.take().is_some() {
            self.sup_handle(new, Heard::Deposed)?;
        }
        self.apply(new, self.sups[new].life, upto)?;
        self.let_others_hear();
        self.sups[new].leads = Some(self.journal.term);
        self.sups[new].told.clear();
        self.sups[new].wiped = false;
        let holds = self.sups[new].store.iter().copied().collect();
        let secret = [self.dice.any() as u8; 32];
        self.sup_handle(new, Heard::Lead { holds, secret })
    }

    /// A leader of an earlier term hears that it leads no more, once it runs and is in touch, or gives up.
    pub(crate) fn depose(&mut self, sup: usize, life: u64) -> Result<(), Violation> {
        let it = &self.sups[sup];
        let leads = self.journal.leader == Some(sup) && it.leads == Some(self.journal.term);
        if it.life != life || it.leads.is_none() || leads {
            return Ok(());
        }
        let away = it.frozen_until > self.now || it.cut_until > self.now;
        let (back, frozen) = (
            it.frozen_until.max(it.cut_until),
            it.frozen_until > self.now,
        );
        if away && (frozen || self.dice.permille(800)) {
            let after = back.since(self.now) + self.dice.millis(0, 400);
            self.after(after, Event::Depose(sup, life));
            return Ok(());
        }
        self.sups[sup].leads = None;
        self.sup_handle(sup, Heard::Deposed)
    }

    pub(crate) fn count(&mut self, change: Change) {
        use hedge_model::record::JobEnd;
        match change {
            Change::Done(_) => self.stats.tasks_done += 1,
            Change::Lost(_) => self.stats.outputs_lost += 1,
            Change::Ended(job) => match self.truth().jobs[&job].ended {
                Some(JobEnd::Done) => self.stats.jobs_done += 1,
                Some(JobEnd::Failed { .. }) => self.stats.jobs_failed += 1,
                Some(JobEnd::Cancelled) => self.stats.jobs_cancelled += 1,
                None => {}
            },
            Change::Epoch => self.stats.takeovers += 1,
            Change::Failed(_) => self.stats.tasks_failed += 1,
            Change::Retried(_) => self.stats.jobs_retried += 1,
            Change::Grew(_) => self.stats.extensions += 1,
            Change::Closed(_) => self.stats.jobs_closed += 1,
            Change::Checkpoint => self.stats.checkpoints += 1,
            Change::None | Change::Job(_) | Change::Released(_) => {}
        }
    }
}

/// A digest of a state's bytes.
pub(crate) fn digest(state: &State) -> u64 {
    struct Fnv(u64);
    impl Write for Fnv {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    // Writing to a number cannot fail.
    let _ = state.write(&mut hash);
    hash.0
}
