// Elements, lists of them, and words for figures.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children. Text is never taken for markup. */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same in SVG. */
export function s(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Sets text where it is another one, so that a selection stays. */
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

/** Makes the children of `parent` those of `items`: elements stay with their keys, so that focus does too. */
export function list(parent, items, key, create, update) {
  const known = (parent.known ??= new Map());
  const keys = new Set();
  let next = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    keys.add(name);
    let element = known.get(name);
    if (!element) known.set(name, (element = create(item)));
    update(element, item);
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
  for (const [name, element] of known) {
    if (!keys.has(name)) {
      element.remove();
      known.delete(name);
    }
  }
}

/** The order of names. */
export const order = new Intl.Collator("en", { numeric: true });

/** The position in `items`, which are in the order of `by`, behind those that are not above `value`. */
export function behind(items, value, by) {
  let [from, to] = [0, items.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (by(items[middle]) <= value) from = middle + 1;
    else to = middle;
  }
  return from;
}

/** Terms with their values. */
export function facts(parent, pairs) {
  const shown = pairs.filter(([, value]) => value != null && value !== "");
  list(parent, shown, ([name]) => name,
    ([name]) => h("div", {}, h("dt", {}, name), h("dd")),
    (element, [, value]) => text(element.lastChild, String(value)));
}

/** A bar of parts: names of classes with their shares of `whole`. */
export function meter(element, label, whole, parts) {
  element.className = "meter";
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", label);
  list(element, parts, ([name]) => name, ([name]) => h("i", { class: name }), (part, [, amount]) => {
    part.style.width = `${whole > 0 ? (100 * amount) / whole : 0}%`;
  });
}

/** A state as a mark and a word. */
export function state(element, name) {
  element.className = `state ${name}`;
  text(element, name);
  return element;
}

export function time(ms) {
  if (ms == null) return null;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const pad = (number) => String(Math.floor(number)).padStart(2, "0");
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${pad(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${pad((seconds % 3600) / 60)} min`;
}

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  for (; count >= 1024 && at < units.length - 1; at++) count /= 1024;
  return `${at ? count.toFixed(1) : count} ${units[at]}`;
}

export const money = (micro, currency) => `${(micro / 1e6).toFixed(micro < 1e4 ? 6 : 2)} ${currency}`;
export const percent = (share) => `${Math.round(100 * share)} %`;
// Making a format takes longer than using it.
const grouped = new Intl.NumberFormat("en");
export const number = (value) => grouped.format(value);
export const count = (value, noun, nouns = `${noun}s`) => `${number(value)} ${value === 1 ? noun : nouns}`;
