// The list's selection, with what can be done with several runs at once; and the choice of its columns.

import { byId, findById, inside, messageOf, setText } from "./dom.js";
import { isForKeys } from "./keys.js";
import { plural } from "./format.js";
import { post } from "./source.js";

const COLUMNS = "agentspan-columns";

/** @returns {HTMLTableRowElement[]} */
const rows = () => [...byId("runs", HTMLTableSectionElement).rows];
const boxOf = (/** @type {HTMLTableRowElement} */ row) => /** @type {HTMLInputElement} */ (inside(row, "input"));
const pickedRows = () => rows().filter((row) => boxOf(row).checked);
const focusedRow = () => rows().find((row) => row.contains(document.activeElement));
/** @type {(rows: HTMLTableRowElement[]) => string[]} */
const idsOf = (rows) => rows.map((row) => row.dataset.run ?? "");

/** Return the ids of the selected runs; without one, that of the row with the focus. */
function idsMeant() {
  const focused = focusedRow();
  const picked = pickedRows();
  return idsOf(picked.length || !focused ? picked : [focused]);
}

/** @param {string[]} ids the latest run first, as in the list */
const compareAddress = (ids) => `compare?${new URLSearchParams(ids.length > 1 ? { a: ids[1], b: ids[0] } : { b: ids[0] })}`;

/** @type {(ids: string[], ...more: string[][]) => string} */
const exportAddress = (ids, ...more) => `export?${new URLSearchParams([...more, ...ids.map((id) => ["run", id])])}`;

export function startPicking() {
  byId("runs-table").addEventListener("change", showPicked);
  /** @type {Record<string, () => void>} */
  const keys = {
    x: () => {
      const row = focusedRow() ?? rows()[0];
      if (!row) return;
      inside(row, "a").focus();
      boxOf(row).checked = !boxOf(row).checked;
      showPicked();
    },
    c: () => {
      const focused = focusedRow();
      const picked = pickedRows();
      const ids = idsOf(picked.length > 1 ? picked : rows().filter((row) => row === focused || picked.includes(row)));
      if (findById("compare") && (ids.length === 1 || ids.length === 2)) location.assign(compareAddress(ids));
    },
    d: () => (pickedRows().length ? byId("dataset-selected") : byId("dataset")).click(),
    m: () => openMarking(),
    o: () => {
      const ids = idsMeant();
      if (ids.length) location.assign(exportAddress(ids));
    },
  };
  document.addEventListener("keydown", (event) => {
    const action = keys[event.key];
    if (!action || !isForKeys(event)) return;
    action();
    event.preventDefault();
  });
  byId("clear-selected").addEventListener("click", clear);
  addEventListener("pageshow", showPicked);
  startMarking();
  startColumns();
}

/** Show the bar of the selection, if there is one. */
export function showPicked() {
  const ids = idsOf(pickedRows());
  for (const row of rows()) row.classList.toggle("picked", boxOf(row).checked);
  byId("selection").hidden = !ids.length;
  setText(byId("selected-count"), `${plural(ids.length, "run")} selected`);
  const compare = findById("compare");
  if (compare) compare.hidden = ids.length !== 2;
  if (ids.length) compare?.setAttribute("href", compareAddress(ids));
  byId("export-selected").setAttribute("href", exportAddress(ids));
  byId("dataset-selected").setAttribute("href", exportAddress(ids, ["format", "dataset"]));
}

function clear() {
  for (const row of pickedRows()) boxOf(row).checked = false;
  showPicked();
}

/** @type {(row: HTMLTableRowElement, name: string) => string} */
const textOf = (row, name) => (row.querySelector(`[data-cell="${name}"]`)?.textContent ?? "").trim();

/** The runs that the form marks. @type {string[]} */
let marked = [];

/** Open the form that marks the runs that are meant, if this server may write. */
function openMarking() {
  marked = idsMeant();
  if (!findById("mark-selected") || !marked.length) return;
  const first = rows().find((row) => row.dataset.run === marked[0]);
  const cells = first && marked.length === 1 ? ["agent", "about"].map((name) => textOf(first, name)) : [];
  setText(byId("mark-title"), cells.length ? `Mark ${cells.filter(Boolean).join(": ")}` : `Mark ${plural(marked.length, "run")}`);
  const already = marked.filter((id) => rows().some((row) => row.dataset.run === id && textOf(row, "marks")));
  setText(byId("mark-already"), already.length ? `${already.length === 1 ? "It has" : `${already.length} have`} a mark, which the new one replaces.` : "");
  byId("mark-withdraw").hidden = !already.length;
  byId("mark-note", HTMLInputElement).value = "";
  byId("mark-dialog", HTMLDialogElement).showModal();
  byId("mark-label", HTMLInputElement).select(); // the last word is at hand, and what is typed replaces it
}

function startMarking() {
  const dialog = byId("mark-dialog", HTMLDialogElement);
  findById("mark-selected")?.addEventListener("click", openMarking);
  byId("mark-cancel").addEventListener("click", () => dialog.close());
  /** @param {string} label nothing takes the marks back */
  const mark = async (label) => {
    try {
      await post("marks", { runs: marked, label, note: byId("mark-note", HTMLInputElement).value.trim() });
      setText(byId("mark-problem"), "");
      dialog.close();
      clear();
      offer(label);
    } catch (error) {
      setText(byId("mark-problem"), messageOf(error));
    }
  };
  byId("mark-withdraw").addEventListener("click", () => mark(""));
  byId("mark-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const label = byId("mark-label", HTMLInputElement).value.trim();
    if (label) mark(label);
  });
}

/**
 * Let the filter have a new mark.
 * @param {string} label
 */
function offer(label) {
  const field = byId("mark-filter", HTMLSelectElement);
  if (!label) return;
  if (![...field.options].some((option) => option.value === label)) field.add(new Option(label));
  /** @type {HTMLElement} */ (field.parentElement).hidden = false;
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
