// The keys of a run's page, and the splitter between the tree and the detail.

import { byId } from "./dom.js";

const isTyping = (target) => target.closest?.("input, textarea, select, dialog[open]");

const SEEKING = new Set(["e", "E", "n", "N"]); // these lead to the tree from everywhere

/** Let the keys work on a page. */
export function keys(page) {
  const { tree, axis, spans } = page;
  const isError = (at) => spans.columns.status[at] === "failed";
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
    PageDown: () => tree.move(tree.page()),
    PageUp: () => tree.move(-tree.page()),
    " ": () => tree.selected >= 0 && spans.size[tree.selected] > 1 && tree.fold(tree.selected, !spans.folded.has(tree.selected)),
    Enter: () => byId("detail").focus(),
    e: () => tree.seek(isError, 1),
    E: () => tree.seek(isError, -1),
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
  const everywhere = {
    "/": () => page.search.focus(),
    "?": () => byId("help-dialog").showModal(),
    1: () => go(page, "tree"),
    2: () => go(page, "conversation"),
    3: () => go(page, "stats"),
    Escape: () => go(page, page.view),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    const isElsewhere = event.target.closest?.("#detail, button, a, summary, [role=tab], [role=separator]");
    // Arrows, blanks and the like belong to what has the focus; letters work everywhere.
    const isLetter = event.key.length === 1 && event.key !== " ";
    const isOfTree = page.view === "tree" ? isLetter || !isElsewhere : SEEKING.has(event.key);
    const does = everywhere[event.key] ?? (isOfTree ? inTree[event.key] : null);
    if (!does) return;
    event.preventDefault();
    if (SEEKING.has(event.key) && page.view !== "tree") page.show("tree");
    does();
  });
  byId("help").addEventListener("click", () => byId("help-dialog").showModal());
  byId("help-close").addEventListener("click", () => byId("help-dialog").close());
  splitter(byId("splitter"), byId("run"));
}

/** Show a view, and let the arrows be its own. */
function go(page, view) {
  page.show(view);
  (view === "tree" ? page.tree.box : byId(`panel-${view}`)).focus();
}

/** What a zoom by key turns around: the selected span, else the middle. */
function middle({ tree, axis, spans }) {
  const at = tree.selected;
  if (at < 0) return undefined;
  const start = spans.columns.start[at];
  return Math.min(Math.max((start + spans.end(at, tree.now)) / 2, axis.from), axis.to);
}

/** Show the selected span from its start to its end, with some room. */
function zoomTo({ tree, axis, spans }) {
  const at = tree.selected;
  if (at < 0) return;
  const from = spans.columns.start[at];
  const to = spans.end(at, tree.now);
  const room = Math.max((to - from) * 0.08, (axis.end - axis.start) / 1e5);
  axis.show(from - room, to + room);
}

function splitter(handle, box) {
  const set = (px) => {
    const width = Math.round(Math.min(Math.max(px, 300), box.clientWidth - 360));
    box.style.setProperty("--detail", `${width}px`);
    handle.setAttribute("aria-valuenow", String(width));
  };
  handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
  handle.addEventListener("pointermove", (event) => {
    if (handle.hasPointerCapture(event.pointerId)) set(box.getBoundingClientRect().right - event.clientX);
  });
  handle.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: 32, ArrowRight: -32 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    set(byId("detail").offsetWidth + by);
  });
}
