// The tree with its bars: as many row elements as fit in sight, whatever the length of the run.

import { byId, el, setAttribute, setText } from "./dom.js";
import { duration } from "./format.js";

export const ROW = 26;
const SPARE = 4;
const DEEPEST = 18;

export class Tree {
  constructor(spans, axis, { onSelect, onToggle }) {
    this.spans = spans;
    this.axis = axis;
    this.onSelect = onSelect;
    this.onToggle = onToggle;
    this.box = byId("tree");
    this.room = byId("tree-room");
    this.pool = [];
    this.version = 0;
    this.selected = -1;
    this.matches = new Set();
    this.now = 0;
    this.waiting = false;
    this.box.addEventListener("scroll", () => this.draw(), { passive: true });
    this.box.addEventListener("click", (event) => this._click(event));
    this.box.addEventListener("dblclick", (event) => this._toggleAt(this._rowOf(event)));
    this.box.addEventListener("wheel", (event) => this._wheel(event), { passive: false });
    new ResizeObserver(() => this.refresh()).observe(this.box);
  }

  /** The spans or what is shown of them changed: list the rows anew. */
  relist() {
    this.spans.unroll();
    this.room.style.height = `${this.spans.rows.length * ROW}px`;
    this.refresh();
  }

  /** Draw every row again. */
  refresh() {
    this.version++;
    this.draw();
  }

