// The page: which view the address names, and the state of the connection.

import { takeToken } from "./api.js";
import { h, text } from "./dom.js";
import { start, store, watch } from "./store.js";
import { faults } from "./views/faults.js";
import { job } from "./views/job.js";
import { jobs } from "./views/jobs.js";
import { machines } from "./views/machines.js";
import { task } from "./views/task.js";

const main = document.getElementById("main");
const link = document.getElementById("link");
let end = null;

/** Each view fills an element and may give a function that is called when another takes its place. */
const routes = [
  [/^#\/machines$/, machines],
  [/^#\/faults$/, faults],
  [/^#\/jobs$/, jobs],
  [/^#\/job\/(\d+)$/, job],
  [/^#\/job\/(\d+)\/task\/(.+)$/, task],
];

function show() {
  if (store.refused) return;
  end?.();
  end = null;
  main.replaceChildren();
  for (const known of document.querySelectorAll("nav a")) {
    const here = location.hash.startsWith(known.hash) || (known.hash === "#/jobs" && location.hash.startsWith("#/job"));
    here ? known.setAttribute("aria-current", "page") : known.removeAttribute("aria-current");
  }
  for (const [pattern, view] of routes) {
    const found = pattern.exec(location.hash);
    if (found) {
      end = view(main, ...found.slice(1).map(decodeURIComponent));
      return;
    }
  }
  main.append(h("p", {}, "There is no such view. ", h("a", { href: "#/jobs" }, "All jobs")));
}

function showLink() {
  const { open, why, grid, ready, refused } = store;
  if (refused) {
    end?.();
    end = null;
    main.replaceChildren(h("h1", {}, "Nothing can be shown"), h("p", { class: "note bad", role: "alert" }, why));
    link.className = "lost";
    return text(link, "not connected");
  }
  const lost = !open && why;
  link.className = lost || !grid.reachable ? "lost" : ready ? "live" : "";
  text(link, lost ? why : !grid.reachable ? `the grid does not answer: ${grid.why}` : ready ? "live" : "connecting");
}

addEventListener("hashchange", () => {
  show();
  main.focus();
});
takeToken();
if (!location.hash.startsWith("#/")) history.replaceState(null, "", "#/jobs");
watch(showLink);
start();
show();
