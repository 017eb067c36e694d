// The tree with its bars: as many row elements as are visible, whatever the length of the run.

import { byId, el, setAttribute, setText, targetOf } from "./dom.js";
import { duration, whole } from "./format.js";

/**
 * @import { Axis, TimeRange } from "./axis.js"
 * @import { Spans } from "./spans.js"
 * @typedef {ReturnType<Tree["_make"]>} Drawn an element of a row, and the row that it shows
 */

const ROW = 26;
const TALL = 46; // as in media.css: two lines in a narrow window, so that errors are not cut
const NARROW = globalThis.matchMedia?.("(max-width: 699px)");
const SPARE = 4;
const DEEPEST = 18;

export class Tree {
  /**
   * @param {Spans} spans
   * @param {Axis} axis
   * @param {{ onSelect: (at: number) => void }} handlers
   */
  constructor(spans, axis, { onSelect }) {
    this.spans = spans;
    this.axis = axis;
    this.onSelect = onSelect;
    this.box = byId("tree");
    this.room = byId("tree-room");
    /** @type {Drawn[]} */
    this.pool = [];
    this.version = 0;
    this.row = NARROW.matches ? TALL : ROW;
    this.selected = -1;
    /** @type {Set<number>} */
    this.matches = new Set();
    this.now = 0;
    this.isWaiting = false;
    this.limit = 0; // rows that are drawn for print; 0 where only the visible ones are
    this.box.addEventListener("scroll", () => this.draw(), { passive: true });
    this.box.addEventListener("click", (event) => this._click(event));
    this.box.addEventListener("dblclick", (event) => this._toggle(this._rowOf(event)));
    this.box.addEventListener("wheel", (event) => this._wheel(event), { passive: false });
    new ResizeObserver(() => this.refresh()).observe(this.box);
    NARROW.addEventListener("change", () => {
      this.row = NARROW.matches ? TALL : ROW;
      this.relist();
      if (this.selected >= 0) this.scrollTo(this.spans.rowOf[this.selected]);
    });
  }

  /** List the rows again, after spans were added or folded. */
  relist() {
    const anchor = this._anchor();
    const before = this.spans.rowOf[anchor] ?? -1;
    this.spans.listRows();
    this.room.style.height = `${this.spans.rows.length * this.row}px`;
    byId("run").style.setProperty("--rows", this.room.style.height);
    this.room.style.setProperty("--digits", String(String(this.spans.length).length));
    const after = this.spans.rowOf[anchor] ?? -1;
    if (before >= 0 && after >= 0 && before !== after) this.box.scrollTop += (after - before) * this.row;
    this.refresh();
  }

  /** Return the span whose row stays at its place when rows come above it: the selected one if it is visible, else the first one. */
  _anchor() {
    const { rows, rowOf } = this.spans;
    const top = this.box.scrollTop / this.row;
    const row = this.selected < 0 ? -1 : rowOf[this.selected];
    if (row >= top - 1 && row < top + this.box.clientHeight / this.row) return this.selected;
    return top > 0 ? (rows[Math.ceil(top)] ?? -1) : -1;
  }

  /** Draw all visible rows again. */
  refresh() {
    this.version++;
    this.draw();
  }

  /** Draw, at the next frame, the visible rows that are not drawn yet. */
  draw() {
    if (this.isWaiting) return;
    this.isWaiting = true;
    requestAnimationFrame(() => {
      this.isWaiting = false;
      this._drawRows();
    });
  }

  /**
   * Draw the first rows now, in their order, whether they are visible or not: for print.
   * @param {number} limit
   */
  drawAll(limit) {
    this.limit = limit;
    this.version++;
    this._drawRows();
  }

  /** Draw only the visible rows again. */
  drawVisible() {
    this.limit = 0;
    this.refresh();
  }

  _drawRows() {
    const rows = this.spans.rows;
    const isAll = this.limit > 0;
    const from = isAll ? 0 : Math.max(0, Math.floor(this.box.scrollTop / this.row) - SPARE);
    const to = Math.min(rows.length, isAll ? this.limit : Math.ceil((this.box.scrollTop + this.box.clientHeight) / this.row) + SPARE);
    const needed = isAll ? to : Math.ceil(this.box.clientHeight / this.row) + 2 * SPARE + 1;
    while (this.pool.length < needed) this.pool.push(this._make());
    while (this.pool.length > needed) this.pool.pop()?.node.remove();
    const used = new Set();
    for (let row = from; row < to; row++) {
      const drawn = this.pool[row % this.pool.length];
      used.add(drawn);
      if (drawn.row === row && drawn.version === this.version) continue;
      this._fill(drawn, row, rows[row]);
    }
    for (const drawn of this.pool) {
      if (!used.has(drawn) && drawn.row !== -1) {
        drawn.row = -1;
        drawn.node.hidden = true;
        drawn.node.className = "row";
        drawn.node.removeAttribute("id");
      }
    }
    const row = this.selected < 0 ? -1 : this.spans.rowOf[this.selected];
    setAttribute(this.box, "aria-activedescendant", row >= from && row < to ? `row-${this.selected}` : null);
  }

