// Attempts over time on a canvas: one row for each worker and slot, drawn as far as it is seen.

import { behind, count, order } from "./dom.js";

const [ROW, BAR, HEAD, LEFT] = [18, 12, 22, 92];
/** Height of the box: what its rows need, within these bounds. */
const [LOW, HIGH] = [80, 340];
const COLOURS = { won: "--good", running: "--busy", assigned: "--idle", queued: "--idle", waiting: "--busy", expected: "--idle", failed: "--bad", lost: "--bad", stalled: "--warn", moved: "--warn", cancelled: "--soft", cancelling: "--soft" };

/** A timeline in `box`, whose rows scroll; `name` gives the name of a worker, `choose` gets an attempt that is clicked. */
export class Timeline {
  constructor(box, name, choose) {
    this.name = name;
    /** Bars by the names of their attempts, those of them that run, and for each worker its rows. */
    [this.attempts, this.running, this.workers] = [new Map(), new Map(), new Map()];
    /** The names of workers, and whether one of them is not known yet. */
    [this.names, this.nameless] = [new Map(), false];
    [this.unplaced, this.copies] = [0, 0];
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
    // Finding a colour takes longer than drawing with it.
    this.colours = {};
    this.recolour = () => {
      this.colours = {};
      draw();
    };
    this.scheme.addEventListener("change", this.recolour);
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
    this.scheme.removeEventListener("change", this.recolour);
  }

  /** Takes attempts in; `now` is the time of the job, and a job that `runs` goes on from there. */
  add(attempts, now, runs) {
    // Of a large job few attempts are new. Those have their rows found, in the order in which they began.
    const fresh = attempts.filter((attempt) => {
      const known = this.attempts.get(attempt.attempt);
      return !known || known.state !== attempt.state || known.start_ms !== attempt.start_ms || known.end_ms !== attempt.end_ms;
    });
    fresh.sort((a, b) => a.start_ms - b.start_ms);
    for (const attempt of fresh) this.place(attempt);
    [this.now, this.seen, this.runs] = [now, performance.now(), runs];
    if (fresh.length || !this.words || this.nameless) this.arrange();
    this.plan();
  }

  /** Takes out what runs and is not among these names: it was taken back before it began. */
  keep(names) {
    const gone = [...this.running.values()].filter((bar) => !names.has(bar.attempt));
    for (const bar of gone) this.remove(bar);
    if (gone.length) this.arrange();
  }

  /** Finds all rows anew, in the order in which attempts began: they need fewer so than as they came. */
  settle() {
    for (const [worker, slots] of this.workers) {
      const bars = slots.flatMap((slot) => slot.bars).sort((a, b) => a.start_ms - b.start_ms);
      const fresh = [];
      for (const bar of bars) {
        bar.slot = fresh.find(({ until }) => until <= bar.start_ms + 1);
        if (!bar.slot) fresh.push((bar.slot = { bars: [], until: 0 }));
        bar.slot.bars.push(bar);
        bar.slot.until = bar.end_ms ?? Infinity;
      }
      this.workers.set(worker, fresh);
    }
    this.arrange();
    this.plan();
  }

  /** The time of the job now. */
  clock() {
    return this.runs ? this.now + performance.now() - this.seen : this.now;
  }

  /** Puts an attempt into a row of its worker in which nothing else runs at that time. */
  place(attempt) {
    const known = this.attempts.get(attempt.attempt);
    if (known) this.remove(known);
    const bar = { ...attempt, slot: null };
    this.attempts.set(bar.attempt, bar);
    if (bar.start_ms == null) {
      this.unplaced++;
      return;
    }
    if (bar.end_ms == null) this.running.set(bar.attempt, bar);
    this.copies += bar.redundant ? 1 : 0;
    const slots = this.workers.get(bar.worker) ?? this.workers.set(bar.worker, []).get(bar.worker);
    const end = bar.end_ms ?? Infinity;
    let at = 0;
    bar.slot = slots.find(({ bars }) => {
      at = behind(bars, bar.start_ms, (other) => other.start_ms);
      const [before, after] = [bars[at - 1], bars[at]];
      return (!before || (before.end_ms ?? Infinity) <= bar.start_ms + 1) && (!after || end <= after.start_ms + 1);
    });
    if (!bar.slot) [bar.slot, at] = [slots[slots.push({ bars: [] }) - 1], 0];
    bar.slot.bars.splice(at, 0, bar);
  }

