// A job's groups as a graph: from left to right, what waits for what. The critical path is drawn strongest.

import { behind, list, number, s, text } from "./dom.js";

const [WIDTH, HEIGHT, GAP_X, GAP_Y, EDGE] = [170, 62, 56, 16, 8];
/** More groups than this are listed as a table would be; a drawing of them says nothing. */
export const GROUPS_MAX = 400;

/** The groups on the path that decides when the job ends; the one that decided it, where `ends` tells when groups ended. */
export function criticalPath(groups, ends) {
  if (ends?.size) return waitedFor(groups, ends);
  const open = groups.filter((group) => group.done < group.tasks);
  const level = (group) => group.tail_s + group.expected_s;
  const among = open.length ? open : groups;
  let at = among.reduce((best, group) => (!best || level(group) > level(best) ? group : best), null);
  const path = new Set();
  const followers = new Map(groups.map((group) => [group.group, []]));
  for (const group of groups) for (const before of group.waits_for) followers.get(before)?.push(group);
  while (at && !path.has(at.group)) {
    path.add(at.group);
    at = followers.get(at.group).reduce((best, next) => (!best || level(next) > level(best) ? next : best), null);
  }
  return path;
}

/** The group that ended last, and back from there each one that the next waited for the longest. */
function waitedFor(groups, ends) {
  const last = (among) => among.reduce((best, at) => (ends.has(at) && (best == null || ends.get(at) >= ends.get(best)) ? at : best), null);
  const known = new Map(groups.map((group) => [group.group, group]));
  const path = new Set();
  for (let at = last([...known.keys()]); at != null && !path.has(at); at = last(known.get(at).waits_for)) path.add(at);
  return path;
}

