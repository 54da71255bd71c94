// What is known of the grid, from its stream of events.

import { follow } from "./api.js";

export const store = { jobs: new Map(), workers: new Map(), incidents: new Map(), grid: { reachable: true }, open: false, why: null, ready: false, refused: false };

/** As many as the gateway remembers. */
const INCIDENTS_MAX = 1000;
const watchers = new Set();
let planned = false;

/** Calls `watcher` when anything has changed, once a frame at most; gives a function that ends it. */
export function watch(watcher) {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

function changed() {
  if (planned) return;
  planned = true;
  const tell = () => {
    planned = false;
    for (const watcher of watchers) watcher();
  };
  // Hidden pages draw no frames, and need none.
  document.hidden ? setTimeout(tell, 1000) : requestAnimationFrame(tell);
}

const apply = {
  reset() {
    store.fresh = { jobs: new Map(), workers: new Map(), incidents: new Map() };
  },
  ready() {
    if (store.fresh) Object.assign(store, store.fresh);
    store.fresh = null;
    store.ready = true;
  },
  job: (view) => (store.fresh ?? store).jobs.set(view.id, { ...view, seen: performance.now() }),
  job_gone: ({ id }) => (store.fresh ?? store).jobs.delete(id),
  worker: (view) => (store.fresh ?? store).workers.set(view.peer, view),
  worker_gone: ({ peer }) => (store.fresh ?? store).workers.delete(peer),
  grid: (state) => (store.grid = state),
  incident(one) {
    const { incidents } = store.fresh ?? store;
    incidents.set(one.number, one);
    if (incidents.size > INCIDENTS_MAX) incidents.delete(incidents.keys().next().value);
  },
};

/** Follows the grid for as long as the page lives. */
export function start() {
  const told = (name, data) => {
    apply[name]?.(data);
    changed();
  };
  const state = (open, why, refused = false) => {
    Object.assign(store, { open, why, refused });
    changed();
  };
  follow("/v1/events", new AbortController().signal, told, state);
}
