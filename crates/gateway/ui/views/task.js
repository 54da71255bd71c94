// One task: what it prints, its attempts, and why it is where it is.

import { follow, get } from "../api.js";
import { bytes, facts, h, list, state, text, time } from "../dom.js";
import { store, watch } from "../store.js";

/** Text that is kept of the end of a log, characters. */
const KEPT = 1_000_000;

export function task(root, job, name) {
  const ended = new AbortController();
  const where = h("span");
  const why = h("p");
  const figures = h("dl", { class: "facts" });
  const rows = h("tbody");
  const log = h("pre", { class: "log", tabindex: 0, role: "log", "aria-label": `What ${name} prints` });
  const note = h("p", { class: "soft small", role: "status" });
  root.append(
    h("p", {}, h("a", { href: `#/job/${job}` }, `Job ${job}`)),
    h("div", { class: "bar-head" }, h("h1", {}, name), where),
    h("section", {}, why, figures),
    h("section", {}, h("h2", {}, "Output"), log, note),
    h("section", {}, h("h2", {}, "Attempts"), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Attempts" }, h("table", {},
      h("thead", {}, h("tr", {}, ...["Attempt", "State", "Worker", "Ran for", "Why"].map((title) => h("th", { scope: "col", class: title === "Worker" ? "wide" : null }, title)))), rows))),
  );

  let asking = false;
  let again = false;
  async function update() {
    if (asking) return void (again = true);
    asking = true;
    try {
      const { tasks: [view] } = await get(`/v1/jobs/${job}/tasks/${encodeURIComponent(name)}`, ended.signal);
      draw(view);
    } catch (error) {
      if (!ended.signal.aborted) text(why, error.message);
    }
    asking = false;
    if (again && !ended.signal.aborted) setTimeout(update, 250);
    again = false;
  }

  function draw(view) {
    state(where, view.state);
    text(why, view.why);
    facts(figures, [
      ["Task", `number ${view.number}`],
      ["Critical", view.critical ? "yes: it gets copies" : "no"],
      ["Attempts", view.attempts.length],
      ["Failures", view.failures],
      ["Generation", view.generation || null],
      ...Object.entries(view.parameters).map(([name, value]) => [`\${${name}}`, value]),
      ["Memory of the next attempt", view.memory_raised ? bytes(view.memory_raised) : null],
      ["Outputs", view.outputs.length ? view.outputs.slice(0, 5).join(", ") + (view.outputs.length > 5 ? " …" : "") : null],
    ]);
    list(rows, view.attempts, (one) => one.attempt,
      () => h("tr", {}, h("td", { class: "name" }), h("td", {}, h("span")), h("td", { class: "name wide" }), h("td", { class: "number" }), h("td", { class: "name" })),
      (row, one) => {
        const [id, where, worker, ran, reason] = row.children;
        text(id, `${one.attempt}${one.kind === "redundant" ? " (copy)" : ""}`);
        state(where.firstChild, one.state);
        text(worker, one.worker);
        text(ran, time(one.running_ms) ?? "");
        text(reason, one.why);
      });
  }

  let attempt = null;
  let length = 0;
  function print(kind, words) {
    if (!words) return;
    const bottom = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
    log.append(h("span", { class: kind }, words));
    for (length += words.length; length > KEPT && log.childElementCount > 1; ) {
      length -= log.firstChild.textContent.length;
      log.firstChild.remove();
    }
    if (bottom) log.scrollTop = log.scrollHeight;
  }

  const told = {
    output(part) {
      if (attempt && part.attempt !== attempt) print("mark", `\nattempt ${part.attempt} begins\n`);
      attempt = part.attempt;
      const missing = part.stdout_missing_bytes + part.stderr_missing_bytes;
      if (missing) print("mark", `\n${missing} bytes were not kept\n`);
      print("out", part.stdout);
      print("err", part.stderr);
      text(note, "");
    },
    end: (part) => text(note, `${part.end}${part.last ? "" : "; another attempt follows"}`),
    waits: ({ why }) => text(note, why),
    problem: ({ detail }) => text(note, detail),
  };
  follow(`/v1/jobs/${job}/tasks/${encodeURIComponent(name)}/log/events`, ended.signal,
    (event, data) => told[event]?.(data), (open, why) => !open && why && text(note, why), true);

  let last;
  const end = watch(() => {
    const view = store.jobs.get(Number(job));
    if (view !== last) {
      last = view;
      update();
    }
  });
  update();
  const timer = setInterval(() => ["running", "waiting"].includes(last?.state) && update(), 1000);
  return () => (ended.abort(), clearInterval(timer), end());
}