  _make() {
    const number = el("span", { class: "place" });
    const fold = el("i", { class: "fold" });
    const mark = el("i");
    const kind = el("i");
    const text = el("span", { class: "text" });
    const error = el("span", { class: "error" });
    const step = el("span", { class: "step" }, number, " ", fold, mark, kind, text, " ", error, " ");
    const took = el("span", { class: "took" });
    const own = el("span", { class: "own" });
    const bar = el("i", { class: "bar" });
    const lane = el("span", { class: "lane" }, bar);
    const node = el("div", { class: "row", role: "treeitem", hidden: true }, step, took, " ", own, lane);
    this.room.append(node);
    return { node, row: -1, version: -1, number, fold, mark, kind, text, error, step, took, own, bar, lane };
  }

  /**
   * @param {Drawn} drawn
   * @param {number} row
   * @param {number} at
   */
  _fill(drawn, row, at) {
    const { columns, depth } = this.spans;
    const status = columns.status[at];
    const deep = Math.min(depth[at], DEEPEST);
    drawn.row = row;
    drawn.version = this.version;
    drawn.node.hidden = false;
    drawn.node.style.transform = `translateY(${row * this.row}px)`;
    drawn.node.id = `row-${at}`;
    drawn.step.style.setProperty("--deep", String(deep));
    const canFold = this.spans.canFold(at);
    const isFolded = this.spans.isFolded(at);
    drawn.fold.className = `fold${canFold ? (isFolded ? " shut" : " wide") : ""}`;
    drawn.mark.className = `mark ${columns.left_open[at] ? "left" : status}`;
    drawn.kind.className = `kind k-${columns.kind[at]}`;
    const error = columns.error[at];
    setText(drawn.number, placeOf(this.spans, at));
    setText(drawn.text, titleOf(this.spans, at));
    setText(drawn.error, noteOf(this.spans, at));
    drawn.error.classList.toggle("plain", !error);
    setText(drawn.took, durationOf(this.spans, at, this.now));
    setText(drawn.own, ownTimeOf(this.spans, at));
    const classes = ["row", at === this.selected && "selected", error && "with-error", this.matches.has(at) && "match", status, isPrompt(this.spans, at) && "prompt"];
    drawn.node.className = classes.filter(Boolean).join(" ");
    this._placeBar(drawn, at);
    setAttribute(drawn.node, "aria-level", depth[at] + 1);
    setAttribute(drawn.node, "aria-posinset", this.spans.position[at]);
    setAttribute(drawn.node, "aria-setsize", this.spans.siblings[at]);
    setAttribute(drawn.node, "aria-expanded", canFold ? String(!isFolded) : null);
    setAttribute(drawn.node, "aria-selected", String(at === this.selected));
    setAttribute(drawn.node, "aria-label", labelOf(this.spans, at, this.now));
  }

  /**
   * @param {Drawn} drawn
   * @param {number} at
   */
  _placeBar(drawn, at) {
    const { columns } = this.spans;
    const bar = barOf(this.spans, at, this.axis, this.now);
    drawn.bar.hidden = !bar;
    if (!bar) return;
    const isKilled = this.spans.isKilled(at);
    drawn.bar.className = `bar k-${columns.kind[at]} ${columns.status[at]}${isKilled ? " killed" : ""}`;
    // A bar that begins at the right edge is still visible: that of the step in which a program died often does.
    drawn.bar.style.left = `min(${100 * bar.left}%, 100% - ${isKilled ? 12 : 2}px)`;
    drawn.bar.style.width = `${100 * bar.width}%`;
  }

  /**
   * Select a span, unfold its ancestors, and scroll to it.
   * @param {number} at
   */
  select(at) {
    this.selected = at;
    if (at >= 0) {
      if (this.spans.reveal(at)) this.relist();
      this.scrollTo(this.spans.rowOf[at]);
    }
    this.refresh();
    this.onSelect(at);
    // In a low window the page itself scrolls.
    if (at >= 0 && document.documentElement.scrollHeight > innerHeight) requestAnimationFrame(() => this._scrollPage(at));
  }

