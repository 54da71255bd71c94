// A report: one job as it was, in the views of the dashboard, and what failed.

import { h, state, text, time } from "./dom.js";
import { start } from "./store.js";
import { job } from "./views/job.js";

const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
/** Attempts that are listed. */
const LISTED = 200;

const section = (title, ...children) => h("section", {}, h("h2", {}, title), ...children);
const table = (titles, rows) => h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table" }, h("table", {},
  h("thead", {}, h("tr", {}, ...titles.map((title) => h("th", { scope: "col" }, title)))),
  h("tbody", {}, ...rows.map((cells) => h("tr", {}, ...cells.map((cell) => h("td", {}, cell)))))));
const host = (peer) => data.workers.find((worker) => worker.peer.startsWith(peer))?.host ?? peer;

/** Tasks that failed, and what they printed last. */
function failures() {
  if (!data.failed.length) return section("Failures", h("p", { class: "soft" }, "No task failed."));
  return section("Failures", ...data.failed.map((task) => h("details", { open: data.failed.length < 4 },
    h("summary", {}, h("b", {}, task.task), ` ${task.state}: ${task.why}`),
    task.stderr || task.stdout ? h("pre", { class: "log", tabindex: 0 }, h("span", { class: "out" }, task.stdout), h("span", { class: "err" }, task.stderr)) : h("p", { class: "soft" }, "It printed nothing that is kept."))));
}

/** Attempts that ended through a fault. */
function faults() {
  const found = data.attempts.filter(({ state }) => ["failed", "lost", "moved", "stalled"].includes(state));
  if (!found.length) return null;
  const rows = found.slice(0, LISTED).map((one) => [one.task, state(h("span"), one.state), one.redundant ? "copy" : "", host(one.worker), time(one.end_ms) ?? "not known"]);
  const more = found.length > LISTED ? h("p", { class: "soft small" }, `The first ${LISTED} of ${found.length}.`) : null;
  return section("Attempts that failed or were lost", ...[more, table(["Task", "Ended", "", "Machine", "After"], rows)].filter(Boolean));
}

/** The attempts of one task, once it is chosen in the timeline or a table. */
const chosen = h("section", { hidden: true, tabindex: -1 }, h("h2"), h("div"));

function choose() {
  const name = /^#\/job\/\d+\/task\/(.+)$/.exec(location.hash)?.[1];
  chosen.hidden = !name;
  if (!name) return;
  const task = decodeURIComponent(name);
  text(chosen.firstChild, `Attempts of ${task}`);
  const rows = data.attempts.filter((one) => one.task === task).map((one) => [
    one.attempt, state(h("span"), one.state), one.redundant ? "copy" : "", host(one.worker), time(one.start_ms) ?? "not known",
    time(one.end_ms == null || one.start_ms == null ? null : one.end_ms - one.start_ms) ?? ""]);
  chosen.lastChild.replaceChildren(table(["Attempt", "State", "", "Machine", "Began after", "Ran for"], rows));
  chosen.scrollIntoView({ block: "center" });
}

start();
job(main, String(data.job.id));
main.append(...[chosen, failures(), faults()].filter(Boolean));
addEventListener("hashchange", choose);
choose();
