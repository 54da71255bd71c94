// One job: how far it is, its graph, its attempts over time, what it costs, and its deadline.

import { get, live } from "../api.js";
import { confirmPost } from "../ask.js";
import { bytes, count, facts, h, list, meter, money, number, percent, s, state, text, time } from "../dom.js";
import { GROUPS_MAX, draw, lastEnds } from "../graph.js";
import { store, watch } from "../store.js";
import { Timeline } from "../timeline.js";
import { elapsed } from "./jobs.js";

/** Between two requests for what the event stream does not bring; of a large job longer, as they cost its leader more. */
const ASK_EVERY_MS = 500;
const ASK_EVERY_MS_PER_TASK = 0.02;
/** After an answer that did not come. */
const AFTER_TROUBLE_MS = 1500;
/** Tasks of a group that are listed. */
const TASKS_SHOWN = 50;

export function job(root, name) {
  const id = Number(name);
  const ended = new AbortController();
  const { signal } = ended;
  const parts = page(root, id);
  const timeline = new Timeline(parts.timeline, hostOf, (attempt) => (location.hash = taskPath(id, attempt.task)));
  const chances = [];
  let groups = [];
  /** When groups ended, of a job that has. */
  let ends = null;
  let chosen = null;
  let view = null;
  let since = 0;

  function showJob() {
    view = store.jobs.get(id) ?? view;
    if (!view) return;
    const open = ["running", "waiting"].includes(view.state);
    document.title = `${view.name}: ${view.state}`;
    text(parts.title, `${view.name}`);
    state(parts.state, view.state);
    parts.cancel.hidden = !(live && open);
    parts.retry.hidden = !(live && view.state === "failed");
    const words = `${view.done} of ${view.tasks} tasks done, ${view.running} running, ${view.failed} failed${view.lost ? `, ${view.lost} lost` : ""}`;
    meter(parts.meter, words, view.tasks, [["done", view.done], ["running", view.running], ["failed", view.failed], ["lost", view.lost]]);
    facts(parts.facts, [
      ["Done", `${number(view.done)} of ${number(view.tasks)}`],
      ["Running", view.running], ["Ready", view.ready], ["Waiting", view.waiting], ["Failed", view.failed],
      ["Lost", view.lost || null], ["Skipped", view.skipped || null], ["Critical", view.critical],
      ["Time", time(elapsed(view))],
      ["Time left", open && view.left_ms != null ? `${time(view.left_ms)} (${time(view.left_low_ms)} to ${time(view.left_high_ms)})` : null],
      ["Attempts", `${number(view.attempts.total)} (${count(view.attempts.redundant, "copy", "copies")})`],
      ["Attempts lost", view.attempts.lost || null],
      ["Results", view.result_bytes ? bytes(view.result_bytes) : null],
    ]);
    const reasons = [...(view.why ? [view.why] : []), ...view.waits];
    list(parts.waits, reasons, (reason) => reason, (reason) => h("li", {}, reason),
      (item, reason) => (item.className = view.state === "failed" && reason === view.why ? "note bad" : "note"));
    showCost();
    showDeadline();
  }

  function showCost() {
    const { useful, redundant, lost, total_micro, billed_micro, currency } = view.cost;
    const split = [["useful", useful.micro], ["redundant", redundant.micro], ["lost", lost.micro]];
    const words = split.map(([part, micro]) => `${part} ${money(micro, currency)}`).join(", ");
    meter(parts.costs, words, total_micro, split);
    facts(parts.cost, [
      ["In all", money(total_micro, currency)],
      ["Useful", money(useful.micro, currency)],
      ["Redundant attempts", money(redundant.micro, currency)],
      ["Failed and lost", money(lost.micro, currency)],
      ["Billed", money(billed_micro, currency)],
      ["Budget", view.budget && `${money(view.budget.spent_micro, currency)} of ${money(view.budget.limit_micro, currency)}`],
    ]);
  }

  function showDeadline() {
    const { deadline } = view;
    parts.deadline.hidden = !deadline;
    if (!deadline) return;
    if (deadline.chance != null) chances.push([view.elapsed_ms, deadline.chance]);
    if (chances.length > 2000) chances.splice(0, 1000);
    const open = ["running", "waiting"].includes(view.state);
    facts(parts.deadlineFacts, [
      ["Finish within", time(deadline.finish_by_ms)],
      ["Time until then", open ? time(Math.max(0, deadline.left_ms)) : null],
      ["Chance", deadline.missed ? "missed" : !open ? "met" : deadline.chance == null ? "not known yet" : percent(deadline.chance)],
      ["Asked for", percent(deadline.confidence)],
      ["At risk", open ? (deadline.at_risk ? "yes" : "no") : null],
    ]);
    const [width, height] = [300, 60];
    const x = (ms) => (width * ms) / deadline.finish_by_ms;
    const points = chances.map(([ms, chance]) => `${x(ms).toFixed(1)},${(height * (1 - chance)).toFixed(1)}`);
    parts.chart.toggleAttribute("hidden", points.length < 2);
    parts.line.setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
    parts.asked.setAttribute("d", `M0,${height * (1 - deadline.confidence)}H${width}`);
  }

  function showGroups() {
    const few = groups.length <= GROUPS_MAX;
    parts.graph.hidden = !few;
    if (few && groups.length) draw(parts.graph, groups, choose, ends);
    const copies = groups.reduce((sum, group) => sum + group.copies, 0);
    text(parts.graphNote, few
      ? `${count(groups.length, "group")}. The strong line is the critical path. ${copies ? `${count(copies, "redundant attempt")} under way.` : ""}`
      : `${count(groups.length, "group")}: too many to draw. \`hedge tasks ${id}\` lists the tasks.`);
  }

  async function choose(group) {
    chosen = chosen?.group === group.group ? null : group;
    parts.tasks.hidden = !chosen;
    if (chosen) await showTasks();
  }

  async function showTasks() {
    const page = await get(`/v1/jobs/${id}/tasks?from=${chosen.first}`, signal);
    if (!chosen) return;
    const until = chosen.first + Math.min(chosen.tasks, TASKS_SHOWN);
    const tasks = page.tasks.filter((task) => task.number < until);
    text(parts.tasksTitle, `Tasks of ${chosen.id}`);
    text(parts.tasksNote, chosen.tasks > TASKS_SHOWN ? `The first ${TASKS_SHOWN} of ${count(chosen.tasks, "task")}.` : "");
    list(parts.rows, tasks, (task) => task.number,
      (task) => h("tr", {}, h("td", { class: "name" }, h("a", { href: taskPath(id, task.task) }, task.task)), h("td", {}, h("span")), h("td", { class: "number" }), h("td", { class: "wide" }), h("td", { class: "wide small" })),
      (row, task) => {
        const [, where, ran, worker, why] = row.children;
        state(where.firstChild, task.state);
        text(ran, time(task.running_ms) ?? "");
        text(worker, task.worker ?? "");
        text(why, task.why);
      });
  }

  /** Asks for what the event stream does not bring: groups and attempts. */
  async function more() {
    const runs = view ? ["running", "waiting"].includes(view.state) : true;
    // Pages that show the same job share what the grid is asked for. After its end nothing would correct an old answer.
    const age = `max_age_ms=${runs ? Math.round(pause() / 2) : 0}`;
    const pages = async (path, take) => {
      for (let from = 0; from != null && !signal.aborted; ) {
        const page = await get(`${path}&from=${from}`, signal);
        take(page);
        from = page.next;
      }
    };
    const found = [];
    await pages(`/v1/jobs/${id}/groups?${age}`, (page) => found.push(...page.groups));
    groups = found;
    showGroups();
    const [first, open] = [since === 0, new Set()];
    let now = null;
    await pages(`/v1/jobs/${id}/attempts?${age}&since_ms=${since}`, (page) => {
      now ??= page.now_ms;
      timeline.add(page.attempts, now, runs && live);
      for (const one of page.attempts) if (one.end_ms == null) open.add(one.attempt);
    });
    timeline.keep(open);
    if (first) timeline.settle();
    ends = runs || groups.length > GROUPS_MAX ? null : lastEnds(groups, timeline.attempts.values());
    if (ends) showGroups();
    // What ended while the pages were asked for comes again with the next.
    since = Math.max(0, Math.floor(now / 1000 - 2) * 1000);
    const unplaced = timeline.unplaced ? ` ${count(timeline.unplaced, "attempt")} ended under an earlier version, and the times are not known.` : "";
    text(parts.timelineNote, `${timeline.words}.${unplaced}`);
    if (chosen) await showTasks();
  }

  const pause = () => Math.max(ASK_EVERY_MS, ASK_EVERY_MS_PER_TASK * (view?.tasks ?? 0));
  let [asking, again, asked] = [false, false, 0];
  async function ask() {
    if (asking) return void (again = true);
    asking = true;
    const wait = asked + pause() - performance.now();
    if (wait > 0) await new Promise((done) => setTimeout(done, wait));
    asked = performance.now();
    try {
      if (!view) store.jobs.set(id, { ...(await get(`/v1/jobs/${id}`, signal)), seen: performance.now() });
      showJob();
      await more();
      text(parts.trouble, "");
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 404 && !view) return void root.replaceChildren(h("h1", {}, `Job ${id}`), h("p", {}, error.message), h("p", {}, h("a", { href: "#/jobs" }, "All jobs")));
      text(parts.trouble, `What follows may be old: ${error.message}.`);
      // Neither a gateway that is back nor a supervisor tells of a job that did not change.
      again = error.status !== 404;
      asked += AFTER_TROUBLE_MS;
    }
    asking = false;
    if (again && !signal.aborted) ask();
    again = false;
  }

  let last;
  const end = watch(() => {
    showJob();
    const now = store.jobs.get(id);
    if (now !== last) {
      last = now;
      ask();
    }
  });
  ask();
  const timer = setInterval(() => {
    showJob();
    if (timeline.runs) timeline.plan();
  }, 250);
  return () => {
    ended.abort();
    clearInterval(timer);
    timeline.end();
    document.title = "Hedgerow";
    end();
  };
}

