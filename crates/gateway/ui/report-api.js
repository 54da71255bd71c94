// Stands in a report in the place of requests to the gateway: answers come from the file itself.

const data = JSON.parse(document.getElementById("data").textContent);

/** A report shows how things were when it was written. */
export const live = false;

export class Problem extends Error {}

const number = ({ attempt }) => Number(/\.(\d+)\//.exec(attempt)?.[1]);

/** A page of tasks, from what is known of their attempts. */
function tasks(from) {
  const until = from + 1000;
  const failed = new Map(data.failed.map((task) => [task.number, task]));
  const found = new Map();
  for (const attempt of data.attempts) {
    const at = number(attempt);
    if (at < from || at >= until || found.get(at)?.state === "done") continue;
    const state = { won: "done" }[attempt.state] ?? (attempt.end_ms == null ? "running" : "waiting");
    const ran = attempt.start_ms == null ? null : (attempt.end_ms ?? data.now_ms) - attempt.start_ms;
    found.set(at, failed.get(at) ?? { task: attempt.task, number: at, state, running_ms: ran, worker: attempt.worker, why: "" });
  }
  return { tasks: [...found.values()].sort((a, b) => a.number - b.number) };
}

export async function get(path) {
  const [, what, query] = /\/v1\/jobs\/\d+\/(\w+)(.*)$/.exec(path) ?? [];
  switch (what) {
    case "groups": return { groups: data.groups, next: null };
    case "attempts": return { attempts: data.attempts, next: null, now_ms: data.now_ms };
    case "tasks": return tasks(Number(/from=(\d+)/.exec(query)?.[1] ?? 0));
    default: return data.job;
  }
}

export async function post() {
  throw new Problem("a report cannot change anything");
}

export async function follow(path, signal, told, state) {
  state(true);
  told("reset");
  for (const worker of data.workers) told("worker", worker);
  told("job", data.job);
  told("ready");
}

export const takeToken = () => {};
