//! What is on the screen, and what keys do to it.

use super::draw::draw;
use super::screen::{Detail, Screen, View};
use hedge_gateway::{Change, Notice};
use hedge_model::JobId;
use hedge_model::view::AttemptLine;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::termion::event::Key;
use serde_json::json;
use std::process::{Command, Stdio};

/// Set where a test runs once more, on a terminal.
const ON_TERMINAL: &str = "HEDGE_TEST_ON_TERMINAL";

fn job(id: u64, state: &str, done: u32) -> Notice {
    let part =
        |micro: u64| json!({ "attempts": 1, "occupied_ns": 0, "higher_ns": 0, "micro": micro });
    let view = json!({
        "id": id, "name": format!("render {id}"), "state": state, "why": null, "tasks": 100, "needed": 100,
        "critical": 3, "done": done, "running": 4, "ready": 2, "waiting": 5, "failed": id - 1, "lost": 0, "skipped": 0,
        "attempts": { "total": 120, "redundant": 8, "failed": 1, "lost": 2, "cancelled": 3, "outputs_lost": 0 },
        "elapsed_ms": 61_000.0, "cpu_ms": 1000.0, "waits": [], "result_bytes": 0,
        "cost": { "currency": "EUR", "useful": part(1_000_000), "redundant": part(80_000), "lost": part(20_000),
                  "total_micro": 1_100_000, "billed_micro": 1_000_000 },
        "budget": null,
        "deadline": { "finish_by_ms": 120_000.0, "left_ms": 59_000.0, "chance": 0.97, "confidence": 0.9,
                      "at_risk": false, "missed": false },
        "progress": f64::from(done) / 100.0, "left_ms": 30_000.0, "owner": "c0ffee", "age_ms": 61_000.0, "open": null,
    });
    Notice::Change(Change::Job(serde_json::from_value(view).unwrap()))
}

fn worker(peer: &str, liveness: &str) -> Notice {
    let offer =
        |cpus: u64| json!({ "cpus_milli": cpus, "memory": 8_u64 << 30, "disk": 0, "named": [] });
    let view = json!({
        "peer": peer.repeat(32), "host": format!("desk-{peer}"), "pid": 7, "liveness": liveness, "usage": "ready",
        "owner": null, "admission": "admitted", "link": null, "total": offer(8000), "free": offer(2500), "shares": [], "network": "loopback",
        "in_hand": 4, "done": 55, "failed": 0, "lost": 1, "heartbeat_interval_ms": 100.0,
        "heartbeat_mode": "heartbeats", "heartbeats": 9, "suspicions": 2, "late_gaps": 0, "missed_heartbeats": 0,
        "held_up_heartbeats": 0, "silent_ms": 20.0, "class": "normal", "score": 1.0, "score_from": "cores",
    });
    Notice::Change(Change::Worker(serde_json::from_value(view).unwrap()))
}

fn screen() -> Screen {
    let mut screen = Screen::default();
    for notice in [
        Notice::Reset,
        worker("ab", "live"),
        worker("cd", "suspect"),
        job(1, "done", 100),
        job(2, "running", 40),
        Notice::Ready,
    ] {
        screen.take(notice);
    }
    // Times that go on would differ from run to run.
    screen.seen.clear();
    screen
}

/// What is on a screen of 80 columns and 24 rows.
fn shown(screen: &mut Screen) -> String {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, screen)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn jobs_and_machines_fit_80_columns() {
    let mut screen = screen();
    insta::assert_snapshot!("jobs", shown(&mut screen));
    assert!(screen.press(Key::Char('2')));
    insta::assert_snapshot!("machines", shown(&mut screen));
}

#[test]
fn a_job_is_opened_and_left() {
    let mut screen = screen();
    shown(&mut screen);
    assert!(screen.press(Key::Char('\n')));
    assert_eq!(screen.view, View::Job(JobId(2)), "the newest is first");
    let attempt = |task: &str, state: &str, redundant: bool, end: Option<f64>| AttemptLine {
        task: task.into(),
        attempt: format!("2.{task}/0.1.1"),
        worker: "ab".repeat(5),
        redundant,
        state: state.into(),
        start_ms: Some(1000.0),
        end_ms: end,
    };
    screen.detail = Some(Detail {
        job: JobId(2),
        groups: Vec::new(),
        attempts: vec![
            attempt("frame.1", "won", false, Some(9000.0)),
            attempt("frame.2", "lost", false, Some(5000.0)),
            attempt("frame.2", "won", true, Some(8000.0)),
        ],
        now_ms: 10_000.0,
        at: tokio::time::Instant::now(),
    });
    insta::assert_snapshot!("job", shown(&mut screen));
    assert!(screen.press(Key::Esc));
    assert_eq!(screen.view, View::Jobs);
    assert!(!screen.press(Key::Char('q')) && !screen.press(Key::Ctrl('c')));
}

#[test]
fn names_of_others_obey_no_terminal() {
    let mut screen = screen();
    let Notice::Change(Change::Job(mut view)) = job(3, "running", 0) else {
        panic!("no job");
    };
    view.name = "evil \u{1b}[2J\n".to_owned();
    screen.take(Notice::Change(Change::Job(view)));
    let text = shown(&mut screen);
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_grid_that_is_gone_is_said_first() {
    let mut screen = screen();
    let state =
        json!({ "event": "grid", "data": { "reachable": false, "why": "no supervisor answers" } });
    screen.take(Notice::Change(serde_json::from_value(state).unwrap()));
    let text = shown(&mut screen);
    assert!(
        text.contains("the grid does not answer: no supervisor answers"),
        "{text}"
    );
    screen.press(Key::End);
    screen.press(Key::Down);
    shown(&mut screen);
    assert_eq!(
        screen.cursor.selected(),
        Some(1),
        "the cursor stays in the table"
    );
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_is_reported() {
    const NAME: &str = "top::tests::a_panic_gives_the_terminal_back_before_it_is_reported";
    const BUG: &str = "a view has a bug";
    if std::env::var_os(ON_TERMINAL).is_some() {
        crate::exit::install_panic_hook();
        let mut terminal = super::terminal::Terminal::open().unwrap();
        let drawn = terminal.draw(|_| panic!("{BUG}"));
        unreachable!("{drawn:?}");
    }
    let own = std::env::current_exe().unwrap();
    let inner = format!(
        "{} --exact {NAME} --nocapture; echo \"ended with $?\"; \
         stty -a | grep -ow -e '-*icanon' -e '-*echo' -e '-*isig' | tr '\\n' ' '",
        own.display()
    );
    let mut child = Command::new("script")
        .args(["-q", "-e", "-c", &inner, "/dev/null"])
        .envs([(ON_TERMINAL, "1"), ("TERM", "xterm")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let keys = child.stdin.take();
    let written = child.wait_with_output().unwrap().stdout;
    drop(keys);
    let raw = String::from_utf8_lossy(&written);
    let places = ["\u{1b}[?1049h", "\u{1b}[?1049l", BUG].map(|part| raw.find(part));
    assert!(places.is_sorted() && places[0].is_some(), "{raw:?}");
    let mut terminal = vt100::Parser::new(24, 80, 0);
    terminal.process(&written);
    let text = terminal.screen().contents();
    assert!(text.contains("ended with 70"), "{text}");
    let flags: Vec<&str> = text.split_whitespace().rev().take(3).collect();
    assert!(flags.iter().all(|flag| !flag.starts_with('-')), "{text}");
    assert!(!terminal.screen().alternate_screen(), "{text}");
    assert!(!terminal.screen().hide_cursor(), "{text}");
}
