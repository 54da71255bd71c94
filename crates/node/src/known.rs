//! What a peer remembers across restarts: the supervisors and relays of its grid, and its own port.

use crate::NodeError;
use crate::folders::write_private;
use hedge_model::{PeerAddr, PeerId};
use hedge_net::Ticket;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The most peers of a kind that are remembered, and the most addresses of each. A group has three or five
/// supervisors.
const PEERS_MAX: usize = 32;
const ADDRS_MAX: usize = 32;
/// The longest file that is read, in bytes.
const BYTES_MAX: u64 = 256 << 10;

/// The files with the supervisors and relays of one grid. With them a peer finds the grid when those in its ticket
/// are gone.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    path: PathBuf,
    from_ticket: Vec<PeerAddr>,
    relays_path: PathBuf,
    relays_from_ticket: Vec<PeerAddr>,
}

impl Known {
    /// The files of a peer that joined with this ticket.
    pub fn of_ticket(dir: &Path, ticket: &Ticket) -> Self {
        let grid = ticket.secret_hash().to_string();
        let grid = grid.get(..16).unwrap_or(&grid);
        Self {
            path: dir.join(format!("supervisors-{grid}")),
            from_ticket: ticket.supervisors.clone(),
            relays_path: dir.join(format!("relays-{grid}")),
            relays_from_ticket: ticket.relays.clone(),
        }
    }

    /// The files of a supervisor, which belongs to one grid.
    pub fn of_group(dir: &Path) -> Self {
        Self {
            path: dir.join("supervisors"),
            from_ticket: Vec::new(),
            relays_path: dir.join("relays"),
            relays_from_ticket: Vec::new(),
        }
    }

    /// Returns the relays that were saved last, otherwise those of the ticket.
    pub fn load_relays(&self) -> Vec<PeerAddr> {
        match self.relays_path.exists() {
            true => read(&self.relays_path),
            false => self.relays_from_ticket.clone(),
        }
    }

    /// Saves these relays.
    pub fn save_relays(&self, relays: &[PeerAddr]) {
        write(&self.relays_path, relays);
    }

    /// Returns the supervisors that were saved last, then those of the ticket. A peer in both has the addresses of
    /// both.
    pub fn load(&self) -> Vec<PeerAddr> {
        let mut all = read(&self.path);
        add(&mut all, &self.from_ticket);
        all
    }

    /// Saves these supervisors. A failure is only logged, because the ticket still names some.
    pub fn save(&self, supervisors: &[PeerAddr]) {
        write(&self.path, supervisors);
    }
}

/// Adds peers, and new addresses of known peers. Known ones come first.
pub(crate) fn add(known: &mut Vec<PeerAddr>, told: &[PeerAddr]) {
    for addr in told {
        match known.iter().position(|known| known.peer == addr.peer) {
            Some(at) => known[at] = joined(&known[at], addr),
            None if known.len() < PEERS_MAX => known.push(addr.clone()),
            None => {}
        }
    }
}

/// Returns all addresses of a peer, those of `first` first.
fn joined(first: &PeerAddr, second: &PeerAddr) -> PeerAddr {
    let mut all = first.clone();
    let more = second.addrs.iter().filter(|at| !first.addrs.contains(at));
    all.addrs.extend(more);
    all.addrs.truncate(ADDRS_MAX);
    all
}

/// Returns where to dial a peer that was dialled at `known` and now is said to be at `told`. None if that adds no
/// address, so that an open connection stays.
pub(crate) fn moved(known: &PeerAddr, told: &PeerAddr) -> Option<PeerAddr> {
    let new = told.addrs.iter().any(|at| !known.addrs.contains(at));
    new.then(|| joined(told, known))
}

fn write(path: &Path, peers: &[PeerAddr]) {
    let mut text = String::new();
    for addr in peers.iter().take(PEERS_MAX) {
        text.push_str(&addr.peer.to_string());
        for at in addr.addrs.iter().take(ADDRS_MAX) {
            text.push(' ');
            text.push_str(&at.to_string());
        }
        text.push('\n');
    }
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return;
    }
    if let Err(error) = write_private(path, &text) {
        tracing::warn!(%error, "the grid's supervisors and relays could not be noted");
    }
}

fn read(path: &Path) -> Vec<PeerAddr> {
    let short = std::fs::metadata(path).is_ok_and(|meta| meta.len() <= BYTES_MAX);
    let text = if short {
        std::fs::read_to_string(path).unwrap_or_default()
    } else {
        String::new()
    };
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let peer: PeerId = words.next()?.parse().ok()?;
        let addrs = words.filter_map(|word| word.parse().ok());
        Some(PeerAddr {
            peer,
            addrs: addrs.take(ADDRS_MAX).collect(),
        })
    };
    text.lines().filter_map(line).take(PEERS_MAX).collect()
}

/// Returns the port at which this peer listened last, where others look for it.
pub(crate) fn last_port(dir: &Path) -> Option<u16> {
    let text = std::fs::read_to_string(dir.join("port")).ok()?;
    text.trim().parse().ok().filter(|port| *port != 0)
}

/// Saves the port.
pub(crate) fn note_port(dir: &Path, addrs: &[SocketAddr]) -> Result<(), NodeError> {
    let Some(addr) = addrs.first() else {
        return Ok(());
    };
    write_private(&dir.join("port"), &format!("{}\n", addr.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hedge_model::msg::Role;

    #[test]
    fn what_was_told_last_comes_before_the_ticket_and_nonsense_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let addr = |byte: u8, at: &str| PeerAddr {
            peer: PeerId([byte; 32]),
            addrs: vec![at.parse().unwrap()],
        };
        let ticket = Ticket::new(Role::Worker, vec![addr(1, "127.0.0.1:1")], None);
        let known = Known::of_ticket(folder.path(), &ticket);
        assert_eq!(known.load(), [addr(1, "127.0.0.1:1")]);
        known.save(&[addr(2, "[::1]:2"), addr(1, "127.0.0.1:3")]);
        let from_ticket = addr(1, "127.0.0.1:1");
        let both = joined(&addr(1, "127.0.0.1:3"), &from_ticket);
        assert_eq!(known.load(), [addr(2, "[::1]:2"), both.clone()]);
        assert_eq!(moved(&both, &from_ticket), None);
        let new = addr(1, "127.0.0.1:4");
        assert_eq!(moved(&both, &new), Some(joined(&new, &both)));
        std::fs::write(&known.path, "what\n\n").unwrap();
        assert_eq!(known.load(), [addr(1, "127.0.0.1:1")]);
        known.save_relays(&[addr(3, "127.0.0.1:9")]);
        assert_eq!(known.load_relays(), [addr(3, "127.0.0.1:9")]);
        note_port(folder.path(), &["127.0.0.1:77".parse().unwrap()]).unwrap();
        assert_eq!(last_port(folder.path()), Some(77));
    }
}
