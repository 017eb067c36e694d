// The list's selection, with what can be done with several runs at once; and the choice of its columns.

import { byId, findById, inside, messageOf, setText } from "./dom.js";
import { isForKeys } from "./keys.js";
import { plural } from "./format.js";
import { post } from "./source.js";

const COLUMNS = "agentspan-columns";

/** @returns {HTMLTableRowElement[]} */
const pickedRows = () =>
  [...byId("runs", HTMLTableSectionElement).rows].filter((row) => /** @type {HTMLInputElement} */ (inside(row, "input")).checked);
const pickedIds = () => pickedRows().map((row) => row.dataset.run ?? "");

export function startPicking() {
  const table = byId("runs-table");
  table.addEventListener("change", showPicked);
  document.addEventListener("keydown", (event) => {
    const row = document.activeElement?.closest("#runs tr");
    if (event.key !== "x" || !row || !isForKeys(event)) return;
    const box = /** @type {HTMLInputElement} */ (inside(row, "input"));
    box.checked = !box.checked;
    showPicked();
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    const target = { c: "compare", m: "mark-selected", o: "export-selected" }[event.key];
    const button = target && !byId("selection").hidden ? findById(target) : null;
    if (!button || button.hidden || !isForKeys(event)) return;
    button.click();
    event.preventDefault();
  });
  byId("clear-selected").addEventListener("click", clear);
  addEventListener("pageshow", showPicked);
  startMarking();
  startColumns();
}

/** Show the bar of the selection, if there is one. */
export function showPicked() {
  const ids = pickedIds();
  for (const row of byId("runs", HTMLTableSectionElement).rows) row.classList.toggle("picked", ids.includes(row.dataset.run ?? ""));
  byId("selection").hidden = !ids.length;
  setText(byId("selected-count"), `${plural(ids.length, "run")} selected`);
  const compare = findById("compare");
  if (compare) {
    compare.hidden = ids.length !== 2;
    const [b, a] = ids; // the list has the latest run first
    compare.setAttribute("href", `compare?${new URLSearchParams({ a: a ?? b ?? "", b: b ?? "" })}`);
  }
  byId("export-selected").setAttribute("href", `export?${new URLSearchParams(ids.map((id) => ["run", id]))}`);
}

function clear() {
  for (const row of pickedRows()) /** @type {HTMLInputElement} */ (inside(row, "input")).checked = false;
  showPicked();
}

function startMarking() {
  const dialog = byId("mark-dialog", HTMLDialogElement);
  findById("mark-selected")?.addEventListener("click", () => dialog.showModal());
  byId("mark-cancel").addEventListener("click", () => dialog.close());
  byId("mark-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const [label, note] = [byId("mark-label", HTMLInputElement), byId("mark-note", HTMLInputElement)];
    try {
      await post("marks", { runs: pickedIds(), label: label.value.trim(), note: note.value.trim() });
      setText(byId("mark-problem"), "");
      dialog.close();
      clear();
    } catch (error) {
      setText(byId("mark-problem"), messageOf(error));
    }
  });
}

/** Let a person choose the columns; this browser keeps the choice. */
function startColumns() {
  const table = byId("runs-table");
  /** @type {NodeListOf<HTMLInputElement>} */
  const boxes = byId("columns").querySelectorAll("[data-column]");
  try {
    const stored = localStorage.getItem(COLUMNS);
    if (stored !== null) {
      const hidden = stored.split(" ");
      for (const box of boxes) box.checked = !hidden.includes(box.dataset.column ?? "");
    }
  } catch {
    // A browser may forbid storage: the choice then holds for this page.
  }
  const apply = () => {
    const hidden = [...boxes].filter((box) => !box.checked).map((box) => box.dataset.column);
    table.dataset.hidden = hidden.join(" ");
    return hidden;
  };
  apply();
  byId("columns").addEventListener("change", (event) => {
    event.stopPropagation();
    const hidden = apply();
    try {
      localStorage.setItem(COLUMNS, hidden.join(" "));
    } catch {
      // as above
    }
  });
}
