// The time axis above the tree: an overview of the whole run, the part of it that is shown, and its ruler.

import { el } from "./dom.js";
import { tick } from "./format.js";

/** @import { Spans } from "./spans.js" */

const MINUTE = 60_000;
const LONG_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 240, 360, 720, 1440].map((minutes) => minutes * MINUTE);

/**
 * The least round number of milliseconds that is not below `goal`.
 * @param {number} goal
 */
function stepFor(goal) {
  if (goal > 30_000) return LONG_STEPS.find((step) => step >= goal) ?? 1440 * MINUTE * Math.ceil(goal / (1440 * MINUTE));
  const power = 10 ** Math.floor(Math.log10(goal));
  const step = ([1, 2, 5].find((times) => times * power >= goal) ?? 10) * power;
  return step > 10_000 ? ([15_000, 20_000].find((ms) => ms >= goal) ?? 30_000) : step;
}

/** The times of a run, and the part of them that is shown. */
export class TimeRange {
  /** @param {() => void} onChange called when another part of the run is shown */
  constructor(onChange) {
    this.onChange = onChange;
    // The run, and the part of it that is shown, in ms since the run's start.
    this.start = 0;
    this.end = 1;
    this.from = 0;
    this.to = 1;
    this.zoomed = false;
  }

  /**
   * Set how long the run is; a zoomed part stays as it is.
   * @param {number} start
   * @param {number} end
   */
  setExtent(start, end) {
    this.start = start;
    this.end = Math.max(end, start + 0.001);
    if (!this.zoomed) [this.from, this.to] = [this.start, this.end];
  }

  /**
   * @param {number} from
   * @param {number} to
   */
  show(from, to) {
    const all = this.end - this.start;
    const width = Math.min(all, Math.max(to - from, all / 1e6, 0.002));
    this.from = Math.min(Math.max(from, this.start), this.end - width);
    this.to = this.from + width;
    this.zoomed = width < all * 0.9999;
    this.onChange();
  }

  showAll() {
    this.show(this.start, this.end);
  }

  /**
   * @param {number} factor
   * @param {number} [around]
   */
  zoom(factor, around = (this.from + this.to) / 2) {
    this.show(around - (around - this.from) * factor, around + (this.to - around) * factor);
  }

  /** @param {number} ms */
  pan(ms) {
    this.moveTo(this.from + ms);
  }

  /** @param {number} wanted */
  moveTo(wanted) {
    const width = this.to - this.from;
    const from = Math.min(Math.max(wanted, this.start), this.end - width);
    this.show(from, from + width);
  }

  /**
   * Return the place of a time in the lane: 0 to 1 while it is visible.
   * @param {number} ms
   */
  place(ms) {
    return (ms - this.from) / (this.to - this.from);
  }

  /**
   * Return the marks of a ruler: round times, with their places in the lane.
   * @param {number} width of the ruler in px
   */
  ticks(width) {
    const step = stepFor((this.to - this.from) / Math.max(3, Math.floor(width / 80)));
    const ticks = [];
    for (let n = Math.ceil(this.from / step); n * step <= this.to && ticks.length < 40; n++) {
      const place = this.place(n * step);
      const isLast = place * width > width - 50;
      // The last one is written to the left, where there may be no room for two.
      const text = isLast && (step / (this.to - this.from)) * width < 130 ? "" : tick(n * step, step);
      ticks.push({ text, place, isLast });
    }
    return ticks;
  }
}

export class Axis extends TimeRange {
  /**
   * @param {HTMLElement} head where the overview and the ruler stand
   * @param {() => void} onChange
   */
  constructor(head, onChange) {
    super(onChange);
    this.canvas = el("canvas", { class: "overview", "aria-hidden": "true" });
    this.brush = el("div", { class: "brush", hidden: true });
    this.ruler = el("div", { class: "ruler", "aria-hidden": "true" });
    /** @type {HTMLElement[]} */
    this.marks = [];
    head.append(this.canvas, this.brush, this.ruler);
    this.head = head;
    this._listen();
  }

