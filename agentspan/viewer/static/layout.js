// The widths of the columns: what fits the window and the run, or what a reader set, which this browser keeps.

import { byId, setAttribute } from "./dom.js";

/** @import { Spans } from "./spans.js" */

const NARROWEST = 300;
const ROOM_OF_TREE = 360;
const NARROWEST_LANE = 64;
const ROOM_OF_TEXT = 200;
const STEP = 32;
const MANY = 40; // bars that need a long time line

/**
 * Return the width of the time line that leaves the texts the room that its bars do not need.
 * @param {number} width of the tree
 * @param {number} bars spans that took time
 */
export function laneWidth(width, bars) {
  const share = bars > MANY ? 0.36 : bars > MANY / 4 ? 0.28 : bars > 1 ? 0.2 : 0;
  const wanted = width < 560 ? width * Math.min(share, 0.2) : width * share;
  return Math.round(Math.max(NARROWEST_LANE, Math.min(wanted, 1000)));
}

/**
 * Count the bars that are more than a line, up to those that make a difference.
 * @param {Spans} spans
 */
export function countBars({ columns: { start_ms, duration_ms }, length }) {
  let end = 0;
  for (let at = 0; at < length; at++) end = Math.max(end, start_ms[at] + (duration_ms[at] ?? 0));
  let bars = 0;
  for (let at = 0; at < length && bars <= MANY; at++) if ((duration_ms[at] ?? end) > end / 200) bars++;
  return bars;
}

export class Layout {
  /** @param {Spans} spans */
  constructor(spans) {
    this.spans = spans;
    this.tree = byId("panel-tree");
    const box = byId("run");
    const detail = byId("detail");
    this.detail = new Splitter(byId("splitter"), {
      name: "detail",
      least: () => NARROWEST,
      most: () => Math.max(NARROWEST, box.clientWidth - ROOM_OF_TREE),
      width: () => detail.offsetWidth,
      right: () => detail.getBoundingClientRect().right,
      set: (px) => box.style.setProperty("--detail", px),
    });
    this.lane = new Splitter(byId("lane-splitter"), {
      name: "lane",
      least: () => NARROWEST_LANE,
      most: () => Math.max(NARROWEST_LANE, this.tree.clientWidth - ROOM_OF_TEXT),
      width: () => byId("axis").offsetWidth,
      right: () => byId("axis").getBoundingClientRect().right,
      set: (px) => this.tree.style.setProperty("--lane", px),
    });
    addEventListener("resize", () => this.fit());
    new ResizeObserver(() => this.fit()).observe(this.tree);
    new ResizeObserver(() => this.detail.fit()).observe(box);
  }

  /** Give the time line its width again, after the window or the number of bars changed. */
  fit() {
    if (!this.lane.isSet) this.tree.style.setProperty("--lane", `${laneWidth(this.tree.clientWidth, countBars(this.spans))}px`);
    this.lane.fit();
  }
}

/** A handle between two columns that sets the width of the right one, by the pointer and by arrows. */
class Splitter {
  /**
   * @param {HTMLElement} handle
   * @param {{
   *   name: string, least: () => number, most: () => number, width: () => number, right: () => number, set: (width: string) => void
   * }} column all in px; `name` is the one under which the width is kept
   */
  constructor(handle, column) {
    this.handle = handle;
    this.column = column;
    this.stored = `agentspan-width-${column.name}`;
    this.wanted = this._read();
    handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
    handle.addEventListener("pointermove", (event) => {
      if (handle.hasPointerCapture(event.pointerId)) this._set(column.right() - event.clientX);
    });
    handle.addEventListener("dblclick", () => this._set(0));
    handle.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: STEP, ArrowRight: -STEP }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      this._set(column.width() + by);
    });
    this.fit();
  }

  /** Tell whether the reader has set a width. */
  get isSet() {
    return this.wanted > 0;
  }

  /** Show the width that the reader set, as far as there is room, and say where the handle is. */
  fit() {
    const { least, most, width, set } = this.column;
    if (this.wanted) set(`${Math.round(Math.min(Math.max(this.wanted, least()), most()))}px`);
    setAttribute(this.handle, "aria-valuemin", least());
    setAttribute(this.handle, "aria-valuemax", most());
    setAttribute(this.handle, "aria-valuenow", Math.min(Math.max(width(), least()), most()));
  }

  /** @param {number} px 0 for the width that fits */
  _set(px) {
    this.wanted = px && Math.min(Math.max(px, this.column.least()), this.column.most());
    if (!px) this.column.set("");
    try {
      if (px) localStorage.setItem(this.stored, String(Math.round(this.wanted)));
      else localStorage.removeItem(this.stored);
    } catch {
      // A page opened from a file may have no storage.
    }
    this.fit();
    dispatchEvent(new Event("resize"));
  }

  _read() {
    try {
      return Number(localStorage.getItem(this.stored)) || 0;
    } catch {
      return 0;
    }
  }
}
