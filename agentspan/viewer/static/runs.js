// The list of runs: the rows that the server wrote stay, and their cells are updated.

import { focusSearch, whileFollowing } from "./bar.js";
import { byId, el, inside, setAttribute, setText } from "./dom.js";
import { followSteps } from "./found.js";
import { isForKeys } from "./keys.js";
import { Lost } from "./lost.js";
import { followAnswer } from "./overview.js";
import { showPicked, startPicking } from "./picked.js";
import { listenToRows, openOnClick } from "./rows.js";
import { poll } from "./source.js";

const EVERY_MS = 1000;
const SLOW_MS = 4000; // at most, after a slow answer: the first runs of an import are seen within five seconds

const BAD = ".failed, .missed, .terminated";
const OPTIONAL = ["marks", "tokens", "cost"]; // columns that are left out where no run has a value

const tableBody = () => byId("runs", HTMLTableSectionElement);

export function startRunsPage() {
  const form = byId("filters", HTMLFormElement);
  const fields = /** @type {(HTMLInputElement | HTMLSelectElement)[]} */ ([...form.elements].filter((field) => "name" in field && field.name));
  for (const field of fields) {
    if (field instanceof HTMLSelectElement || field.type === "checkbox") field.addEventListener("change", () => form.requestSubmit());
  }
  // Empty fields stay out of the address.
  form.addEventListener("submit", () => {
    for (const field of fields) if (!field.value) field.disabled = true;
  });
  addEventListener("pageshow", () => {
    for (const field of fields) field.disabled = false;
  });
  for (const row of tableBody().rows) openOnClick(row);
  listenToRows("#runs a, #found-steps a", focusSearch);
  listenToListKeys();
  startPicking();
  followSteps();
  followAnswer(!document.body.dataset.adding);
  follow();
}

/** Let keys go to the next run that failed or is under way, sort by duration, and go to the filter by mark. */
function listenToListKeys() {
  const seek = (/** @type {string} */ kinds, /** @type {1 | -1} */ by) => {
    const rows = [...tableBody().rows];
    const at = rows.findIndex((row) => row.contains(document.activeElement));
    const others = by > 0 ? rows.slice(at + 1) : rows.slice(0, Math.max(0, at)).reverse();
    const row = others.find((row) => row.matches(kinds));
    if (row) inside(row, "a").focus();
  };
  const column = (/** @type {string} */ name) => inside(byId("runs-table"), `thead [data-col=${name}]`);
  /** @type {Record<string, () => void>} */
  const keys = {
    e: () => seek(BAD, 1),
    E: () => seek(BAD, -1),
    f: () => seek(".active", 1),
    s: () => inside(column(column("took").hasAttribute("aria-sort") ? "started" : "took"), "a").click(),
    M: () => byId("mark-filter").focus(),
  };
  document.addEventListener("keydown", (event) => {
    const action = keys[event.key];
    if (!action || !isForKeys(event)) return;
    action();
    event.preventDefault();
  });
}

async function follow() {
  const lost = new Lost();
  const ask = () => poll(`runs.json${location.search}`);
  if (document.body.dataset.preparing) update(await lost.until(ask));
  for (let took = 0; ; ) {
    await new Promise((resolve) => setTimeout(resolve, Math.max(EVERY_MS, Math.min(10 * took, SLOW_MS))));
    await whileFollowing();
    const page = await lost.until(() => {
      took = -performance.now();
      return ask();
    });
    took += performance.now();
    update(page);
  }
}

/**
 * Update the table: rows in the server's order, cells by name.
 * @param {RunListPage} page
 */
function update(page) {
  const body = tableBody();
  const known = new Map([...body.rows].map((row) => [row.dataset.run, row]));
  const focused = document.activeElement;
  page.runs.forEach((run, n) => {
    const row = known.get(run.id) ?? makeRow(run.id);
    known.delete(run.id);
    fillRow(row, run);
    if (body.rows[n] !== row) body.insertBefore(row, body.rows[n] ?? null);
  });
  for (const row of known.values()) row.remove();
  showPicked();
  byId("runs-table").dataset.empty = OPTIONAL.filter((name) => !page.runs.some((run) => run.cells[name])).join(" ");
  if (focused instanceof HTMLElement && focused.isConnected && document.activeElement !== focused) focused.focus();
  setText(byId("count"), page.count);
  byId("nothing").hidden = page.runs.length > 0;
  byId("sums").hidden = !page.runs.length;
  byId("runs-table").hidden = !page.runs.length;
}

/** @param {string} id */
function makeRow(id) {
  /** @type {HTMLTableRowElement} */
  const template = inside(byId("run-row", HTMLTemplateElement).content, "tr");
  const row = document.importNode(template, true);
  row.dataset.run = id;
  openOnClick(row);
  return row;
}

/**
 * @param {HTMLTableRowElement} row
 * @param {RunRow} run
 */
function fillRow(row, run) {
  /** @type {NodeListOf<HTMLElement>} */
  const cells = row.querySelectorAll("[data-cell]");
  for (const cell of cells) {
    const name = cell.dataset.cell ?? "";
    setText(cell, run.cells[name]);
    setAttribute(cell, "title", run.titles[name]);
  }
  setAttribute(inside(row, "a"), "href", run.href);
  inside(row, ".mark").className = `mark ${run.mark}`;
  row.className = `${run.mark}${row.classList.contains("picked") ? " picked" : ""}`;
  inside(row, "[data-cell=failed]").classList.toggle("bad", run.cells.failed !== "");
}

/**
 * Show the list in an exported file of several runs.
 * @param {Run[]} runs
 * @param {Run} shown
 * @param {(id: string) => void} onPick
 */
export function fileList(runs, shown, onPick) {
  const list = byId("runs-list", HTMLSelectElement);
  list.hidden = false;
  for (const run of runs) {
    const parts = [run.agent, run.version, run.status, run.id];
    list.append(el("option", { value: run.id }, parts.filter(Boolean).join(" · ")));
  }
  list.value = shown.id;
  list.addEventListener("change", () => onPick(list.value));
}
