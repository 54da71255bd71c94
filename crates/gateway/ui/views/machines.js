// All machines in one picture, and one of them in words.

import { confirmPost } from "../ask.js";
import { bytes, count, facts, h, list, number, order, state, text } from "../dom.js";
import { store, watch } from "../store.js";

const MARKS = { live: "", late: "!", suspect: "!", dead: "✕", away: "‖", draining: "↓" };
/** With more machines each is a small tile. */
const FEW = 60;

const condition = (worker) => (worker.liveness !== "live" ? worker.liveness : worker.usage === "ready" ? "live" : worker.usage);
const used = (worker) => {
  const { cpus_milli: total } = worker.total;
  return total ? 1 - worker.free.cpus_milli / total : 0;
};
const cpus = (milli) => number(Math.round(milli / 100) / 10);

export function machines(root) {
  let chosen = null;
  const summary = h("p", { class: "soft" });
  const tiles = h("ul", { class: "plain tiles" });
  const legend = h("p", { class: "legend" },
    ...[["live", "live"], ["late", "late or suspected"], ["dead", "dead"], ["away", "its owner is back"], ["draining", "leaves"]]
      .map(([name, words]) => h("span", { class: `state ${name}` }, words)),
    h("span", {}, "filled: CPUs in use"));
  const detail = h("section", { hidden: true, "aria-live": "polite" });
  root.append(
    h("h1", {}, "Machines"),
    h("section", {}, summary, tiles, legend),
    detail,
  );

  const tile = (worker) => h("li", {}, h("button", {
    class: "tile",
    onclick: () => {
      chosen = chosen === worker.peer ? null : worker.peer;
      update();
    },
  }));

  function draw(item, worker, few) {
    const pressed = String(chosen === worker.peer);
    const button = item.firstChild;
    // Of many machines few have changed.
    if (item.shown === worker && button.getAttribute("aria-pressed") === pressed) return;
    item.shown = worker;
    const name = condition(worker);
    button.className = `tile ${name}`;
    button.style.setProperty("--used", `${Math.round(100 * used(worker))}%`);
    button.setAttribute("aria-pressed", pressed);
    const busy = `${cpus(worker.total.cpus_milli - worker.free.cpus_milli)} of ${cpus(worker.total.cpus_milli)} CPUs in use`;
    const label = `${worker.host} ${worker.peer.slice(0, 4)}, ${name}, ${busy}`;
    // A small tile has no words of its own.
    few ? button.removeAttribute("aria-label") : button.setAttribute("aria-label", label);
    button.title = label;
    const parts = few
      ? [["host", "b", `${worker.host} ${worker.peer.slice(0, 4)}`], ["what", "span", `${name}, ${count(worker.in_hand, "attempt")}`], ["cpus", "span", busy]]
      : [["mark", "span", MARKS[name] ?? "?"]];
    list(button, parts, ([key]) => key, ([key, element]) => h(element, { class: key }), (element, [, , words]) => text(element, words));
  }

  function update() {
    const all = [...store.workers.values()].sort((a, b) => order.compare(a.host, b.host) || order.compare(a.peer, b.peer));
    const few = all.length <= FEW;
    tiles.classList.toggle("few", few);
    list(tiles, all, (worker) => `${few}${worker.peer}`, tile, (item, worker) => draw(item, worker, few));
    const counts = new Map();
    let [total, free] = [0, 0];
    for (const worker of all) {
      counts.set(condition(worker), (counts.get(condition(worker)) ?? 0) + 1);
      if (worker.liveness === "live") [total, free] = [total + worker.total.cpus_milli, free + worker.free.cpus_milli];
    }
    const words = [...counts].map(([name, number]) => `${number} ${name}`).join(", ");
    text(summary, all.length
      ? `${count(all.length, "machine")}: ${words}. ${cpus(total - free)} of ${cpus(total)} CPUs are in use.`
      : store.ready ? "No worker is connected. `hedge ticket worker` on a supervisor's machine lets machines join." : "");
    show(store.workers.get(chosen));
  }

  function show(worker) {
    detail.hidden = !worker;
    if (!worker) return;
    if (detail.peer !== worker.peer) {
      detail.peer = worker.peer;
      detail.replaceChildren(
        h("div", { class: "bar-head" }, h("h2", {}, worker.host), state(h("span"), condition(worker)),
          h("div", { class: "actions" }, h("button", { onclick: () => drain(worker) }, "Drain"))),
        h("dl", { class: "facts" }),
      );
    }
    state(detail.querySelector(".state"), condition(worker));
    const { owner, link } = worker;
    facts(detail.querySelector("dl"), [
      ["Id", worker.peer.slice(0, 10)],
      ["CPUs", `${cpus(worker.free.cpus_milli)} of ${cpus(worker.total.cpus_milli)} free`],
      ["Memory", `${bytes(worker.free.memory)} of ${bytes(worker.total.memory)} free`],
      ["Attempts", worker.in_hand],
      ["Won", worker.done],
      ["Failed", worker.failed],
      ["Lost", worker.lost],
      ["Suspected", `${worker.suspicions} times`],
      ["Heartbeat", `every ${worker.heartbeat_interval_ms} ms`],
      ["Admission", worker.admission],
      ["Owner", owner && `${owner.response}: ${owner.why.join(", ")}`],
      ["Link", link && `${(link.up_bits_per_second / 1e6).toFixed(0)} Mbit/s up`],
      ["Score", `${worker.score} (${worker.score_from})`],
    ]);
  }

  const drain = (worker) => confirmPost(
    `Drain ${worker.host}?`,
    "It finishes what it runs, takes no further tasks, and leaves the grid. Start it again to bring it back.",
    "Drain it", `/v1/workers/${worker.peer}/drain`);

  update();
  return watch(update);
}
