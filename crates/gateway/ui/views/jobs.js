// All jobs in a list, the newest first.

import { live } from "../api.js";
import { count, h, list, meter, money, number, state, text, time } from "../dom.js";
import { store, watch } from "../store.js";

/** Jobs that are listed before the user asks for more. */
const STEP = 100;

export function jobs(root) {
  let shown = STEP;
  const names = h("input", { type: "search", oninput: update, size: 16 });
  const states = h("select", { onchange: update }, ...["all", "waiting", "running", "done", "failed", "cancelled"].map((name) => h("option", {}, name)));
  const summary = h("p", { class: "soft small", role: "status" });
  const body = h("tbody");
  const more = h("button", { onclick: () => ((shown += STEP), update()) }, "Show more");
  root.append(
    h("h1", {}, "Jobs"),
    h("section", {},
      h("form", { class: "filter", onsubmit: (event) => event.preventDefault() },
        h("label", {}, "Name contains", names), h("label", {}, "State", states)),
      summary,
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Jobs" }, h("table", {},
        h("thead", {}, h("tr", {},
          h("th", { scope: "col", class: "number" }, "Job"), h("th", { scope: "col" }, "Name"), h("th", { scope: "col" }, "State"),
          h("th", { scope: "col" }, "Tasks"), h("th", { scope: "col", class: "number wide" }, "Time"),
          h("th", { scope: "col", class: "number wide" }, "Cost"))),
        body)),
      more),
  );

  const row = (job) => h("tr", {},
    h("td", { class: "number" }, String(job.id)),
    h("td", { class: "name" }, h("a", { href: `#/job/${job.id}` }, job.name)),
    h("td", {}, h("span")),
    h("td", {}, h("div"), h("span", { class: "small soft" })),
    h("td", { class: "number wide" }),
    h("td", { class: "number wide" }));

  function draw(element, job) {
    const [, , where, tasks, took, cost] = element.children;
    state(where.firstChild, job.state);
    const count = (tasks, what) => (tasks ? `, ${number(tasks)}\u00a0${what}` : "");
    const words = `${number(job.done)} of ${number(job.tasks)}${count(job.failed, "failed")}${count(job.lost, "lost")}`;
    meter(tasks.firstChild, `${words} done`, job.tasks, [["done", job.done], ["running", job.running], ["failed", job.failed], ["lost", job.lost]]);
    text(tasks.lastChild, words);
    text(took, time(elapsed(job)));
    text(cost, money(job.cost.total_micro, job.cost.currency));
  }

  function update() {
    const [name, wanted] = [names.value, states.value];
    const all = [...store.jobs.values()].filter((job) => job.name.includes(name) && (wanted === "all" || job.state === wanted));
    all.sort((a, b) => b.id - a.id);
    list(body, all.slice(0, shown), (job) => job.id, row, draw);
    more.hidden = all.length <= shown;
    const none = store.jobs.size ? "No job is left by this filter." : "There is no job. `hedge submit job.toml` makes one.";
    text(summary, all.length ? count(all.length, "job") : store.ready ? none : "");
  }

  update();
  const timer = setInterval(update, 1000);
  const end = watch(update);
  return () => (clearInterval(timer), end());
}

/** How long a job has run, or ran. */
export const elapsed = (job) =>
  job.elapsed_ms + (live && ["running", "waiting"].includes(job.state) ? performance.now() - job.seen : 0);