/** When the last task of each group was done or failed, by what is known of attempts. */
export function lastEnds(groups, attempts) {
  const ends = new Map();
  const ordered = groups.toSorted((a, b) => a.first - b.first);
  for (const { attempt, state, end_ms: end } of attempts) {
    if (end == null || !["won", "failed"].includes(state)) continue;
    const number = Number(/\.(\d+)\//.exec(attempt)?.[1]);
    const group = ordered[behind(ordered, number, ({ first }) => first) - 1];
    if (group && (state === "won" || group.failed)) ends.set(group.group, Math.max(end, ends.get(group.group) ?? 0));
  }
  return ends;
}

/** Where each group lies: its column is the longest chain in front of it. */
function layout(groups) {
  const known = new Map(groups.map((group) => [group.group, group]));
  const depth = new Map();
  // Groups stand behind those that they wait for, except where a job file has them in another order.
  for (let changed = true, rounds = 0; changed && rounds < groups.length; rounds++) {
    changed = false;
    for (const group of groups) {
      const before = group.waits_for.filter((other) => known.has(other)).map((other) => (depth.get(other) ?? 0) + 1);
      const found = Math.max(0, ...before);
      if (depth.get(group.group) !== found) {
        depth.set(group.group, found);
        changed = true;
      }
    }
  }
  // What waits for nothing stands right before the first that waits for it, so that edges are short.
  for (const group of groups) {
    if (depth.get(group.group)) continue;
    const followers = groups.filter((other) => other.waits_for.includes(group.group));
    if (followers.length) depth.set(group.group, Math.min(...followers.map((other) => depth.get(other.group))) - 1);
  }
  const columns = [];
  for (const group of groups) (columns[depth.get(group.group)] ??= []).push(group);
  const place = new Map();
  columns.forEach((column, x) => {
    // Each near the middle of what it waits for, so that few edges cross.
    const middle = (group) => {
      const rows = group.waits_for.map((other) => place.get(other)?.row ?? 0);
      return rows.length ? rows.reduce((sum, row) => sum + row, 0) / rows.length : group.group;
    };
    column.sort((a, b) => middle(a) - middle(b) || a.group - b.group);
    column.forEach((group, row) => place.set(group.group, { row, x: EDGE + x * (WIDTH + GAP_X), y: EDGE + row * (HEIGHT + GAP_Y) }));
  });
  return { place, width: columns.length * (WIDTH + GAP_X) - GAP_X + 2 * EDGE, height: Math.max(...columns.map((column) => column.length)) * (HEIGHT + GAP_Y) - GAP_Y + 2 * EDGE };
}

/** Draws the groups into an SVG element; `choose` is called with a group that is clicked. `ends` as for the path. */
export function draw(svg, groups, choose, ends) {
  const shape = groups.map((group) => `${group.group}:${group.waits_for}`).join(";");
  if (svg.shape !== shape) {
    svg.shape = shape;
    svg.laid = layout(groups);
    svg.replaceChildren(s("g", { class: "edges" }), s("g", { class: "nodes" }));
    svg.setAttribute("width", svg.laid.width);
    svg.setAttribute("height", svg.laid.height);
    svg.setAttribute("viewBox", `0 0 ${svg.laid.width} ${svg.laid.height}`);
  }
  const { place } = svg.laid;
  const path = criticalPath(groups, ends);
  const first = Math.min(...[...path].map((group) => place.get(group)?.x ?? 0));
  if (svg.first !== first) {
    svg.first = first;
    // On a narrow screen the path may begin out of sight.
    svg.parentElement.scrollLeft = first - GAP_X;
  }
  const edges = groups.flatMap((group) => group.waits_for.filter((other) => place.has(other)).map((other) => [other, group.group]));
  list(svg.firstChild, edges, (edge) => edge.join(">"), ([from, to]) => {
    const [a, b] = [place.get(from), place.get(to)];
    const [x, y, u, v] = [a.x + WIDTH, a.y + HEIGHT / 2, b.x, b.y + HEIGHT / 2];
    return s("path", { d: `M${x} ${y}C${x + GAP_X / 2} ${y} ${u - GAP_X / 2} ${v} ${u} ${v}` });
  }, (element, [from, to]) => element.setAttribute("class", path.has(from) && path.has(to) ? "path" : ""));
  list(svg.lastChild, groups, (group) => group.group, (group) => node(place.get(group.group), group, choose), (element, group) => update(element, group, path.has(group.group)));
}

function node({ x, y }, group, choose) {
  const name = group.id.length > 20 ? `${group.id.slice(0, 19)}…` : group.id;
  const press = (event) => ["Enter", " "].includes(event.key) && (event.preventDefault(), choose(group));
  return s("g", { class: "node", transform: `translate(${x} ${y})`, tabindex: 0, role: "button", onclick: () => choose(group), onkeydown: press },
    s("rect", { class: "box", width: WIDTH, height: HEIGHT, rx: 6 }),
    // The spaces part the texts for those who hear them.
    s("text", { x: 10, y: 20, "font-weight": 600 }, name), " ",
    s("text", { class: "soft", x: 10, y: 38 }), " ",
    s("text", { class: "copies", x: WIDTH - 10, y: 38, "text-anchor": "end" }),
    s("rect", { class: "back", x: 10, y: 46, width: WIDTH - 20, height: 7, rx: 3 }),
    s("rect", { class: "fill", x: 10, y: 46, height: 7 }),
    s("rect", { class: "run", y: 46, height: 7 }),
    s("rect", { class: "fail", y: 46, height: 7 }));
}

function update(element, group, critical) {
  element.setAttribute("class", critical ? "node path" : "node");
  const [, , counts, copies, , fill, run, fail] = element.children;
  text(counts, `${number(group.done)} of ${number(group.tasks)}`);
  text(copies, group.copies ? `+${group.copies} ${group.copies === 1 ? "copy" : "copies"}` : "");
  const share = (part) => ((WIDTH - 20) * part) / Math.max(1, group.tasks);
  let x = 10;
  for (const [bar, part] of [[fill, group.done], [run, group.running], [fail, group.failed]]) {
    bar.setAttribute("x", x);
    bar.setAttribute("width", share(part));
    x += share(part);
  }
  // It begins with what is seen, so that those who speak to their computer can name it.
  const [shown, many] = [element.querySelector("text").textContent, copies.textContent];
  const words = [`${shown} ${counts.textContent}${many ? ` ${many}` : ""}`, `${group.running} running`];
  if (shown !== group.id) words.push(group.id);
  if (group.failed) words.push(`${group.failed} failed`);
  if (group.critical) words.push(`${group.critical} critical`);
  if (critical) words.push("on the critical path");
  element.setAttribute("aria-label", words.join(", "));
}
