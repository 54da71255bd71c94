//! The ticket files that a supervisor writes into its directory for peers on its machine. A ticket names the
//! supervisors and relays that a newcomer can dial, so the files are rewritten when these change.

use super::core_loop::Loop;
use super::links::PeerLinks;
use super::membership::{self, GroupReply};
use super::{Input, Supervisor, SupervisorConfig};
use crate::NodeError;
use crate::folders::write_private;
use hedge_model::msg::{RefusalKind, Reply, Request, Role};
use hedge_model::{Hash, PeerAddr};
use hedge_net::Ticket;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// The delay between two requests for a ticket while no supervisor leads.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The roles that the tickets are for, and the file names.
const FILES: [(Role, &str); 2] = [
    (Role::Admin, "client.ticket"),
    (Role::Worker, "worker.ticket"),
];

/// The peers that a ticket names: those that a newcomer can dial.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TicketContacts {
    pub supervisors: Vec<PeerAddr>,
    pub relays: Vec<PeerAddr>,
}

/// Keeps the ticket files up to date while the supervisor runs.
pub(super) struct TicketFiles {
    dir: PathBuf,
    supervisor: Supervisor,
    links: PeerLinks,
    contacts: watch::Receiver<TicketContacts>,
}

impl TicketFiles {
    /// Returns none if the configuration asks for no ticket files. Writes nothing yet.
    pub fn if_enabled(
        config: &SupervisorConfig,
        supervisor: &Supervisor,
        links: &PeerLinks,
        contacts: watch::Receiver<TicketContacts>,
    ) -> Option<Self> {
        config.write_tickets.then(|| Self {
            dir: config.dir.clone(),
            supervisor: supervisor.clone(),
            links: links.clone(),
            contacts,
        })
    }

    /// Writes files with valid tickets that name the present supervisors. Waits for a leader if a new ticket must be
    /// made.
    pub async fn write(&mut self) -> Result<(), NodeError> {
        let contacts = self.contacts.borrow_and_update().clone();
        for (role, file) in FILES {
            let path = self.dir.join(file);
            let old = std::fs::read_to_string(&path).unwrap_or_default();
            let kept = old.trim().parse::<Ticket>();
            let kept = kept.ok().filter(|ticket| ticket.role == role);
            let text = kept.as_ref().map(|kept| renewed(kept, &contacts));
            if let Some(text) = text.filter(|text| *text != old) {
                write_private(&path, &text)?;
            }
            let have = kept.map(|ticket| ticket.secret_hash());
            if let Some(new) = self.replacement(role, have).await? {
                write_private(&path, &renewed(&new.parse()?, &contacts))?;
            }
        }
        Ok(())
    }

    /// Rewrites the files at each change, until the supervisor ends.
    pub async fn keep(mut self) {
        while self.contacts.changed().await.is_ok() {
            if let Err(error) = self.write().await {
                tracing::warn!(%error, "the tickets for this machine could not be written");
            }
        }
    }

    /// Returns a new ticket unless the present one, `have`, is valid. Asks this supervisor and the leader in turn until
    /// one answers.
    async fn replacement(
        &self,
        role: Role,
        have: Option<Hash>,
    ) -> Result<Option<String>, NodeError> {
        loop {
            let mut reply = valid_ticket(&self.supervisor.inputs, role, have).await;
            if matches!(reply, GroupReply::NotLeading) {
                reply = membership::ticket(&self.links, role, have).await;
            }
            match reply {
                GroupReply::Ok => return Ok(None),
                GroupReply::Ticket(text) => return Ok(Some(text)),
                GroupReply::No(why) => return Err(NodeError::Other(why)),
                GroupReply::Later | GroupReply::NotLeading => {}
            }
            if self.supervisor.inputs.is_closed() {
                return Err(NodeError::Other("the supervisor has stopped".into()));
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

/// Returns the text of the ticket with these contacts instead of its own. Without a supervisor among them, keeps its own.
fn renewed(ticket: &Ticket, contacts: &TicketContacts) -> String {
    let mut ticket = ticket.clone();
    if !contacts.supervisors.is_empty() {
        ticket.supervisors.clone_from(&contacts.supervisors);
        ticket.relays.clone_from(&contacts.relays);
    }
    ticket.to_string()
}

/// Asks this supervisor for a ticket. If it leads, replies that `have` is valid, or with a new ticket.
pub(super) async fn valid_ticket(
    inputs: &mpsc::Sender<Input>,
    role: Role,
    have: Option<Hash>,
) -> GroupReply {
    if let Some(ticket) = have {
        let (reply, known) = oneshot::channel();
        let asked = Input::IsTicketValid {
            ticket,
            role,
            reply,
        };
        _ = inputs.send(asked).await;
        match known.await {
            Ok(Some(true)) => return GroupReply::Ok,
            Ok(Some(false)) => {}
            Ok(None) | Err(_) => return GroupReply::NotLeading,
        }
    }
    let request = Request::Ticket {
        role,
        valid_for: None,
        uses: None,
    };
    let (local, answer) = Input::ask(Role::Admin, request);
    _ = inputs.send(local).await;
    match answer.await {
        Ok(Reply::Ticket(text)) => GroupReply::Ticket(text),
        Ok(Reply::No(refusal)) => match refusal.kind {
            RefusalKind::NotLeading => GroupReply::NotLeading,
            _ => GroupReply::No(refusal.why),
        },
        _ => GroupReply::NotLeading,
    }
}

impl Loop {
    /// Returns what a ticket made now names, with this supervisor first.
    pub(super) fn ticket_contacts(&self) -> TicketContacts {
        TicketContacts {
            supervisors: self.supervisors_here_first(),
            relays: self.core.state().settings().relays.to_vec(),
        }
    }

    /// Has the ticket files rewritten if the group or its relays have changed.
    pub(super) fn publish_ticket_contacts(&self) {
        let now = self.ticket_contacts();
        self.setup.ticket_contacts.send_if_modified(|published| {
            let changed = *published != now;
            *published = now;
            changed
        });
    }

    /// Has the ticket files rewritten after a ticket was revoked, which may be in one of them.
    pub(super) fn rewrite_ticket_files(&self) {
        self.setup.ticket_contacts.send_modify(|_| {});
    }

    /// Returns whether a ticket admits peers of this role; none if this supervisor does not lead.
    pub(super) fn is_ticket_valid(&self, ticket: Hash, role: Role) -> Option<bool> {
        let leads = self.core.is_live();
        leads.then(|| self.core.is_ticket_valid(ticket, role))
    }
}
