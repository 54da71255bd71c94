// Asks before something is done.

import { post } from "./api.js";

const dialog = document.getElementById("ask");
const part = (name) => document.getElementById(`ask-${name}`);

/** Does something after the user has agreed; gives whether it was done. */
export async function confirm(title, text, yes, work) {
  part("title").textContent = title;
  part("text").textContent = text;
  part("yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  if (dialog.returnValue !== "yes") return false;
  try {
    await work();
    return true;
  } catch (error) {
    await tell("It was not done", error.message);
    return false;
  }
}

/** The same for a path that a request is sent to. */
export const confirmPost = (title, text, yes, path) => confirm(title, text, yes, () => post(path));

async function tell(title, text) {
  await confirm(title, text, "Understood", async () => {});
}