const taskPath = (id, task) => `#/job/${id}/task/${encodeURIComponent(task)}`;

function hostOf(peer) {
  for (const worker of store.workers.values()) if (worker.peer.startsWith(peer)) return `${worker.host} ${peer.slice(0, 4)}`;
  return peer;
}

/** The elements of the view. */
function page(root, id) {
  const made = {
    title: h("h1", {}, `Job ${id}`), state: h("span"), meter: h("div"), facts: h("dl", { class: "facts" }),
    waits: h("ul", { class: "plain" }), trouble: h("p", { class: "soft", role: "status" }),
    graph: s("svg", { class: "graph", role: "group", "aria-label": "Groups of tasks" }), graphNote: h("p", { class: "soft small" }),
    tasks: h("div", { hidden: true }), tasksTitle: h("h3"), tasksNote: h("p", { class: "soft small" }), rows: h("tbody"),
    timeline: h("div", { class: "timeline", tabindex: 0, "aria-label": "Attempts over time" }), timelineNote: h("p", { class: "soft small", role: "status" }),
    costs: h("div"), cost: h("dl", { class: "facts" }),
    deadline: h("section", { hidden: true }), deadlineFacts: h("dl", { class: "facts" }),
    line: s("path", { class: "path" }), asked: s("path"),
  };
  made.cancel = h("button", { class: "danger", hidden: true, onclick: () => confirmPost(`Cancel job ${id}?`,
    "Its attempts are stopped. What its finished tasks left is dropped, and it cannot be resumed.", "Cancel the job", `/v1/jobs/${id}/cancel`) }, "Cancel");
  made.retry = h("button", { hidden: true, onclick: () => confirmPost(`Retry job ${id}?`,
    "What is not done is tried again; what is done stays.", "Retry the job", `/v1/jobs/${id}/retry`) }, "Retry");
  made.tasks.append(made.tasksTitle, made.tasksNote, h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Tasks" }, h("table", {}, h("thead", {}, h("tr", {},
    h("th", { scope: "col" }, "Task"), h("th", { scope: "col" }, "State"), h("th", { scope: "col", class: "number" }, "Ran for"),
    h("th", { scope: "col", class: "wide" }, "Worker"), h("th", { scope: "col", class: "wide" }, "Why"))), made.rows)));
  made.chart = s("svg", { class: "graph", viewBox: "0 -2 300 64", width: 300, height: 64, role: "img", "aria-label": "Chance to end in time, over time" }, made.asked, made.line);
  made.deadline.append(h("h2", {}, "Deadline"), made.deadlineFacts, made.chart);
  const key = (name, words) => h("span", { class: `state ${name}` }, words);
  root.append(
    h("div", { class: "bar-head" }, made.title, made.state, h("div", { class: "actions" }, made.retry, made.cancel)),
    made.trouble,
    h("section", {}, made.meter, h("br"), made.facts, made.waits),
    h("section", {}, h("h2", {}, "Graph"), made.graphNote, h("div", { class: "scroll" }, made.graph), made.tasks),
    h("section", {}, h("h2", {}, "Attempts over time"), made.timeline, made.timelineNote,
      h("p", { class: "legend" }, key("running", "running"), key("won", "won"), key("failed", "failed or lost"), key("cancelled", "cancelled"), h("span", {}, h("span", { class: "copy" }, "▂"), " below: a copy"))),
    h("section", {}, h("h2", {}, "Cost"), made.costs, h("br"), made.cost),
    made.deadline,
  );
  return made;
}