  drawRuler() {
    const ticks = this.ticks(this.head.clientWidth);
    while (this.marks.length > ticks.length) this.marks.pop()?.remove();
    while (this.marks.length < ticks.length) {
      const mark = el("span");
      this.marks.push(mark);
      this.ruler.append(mark);
    }
    ticks.forEach(({ text, place, isLast }, n) => {
      const mark = this.marks[n];
      mark.textContent = text;
      mark.style.left = `${100 * place}%`;
      mark.classList.toggle("last", isLast);
    });
    this.brush.hidden = !this.zoomed;
    const all = this.end - this.start;
    this.brush.style.left = `${(100 * (this.from - this.start)) / all}%`;
    this.brush.style.width = `${Math.max(0.4, (100 * (this.to - this.from)) / all)}%`;
  }

  /**
   * Draw all spans small: one on a line while there are few, else several.
   * @param {Spans} spans
   * @param {number} now
   * @param {Record<string, string>} colors
   */
  drawOverview(spans, now, colors) {
    const ratio = devicePixelRatio || 1;
    const width = this.head.clientWidth;
    const height = this.canvas.clientHeight;
    if (!width || !height) return;
    if (this.canvas.width !== Math.round(width * ratio)) this.canvas.width = Math.round(width * ratio);
    if (this.canvas.height !== Math.round(height * ratio)) this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    if (!context) return; // a browser that is out of memory
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const { kind, signature, start_ms } = spans.columns;
    const all = this.end - this.start;
    const n = spans.length;
    const step = Math.max(1, Math.ceil(n / 20_000));
    const thickness = Math.max(n < 200 ? 2 : 1, Math.min(4, (height - 2) / Math.max(1, n)));
    for (const failed of [false, true]) {
      for (let number = 0; number < n; number += failed ? 1 : step) {
        const at = spans.order[number];
        if ((signature[at] !== null) !== failed) continue;
        const x = Math.min(((start_ms[at] - this.start) / all) * width, width - 2);
        const w = Math.max(2, ((spans.end(at, now) - start_ms[at]) / all) * width);
        context.fillStyle = failed ? colors.failed : (colors[kind[at]] ?? colors.custom);
        context.globalAlpha = failed ? 1 : 0.75;
        context.fillRect(x, 1 + (number / n) * (height - 2 - thickness), w, failed ? Math.max(2, thickness) : thickness);
      }
    }
  }

  /**
   * Return where in the head an event occurred: 0 at its left edge, 1 at its right.
   * @param {MouseEvent} event
   */
  _share(event) {
    const box = this.head.getBoundingClientRect();
    return (event.clientX - box.left) / box.width;
  }

  _listen() {
    // A drag over the overview selects a part; over the ruler it moves the part that is shown.
    /** @type {{ isOverview: boolean, share: number, from: number, to: number, moved: boolean } | null} */
    let drag = null;
    this.head.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      const isOverview = event.clientY < this.head.getBoundingClientRect().top + this.canvas.clientHeight;
      drag = { isOverview, share: this._share(event), from: this.from, to: this.to, moved: false };
      this.head.setPointerCapture(event.pointerId);
    });
    this.head.addEventListener("pointermove", (event) => {
      if (!drag) return;
      const share = this._share(event);
      if (Math.abs(share - drag.share) < 0.004 && !drag.moved) return;
      drag.moved = true;
      if (drag.isOverview) {
        const all = this.end - this.start;
        const [a, b] = [drag.share, share].sort((x, y) => x - y);
        this.show(this.start + a * all, this.start + b * all);
      } else {
        this.moveTo(drag.from + (drag.share - share) * (drag.to - drag.from));
      }
    });
    this.head.addEventListener("pointerup", (event) => {
      if (drag?.isOverview && !drag.moved && this.zoomed) {
        this.pan(this.start + this._share(event) * (this.end - this.start) - (this.from + this.to) / 2);
      }
      drag = null;
    });
    this.head.addEventListener("dblclick", () => this.showAll());
    this.head.addEventListener("wheel", (event) => this.wheel(event, this.head), { passive: false });
  }

  /**
   * Zoom around the pointer, or pan sideways.
   * @param {WheelEvent} event
   * @param {HTMLElement} lane
   */
  wheel(event, lane) {
    const box = lane.getBoundingClientRect();
    if (event.ctrlKey || event.metaKey || (lane === this.head && !event.deltaX)) {
      event.preventDefault();
      const around = this.from + ((event.clientX - box.left) / box.width) * (this.to - this.from);
      this.zoom(Math.exp(event.deltaY * 0.002), around);
    } else if (event.deltaX && Math.abs(event.deltaX) > Math.abs(event.deltaY) && this.zoomed) {
      event.preventDefault();
      this.pan((event.deltaX / box.width) * (this.to - this.from));
    }
  }
}
