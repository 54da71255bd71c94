//! An X server, real events, and what is noticed of them.

mod common;

use common::{on_display, watch, x_server};
use hedge_host::Options;
use hedge_model::owner::{Activity, Signal};
use std::time::Duration;

fn options(display: &str) -> Options {
    Options {
        display: Some(display.to_owned()),
        ..Options::default()
    }
}

#[test]
fn keys_and_mouse_are_noticed_and_told_apart() {
    let (_server, display) = x_server("Xvfb", &["-screen", "0", "640x480x24"]);
    let watched = watch(options(&display), &["x11"]);
    watched.ready("x11");
    on_display(&display, "xdotool", &["key", "a"]);
    watched.wait_for(Signal::Seen(Activity::Keyboard));
    on_display(&display, "xdotool", &["mousemove_relative", "5", "5"]);
    watched.wait_for(Signal::Seen(Activity::Mouse));
}

#[test]
fn a_server_that_comes_later_or_again_is_watched() {
    // Not the lowest one that is free, which another test would be given while the server is gone.
    let display = format!(":{}", 1_000 + std::process::id() % 30_000);
    let (server, _) = x_server("Xvfb", &[&display, "-screen", "0", "640x480x24"]);
    let watched = watch(options(&display), &["x11"]);
    watched.ready("x11");
    watched.wait_for(Signal::Watched(true));
    drop(server);
    watched.wait_for(Signal::Watched(false));
    let mut again = std::process::Command::new("Xvfb");
    let again = again.arg(&display).stderr(std::process::Stdio::null());
    let _server = common::Process(again.spawn().unwrap());
    watched.wait_for(Signal::Watched(true));
    on_display(&display, "xdotool", &["key", "a"]);
    watched.wait_for(Signal::Seen(Activity::Keyboard));
}

/// What is typed leaves no trace: two texts of the same length look the same in everything that leaves.
#[test]
fn what_is_typed_stays_where_it_was_typed() {
    let (_server, display) = x_server("Xvfb", &["-screen", "0", "640x480x24"]);
    let typed = |text: &str| {
        let watched = watch(options(&display), &["x11"]);
        watched.ready("x11");
        watched.drain();
        on_display(&display, "xdotool", &["type", "--delay", "0", text]);
        watched.wait_for(Signal::Seen(Activity::Keyboard));
        let mut said = vec![format!("{:?}", Signal::Seen(Activity::Keyboard))];
        while let Some(notice) = watched.next(Duration::from_millis(300)) {
            said.push(format!("{:?}", notice.signal));
        }
        said.dedup();
        said
    };
    assert_eq!(typed("correct horse"), typed("battery stapl"));
}
