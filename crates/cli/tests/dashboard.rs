//! The dashboard in a real browser: it shows what happens, without a reload.

mod common;

use common::Grid;
use common::browser::Page;
use common::http::{At, Gateway};
use common::tasks::Marks;
use serde_json::Value;

/// Text is told apart from its background in every part that can be seen: the least contrast that readers need.
const CONTRAST: &str = r#"(() => {
  const parse = (text) => { const p = document.createElement("canvas").getContext("2d"); p.fillStyle = text; p.fillRect(0, 0, 1, 1); return [...p.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const f = (v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const behind = (element) => { for (let at = element; at; at = at.parentElement) { const found = getComputedStyle(at).backgroundColor; if (parse(found)[3] === 255) return found; } return "white"; };
  const poor = [];
  for (const element of document.querySelectorAll("h1, h2, p, dt, dd, td, th, a, button, label, pre span")) {
    if (!element.innerText?.trim() || !element.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(parse(behind(element)))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${element.tagName} ${element.innerText.slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return poor;
})()"#;

/// What a keyboard or a screen reader would miss.
const NAMES: &str = r#"[...document.querySelectorAll("button, a, input, select, [role=button], [role=img], svg, canvas")]
  .filter((element) => element.checkVisibility() && !(element.innerText?.trim() || element.getAttribute("aria-label") || element.labels?.length || element.title))
  .map((element) => element.outerHTML.slice(0, 80))"#;

fn check(page: &mut Page, view: &str) {
    for (width, dark) in [(1280, false), (1280, true), (375, true), (375, false)] {
        page.look(width, dark);
        let over = page.value("document.documentElement.scrollWidth - innerWidth");
        assert!(
            over.as_i64() <= Some(0),
            "{view} is {over} px too wide for {width}"
        );
        let poor = page.value(CONTRAST);
        assert_eq!(
            poor,
            Value::Array(Vec::new()),
            "{view}, {width}, dark {dark}"
        );
    }
    let nameless = page.value(NAMES);
    assert_eq!(nameless, Value::Array(Vec::new()), "{view}");
}

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
    check(&mut page, "jobs");
    page.go(&format!("#/job/{job}"));
    page.await_text("running");
    page.await_text("2 groups");
    let path = "document.querySelectorAll('svg.graph .node.path').length";
    assert_eq!(page.value(path), 2, "both are on the critical path");
    page.await_text("1 attempt on 1 machine");
    check(&mut page, "job");
    page.go(&format!("#/job/{job}/task/first"));
    page.await_text("Attempts");
    marks.let_go("first");
    page.await_text("worked");
    check(&mut page, "task");
    page.go("#/machines");
    page.await_text("1 machine: 1 live");
    check(&mut page, "machines");
    grid.add_worker(&["--no-sandbox"]);
    page.await_text("2 machines");
    grid.workers[1].signal("-9");
    let gone = "!document.body.innerText.includes('2 live')";
    common::until("the dead worker to be seen", || {
        page.value(gone).as_bool().filter(|gone| *gone)
    });
    page.go(&format!("#/job/{job}"));
    marks.let_go("second");
    page.await_text("2 of 2");
    let state = "document.querySelector('.bar-head .state').textContent === 'done'";
    common::until("the job to be done", || {
        page.value(state).as_bool().filter(|done| *done)
    });
    assert!(page.errors.is_empty(), "{:?}", page.errors);
}