  /** Draw at the next frame what is not drawn yet. */
  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this._draw();
    });
  }

  _draw() {
    const rows = this.spans.rows;
    const from = Math.max(0, Math.floor(this.box.scrollTop / ROW) - SPARE);
    const to = Math.min(rows.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + SPARE);
    const needed = Math.ceil(this.box.clientHeight / ROW) + 2 * SPARE + 1;
    while (this.pool.length < needed) this.pool.push(this._make());
    while (this.pool.length > needed) this.pool.pop().node.remove();
    const taken = new Set();
    for (let row = from; row < to; row++) {
      const drawn = this.pool[row % this.pool.length];
      taken.add(drawn);
      if (drawn.row === row && drawn.version === this.version) continue;
      this._fill(drawn, row, rows[row]);
    }
    for (const drawn of this.pool) {
      if (!taken.has(drawn) && drawn.row !== -1) {
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
    const parts = { fold: el("i", { class: "fold" }), mark: el("i"), kind: el("i"), text: el("span", { class: "text" }) };
    Object.assign(parts, { error: el("span", { class: "error" }), took: el("span", { class: "took" }) });
    Object.assign(parts, { bar: el("i", { class: "bar" }), lane: el("span", { class: "lane" }) });
    parts.step = el("span", { class: "step" }, parts.fold, parts.mark, parts.kind, parts.text, parts.error);
    parts.lane.append(parts.bar);
    const node = el("div", { class: "row", role: "treeitem", hidden: true }, parts.step, parts.took, parts.lane);
    this.room.append(node);
    return { node, row: -1, version: -1, ...parts };
  }

  _fill(drawn, row, at) {
    const { columns, depth, size, folded } = this._facts();
    const status = columns.status[at];
    const deep = Math.min(depth[at], DEEPEST);
    drawn.row = row;
    drawn.version = this.version;
    drawn.node.hidden = false;
    drawn.node.style.transform = `translateY(${row * ROW}px)`;
    drawn.node.id = `row-${at}`;
    drawn.step.style.paddingLeft = `${8 + deep * 16}px`;
    drawn.step.style.setProperty("--deep", deep);
    const isParent = size[at] > 1;
    drawn.fold.className = `fold${isParent ? (folded.has(at) ? " shut" : " wide") : ""}`;
    drawn.mark.className = `mark ${columns.left[at] ? "left" : status}`;
    drawn.kind.className = `kind k-${columns.kind[at]}`;
    const error = columns.error[at];
    setText(drawn.text, withoutError(columns.summary[at], error));
    setText(drawn.error, error ?? (isParent && folded.has(at) ? `+${(size[at] - 1).toLocaleString("en")}` : ""));
    drawn.error.classList.toggle("plain", !error);
    setText(drawn.took, this._took(at));
    const is = ["row", at === this.selected && "selected", this.matches.has(at) && "match", status];
    drawn.node.className = is.filter(Boolean).join(" ");
    this._place(drawn, at);
    setAttribute(drawn.node, "aria-level", depth[at] + 1);
    setAttribute(drawn.node, "aria-posinset", this.spans.position[at]);
    setAttribute(drawn.node, "aria-setsize", this.spans.siblings[at]);
    setAttribute(drawn.node, "aria-expanded", isParent ? String(!folded.has(at)) : null);
    setAttribute(drawn.node, "aria-selected", String(at === this.selected));
    setAttribute(drawn.node, "aria-label", this.labelOf(at));
  }

  _place(drawn, at) {
    const { columns } = this.spans;
    const from = this.axis.place(columns.start[at]);
    const to = this.axis.place(this.spans.end(at, this.now));
    const hidden = to < 0 || from > 1 || columns.status[at] === "pending";
    drawn.bar.hidden = hidden;
    if (hidden) return;
    const left = Math.max(0, Math.min(from, 1));
    drawn.bar.className = `bar k-${columns.kind[at]} ${columns.status[at]}`;
    drawn.bar.style.left = `${100 * left}%`;
    drawn.bar.style.width = `${100 * Math.max(0, Math.min(to, 1) - left)}%`;
  }

  _facts() {
    const { columns, depth, size, folded } = this.spans;
    return { columns, depth, size, folded };
  }

  _took(at) {
    const { status, took, start, left } = this.spans.columns;
    if (status[at] === "pending" || status[at] === "cancelled") return status[at];
    if (left[at]) return "left open";
    return took[at] === null ? duration(Math.max(0, this.now - start[at])) : duration(took[at]);
  }

  /** What a screen reader says of a row. */
  labelOf(at) {
    const { columns } = this.spans;
    const error = columns.error[at];
    const status = columns.left[at] ? "left open" : columns.status[at];
    return [withoutError(columns.summary[at], error), error, status, this._took(at)].filter(Boolean).join(", ");
  }

  /** Select a span, unfold what it lies in, and bring it into sight. */
  select(at, { quiet = false } = {}) {
    this.selected = at;
    if (at >= 0) {
      if (this.spans.reveal(at)) this.relist();
      this.scrollTo(this.spans.rowOf[at]);
    }
    this.refresh();
    if (!quiet) this.onSelect(at);
  }

  scrollTo(row) {
    const top = row * ROW;
    const height = this.box.clientHeight;
    if (top < this.box.scrollTop + ROW) this.box.scrollTop = top - ROW;
    else if (top + 2 * ROW > this.box.scrollTop + height) this.box.scrollTop = top + 2 * ROW - height;
  }

  /** Move by rows, from the selected one or, before there is one, from above the first. */
  move(by) {
    const rows = this.spans.rows;
    if (!rows.length) return;
    const row = this.selected < 0 ? -1 : this.spans.rowOf[this.selected];
    this.select(rows[Math.min(rows.length - 1, Math.max(0, row + by))]);
  }

  page() {
    return Math.max(1, Math.floor(this.box.clientHeight / ROW) - 1);
  }

  /** Fold the selected span, or go to its parent. */
  left() {
    const at = this.selected;
    if (at < 0) return this.move(1);
    if (this.spans.size[at] > 1 && !this.spans.folded.has(at)) this.fold(at, true);
    else if (this.spans.above[at] >= 0) this.select(this.spans.above[at]);
  }

  /** Unfold the selected span, or go to its first child. */
  right() {
    const at = this.selected;
    if (at < 0) return this.move(1);
    if (this.spans.folded.has(at)) this.fold(at, false);
    else if (this.spans.size[at] > 1) this.move(1);
  }

  fold(at, shut) {
    if (shut) this.spans.folded.add(at);
    else this.spans.folded.delete(at);
    this.relist();
    this.onToggle?.();
  }

  foldAll(shut) {
    this.spans.folded.clear();
    for (let at = 0; shut && at < this.spans.length; at++) if (this.spans.size[at] > 1) this.spans.folded.add(at);
    let at = this.selected;
    while (shut && at >= 0 && this.spans.above[at] >= 0) at = this.spans.above[at];
    this.relist();
    if (at >= 0) this.select(at);
  }

  /** Go to the next span in tree order, folded ones too, for which something holds; from the end to the beginning. */
  seek(holds, by = 1) {
    const { order } = this.spans;
    const n = order.length;
    const from = this.selected < 0 ? (by > 0 ? -1 : n) : order.indexOf(this.selected);
    for (let step = 1; step <= n; step++) {
      const at = order[(((from + by * step) % n) + n) % n];
      if (holds(at)) {
        this.select(at);
        return true;
      }
    }
    return false;
  }

  _rowOf(event) {
    const node = event.target.closest?.(".row");
    return this.pool.find((drawn) => drawn.node === node);
  }

  _click(event) {
    const drawn = this._rowOf(event);
    if (!drawn) return;
    const at = this.spans.rows[drawn.row];
    if (event.target === drawn.fold && this.spans.size[at] > 1) this._toggleAt(drawn);
    else this.select(at);
  }

  _toggleAt(drawn) {
    if (!drawn) return;
    const at = this.spans.rows[drawn.row];
    if (this.spans.size[at] > 1) this.fold(at, !this.spans.folded.has(at));
  }

  _wheel(event) {
    const lane = this.pool[0]?.lane;
    if (lane && (event.ctrlKey || event.metaKey || event.deltaX)) this.axis.wheel(event, lane);
  }
}

/** Take a built-in type's outcome off a failed span's summary: the error is shown beside it. */
export function withoutError(summary, error) {
  if (!error) return summary;
  const end = summary.lastIndexOf(` → ${error.slice(0, 24)}`);
  return end < 0 ? summary : summary.slice(0, end);
}
