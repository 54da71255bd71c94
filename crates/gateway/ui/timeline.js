// Attempts over time on a canvas: one row for each worker and slot, drawn as far as it is seen.

import { count } from "./dom.js";

const [ROW, BAR, HEAD, LEFT] = [18, 12, 22, 92];
/** Height of the box: what its rows need, within these bounds. */
const [LOW, HIGH] = [80, 340];
const COLOURS = { won: "--good", running: "--busy", assigned: "--idle", queued: "--idle", waiting: "--busy", expected: "--idle", failed: "--bad", lost: "--bad", stalled: "--warn", moved: "--warn", cancelled: "--soft", cancelling: "--soft" };

/** A timeline in `box`, whose rows scroll; `name` gives the name of a worker, `choose` gets an attempt that is clicked. */
export class Timeline {
  constructor(box, name, choose) {
    this.name = name;
    this.attempts = new Map();
    this.rows = [];
    this.now = 0;
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.filler = document.createElement("div");
    box.append(this.canvas, this.filler);
    this.box = box;
    const draw = () => this.plan();
    box.addEventListener("scroll", draw, { passive: true });
    this.sizes = new ResizeObserver(draw);
    this.sizes.observe(box);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", draw);
    this.draw = draw;
    this.canvas.addEventListener("click", (event) => {
      const found = this.at(event.offsetX, event.offsetY);
      if (found) choose(found);
    });
    this.canvas.addEventListener("mousemove", (event) => {
      const found = this.at(event.offsetX, event.offsetY);
      this.canvas.title = found ? `${found.task}, ${found.redundant ? "copy, " : ""}${found.state}, ${this.name(found.worker)}` : "";
      this.canvas.style.cursor = found ? "pointer" : "";
    });
  }

  end() {
    this.sizes.disconnect();
    this.scheme.removeEventListener("change", this.draw);
  }

  /** Takes attempts in; `now` is the time of the job, and a job that `runs` goes on from there. */
  add(attempts, now, runs) {
    const there = new Set(attempts.map((attempt) => attempt.attempt));
    let changed = !this.words;
    // What ran and is not told of any more was taken back before it began.
    for (const [name, known] of this.attempts) {
      if (known.end_ms == null && known.start_ms != null && !there.has(name)) changed = this.attempts.delete(name);
    }
    for (const attempt of attempts) {
      const known = this.attempts.get(attempt.attempt);
      changed ||= !known || known.state !== attempt.state || known.start_ms !== attempt.start_ms || known.end_ms !== attempt.end_ms;
      this.attempts.set(attempt.attempt, attempt);
    }
    [this.now, this.seen, this.runs] = [now, performance.now(), runs];
    // Of a large job this takes longer than a frame.
    if (changed) this.arrange();
    this.plan();
  }

  /** The time of the job now. */
  clock() {
    return this.runs ? this.now + performance.now() - this.seen : this.now;
  }

  /** Gives each attempt a row of its worker in which nothing else runs at that time. */
  arrange() {
    const placed = [...this.attempts.values()].filter((attempt) => attempt.start_ms != null);
    placed.sort((a, b) => a.start_ms - b.start_ms);
    const workers = new Map();
    for (const attempt of placed) {
      const slots = workers.get(attempt.worker) ?? workers.set(attempt.worker, []).get(attempt.worker);
      let slot = slots.find((slot) => slot.until <= attempt.start_ms + 1);
      if (!slot) slots.push((slot = { bars: [], until: 0 }));
      slot.bars.push(attempt);
      slot.until = attempt.end_ms ?? Infinity;
    }
    // Looking a name up takes long where there are many machines.
    this.names = new Map([...workers.keys()].map((worker) => [worker, this.name(worker)]));
    const names = [...workers.keys()].sort((a, b) => this.names.get(a).localeCompare(this.names.get(b)));
    this.rows = names.flatMap((worker) => workers.get(worker).map((slot, at) => ({ worker, bars: slot.bars, first: at === 0 })));
    this.box.style.height = `${Math.min(HIGH, Math.max(LOW, HEAD + this.rows.length * ROW + 6))}px`;
    this.unplaced = this.attempts.size - placed.length;
    const copies = placed.filter((attempt) => attempt.redundant).length;
    const words = `${count(placed.length, "attempt")} on ${count(names.length, "machine")}${copies ? `, ${copies} of them redundant` : ""}`;
    this.canvas.setAttribute("aria-label", words);
    this.words = words;
  }

