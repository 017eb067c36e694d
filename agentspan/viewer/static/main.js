// The entry point: starts the page that this document is.

import { startBar } from "./bar.js";
import { byId, el, findById, messageOf, setText } from "./dom.js";
import { startPartsPage } from "./page.js";
import { RunPage } from "./run.js";
import { fileList, startRunsPage } from "./runs.js";
import { FileSource, jsonBlock, post, ServerSource } from "./source.js";
import { startTheme } from "./theme.js";
import { keepList, restoreList } from "./trail.js";

function startLoginPage() {
  const form = byId("login");
  const token = byId("token", HTMLInputElement);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const { next } = await post("login", { token: token.value, next: form.dataset.next });
      location.replace(placeToGo(next));
    } catch (error) {
      setText(byId("problem"), messageOf(error));
      token.select();
    }
  });
}

/**
 * Return the address after the login: the page that was asked for, with the span and view that its fragment names. Only the
 * browser knows the fragment, and keeps it when the server redirects to the login.
 * @param {string} next
 */
function placeToGo(next) {
  const place = new URL(next, location.href);
  if (place.origin !== location.origin) return "./";
  place.hash = location.hash;
  return place.href;
}

function startRunPage() {
  /** @type {Run} */
  const run = jsonBlock("data");
  restoreList();
  new RunPage(run, new ServerSource(run)).load();
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
  const problem = el("p", { class: "lost", role: "alert", hidden: true });
  findById("lost")?.before(problem);
  button?.addEventListener("click", async () => {
    problem.hidden = true;
    try {
      await post(button.dataset.to ?? "", {});
      location.assign(button.dataset.then ?? "");
    } catch (error) {
      setText(problem, `You are still logged in. ${messageOf(error)}`);
      problem.hidden = false;
    }
  });
}

startTheme();
startBar();
listenToLogout();
/** @type {Record<string, () => void>} */
const pages = {
  login: startLoginPage,
  parts: startPartsPage,
  runs: () => {
    keepList();
    startRunsPage();
  },
  run: startRunPage,
  file: startFilePage,
};
pages[document.body.dataset.page ?? ""]?.();
