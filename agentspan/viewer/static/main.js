// The entry point: starts the page that this document is.

import { byId, findById, messageOf, setText } from "./dom.js";
import { RunPage } from "./run.js";
import { fileList, startRunsPage } from "./runs.js";
import { FileSource, jsonBlock, post, ServerSource } from "./source.js";
import { startTheme } from "./theme.js";

function startLoginPage() {
  const form = byId("login");
  const token = byId("token", HTMLInputElement);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const { next } = await post("login", { token: token.value, next: form.dataset.next });
      location.replace(next);
    } catch (error) {
      setText(byId("problem"), messageOf(error));
      token.select();
    }
  });
}

function startRunPage() {
  /** @type {Run} */
  const run = jsonBlock("data");
  const page = new RunPage(run, new ServerSource(run));
  page.load().catch((error) => page.showProblem(error));
}

function startFilePage() {
  /** @type {Run[]} */
  const runs = jsonBlock("data");
  const wanted = new URLSearchParams(location.hash.slice(1)).get("run");
  const run = runs.find(({ id }) => id === wanted) ?? runs[0];
  if (runs.length > 1) {
    fileList(runs, run, (id) => {
      location.hash = `#${new URLSearchParams({ run: id })}`;
      location.reload();
    });
  } else byId("runs-list").remove();
  new RunPage(run, new FileSource(run)).load();
}

function listenToLogout() {
  const button = findById("logout");
  button?.addEventListener("click", async () => {
    await post(button.dataset.to ?? "", {});
    location.assign(button.dataset.then ?? "");
  });
}

startTheme();
listenToLogout();
/** @type {Record<string, () => void>} */
const pages = {
  login: startLoginPage,
  runs: startRunsPage,
  run: startRunPage,
  file: startFilePage,
};
pages[document.body.dataset.page ?? ""]?.();
