//! The ticket files that a supervisor leaves in its directory for peers on its machine. They are kept up to date with
//! the group's supervisors.

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

/// The content of a ticket made now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Standard {
    pub supervisors: Vec<PeerAddr>,
    pub relays: Vec<PeerAddr>,
}

/// Keeps the ticket files up to date while the supervisor runs.
pub(super) struct Invitations {
    dir: PathBuf,
    supervisor: Supervisor,
    links: PeerLinks,
    standard: watch::Receiver<Standard>,
}

impl Invitations {
    /// Returns none if the supervisor leaves no tickets. Writes nothing yet.
    pub fn wanted(
        config: &SupervisorConfig,
        supervisor: &Supervisor,
        links: &PeerLinks,
        standard: watch::Receiver<Standard>,
    ) -> Option<Self> {
        config.write_tickets.then(|| Self {
            dir: config.dir.clone(),
            supervisor: supervisor.clone(),
            links: links.clone(),
            standard,
        })
    }

    /// Updates the files to the group's present supervisors and to valid tickets. Waits for a leader if a new ticket
    /// must be made.
    pub async fn write(&mut self) -> Result<(), NodeError> {
        let standard = self.standard.borrow_and_update().clone();
        for (role, file) in FILES {
            let path = self.dir.join(file);
            let old = std::fs::read_to_string(&path).unwrap_or_default();
            let kept = old.trim().parse::<Ticket>();
            let kept = kept.ok().filter(|ticket| ticket.role == role);
            let text = kept.as_ref().map(|kept| renewed(kept, &standard));
            if let Some(text) = text.filter(|text| *text != old) {
                write_private(&path, &text)?;
            }
            let have = kept.map(|ticket| ticket.secret_hash());
            if let Some(new) = self.replacement(role, have).await? {
                write_private(&path, &renewed(&new.parse()?, &standard))?;
            }
        }
        Ok(())
    }

    /// Updates the files at each change, until the supervisor ends.
    pub async fn keep(mut self) {
        while self.standard.changed().await.is_ok() {
            if let Err(error) = self.write().await {
                tracing::warn!(%error, "the tickets for this machine could not be written");
            }
        }
    }

    /// Returns a new ticket if the present one is not valid.
    async fn replacement(
        &self,
        role: Role,
        have: Option<Hash>,
    ) -> Result<Option<String>, NodeError> {
        loop {
            let mut reply = invite(&self.supervisor.inputs, role, have).await;
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

/// Returns the same ticket with the present supervisors and relays.
fn renewed(ticket: &Ticket, standard: &Standard) -> String {
    let mut ticket = ticket.clone();
    if !standard.supervisors.is_empty() {
        ticket.supervisors.clone_from(&standard.supervisors);
        ticket.relays.clone_from(&standard.relays);
    }
    ticket.to_string()
}

/// Asks this supervisor, as the leader, for a ticket to replace one that is not valid.
pub(super) async fn invite(
    inputs: &mpsc::Sender<Input>,
    role: Role,
    have: Option<Hash>,
) -> GroupReply {
    if let Some(ticket) = have {
        let (reply, known) = oneshot::channel();
        let asked = Input::Invites {
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
    /// Returns the content of tickets made now, with this supervisor first.
    pub(super) fn standard(&self) -> Standard {
        Standard {
            supervisors: self.supervisors_here_first(),
            relays: self.core.state().settings().relays.to_vec(),
        }
    }

    /// Notifies the ticket files if the group or its relays have changed.
    pub(super) fn note_standard(&self) {
        let now = self.standard();
        self.setup.standard.send_if_modified(|told| {
            let changed = *told != now;
            *told = now;
            changed
        });
    }

    /// Rewrites the ticket files after a ticket was revoked, which may be one of them.
    pub(super) fn replace_revoked(&self) {
        self.setup.standard.send_modify(|_| {});
    }

    /// Returns whether a ticket is valid; none if this supervisor does not lead.
    pub(super) fn invites(&self, ticket: Hash, role: Role) -> Option<bool> {
        let leads = self.core.is_live();
        leads.then(|| self.core.invites(ticket, role))
    }
}
