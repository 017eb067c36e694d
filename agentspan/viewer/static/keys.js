// The keys of the pages, and the setting that turns those of one character off.

import { byId, findById, targetOf } from "./dom.js";

/** @import { RunPage } from "./run.js" */

/** @param {Element | null} target */
const isTyping = (target) => target?.closest("input, textarea, select, dialog[open]");

const SEEKING = new Set(["e", "E", "n", "N", "s", "S"]); // these show the tree from every view
const STORED = "agentspan-letter-keys";

/**
 * Tell whether a page's keys may take a key: not while somebody types, and a single character only while the setting is on.
 * Who dictates, or hits keys by accident, turns it off (WCAG 2.1.4).
 * @param {KeyboardEvent} event
 */
export function isForKeys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(targetOf(event))) return false;
  return event.key.length > 1 || event.key === " " || byId("letter-keys", HTMLInputElement).checked;
}

/** Let a button show the keys, and keep the setting in this browser. */
export function startKeyHelp() {
  const help = byId("help-dialog", HTMLDialogElement);
  const setting = byId("letter-keys", HTMLInputElement);
  try {
    setting.checked = localStorage.getItem(STORED) !== "off";
  } catch {
    // A page opened from a file may have no storage.
  }
  setting.addEventListener("change", () => {
    try {
      localStorage.setItem(STORED, setting.checked ? "on" : "off");
    } catch {
      // as above
    }
  });
  byId("help").addEventListener("click", () => help.showModal());
  byId("help-close").addEventListener("click", () => help.close());
}

/**
 * Listen to the keys of a page.
 * @param {RunPage} page
 */
export function listenToKeys(page) {
  const { tree, axis, spans } = page;
  /** @type {Record<string, () => void>} */
  const inTree = {
    j: () => tree.move(1),
    ArrowDown: () => tree.move(1),
    k: () => tree.move(-1),
    ArrowUp: () => tree.move(-1),
    h: () => tree.left(),
    ArrowLeft: () => tree.left(),
    l: () => tree.right(),
    ArrowRight: () => tree.right(),
    H: () => tree.foldAll(true),
    L: () => tree.foldAll(false),
    g: () => tree.move(-Infinity),
    Home: () => tree.move(-Infinity),
    G: () => tree.move(Infinity),
    End: () => tree.move(Infinity),
    PageDown: () => tree.move(tree.pageSize()),
    PageUp: () => tree.move(-tree.pageSize()),
    " ": () => {
      const at = tree.selected;
      if (at >= 0 && spans.canFold(at)) tree.fold(at, !spans.isFolded(at));
    },
    Enter: () => byId("detail").focus(),
    e: () => page.seekCause(1),
    E: () => page.seekCause(-1),
    s: () => page.seekSlow(1),
    S: () => page.seekSlow(-1),
    n: () => page.search.step(1),
    N: () => page.search.step(-1),
    "+": () => axis.zoom(0.5, middle(page)),
    "=": () => axis.zoom(0.5, middle(page)),
    "-": () => axis.zoom(2, middle(page)),
    "0": () => axis.showAll(),
    "[": () => axis.pan(-(axis.to - axis.from) / 4),
    "]": () => axis.pan((axis.to - axis.from) / 4),
    z: () => zoomTo(page),
  };
  const help = byId("help-dialog", HTMLDialogElement);
  /** @type {Record<string, () => void>} */
  const everywhere = {
    "/": () => page.search.focus(),
    "?": () => help.showModal(),
    f: () => page.toggleFollow(),
    m: () => page.openScores(),
    c: () => page.compare(),
    o: () => findById("save")?.click(),
    J: () => page.goToRun(1),
    K: () => page.goToRun(-1),
    1: () => go(page, "tree"),
    2: () => go(page, "conversation"),
    3: () => go(page, "stats"),
    Escape: () => go(page, page.view),
  };
  document.addEventListener("keydown", (event) => {
    const target = targetOf(event);
    if (!isForKeys(event)) return;
    const isElsewhere = target?.closest("#detail, button, a, summary, [role=tab], [role=separator]");
    // Arrows, blanks and the like belong to the element with the focus; letters work everywhere.
    const isLetter = event.key.length === 1 && event.key !== " ";
    const isOfTree = page.view === "tree" ? isLetter || !isElsewhere : SEEKING.has(event.key);
    const action = everywhere[event.key] ?? (isOfTree ? inTree[event.key] : null);
    if (!action) return;
    event.preventDefault();
    if (SEEKING.has(event.key) && page.view !== "tree") page.show("tree");
    action();
  });
  startKeyHelp();
}

/**
 * Show a view, and give it the focus.
 * @param {RunPage} page
 * @param {View} view
 */
function go(page, view) {
  page.show(view);
  (view === "tree" ? page.tree.box : byId(`panel-${view}`)).focus();
}

/**
 * Return the centre of a zoom by key: the middle of the selected span; undefined where none is selected.
 * @param {RunPage} page
 */
export function middle({ tree, axis, spans }) {
  const at = tree.selected;
  if (at < 0) return undefined;
  const start = spans.columns.start_ms[at];
  return Math.min(Math.max((start + spans.end(at, tree.now)) / 2, axis.from), axis.to);
}

/**
 * Show the selected span from its start to its end, with some room.
 * @param {RunPage} page
 */
export function zoomTo({ tree, axis, spans }) {
  const at = tree.selected;
  if (at < 0) return;
  const from = spans.columns.start_ms[at];
  const to = spans.end(at, tree.now);
  const room = Math.max((to - from) * 0.08, (axis.end - axis.start) / 1e5);
  axis.show(from - room, to + room);
}
