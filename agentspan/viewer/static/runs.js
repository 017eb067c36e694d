// The list of runs: what the server wrote stays, and is brought up to date where it stands.

import { byId, el, setAttribute, setText } from "./dom.js";
import { get } from "./source.js";

const EVERY_MS = 1000;

export function runsPage() {
  const form = byId("filters");
  for (const field of form.querySelectorAll("select, input[type=checkbox]")) {
    field.addEventListener("change", () => form.requestSubmit());
  }
  // An address without the fields that say nothing.
  form.addEventListener("submit", () => {
    for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
  });
  addEventListener("pageshow", () => {
    for (const field of form.elements) field.disabled = false;
  });
  for (const row of byId("runs").rows) wire(row);
  document.addEventListener("keydown", (event) => walk(event));
  follow();
}

function wire(row) {
  row.addEventListener("click", (event) => {
    if (event.target.closest("a") || getSelection()?.toString()) return;
    row.querySelector("a").click();
  });
}

function walk(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea, dialog[open]")) return;
  const links = [...byId("runs").querySelectorAll("a")];
  const by = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  if (event.key === "/") byId("grep").focus();
  else if (by && links.length) {
    const at = links.indexOf(document.activeElement);
    links[at < 0 ? 0 : Math.min(links.length - 1, Math.max(0, at + by))].focus();
  } else return;
  event.preventDefault();
}

async function follow() {
  let took = 0;
  if (document.body.dataset.preparing) update(await get(`runs.json${location.search}`));
  for (;;) {
    await new Promise((go) => setTimeout(go, Math.max(EVERY_MS, 20 * took)));
    while (document.hidden) await new Promise((go) => document.addEventListener("visibilitychange", go, { once: true }));
    const began = performance.now();
    try {
      update(await get(`runs.json${location.search}`));
      byId("lost").hidden = true;
    } catch (error) {
      setText(byId("lost"), error.message);
      byId("lost").hidden = false;
    }
    took = performance.now() - began;
  }
}

/** Bring the table up to date: rows in the server's order, cells by name. */
function update(answer) {
  const body = byId("runs");
  const known = new Map([...body.rows].map((row) => [row.dataset.run, row]));
  const had = document.activeElement;
  answer.runs.forEach((run, n) => {
    const row = known.get(run.id) ?? make(run.id);
    known.delete(run.id);
    fill(row, run);
    if (body.rows[n] !== row) body.insertBefore(row, body.rows[n] ?? null);
  });
  for (const row of known.values()) row.remove();
  if (had?.isConnected && document.activeElement !== had) had.focus();
  setText(byId("count"), answer.count);
  byId("nothing").hidden = answer.runs.length > 0;
}

function make(id) {
  const row = byId("run-row").content.firstElementChild.cloneNode(true);
  row.dataset.run = id;
  row.querySelector("a").href = `runs/${encodeURIComponent(id)}`;
  wire(row);
  return row;
}

function fill(row, run) {
  for (const cell of row.querySelectorAll("[data-cell]")) {
    setText(cell, run.cells[cell.dataset.cell]);
    setAttribute(cell, "title", run.titles?.[cell.dataset.cell]);
  }
  row.querySelector(".mark").className = `mark ${run.mark}`;
  row.className = run.mark;
  row.querySelector("[data-cell=failed]").classList.toggle("bad", run.cells.failed !== "");
}

/** The list in an exported file of several runs. */
export function fileList(runs, onPick) {
  const list = byId("runs-list");
  list.hidden = false;
  list.append(...runs.map((run) => el("option", { value: run.id }, [run.agent, run.version, run.status, run.id].filter(Boolean).join(" · "))));
  list.addEventListener("change", () => onPick(list.value));
}
