// Faults, owners and leaders over time, as the gateway saw them.

import { h, list, s, text, time, count } from "../dom.js";
import { store, watch } from "../store.js";

/** Rows of the table before the user asks for more. */
const STEP = 50;
/** How each kind is shown: its words, the lane of the drawing that it is in, and its colour. */
const KINDS = {
  watch_begins: ["this gateway begins to look", null],
  watch_pauses: ["nobody follows: this gateway looks no longer", null],
  joined: ["joined", "Came and went", "good"],
  left: ["left", "Came and went", "soft"],
  suspected: ["suspected: heartbeats are missing", "Suspected", "warn"],
  briefly_suspected: ["suspected for a moment", "Suspected", "warn"],
  dead: ["declared dead", "Dead", "bad"],
  recovered: ["heard again", "Suspected", "good"],
  owner_back: ["its owner is back", "Owners", "busy"],
  owner_left: ["its owner is away again", "Owners", "soft"],
  vacates: ["vacates: what runs there is given up", "Vacates", "warn"],
  excluded: ["excluded for a while", "Excluded", "bad"],
  admitted: ["admitted again", "Excluded", "good"],
  unreachable: ["no supervisor answers", "Leaders", "bad"],
  reachable: ["a supervisor answers again", "Leaders", "good"],
  leader: ["another supervisor leads", "Leaders", "busy"],
};
const LANES = ["Leaders", "Suspected", "Dead", "Owners", "Vacates", "Excluded", "Came and went"];
const [LEFT, ROW, HEAD] = [104, 24, 20];

const times = new Intl.DateTimeFormat("en", { hour12: false, timeStyle: "medium" });
const days = new Intl.DateTimeFormat("en", { hour12: false, dateStyle: "medium", timeStyle: "medium" });
const clock = (ms) => times.format(ms);
const day = (ms) => days.format(ms);

export function faults(root) {
  let shown = STEP;
  const summary = h("p", { class: "soft", role: "status" });
  const chart = s("svg", { class: "lanes", role: "img", "aria-label": "Incidents over time" });
  const lanes = h("select", { onchange: update }, ...["all", ...LANES].map((name) => h("option", {}, name)));
  const hosts = h("input", { type: "search", oninput: update, size: 16 });
  const body = h("tbody");
  const more = h("button", { onclick: () => ((shown += STEP), update()) }, "Show more");
  root.append(
    h("h1", {}, "Faults and owners"),
    h("section", {}, summary, chart),
    h("section", {},
      h("form", { class: "filter", onsubmit: (event) => event.preventDefault() },
        h("label", {}, "Kind", lanes), h("label", {}, "Machine contains", hosts)),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Incidents" }, h("table", {},
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Time"), h("th", { scope: "col" }, "Machine"), h("th", { scope: "col" }, "What"),
          h("th", { scope: "col", class: "number wide" }, "Lasted"))), body)),
      more),
  );

  const machine = (one) => one.host ? `${one.host} ${one.peer?.slice(0, 4) ?? ""}` : (one.kind === "leader" ? `supervisor ${one.peer.slice(0, 10)}` : "");
  const words = (one) => [KINDS[one.kind]?.[0] ?? one.kind, ...one.why].join(": ");

  function update() {
    const all = [...store.incidents.values()];
    const since = all.length ? all[0].at_unix_ms : Date.now();
    const tally = new Map();
    for (const { kind } of all) tally.set(kind, (tally.get(kind) ?? 0) + 1);
    const suspected = (tally.get("suspected") ?? 0) + (tally.get("briefly_suspected") ?? 0);
    const paused = tally.get("watch_pauses") ?? 0;
    text(summary, store.ready
      ? `Since ${day(since)}: ${count(suspected, "suspicion")}, ${count(tally.get("dead") ?? 0, "death")}, ${count(tally.get("owner_back") ?? 0, "owner")} back, ` +
        `${count(tally.get("vacates") ?? 0, "vacate")}, ${count(tally.get("leader") ?? 0, "change")} of leader. This is what this gateway saw; ` +
        (paused ? `it did not look for ${count(paused, "time")}, while nobody followed.` : "what happened before is not known.")
      : "");
    drawLanes(all, since);
    const [lane, host] = [lanes.value, hosts.value];
    const fits = (one) => (lane === "all" || KINDS[one.kind]?.[1] === lane) && machine(one).includes(host);
    const found = all.filter(fits).reverse();
    list(body, found.slice(0, shown), (one) => one.number,
      () => h("tr", {}, h("td", { class: "when" }), h("td", { class: "name" }), h("td"), h("td", { class: "number wide" })),
      (row, one) => {
        const [when, where, what, lasted] = row.children;
        text(when, clock(one.at_unix_ms));
        when.title = day(one.at_unix_ms);
        text(where, machine(one));
        text(what, words(one));
        text(lasted, time(one.lasted_ms) ?? "");
      });
    more.hidden = found.length <= shown;
  }

  function drawLanes(all, since) {
    const width = Math.max(280, chart.parentElement.clientWidth - 34);
    const height = HEAD + LANES.length * ROW;
    const until = Math.max(Date.now(), since + 60_000);
    const x = (ms) => LEFT + ((width - LEFT - 8) * (ms - since)) / (until - since);
    chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
    chart.setAttribute("width", width);
    chart.setAttribute("height", height);
    const ticks = Array.from({ length: Math.max(2, Math.floor((width - LEFT) / 130)) }, (_, at) => at);
    const parts = ticks.map((at) => {
      const when = since + ((until - since) * at) / ticks.length;
      return s("g", {}, s("path", { d: `M${x(when)} ${HEAD - 4}V${height}` }), s("text", { class: "soft", x: x(when) + 3, y: 13 }, clock(when)));
    });
    for (const [at, lane] of LANES.entries()) parts.push(s("text", { x: 0, y: HEAD + at * ROW + 16 }, lane));
    for (const one of all) {
      const [words, lane, colour] = KINDS[one.kind] ?? [];
      if (!lane) {
        // What happened in a pause is not known.
        if (one.kind === "watch_pauses") {
          const next = all.find((other) => other.number > one.number && other.kind === "watch_begins");
          const end = x(next?.at_unix_ms ?? until);
          parts.push(s("rect", { class: "gap", x: x(one.at_unix_ms), y: HEAD, width: Math.max(1, end - x(one.at_unix_ms)), height: height - HEAD }));
        }
        continue;
      }
      const y = HEAD + LANES.indexOf(lane) * ROW;
      parts.push(s("rect", { class: `mark ${colour}`, x: x(one.at_unix_ms) - 2, y: y + 4, width: 4, height: ROW - 8, rx: 1 }, s("title", {}, `${clock(one.at_unix_ms)} ${machine(one)} ${words}`)));
    }
    chart.replaceChildren(...parts);
    chart.setAttribute("aria-label", `${count(all.length, "incident")} since ${day(since)}; the table below lists them`);
  }

  update();
  const timer = setInterval(update, 1000);
  const sizes = new ResizeObserver(update);
  sizes.observe(root);
  const end = watch(update);
  return () => (clearInterval(timer), sizes.disconnect(), end());
}
