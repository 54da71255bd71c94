//! Wayland: whether there is input (`ext-idle-notify-v1`), which is all that a compositor tells of it, without the
//! kind.

use crate::source::{Covers, Ended, Options, Outlet, Source, Trouble};
use hedge_model::owner::Activity;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wayland_client::backend::WaylandError;
use wayland_client::globals::{GlobalListContents, registry_queue_init};
use wayland_client::protocol::wl_registry::{self, WlRegistry};
use wayland_client::protocol::wl_seat::{self, WlSeat};
use wayland_client::{Connection, Dispatch, EventQueue, Proxy, QueueHandle};
use wayland_protocols::ext::idle_notify::v1::client::ext_idle_notification_v1::{
    self, ExtIdleNotificationV1,
};
use wayland_protocols::ext::idle_notify::v1::client::ext_idle_notifier_v1::{
    self, ExtIdleNotifierV1,
};

/// Input is taken to be over after so long without any.
const IDLE: Duration = Duration::from_secs(1);
/// A compositor that has not said by then that there is no input means that there is.
const TELLS_WITHIN: Duration = Duration::from_millis(1_500);
/// From this version on input is told even while a program keeps the screen on.
const INPUT_ALONE: u32 = 2;
/// Sockets that are tried where none is named, and seats that are watched, at most.
const SOCKETS_MAX: usize = 8;
const SEATS_MAX: usize = 16;

struct Wayland {
    socket: String,
    connection: Connection,
    queue: EventQueue<Seats>,
    seats: Seats,
}

/// Whether there is input at each seat; none until it is known.
#[derive(Default)]
struct Seats {
    active: Vec<Option<bool>>,
    /// The compositor's numbers for them.
    names: Vec<u32>,
    changed: bool,
}

/// Opens the session's compositor.
pub(crate) fn open(_: &Options) -> Result<Box<dyn Source>, Trouble> {
    let mut why = "no Wayland session of this user".to_owned();
    for path in sockets() {
        match connect(&path) {
            Ok(opened) => return Ok(Box::new(opened)),
            Err(error) => why = format!("Wayland at {}: {error}", path.display()),
        }
    }
    Err(Trouble::Absent(why))
}

/// The one that is named, or all that this user's folder has.
fn sockets() -> Vec<PathBuf> {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    if let Some(name) = std::env::var_os("WAYLAND_DISPLAY").filter(|name| !name.is_empty()) {
        // An absolute name stands for itself.
        return vec![folder.unwrap_or_default().join(name)];
    }
    let numbered = folder.map(|folder| {
        let path = move |number| folder.join(format!("wayland-{number}"));
        (0..SOCKETS_MAX).map(path).filter(|path| path.exists())
    });
    numbered.into_iter().flatten().collect()
}

fn connect(path: &PathBuf) -> Result<Wayland, String> {
    let stream = UnixStream::connect(path).map_err(|error| error.to_string())?;
    let connection = Connection::from_socket(stream).map_err(|error| error.to_string())?;
    let (globals, mut queue) =
        registry_queue_init::<Seats>(&connection).map_err(|error| error.to_string())?;
    let handle = queue.handle();
    let notifier: ExtIdleNotifierV1 = globals
        .bind(&handle, 1..=INPUT_ALONE, ())
        .map_err(|_| "the compositor does not offer ext-idle-notify-v1".to_owned())?;
    let mut seats = Seats::default();
    for global in globals.contents().clone_list() {
        if global.interface != WlSeat::interface().name || seats.active.len() >= SEATS_MAX {
            continue;
        }
        let seat: WlSeat = globals.registry().bind(global.name, 1, &handle, ());
        let number = seats.active.len();
        let idle_ms = IDLE.as_millis() as u32;
        if notifier.version() >= INPUT_ALONE {
            notifier.get_input_idle_notification(idle_ms, &seat, &handle, number);
        } else {
            notifier.get_idle_notification(idle_ms, &seat, &handle, number);
        }
        seats.active.push(None);
        seats.names.push(global.name);
    }
    if seats.active.is_empty() {
        return Err("the compositor has no seat".to_owned());
    }
    queue
        .roundtrip(&mut seats)
        .map_err(|error| error.to_string())?;
    Ok(Wayland {
        socket: path.display().to_string(),
        connection,
        queue,
        seats,
    })
}

impl Source for Wayland {
    fn covers(&self) -> Covers {
        Covers {
            what: format!(
                "input of any kind, by the compositor's word ({})",
                self.socket
            ),
            kinds: vec![Activity::Input],
        }
    }

    fn run(&mut self, out: &mut Outlet) -> Ended {
        let since = Instant::now();
        loop {
            if let Err(error) = self.queue.dispatch_pending(&mut self.seats) {
                return Ended::Broken(format!("Wayland at {}: {error}", self.socket));
            }
            if self.seats.changed {
                return Ended::Changed;
            }
            let unknown = self.seats.active.contains(&None);
            let left = TELLS_WITHIN.saturating_sub(since.elapsed());
            if unknown && left.is_zero() {
                self.seats.suppose_active();
            }
            let active = self.seats.active.contains(&Some(true));
            out.lasting(Activity::Input, active);
            match self.connection.flush() {
                Ok(()) => {}
                Err(WaylandError::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Ended::Broken(format!("Wayland at {}: {error}", self.socket)),
            }
            let Some(guard) = self.queue.prepare_read() else {
                continue;
            };
            let timeout = (unknown && !left.is_zero()).then_some(left);
            if !out.wait(&[guard.connection_fd()], timeout) {
                return Ended::Stopped;
            }
            match guard.read() {
                Ok(_) => {}
                Err(WaylandError::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Ended::Broken(format!("Wayland at {}: {error}", self.socket)),
            }
        }
    }
}

impl Seats {
    fn suppose_active(&mut self) {
        for active in &mut self.active {
            active.get_or_insert(true);
        }
    }
}

impl Dispatch<ExtIdleNotificationV1, usize> for Seats {
    fn event(
        seats: &mut Self,
        _: &ExtIdleNotificationV1,
        event: ext_idle_notification_v1::Event,
        seat: &usize,
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        let active = match event {
            ext_idle_notification_v1::Event::Idled => false,
            ext_idle_notification_v1::Event::Resumed => true,
            _ => return,
        };
        if let Some(known) = seats.active.get_mut(*seat) {
            *known = Some(active);
        }
    }
}

impl Dispatch<WlRegistry, GlobalListContents> for Seats {
    fn event(
        seats: &mut Self,
        _: &WlRegistry,
        event: wl_registry::Event,
        _: &GlobalListContents,
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        // A seat that comes or goes; which, is seen when all are asked for again.
        seats.changed |= match event {
            wl_registry::Event::Global { interface, .. } => interface == WlSeat::interface().name,
            wl_registry::Event::GlobalRemove { name } => seats.names.contains(&name),
            _ => false,
        };
    }
}

impl Dispatch<WlSeat, ()> for Seats {
    fn event(
        _: &mut Self,
        _: &WlSeat,
        _: wl_seat::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
    }
}

impl Dispatch<ExtIdleNotifierV1, ()> for Seats {
    fn event(
        _: &mut Self,
        _: &ExtIdleNotifierV1,
        _: ext_idle_notifier_v1::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
    }
}
