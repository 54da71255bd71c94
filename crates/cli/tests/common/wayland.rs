//! Wayland sessions without a screen: KDE's and GNOME's compositors, and hands that move and type there.

use super::again::Again;
use super::buses::Buses;
use super::{Kept, until};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use wayland_client::globals::{GlobalListContents, registry_queue_init};
use wayland_client::protocol::wl_registry::{self, WlRegistry};
use wayland_client::{Connection, Dispatch, QueueHandle};
use wayland_protocols_plasma::fake_input::client::org_kde_kwin_fake_input::{
    self, OrgKdeKwinFakeInput,
};

/// A hand at GNOME's desktop, by the service that its remote desktops use.
const TYPIST: &str = "\
import sys, time
from gi.repository import Gio, GLib
bus = Gio.DBusConnection.new_for_address_sync(sys.argv[1],
    Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION, None, None)
name = 'org.gnome.Mutter.RemoteDesktop'
def call(path, interface, method, args=None):
    return bus.call_sync(name, path, interface, method, args, None, 0, -1, None).unpack()
session, = call('/org/gnome/Mutter/RemoteDesktop', name, 'CreateSession')
call(session, name + '.Session', 'Start')
while True:
    for down in True, False:
        call(session, name + '.Session', 'NotifyKeyboardKeycode', GLib.Variant('(ub)', (30, down)))
        time.sleep(0.05)
";

/// A compositor that ends with the test.
pub struct WaylandSession {
    server: Kept,
    folder: PathBuf,
    name: &'static str,
}

impl WaylandSession {
    /// KDE's.
    pub fn kwin(folder: &Path) -> WaylandSession {
        // Debian's has a capability that containers refuse: a copy has none. It insists on its name.
        let program = folder.join("kwin_wayland");
        fs::copy("/usr/bin/kwin_wayland", &program).unwrap();
        let mut command = Command::new(program);
        let args = ["--virtual", "--no-lockscreen", "--no-global-shortcuts"];
        command
            .args(args)
            .args(["--no-kactivities", "--width", "320", "--height", "200"])
            .args(["--socket", "wayland-7"])
            // Hands may move here without a desktop file that says so.
            .env("KWIN_WAYLAND_NO_PERMISSION_CHECKS", "1")
            .env_remove("DBUS_SESSION_BUS_ADDRESS");
        WaylandSession::start(command, folder, "wayland-7")
    }

    /// GNOME's, which tells of input on the bus.
    pub fn mutter(folder: &Path, buses: &mut Buses) -> WaylandSession {
        let mut command = Command::new("env");
        command
            .args(&buses.before()[1..])
            .args(["mutter", "--headless", "--wayland", "--no-x11"])
            .args(["--virtual-monitor", "320x200"])
            .args(["--wayland-display", "wayland-8"]);
        let session = WaylandSession::start(command, folder, "wayland-8");
        buses.await_service("org.gnome.Mutter.IdleMonitor");
        buses.await_service("org.gnome.Mutter.RemoteDesktop");
        session
    }

    fn start(mut command: Command, folder: &Path, name: &'static str) -> WaylandSession {
        command.env("XDG_RUNTIME_DIR", folder).env("HOME", folder);
        let server = Kept::start(command, folder);
        let session = WaylandSession {
            server,
            folder: folder.to_owned(),
            name,
        };
        until(
            &format!("the compositor: {}", session.server.told()),
            || UnixStream::connect(session.folder.join(name)).ok(),
        );
        session
    }

    /// The command in front of programs that belong to the session.
    pub fn before(&self) -> Vec<String> {
        let folder = self.folder.display();
        vec![
            "env".to_owned(),
            format!("XDG_RUNTIME_DIR={folder}"),
            format!("WAYLAND_DISPLAY={}", self.name),
        ]
    }

    /// Moves the pointer at KDE's desktop until what this gives is dropped.
    pub fn moving_pointer(&self) -> Again {
        let stream = UnixStream::connect(self.folder.join(self.name)).unwrap();
        let connection = Connection::from_socket(stream).unwrap();
        let (globals, mut queue) = registry_queue_init::<Nobody>(&connection).unwrap();
        let input: OrgKdeKwinFakeInput = globals.bind(&queue.handle(), 1..=4, ()).unwrap();
        input.authenticate("test".to_owned(), "to move the pointer".to_owned());
        Again::start(move |turn| {
            let by = if turn % 2 == 0 { 3.0 } else { -3.0 };
            input.pointer_motion(by, by);
            queue.roundtrip(&mut Nobody).unwrap();
        })
    }

    /// Types at GNOME's desktop until what this gives is dropped.
    pub fn typing(&self, buses: &Buses) -> Kept {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", TYPIST, &buses.address]);
        Kept::start(command, &self.folder)
    }
}

/// Takes events, of which there are none.
struct Nobody;

impl Dispatch<WlRegistry, GlobalListContents> for Nobody {
    fn event(
        _: &mut Self,
        _: &WlRegistry,
        _: wl_registry::Event,
        _: &GlobalListContents,
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
    }
}

impl Dispatch<OrgKdeKwinFakeInput, ()> for Nobody {
    fn event(
        _: &mut Self,
        _: &OrgKdeKwinFakeInput,
        _: org_kde_kwin_fake_input::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
    }
}
