//! Owners whom the desktop tells of: over D-Bus, and by Wayland.

mod common;

use common::again::Again;
use common::buses::{Buses, try_call};
use common::desktop::Desktop;
use common::scene::Scene;
use common::wayland::WaylandSession;
use common::{Kept, until};
use std::fs;
use std::process::Command;

const LOGIND: &str = "org.freedesktop.login1";
const LOGIND_PATH: &str = "/org/freedesktop/login1";
const MOCK: &str = "org.freedesktop.DBus.Mock";
const SESSION: &str = "/org/freedesktop/login1/session/7";

/// Changes properties of an object that dbusmock offers.
fn update(buses: &Buses, service: &str, path: &str, interface: &str, properties: &str) {
    let method = format!("{MOCK}.UpdateProperties");
    buses.call(service, path, &method, &[interface, properties]);
}

fn session(buses: &Buses, properties: &str) {
    let interface = "org.freedesktop.login1.Session";
    update(buses, LOGIND, SESSION, interface, properties);
}

fn with_logind(folder: &std::path::Path) -> Buses {
    let mut buses = Buses::start(folder);
    buses.imitate(folder, LOGIND, "--system", "logind");
    let add = format!("{MOCK}.AddSession");
    let args = ["7", "seat0", "1000", "owner", "true"];
    buses.call(LOGIND, LOGIND_PATH, &add, &args);
    buses
}

#[test]
fn a_session_that_is_locked_lets_the_worker_work_and_one_that_is_opened_stops_it() {
    let folder = tempfile::tempdir().unwrap();
    let buses = with_logind(folder.path());
    let desktop = Desktop::virtual_one(folder.path());
    let mut scene = Scene::with_quiet(
        "1h",
        &buses.before(),
        "",
        &["x11", "logind"],
        &desktop.display,
    );
    scene.back();
    desktop.xdotool(&["key", "a"]);
    scene.away("keyboard");
    session(&buses, "{'LockedHint': <true>}");
    scene.back();
    scene.run();
    session(&buses, "{'LockedHint': <false>}");
    scene.away("input");
    scene.marks.await_starts("t", 2);
}

#[test]
fn a_login_from_elsewhere_stops_the_task_and_tells_the_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let buses = with_logind(folder.path());
    let on = "unwatched = \"work\"";
    let mut scene = Scene::new(&buses.before(), on, &["logind"], "");
    scene.back();
    scene.owner_comes_and_goes("remote", || {
        let add = format!("{MOCK}.AddSession");
        buses.call(
            LOGIND,
            LOGIND_PATH,
            &add,
            &["8", "elsewhere", "1000", "owner", "true"],
        );
        let path = "/org/freedesktop/login1/session/8";
        let interface = "org.freedesktop.login1.Session";
        update(&buses, LOGIND, path, interface, "{'Remote': <true>}");
        // The users who logged in work there, with breaks.
        let address = buses.address.clone();
        Again::start(move |turn| {
            let idle = format!("{{'IdleHint': <{}>}}", turn % 2 == 0);
            let method = format!("{MOCK}.UpdateProperties");
            let done = try_call(&address, LOGIND, path, &method, &[interface, &idle]);
            assert!(done.is_some(), "{idle}");
        })
    });
}

/// The desktop's saver is shown: the owner has gone. It ends: the owner is back.
fn saver_story(service: &str, path: &str, template: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let mut buses = Buses::start(folder.path());
    match template {
        Some(template) => buses.imitate(folder.path(), service, "--session", template),
        None => buses.imitate_plainly(folder.path(), "--session", service, path),
    }
    if template.is_none() {
        let add = format!("{MOCK}.AddMethod");
        buses.call(
            service,
            path,
            &add,
            &[service, "GetActive", "", "b", "ret = False"],
        );
    }
    let shown = |shown: bool| {
        let emit = format!("{MOCK}.EmitSignal");
        let args = format!("[<{shown}>]");
        buses.call(
            service,
            path,
            &emit,
            &[service, "ActiveChanged", "b", &args],
        );
    };
    let desktop = Desktop::virtual_one(folder.path());
    let mut scene = Scene::with_quiet(
        "1h",
        &buses.before(),
        "",
        &["x11", "screensaver"],
        &desktop.display,
    );
    scene.back();
    desktop.xdotool(&["key", "a"]);
    scene.away("keyboard");
    shown(true);
    scene.back();
    scene.run();
    shown(false);
    scene.away("input");
    scene.marks.await_starts("t", 2);
}

#[test]
fn the_screensaver_of_the_desktops_standard_tells_of_the_owner() {
    let name = "org.freedesktop.ScreenSaver";
    saver_story(name, "/org/freedesktop/ScreenSaver", None);
}

#[test]
fn the_screensaver_of_gnome_tells_of_the_owner() {
    let (name, path) = ("org.gnome.ScreenSaver", "/org/gnome/ScreenSaver");
    saver_story(name, path, Some("gnome_screensaver"));
}

