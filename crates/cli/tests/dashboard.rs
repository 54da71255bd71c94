//! The dashboard in a real browser: it shows what happens, without a reload.

mod common;

use common::Grid;
use common::browser::Page;
use common::http::{At, Gateway};
use common::tasks::Marks;

#[test]
fn the_dashboard_shows_what_happens() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    let gateway = Gateway::start(&grid.place, &["--listen", "127.0.0.1:0"]);
    let At::Tcp(address, token) = gateway.at.clone() else {
        panic!("no address");
    };
    let url = format!("http://{address}/#token={token}");
    let mut page = Page::open(folder.path(), &url);
    page.await_text("There is no job.");
    let shown = page.value("location.href");
    assert!(
        !shown.as_str().unwrap().contains(&token),
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
