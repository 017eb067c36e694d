// Where the page begins: which page it is, and where its data lies.

import { byId, setText } from "./dom.js";
import { RunPage } from "./run.js";
import { fileList, runsPage } from "./runs.js";
import { block, Embedded, post, Served } from "./source.js";
import { theme } from "./theme.js";

function loginPage() {
  byId("login").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const answer = await post("login", { token: byId("token").value, next: byId("login").dataset.next });
      location.replace(answer.next);
    } catch (error) {
      setText(byId("problem"), error.message);
      byId("token").select();
    }
  });
}

function runPage() {
  const page = new RunPage(block("data"), new Served(block("data")));
  page.load().catch((error) => page.lost(error));
}

function filePage(runs) {
  const open = (id) => {
    const run = runs.find((one) => one.id === id) ?? runs[0];
    new RunPage(run, new Embedded(run)).load();
  };
  const wanted = new URLSearchParams(location.hash.slice(1)).get("run");
  if (runs.length > 1) {
    fileList(runs, (id) => {
      location.hash = new URLSearchParams({ run: id });
      location.reload();
    });
    byId("runs-list").value = runs.some((run) => run.id === wanted) ? wanted : runs[0].id;
  } else byId("runs-list").remove();
  open(wanted);
}

function logout() {
  byId("logout")?.addEventListener("click", async () => {
    await post(byId("logout").dataset.to, {});
    location.assign(byId("logout").dataset.then);
  });
}

theme();
logout();
const pages = {
  login: loginPage,
  runs: runsPage,
  run: runPage,
  file: () => filePage(block("data")),
};
pages[document.body.dataset.page]?.();