  /** Takes an attempt out again. */
  remove(bar) {
    this.attempts.delete(bar.attempt);
    this.running.delete(bar.attempt);
    if (!bar.slot) return void this.unplaced--;
    this.copies -= bar.redundant ? 1 : 0;
    const { bars } = bar.slot;
    bars.splice(bars.lastIndexOf(bar), 1);
  }

  /** Lists the rows anew, by the names of the workers. */
  arrange() {
    this.nameless = false;
    for (const [worker, slots] of this.workers) {
      // Looking a name up takes long where there are many machines. One that is not known may be told later.
      if ((this.names.get(worker) ?? worker) === worker) this.names.set(worker, this.name(worker));
      this.nameless ||= this.names.get(worker) === worker;
      if (slots.some(({ bars }) => !bars.length)) this.workers.set(worker, slots.filter(({ bars }) => bars.length));
    }
    const workers = [...this.workers].filter(([, slots]) => slots.length);
    workers.sort(([a], [b]) => order.compare(this.names.get(a), this.names.get(b)));
    this.rows = workers.flatMap(([worker, slots]) => slots.map(({ bars }, at) => ({ worker, bars, first: at === 0 })));
    this.box.style.height = `${Math.min(HIGH, Math.max(LOW, HEAD + this.rows.length * ROW + 6))}px`;
    const words = `${count(this.attempts.size - this.unplaced, "attempt")} on ${count(workers.length, "machine")}${this.copies ? `, ${this.copies} of them redundant` : ""}`;
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
    const colour = (name) => (this.colours[name] ??= resolve(box, name));
    const paint = canvas.getContext("2d");
    paint.setTransform(ratio, 0, 0, ratio, 0, 0);
    paint.clearRect(0, 0, width, height);
    const span = this.span();
    const scale = (width - LEFT - 8) / span;
    paint.font = "11px system-ui, sans-serif";
    paint.textBaseline = "middle";
    this.axis(paint, span, scale, width, height, colour);
    // Rows end where the axis begins.
    paint.save();
    paint.beginPath();
    paint.rect(0, HEAD, width, height - HEAD);
    paint.clip();
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
    paint.restore();
  }

  axis(paint, span, scale, width, height, colour) {
    const step = nice(span / Math.max(3, (width - LEFT) / 110));
    paint.fillStyle = colour("--soft");
    for (let at = 0; at <= span; at += step) {
      const x = LEFT + at * scale;
      paint.globalAlpha = 0.25;
      paint.fillRect(x, HEAD - 4, 1, height);
      paint.globalAlpha = 1;
      if (x < width - 40) paint.fillText(label(at, step), x + 3, HEAD / 2);
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
function resolve(box, name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  box.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** A text of so many characters at most. */
const clip = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

/** Distances between marks of the axis that read well, ms. */
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 10e3, 15e3, 30e3, 60e3, 120e3, 300e3, 600e3, 1800e3, 3600e3, 7200e3, 21600e3, 43200e3];
const DAY = 86_400_000;
const nice = (step) => STEPS.find((found) => found >= step) ?? Math.ceil(step / DAY) * DAY;

/** A time on an axis with marks at such a distance. */
function label(ms, step) {
  if (ms && step < 1000) return `${ms} ms`;
  const [seconds, minutes, hours] = [ms / 1000, ms / 60e3, ms / 3600e3];
  if (ms < 60e3) return `${seconds} s`;
  const pad = (value) => String(Math.round(value)).padStart(2, "0");
  if (ms < 3600e3) return step % 60e3 ? `${Math.floor(minutes)}:${pad(seconds % 60)} min` : `${minutes} min`;
  return step % 3600e3 ? `${Math.floor(hours)}:${pad(minutes % 60)} h` : `${hours} h`;
}
