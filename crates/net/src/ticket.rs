//! Tickets: the text that lets a peer join a grid.

use data_encoding::BASE32_NOPAD;
pub use hedge_model::msg::Role;
use hedge_model::{Hash, PeerAddr};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An invitation: where the supervisors are and a secret that proves the invitation.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// What its holder may become.
    pub role: Role,
    /// The supervisors to dial, in this order.
    pub supervisors: Vec<PeerAddr>,
    /// Shown once to a supervisor, which stores only its [`secret_hash`].
    pub secret: [u8; 16],
    /// End of validity, in seconds of Unix time.
    pub expires_unix_s: Option<u64>,
    /// The grid's own relays, for where no supervisor can be reached directly.
    pub relays: Vec<PeerAddr>,
}

/// The form in which a supervisor stores a ticket's secret.
pub fn secret_hash(secret: &[u8; 16]) -> Hash {
    Hash(blake3::derive_key("hedgerow 2025 ticket secret", secret))
}

impl Ticket {
    /// A ticket with a fresh secret.
    pub fn new(role: Role, supervisors: Vec<PeerAddr>, expires_unix_s: Option<u64>) -> Ticket {
        let mut secret = [0; 16];
        // Without randomness from the system there is no identity either, so the process cannot get here.
        getrandom::fill(&mut secret).expect("the system gives random bytes");
        Ticket {
            role,
            supervisors,
            secret,
            expires_unix_s,
            relays: Vec::new(),
        }
    }

    /// The form in which a supervisor stores this ticket's secret.
    pub fn secret_hash(&self) -> Hash {
        secret_hash(&self.secret)
    }

    /// Whether the ticket's time is over at `now_unix_s`.
    pub fn is_expired(&self, now_unix_s: u64) -> bool {
        self.expires_unix_s.is_some_and(|end| end <= now_unix_s)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("role", &self.role)
            .field("supervisors", &self.supervisors)
            .field("expires_unix_s", &self.expires_unix_s)
            .field("relays", &self.relays)
            .finish_non_exhaustive()
    }
}

/// Why a text is no usable ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It does not begin like one.
    #[error(
        "not a ticket: a ticket begins with hedge-worker-, hedge-client- or hedge-supervisor-; \
         copy the whole line that `hedge ticket` printed"
    )]
    Prefix,
    /// A character that tickets do not contain.
    #[error(
        "the ticket is damaged at character {0}; copy the whole line that `hedge ticket` printed"
    )]
    Character(usize),
    /// Too short, too long, or mistyped.
    #[error(
        "the ticket is incomplete or mistyped (its checksum does not match); \
         copy the whole line that `hedge ticket` printed"
    )]
    Checksum,
    /// Made by a version that this one cannot read.
    #[error(
        "the ticket has format {0}, which this version cannot read; install the release that made it"
    )]
    Version(u8),
    /// The word in front contradicts what is inside.
    #[error("the ticket says {word} in front but is for a {role}; copy it again unchanged")]
    RoleMismatch {
        /// The word in front.
        word: Role,
        /// The role inside.
        role: Role,
    },
}

/// Without relays, as ever; with them.
const FORMAT: u8 = 1;
const FORMAT_RELAYS: u8 = 2;
const CHECKSUM_BYTES: usize = 4;
const TEXT_BYTES_MAX: usize = 16 << 10;

#[derive(Serialize, Deserialize)]
struct Body {
    role: Role,
    supervisors: Vec<PeerAddr>,
    secret: [u8; 16],
    expires_unix_s: Option<u64>,
}