#[test]
fn a_metered_network_stops_the_task_and_tells_the_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let mut buses = Buses::start(folder.path());
    let (name, path) = (
        "org.freedesktop.NetworkManager",
        "/org/freedesktop/NetworkManager",
    );
    buses.imitate_plainly(folder.path(), "--system", name, path);
    let add = format!("{MOCK}.AddProperty");
    buses.call(name, path, &add, &[name, "Metered", "<uint32 4>"]);
    let on = "unwatched = \"work\"";
    let mut scene = Scene::new(&buses.before(), on, &["network"], "");
    scene.back();
    let metered = |value: u32| {
        let properties = format!("{{'Metered': <uint32 {value}>}}");
        update(&buses, name, path, name, &properties);
    };
    struct Back<F: Fn(u32)>(F);
    impl<F: Fn(u32)> Drop for Back<F> {
        fn drop(&mut self) {
            (self.0)(2);
        }
    }
    scene.owner_comes_and_goes("metered network", || {
        metered(1);
        Back(&metered)
    });
}

/// A desktop that starts again is found again.
#[test]
fn a_service_that_comes_back_is_listened_to_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut buses = Buses::start(folder.path());
    let (name, path) = ("org.gnome.ScreenSaver", "/org/gnome/ScreenSaver");
    buses.imitate(folder.path(), name, "--session", "gnome_screensaver");
    let before: Vec<String> = buses.before().into_iter().map(str::to_owned).collect();
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    let scene = Scene::with_quiet("1h", &before, "unwatched = \"work\"", &["screensaver"], "");
    scene.back();
    let set = |buses: &Buses, shown: &str| {
        let method = "org.gnome.ScreenSaver.SetActive";
        buses.call(name, path, method, &[shown]);
    };
    until("the saver to be found", || {
        let err = scene.owned.err();
        err.contains("org.gnome.ScreenSaver").then_some(())
    });
    buses.end_services();
    buses.imitate(folder.path(), name, "--session", "gnome_screensaver");
    until("the new one's word to count", || {
        set(&buses, "true");
        set(&buses, "false");
        (scene.view()["usage"] == "away").then_some(())
    });
    scene.away("input");
}

/// Xscreensaver runs ours like any of its own, and ends it when the owner is back.
#[test]
fn xscreensaver_starts_the_saver_and_ends_it_when_the_owner_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let desktop = Desktop::virtual_one(folder.path());
    let mut scene = Scene::with_quiet("1h", &[], "", &["x11"], &desktop.display);
    scene.back();
    desktop.xdotool(&["key", "a"]);
    scene.away("keyboard");
    let dir = scene.folder.path().join("owned");
    let hedge = scene.grid.place.hedge(&[]);
    let hedge = hedge.get_program().to_str().unwrap().to_owned();
    let settings = format!(
        "timeout: 1:00:00\nlock: False\nfade: False\nunfade: False\nsplash: False\ndpmsEnabled: False\n\
         mode: one\nselected: 0\nprograms: {hedge} --dir {} screensaver --root \\n\\\n",
        dir.display()
    );
    fs::write(folder.path().join(".xscreensaver"), settings).unwrap();
    // It shows nothing for root.
    let ordinary = ["--user", "--map-user=1000", "--map-group=1000"];
    let as_owner = |program: &str, args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(ordinary).arg(program).args(args);
        command
            .env("DISPLAY", &desktop.display)
            .env("HOME", folder.path());
        command
    };
    let saver = Kept::start(as_owner("xscreensaver", &["--no-splash"]), folder.path());
    until(&format!("xscreensaver: {}", saver.told()), || {
        let blanked = as_owner("xscreensaver-command", &["-activate"]).output();
        blanked.unwrap().status.success().then_some(())
    });
    scene.back();
    scene.run();
    // For a moment after it was told to, xscreensaver blanks whatever happens.
    until("xscreensaver to end the saver", || {
        desktop.xdotool(&["key", "a"]);
        let why = scene.view()["owner"]["why"].to_string();
        why.contains("input").then_some(())
    });
    scene.away("input");
    scene.marks.await_starts("t", 2);
}

#[test]
fn input_under_wayland_stops_the_task_and_tells_the_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let session = WaylandSession::kwin(folder.path());
    let before = session.before();
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    let mut scene = Scene::new(&before, "", &["wayland"], "");
    scene.back();
    scene.owner_comes_and_goes("input", || session.moving_pointer());
}

#[test]
fn input_at_gnomes_desktop_stops_the_task_and_tells_the_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let mut buses = Buses::start(folder.path());
    let session = WaylandSession::mutter(folder.path(), &mut buses);
    let mut scene = Scene::new(&buses.before(), "", &["mutter"], "");
    scene.back();
    scene.owner_comes_and_goes("input", || session.typing(&buses));
}