  /** @param {number} at */
  _scrollPage(at) {
    const drawn = this.pool.find(({ row }) => row === this.spans.rowOf[at]);
    drawn?.node.scrollIntoView({ block: "nearest" });
  }

  /** @param {number} row */
  scrollTo(row) {
    const top = row * this.row;
    const height = this.box.clientHeight;
    if (top < this.box.scrollTop + this.row) this.box.scrollTop = top - this.row;
    else if (top + 2 * this.row > this.box.scrollTop + height) this.box.scrollTop = top + 2 * this.row - height;
  }

  /**
   * Select the span some rows below the selected one. While none is selected, rows count from above the first.
   * @param {number} by
   */
  move(by) {
    const rows = this.spans.rows;
    if (!rows.length) return;
    const row = this.selected < 0 ? -1 : this.spans.rowOf[this.selected];
    this.select(rows[Math.min(rows.length - 1, Math.max(0, row + by))]);
  }

  /** How many rows a page key moves by. */
  pageSize() {
    return Math.max(1, Math.floor(this.box.clientHeight / this.row) - 1);
  }

  /** Fold the selected span, or go to the first of its equal siblings or to its parent. */
  left() {
    const at = this.selected;
    if (at < 0) return this.move(1);
    const out = this.spans.firstOf.get(at) ?? this.spans.parents[at];
    if (this.spans.canFold(at) && !this.spans.isFolded(at)) this.fold(at, true);
    else if (out >= 0) this.select(out);
  }

  /** Unfold the selected span, or go to its first child or equal sibling. */
  right() {
    const at = this.selected;
    if (at < 0) return this.move(1);
    if (this.spans.isFolded(at)) this.fold(at, false);
    else if (this.spans.canFold(at)) this.move(1);
  }

  /**
   * @param {number} at
   * @param {boolean} shut
   */
  fold(at, shut) {
    this.spans.fold(at, shut);
    this.relist();
  }

  /** @param {boolean} shut */
  foldAll(shut) {
    this.spans.foldAll(shut);
    let at = this.selected;
    if (shut) at = this.spans.firstOf.get(at) ?? at;
    while (shut && at >= 0 && this.spans.parents[at] >= 0) at = this.spans.parents[at];
    this.relist();
    if (at >= 0) this.select(at);
  }

  /** Scroll to the row of the span that began last, or to the row in which it is folded. */
  showNewest() {
    const { rowOf, parents, firstOf } = this.spans;
    let at = this.spans.newest();
    while (at >= 0 && rowOf[at] < 0) at = firstOf.get(at) ?? parents[at];
    if (at >= 0) this.scrollTo(rowOf[at]);
  }

  /**
   * Select the next span in which a failure arose. Equal failures in one row are one of them.
   * @param {1 | -1} by
   */
  seekCause(by) {
    return this.seek((at) => this.spans.causes.has(at) && !this.spans.isInOther(at), by);
  }

  /**
   * Select the next span in tree order that matches, folded ones too; after the last comes the first.
   * @param {(at: number) => boolean} matches
   * @param {1 | -1} by
   */
  seek(matches, by) {
    const at = nextOf(this.spans.order, this.selected, matches, by);
    if (at >= 0) this.select(at);
    return at >= 0;
  }

  /** @param {Event} event */
  _rowOf(event) {
    const node = targetOf(event)?.closest(".row");
    return this.pool.find((drawn) => drawn.node === node);
  }

  /** @param {Event} event */
  _click(event) {
    const drawn = this._rowOf(event);
    if (!drawn) return;
    const at = this.spans.rows[drawn.row];
    if (event.target === drawn.fold && this.spans.canFold(at)) this._toggle(drawn);
    else this.select(at);
  }

  /** @param {Drawn | undefined} drawn */
  _toggle(drawn) {
    if (!drawn) return;
    const at = this.spans.rows[drawn.row];
    if (this.spans.canFold(at)) this.fold(at, !this.spans.isFolded(at));
  }

  /** @param {WheelEvent} event */
  _wheel(event) {
    const lane = this.pool[0]?.lane;
    if (lane && (event.ctrlKey || event.metaKey || event.deltaX)) this.axis.wheel(event, lane);
  }
}

/**
 * Return the next span in tree order that matches, after the last the first; -1 where none does.
 * @param {Int32Array} order
 * @param {number} selected
 * @param {(at: number) => boolean} matches
 * @param {1 | -1} by
 */
