//! Sessions as logind keeps them: locked or open, and logins from elsewhere.
//!
//! Whether a session is idle is the desktop's word, late and often never given: it tells of a return, and is not
//! taken for watching input.

use crate::bus::{self, Bus, Next, Object, Which};
use crate::sessions::typed;
use crate::source::{Covers, Ended, Options, Outlet, Source, Trouble};
use hedge_model::owner::{Activity, Signal};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use zbus::{OwnedObjectPath, OwnedVariant};

const SERVICE: &str = "org.freedesktop.login1";
const MANAGER: Object<'_> = Object {
    service: SERVICE,
    path: "/org/freedesktop/login1",
    interface: "org.freedesktop.login1.Manager",
};
const SESSION: &str = "org.freedesktop.login1.Session";
/// Sessions that are looked at, at most.
const SESSIONS_MAX: usize = 64;
/// Between two looks at the terminals of logins from elsewhere, where there are any.
const LOOK_EVERY: Duration = Duration::from_secs(1);

struct Logind {
    bus: Bus,
}

/// One that a person uses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    remote: bool,
    locked: bool,
    idle: bool,
    terminal: String,
    typed: Option<i64>,
}

/// Finds logind.
pub(crate) fn open(_: &Options) -> Result<Box<dyn Source>, Trouble> {
    let mut bus = Bus::open(Which::System)?;
    if !bus.has(SERVICE) {
        return Err(Trouble::Absent("logind does not run here".to_owned()));
    }
    let rules = [
        bus::signal(MANAGER.interface, "SessionNew").build(),
        bus::signal(MANAGER.interface, "SessionRemoved").build(),
        bus::changes(SESSION).build(),
    ];
    for rule in rules {
        bus.listen(rule).map_err(Trouble::Absent)?;
    }
    Ok(Box::new(Logind { bus }))
}

impl Source for Logind {
    fn covers(&self) -> Covers {
        Covers {
            what: "locked sessions and logins from elsewhere (logind)".to_owned(),
            kinds: vec![Activity::Remote],
        }
    }

    fn run(&mut self, out: &mut Outlet) -> Ended {
        let mut known: Option<BTreeMap<String, Session>> = None;
        loop {
            let now = match self.sessions() {
                Ok(now) => now,
                Err(why) => return Ended::Broken(why),
            };
            let first = known.is_none();
            for signal in told(&known.unwrap_or_default(), &now, first) {
                match signal {
                    Signal::Seen(kind) => out.seen(kind),
                    other => out.say(other),
                }
            }
            let terminals = now.values().any(|session| session.remote);
            known = Some(now);
            match self.bus.next(out.stop(), terminals.then_some(LOOK_EVERY)) {
                Next::Signal(_) | Next::TimedOut => {}
                Next::Stopped => return Ended::Stopped,
                Next::Closed => return Ended::Broken("the system's D-Bus is gone".to_owned()),
            }
        }
    }
}

impl Logind {
    fn sessions(&self) -> Result<BTreeMap<String, Session>, String> {
        let answer = self.bus.call(MANAGER, "ListSessions", &())?;
        let body = answer.body();
        let all: Vec<(String, u32, String, String, OwnedObjectPath)> =
            body.deserialize().map_err(|error| error.to_string())?;
        let sessions = all.into_iter().take(SESSIONS_MAX);
        Ok(sessions
            .filter_map(|(_, _, _, _, path)| {
                let path = path.to_string();
                let session = self.session(&path)?;
                Some((path, session))
            })
            .collect())
    }

    /// None where it is none of a person, or has just ended.
    fn session(&self, path: &str) -> Option<Session> {
        let object = Object {
            service: SERVICE,
            path,
            interface: "org.freedesktop.DBus.Properties",
        };
        let answer = self.bus.call(object, "GetAll", &(SESSION,)).ok()?;
        let mut all: HashMap<String, OwnedVariant> = answer.body().deserialize().ok()?;
        let class: String = text(&mut all, "Class");
        if !class.is_empty() && class != "user" {
            return None;
        }
        let mut truth = |name: &str| {
            let value = all.remove(name);
            value.is_some_and(|value| bool::try_from(value).unwrap_or(false))
        };
        let (remote, locked, idle) = (truth("Remote"), truth("LockedHint"), truth("IdleHint"));
        let terminal = Some(text(&mut all, "TTY")).filter(|name| {
            remote && !name.is_empty() && !name.contains("..") && !name.starts_with('/')
        });
        Some(Session {
            remote,
            locked,
            idle,
            typed: terminal.as_deref().and_then(typed),
            terminal: terminal.unwrap_or_default(),
        })
    }
}

fn text(all: &mut HashMap<String, OwnedVariant>, name: &str) -> String {
    let value = all.remove(name);
    let text = value.and_then(|value| String::try_from(value).ok());
    text.unwrap_or_default()
}

/// What a change of sessions says; of the first look, only that the machine is locked.
fn told(
    before: &BTreeMap<String, Session>,
    now: &BTreeMap<String, Session>,
    first: bool,
) -> Vec<Signal> {
    let locked = |all: &BTreeMap<String, Session>| {
        let mut here = all.values().filter(|session| !session.remote).peekable();
        here.peek().is_some() && here.all(|session| session.locked)
    };
    let mut said = Vec::new();
    if locked(before) != locked(now) {
        said.push(Signal::Locked(locked(now)));
    }
    if first {
        return said;
    }
    for (path, session) in now {
        let known = before.get(path);
        let woke = known.is_some_and(|known| known.idle && !session.idle);
        let typed = known.is_some_and(|known| session.typed > known.typed);
        if session.remote && (known.is_none() || woke || typed) {
            said.push(Signal::Seen(Activity::Remote));
        } else if !session.remote && (known.is_none() || woke) {
            said.push(Signal::Seen(Activity::Input));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(remote: bool, locked: bool, idle: bool) -> Session {
        Session {
            remote,
            locked,
            idle,
            terminal: String::new(),
            typed: None,
        }
    }

    #[test]
    fn a_machine_is_locked_when_all_its_own_sessions_are() {
        let all = |sessions: &[Session]| {
            let named = sessions.iter().cloned().enumerate();
            named
                .map(|(number, one)| (number.to_string(), one))
                .collect()
        };
        let none = BTreeMap::new();
        let open = all(&[session(false, false, false)]);
        let shut = all(&[session(false, true, true)]);
        let other = all(&[session(false, true, true), session(true, false, false)]);
        assert_eq!(told(&none, &open, true), []);
        assert_eq!(told(&none, &shut, true), [Signal::Locked(true)]);
        assert_eq!(told(&open, &shut, false), [Signal::Locked(true)]);
        assert_eq!(
            told(&shut, &other, false),
            [Signal::Seen(Activity::Remote)],
            "a login from elsewhere opens nothing"
        );
        assert_eq!(
            told(&shut, &open, false),
            [Signal::Locked(false), Signal::Seen(Activity::Input)]
        );
        assert_eq!(told(&open, &none, false), []);
    }
}
