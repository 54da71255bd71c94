//! A D-Bus as a source of activity uses it: some signals, some questions, and an end from outside.

use crate::poll::Stop;
use crate::source::Trouble;
use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::runtime::Runtime;
use zbus::{Connection, DynamicType, MatchRule, Message, MessageStream, OwnedVariant};

/// How long a bus or a service may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Which bus.
#[derive(Clone, Copy)]
pub(crate) enum Which {
    /// The machine's.
    System,
    /// The desktop's.
    Session,
}

/// A service's object, and what of it is meant.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a> {
    pub service: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
}

/// A connection, and the signals asked for. It does nothing but within its calls.
pub(crate) struct Bus {
    runtime: Runtime,
    connection: Connection,
    signals: SelectAll<MessageStream>,
}

/// What waiting for a signal came to.
pub(crate) enum Next {
    Signal(Message),
    TimedOut,
    Stopped,
    Closed,
}

impl Bus {
    /// Connects.
    pub fn open(which: Which) -> Result<Bus, Trouble> {
        let absent = |why: String| Trouble::Absent(format!("no D-Bus: {why}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| absent(error.to_string()))?;
        let builder = match which {
            Which::System => zbus::connection::Builder::system(),
            Which::Session => zbus::connection::Builder::session(),
        };
        let connecting = builder.method_timeout(ANSWER_MAX).build();
        let connected =
            runtime.block_on(async { tokio::time::timeout(ANSWER_MAX, connecting).await });
        let connection = connected
            .map_err(|_| absent("it does not answer".to_owned()))?
            .map_err(|error| absent(error.to_string()))?;
        Ok(Bus {
            runtime,
            connection,
            signals: SelectAll::new(),
        })
    }

    /// Whether a service is there.
    pub fn has(&self, service: &str) -> bool {
        let bus = Object {
            service: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
        };
        let answer = self.call(bus, "NameHasOwner", &(service,));
        answer.is_ok_and(|answer| answer.body().deserialize::<bool>().unwrap_or(false))
    }

    /// Signals that match are given from now on.
    pub fn listen(&mut self, rule: zbus::Result<MatchRule<'static>>) -> Result<(), String> {
        let stream = self.runtime.block_on(async {
            let rule = rule?;
            MessageStream::for_match_rule(rule, &self.connection, None).await
        });
        self.signals
            .push(stream.map_err(|error| error.to_string())?);
        Ok(())
    }

    /// The next signal asked for, within so long if that is given.
    pub fn next(&mut self, stop: &Stop, timeout: Option<Duration>) -> Next {
        let Ok(ended) = stop.descriptor() else {
            return Next::Stopped;
        };
        let signals = &mut self.signals;
        self.runtime.block_on(async {
            let Ok(ended) = Receiver::from_owned_fd(ended) else {
                return Next::Stopped;
            };
            let late = async {
                match timeout {
                    Some(timeout) => tokio::time::sleep(timeout).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = ended.readable() => Next::Stopped,
                signal = signals.next() => match signal {
                    Some(Ok(signal)) => Next::Signal(signal),
                    _ => Next::Closed,
                },
                () = late => Next::TimedOut,
            }
        })
    }

    /// Asks a service.
    pub fn call<B>(&self, object: Object<'_>, method: &str, body: &B) -> Result<Message, String>
    where
        B: serde::Serialize + DynamicType,
    {
        let call = self.connection.call_method(
            Some(object.service),
            object.path,
            Some(object.interface),
            method,
            body,
        );
        let answer = self.runtime.block_on(call);
        answer.map_err(|error| format!("{} {method}: {error}", object.service))
    }

    /// A property; none where the service has no such.
    pub fn property<T: TryFrom<OwnedVariant>>(&self, object: Object<'_>, name: &str) -> Option<T> {
        let properties = Object {
            interface: "org.freedesktop.DBus.Properties",
            ..object
        };
        let answer = self
            .call(properties, "Get", &(object.interface, name))
            .ok()?;
        let value: OwnedVariant = answer.body().deserialize().ok()?;
        T::try_from(value).ok()
    }
}

/// Signals of an interface by name.
pub(crate) fn signal(
    interface: &'static str,
    member: &'static str,
) -> zbus::match_rule::Builder<'static> {
    MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .interface(interface)
        .member(member)
}

/// Changes of properties of an interface.
pub(crate) fn changes(interface: &'static str) -> zbus::match_rule::Builder<'static> {
    signal("org.freedesktop.DBus.Properties", "PropertiesChanged").arg(0, interface)
}