/// The text form, secret included.
impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = Body {
            role: self.role,
            supervisors: self.supervisors.clone(),
            secret: self.secret,
            expires_unix_s: self.expires_unix_s,
        };
        let mut bytes = if self.relays.is_empty() {
            postcard::to_extend(&body, vec![FORMAT])
        } else {
            postcard::to_extend(&(body, &self.relays), vec![FORMAT_RELAYS])
        }
        .map_err(|_| fmt::Error)?;
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_BYTES]);
        write!(
            f,
            "hedge-{}-{}",
            self.role,
            BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()
        )
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Ticket, TicketError> {
        let text = text.trim();
        let roles = [
            Role::Worker,
            Role::Client,
            Role::Supervisor,
            Role::Admin,
            Role::Relay,
        ];
        let (word, start) = roles
            .into_iter()
            .map(|role| (role, format!("hedge-{role}-")))
            .find(|(_, prefix)| text.starts_with(prefix.as_str()))
            .map(|(role, prefix)| (role, prefix.len()))
            .ok_or(TicketError::Prefix)?;
        if text.len() > TEXT_BYTES_MAX {
            return Err(TicketError::Checksum);
        }
        let encoded = text[start..].to_ascii_uppercase();
        let bytes = BASE32_NOPAD
            .decode(encoded.as_bytes())
            .map_err(|error| match error.kind {
                data_encoding::DecodeKind::Symbol => {
                    TicketError::Character(start + error.position + 1)
                }
                _ => TicketError::Checksum,
            })?;
        let (bytes, checksum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(TicketError::Checksum)?;
        if blake3::hash(bytes).as_bytes()[..CHECKSUM_BYTES] != checksum[..] {
            return Err(TicketError::Checksum);
        }
        let (&format, body) = bytes.split_first().ok_or(TicketError::Checksum)?;
        let decoded = match format {
            FORMAT => postcard::from_bytes(body).map(|body| (body, Vec::new())),
            FORMAT_RELAYS => postcard::from_bytes(body),
            _ => return Err(TicketError::Version(format)),
        };
        let (body, relays): (Body, Vec<PeerAddr>) = decoded.map_err(|_| TicketError::Checksum)?;
        if body.role != word {
            return Err(TicketError::RoleMismatch {
                word,
                role: body.role,
            });
        }
        let Body {
            role,
            supervisors,
            secret,
            expires_unix_s,
        } = body;
        Ok(Ticket {
            role,
            supervisors,
            secret,
            expires_unix_s,
            relays,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hedge_model::PeerId;

    fn ticket(role: Role) -> Ticket {
        let addr = PeerAddr {
            peer: PeerId([7; 32]),
            addrs: vec!["127.0.0.1:4433".parse().unwrap()],
        };
        Ticket::new(role, vec![addr], Some(2_000_000_000))
    }

    #[test]
    fn a_ticket_survives_its_text_form() {
        let roles = [Role::Worker, Role::Client, Role::Supervisor, Role::Admin];
        let roles = roles.into_iter().chain([Role::Relay]);
        for (number, role) in roles.enumerate() {
            let mut ticket = ticket(role);
            ticket.relays = vec![ticket.supervisors[0].clone(); number];
            let text = ticket.to_string();
            assert!(text.starts_with(&format!("hedge-{role}-")));
            assert_eq!(text.parse::<Ticket>().unwrap(), ticket);
            assert_eq!(format!(" {text}\n").parse::<Ticket>().unwrap(), ticket);
        }
    }

    #[test]
    fn the_secret_is_not_printed_by_accident() {
        let ticket = Ticket {
            secret: [0xab; 16],
            ..ticket(Role::Worker)
        };
        let debug = format!("{ticket:?}");
        assert!(
            !debug.contains("171") && !debug.to_lowercase().contains("abab"),
            "{debug}"
        );
        assert_ne!(ticket.secret_hash().0[..16], ticket.secret);
    }

    #[test]
    fn a_bad_text_is_told_what_is_wrong_with_it() {
        let text = ticket(Role::Worker).to_string();
        assert_eq!("hello".parse::<Ticket>(), Err(TicketError::Prefix));
        assert_eq!(
            "hedge-worker-".parse::<Ticket>(),
            Err(TicketError::Checksum)
        );
        assert_eq!(
            text[..text.len() - 3].parse::<Ticket>(),
            Err(TicketError::Checksum)
        );
        assert_eq!(
            format!("{text}!").parse::<Ticket>(),
            Err(TicketError::Character(text.len() + 1))
        );
        let other = text.replacen("worker", "client", 1);
        assert_eq!(
            other.parse::<Ticket>(),
            Err(TicketError::RoleMismatch {
                word: Role::Client,
                role: Role::Worker
            })
        );
        let mut mistyped = text.into_bytes();
        mistyped[40] = if mistyped[40] == b'a' { b'b' } else { b'a' };
        let mistyped = String::from_utf8(mistyped).unwrap();
        assert_eq!(mistyped.parse::<Ticket>(), Err(TicketError::Checksum));
    }

    #[test]
    fn a_ticket_ends_at_its_time() {
        let ticket = ticket(Role::Client);
        assert!(!ticket.is_expired(1_999_999_999));
        assert!(ticket.is_expired(2_000_000_000));
    }
}