export function nextOf(order, selected, matches, by) {
  const n = order.length;
  const from = selected < 0 ? (by > 0 ? -1 : n) : order.indexOf(selected);
  for (let step = 1; step <= n; step++) {
    const at = order[(((from + by * step) % n) + n) % n];
    if (matches(at)) return at;
  }
  return -1;
}

/**
 * Return the part of the lane that a span's bar takes; null where there is no bar.
 * @param {Spans} spans
 * @param {number} at
 * @param {TimeRange} range
 * @param {number} now
 */
export function barOf(spans, at, range, now) {
  const { start_ms, status } = spans.columns;
  const from = range.place(start_ms[at]);
  const to = range.place(spans.hidden(at).reduce((latest, other) => Math.max(latest, spans.end(other, now)), spans.end(at, now)));
  if (to < 0 || from > 1 || status[at] === "pending") return null;
  const left = Math.max(0, from);
  return { left, width: Math.max(0, Math.min(to, 1) - left) };
}

/**
 * Return the error of a row, without its values where the failures differ in them; or how many spans are folded in it.
 * @param {Spans} spans
 * @param {number} at
 */
export function noteOf(spans, at) {
  const { columns, size, folded } = spans;
  const error = columns.error[at];
  if (spans.hidden(at).some((other) => columns.error[other] !== error)) return columns.common_error[at] ?? "";
  return error ?? (size[at] > 1 && folded.has(at) ? `+${whole(size[at] - 1)}` : "");
}

/**
 * @param {Spans} spans
 * @param {number} at
 * @param {number} now
 */
export function durationOf(spans, at, now) {
  const { status, duration_ms, start_ms, left_open, abandoned } = spans.columns;
  if (status[at] === "pending" || status[at] === "cancelled") return status[at];
  if (left_open[at]) return "left open";
  const others = spans.hidden(at).reduce((sum, other) => sum + (duration_ms[other] ?? 0), 0);
  return (abandoned[at] ? "≥ " : "") + duration((duration_ms[at] ?? Math.max(0, now - start_ms[at])) + others);
}

/**
 * Return the time in which no step inside a span ran; "" where nothing is inside it, or its row stands for several.
 * @param {Spans} spans
 * @param {number} at
 */
const ownTimeOf = (spans, at) => (spans.hidden(at).length ? "" : duration(spans.own.get(at)));

/**
 * Tell whether a span is what a person said.
 * @param {Spans} spans
 * @param {number} at
 */
const isPrompt = ({ columns }, at) => columns.schema_name[at] === "message" && columns.summary[at].startsWith("user: ");

/**
 * Return the title of a row. That of equal failures begins with their number, which is then never cut, and has no arguments, which differ.
 * @param {Spans} spans
 * @param {number} at
 */
export function titleOf(spans, at) {
  const { title, label, summary, error } = spans.columns;
  const others = spans.hidden(at).length;
  if (!others) return withoutError(summary[at], error[at]);
  return `${whole(others + 1)} × ${title[at]}${label[at] ? ` ${label[at]}` : ""} failed`;
}

/**
 * Return the number of a span, as `agentspan show` prints it; "" while the run is not whole.
 * @param {Spans} spans
 * @param {number} at
 */
function placeOf(spans, at) {
  return spans.isWhole ? `#${spans.numberOf(at)}` : "";
}

/**
 * Return the text of a row for a screen reader.
 * @param {Spans} spans
 * @param {number} at
 * @param {number} now
 */
export function labelOf(spans, at, now) {
  const { left_open, status } = spans.columns;
  // As the row reads, then the status: who speaks to a computer says what is seen.
  const own = ownTimeOf(spans, at);
  const parts = [`${placeOf(spans, at)} ${titleOf(spans, at)}`.trim(), noteOf(spans, at), durationOf(spans, at, now), own && `${own} of its own`, left_open[at] ? "left open" : status[at]];
  return [...new Set(parts)].filter(Boolean).join(", ");
}

/**
 * Remove the error from the end of a failed span's summary, because it is shown beside it. Any other end stays.
 * @param {string} summary
 * @param {string | null} error
 */
export function withoutError(summary, error) {
  if (!error) return summary;
  const end = summary.lastIndexOf(` → ${error.slice(0, 24)}`);
  if (end < 0) return summary;
  const tail = summary.slice(end + 3).replace(/…$/, "").trimEnd();
  return error.replace(/…$/, "").startsWith(tail) ? summary.slice(0, end) : summary;
}
