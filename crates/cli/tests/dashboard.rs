//! The dashboard in a real browser: it shows what happens, without a reload.

mod common;

use common::browser::Page;
use common::desktop::Desktop;
use common::group::Group;
use common::http::{At, Gateway};
use common::scene::Scene;
use common::tasks::Marks;
use common::{Grid, Place};
use serde_json::json;
use std::path::Path;

/// The dashboard of a gateway that is started for it; `folder` is for what the browser keeps.
fn open(folder: &Path, place: &Place, args: &[&str]) -> (Gateway, Page) {
    let gateway = Gateway::start(place, &[&["--listen", "127.0.0.1:0"], args].concat());
    let At::Tcp(address, token) = gateway.at.clone() else {
        panic!("no address");
    };
    let page = Page::open(folder, &format!("http://{address}/#token={token}"));
    (gateway, page)
}

#[test]
fn the_dashboard_shows_what_happens() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    let (gateway, mut page) = open(folder.path(), &grid.place, &[]);
    page.await_text("There is no job.");
    let shown = page.value("location.href");
    assert!(
        !shown.as_str().unwrap().contains("token"),
        "the token stays in the address"
    );
    let after = "deps = [\"first\"]";
    let parts = [
        marks.task("first", "echo worked", ""),
        marks.task("second", "true", after),
    ];
    let job = gateway.submit(&format!("name = \"two <b>steps</b>\"\n{}", parts.concat()));
    page.await_text("two <b>steps</b>");
    page.check("jobs");
    page.go(&format!("#/job/{job}"));
    page.await_text("running");
    page.await_text("2 groups");
    let path = "document.querySelectorAll('svg.graph .node.path').length";
    assert_eq!(page.value(path), 2, "both are on the critical path");
    page.await_text("1 attempt on 1 machine");
    page.check("job");
    page.go(&format!("#/job/{job}/task/first"));
    page.await_text("Attempts");
    marks.let_go("first");
    page.await_text("worked");
    page.check("task");
    page.go("#/machines");
    page.await_text("1 machine: 1 live");
    page.check("machines");
    grid.add_worker(&["--no-sandbox"]);
    page.await_text("2 machines");
    grid.workers[1].signal("-9");
    let gone = "!document.body.innerText.includes('2 live')";
    common::until("the dead worker to be seen", || {
        page.value(gone).as_bool().filter(|gone| *gone)
    });
    page.go("#/faults");
    page.await_text("this gateway begins to look");
    page.await_text("joined");
    page.check("faults");
    page.go(&format!("#/job/{job}"));
    marks.let_go("second");
    page.await_text("2 of 2");
    let state = "document.querySelector('.bar-head .state').textContent === 'done'";
    common::until("the job to be done", || {
        page.value(state).as_bool().filter(|done| *done)
    });
    assert!(page.errors.is_empty(), "{:?}", page.errors);
}

#[test]
fn the_dashboard_is_told_of_owners_and_dead_workers_and_does_not_ask() {
    let folder = tempfile::tempdir().unwrap();
    let desktop = Desktop::virtual_one(folder.path());
    let mut scene = Scene::new(&[], "", &["x11"], &desktop.display);
    scene.back();
    scene.run();
    let (_gateway, mut page) = open(folder.path(), &scene.grid.place, &[]);
    page.await_text("running");
    page.go("#/machines");
    page.await_text("2 machines: 2 live");
    let mut busy = None;
    let away = "document.querySelector('.tile.away')";
    page.await_pushed("the owner's key press", away, || {
        busy = Some(desktop.keep_using([&["key", "a"], &["key", "b"]]));
    });
    let dead =
        "document.querySelector('.tile.dead') || document.querySelectorAll('.tile').length < 2";
    page.await_pushed("the end of the other worker", dead, || {
        scene.grid.workers[0].signal("-9");
    });
    drop(busy);
    assert!(page.errors.is_empty(), "{:?}", page.errors);
}

#[test]
fn a_timeline_shows_the_name_of_a_worker_that_is_told_later() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 0, &[]);
    let (_gateway, mut page) = open(folder.path(), &grid.place, &[]);
    page.await_text("There is no job.");
    let names = page.value(
        r#"(async () => {
          const { Timeline } = await import("/ui/timeline.js");
          const hosts = new Map();
          const box = document.body.appendChild(document.createElement("div"));
          const timeline = new Timeline(box, (peer) => hosts.get(peer) ?? peer, () => {});
          timeline.add([{ attempt: "a", worker: "3f9a", start_ms: 0, end_ms: null, state: "running" }], 1, true);
          const before = timeline.names.get("3f9a");
          hosts.set("3f9a", "desk");
          timeline.add([], 2, true);
          timeline.end();
          return [before, timeline.names.get("3f9a")];
        })()"#,
    );
    assert_eq!(names, json!(["3f9a", "desk"]));
}

#[test]
fn the_dashboard_is_told_of_another_leader() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 3, 1);
    let (_gateway, mut page) = open(folder.path(), &group.client, &group.args(&[]));
    page.await_text("There is no job.");
    page.go("#/faults");
    page.await_text("this gateway begins to look");
    let leader = group.leader();
    let another = "document.querySelector('main').innerText.includes('another supervisor leads')";
    page.await_pushed("another leader", another, || group.kill(leader));
    page.await_text("live");
    assert!(page.errors.is_empty(), "{:?}", page.errors);
}
