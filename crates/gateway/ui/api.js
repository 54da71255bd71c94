// Requests to the gateway, and its streams of events.

const KEY = "hedge-token";

/** The page shows how things are, and what is done there has effect. */
export const live = true;

/** Takes the token out of the address, where it would be seen and copied. It stays for this tab alone. */
export function takeToken() {
  const given = /^#token=([\w-]+)/.exec(location.hash);
  if (!given) return;
  sessionStorage.setItem(KEY, given[1]);
  history.replaceState(null, "", "#/jobs");
}

/** What a user can do about a token that is not valid. */
const STALE = "this page is not allowed in: its address was good for as long as the `hedge ui` that printed it ran. Run `hedge ui` again, and open the address that it prints";

const headers = (more = {}) => ({ authorization: `Bearer ${sessionStorage.getItem(KEY) ?? ""}`, ...more });

/** Why a request was not done. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const asked = fetch(path, { ...options, headers: headers(options.headers), cache: "no-store" });
  const response = await asked.catch((error) => {
    throw options.signal?.aborted ? error : new Problem(0, "the gateway does not answer");
  });
  if (response.ok) return response;
  if (response.status === 401) throw new Problem(401, STALE);
  const problem = await response.json().catch(() => ({ detail: response.statusText }));
  throw new Problem(response.status, problem.detail);
}

export const get = async (path, signal) => (await ask(path, { signal })).json();
export const post = (path) => ask(path, { method: "POST" });

const sleep = (ms, signal) => new Promise((done) => {
  const timer = setTimeout(done, ms);
  signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
});

/**
 * Follows a stream until `signal` says no more. Goes on behind the last event after a loss of the connection. `told` gets
 * each event, and `state` whether the stream is open.
 */
export async function follow(path, signal, told, state = () => {}, ends = false) {
  let last;
  let pause = 250;
  while (!signal.aborted) {
    try {
      const response = await ask(path, { signal, headers: last ? { "last-event-id": last } : {} });
      state(true);
      pause = 250;
      for await (const event of events(response.body)) {
        if (event.id) last = event.id;
        told(event.name, event.data);
      }
      if (ends) return;
      state(false, "the gateway closed the stream; trying again");
    } catch (error) {
      if (signal.aborted) return;
      const final = error instanceof Problem && [401, 403, 404].includes(error.status);
      const why = error instanceof Problem ? error.message : "the gateway does not answer";
      state(false, final ? why : `${why}; trying again`, final);
      if (final) return;
    }
    await sleep(pause, signal);
    pause = Math.min(pause * 2, 4000);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    waiting += value;
    const blocks = waiting.split("\n\n");
    waiting = blocks.pop();
    for (const block of blocks) {
      const event = { name: "", data: null };
      for (const line of block.split("\n")) {
        const at = line.indexOf(": ");
        const [name, rest] = [line.slice(0, at), line.slice(at + 2)];
        if (name === "event") event.name = rest;
        else if (name === "id") event.id = rest;
        else if (name === "data") event.data = JSON.parse(rest);
      }
      if (event.name) yield event;
    }
  }
}