  plan() {
    if (this.planned) return;
    this.planned = true;
    requestAnimationFrame(() => {
      this.planned = false;
      this.paint();
    });
  }

  span() {
    const ends = this.runs ? this.clock() : Math.max(1, this.now);
    return Math.max(1, ends);
  }

  paint() {
    const { box, canvas, rows } = this;
    const [width, height] = [box.clientWidth, box.clientHeight];
    if (!width) return;
    const ratio = devicePixelRatio;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
      canvas.style.height = `${height}px`;
    }
    this.filler.style.height = `${Math.max(0, HEAD + rows.length * ROW - height)}px`;
    const style = getComputedStyle(box);
    const colours = {};
    const colour = (name) => (colours[name] ??= resolve(style, box, name));
    const paint = canvas.getContext("2d");
    paint.setTransform(ratio, 0, 0, ratio, 0, 0);
    paint.clearRect(0, 0, width, height);
    const span = this.span();
    const scale = (width - LEFT - 8) / span;
    paint.font = "11px system-ui, sans-serif";
    paint.textBaseline = "middle";
    this.axis(paint, span, scale, width, height, colour);
    const from = Math.max(0, Math.floor(box.scrollTop / ROW));
    const to = Math.min(rows.length, Math.ceil((box.scrollTop + height - HEAD) / ROW));
    for (let at = from; at < to; at++) {
      const y = HEAD + at * ROW - box.scrollTop;
      const row = rows[at];
      if (row.first || at === from) {
        paint.fillStyle = colour("--text");
        paint.fillText(clip(this.names.get(row.worker), 14), 6, y + ROW / 2);
      }
      let drawn = -1;
      for (const bar of row.bars) {
        const x = LEFT + bar.start_ms * scale;
        const end = LEFT + Math.min(span, bar.end_ms ?? span) * scale;
        // What ends within a pixel that is drawn already would not be seen.
        if (end < drawn) continue;
        const wide = Math.max(1, end - x);
        drawn = x + wide;
        paint.fillStyle = colour(COLOURS[bar.state] ?? "--soft");
        const [top, tall] = [y + (ROW - BAR) / 2, BAR];
        paint.fillRect(x, top, wide, tall);
        if (bar.redundant) {
          paint.fillStyle = colour("--copy");
          paint.fillRect(x, top + tall - 4, wide, 4);
        }
      }
    }
    paint.fillStyle = colour("--panel");
    paint.fillRect(0, 0, LEFT, HEAD);
  }

  axis(paint, span, scale, width, height, colour) {
    const step = nice(span / Math.max(2, (width - LEFT) / 110));
    paint.fillStyle = colour("--soft");
    for (let at = 0; at <= span; at += step) {
      const x = LEFT + at * scale;
      paint.globalAlpha = 0.25;
      paint.fillRect(x, HEAD - 4, 1, height);
      paint.globalAlpha = 1;
      paint.fillText(label(at, step), x + 3, HEAD / 2);
    }
  }

  /** The attempt at a position of the canvas. */
  at(x, y) {
    const row = this.rows[Math.floor((y - HEAD + this.box.scrollTop) / ROW)];
    if (!row || y < HEAD || x < LEFT) return null;
    const span = this.span();
    const scale = (this.box.clientWidth - LEFT - 8) / span;
    const reach = 3 / scale;
    const time = (x - LEFT) / scale;
    return row.bars.find((bar) => bar.start_ms - reach <= time && time <= (bar.end_ms ?? span) + reach) ?? null;
  }
}

/** A custom property's colour for a canvas, which knows no light-dark(). */
function resolve(style, box, name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  box.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** A text of so many characters at most. */
const clip = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

function nice(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return [1, 2, 5, 10].map((factor) => factor * power).find((found) => found >= step);
}

const label = (ms, step) => (step < 1000 ? `${+ms.toFixed(1)} ms` : ms < 60_000 || step < 10_000 ? `${+(ms / 1000).toFixed(1)} s` : `${+(ms / 60_000).toFixed(1)} min`);
