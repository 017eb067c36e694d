// The time axis above the tree: an overview of the whole run, the part of it that is shown, and its ruler.

import { el } from "./dom.js";
import { tick } from "./format.js";

const MINUTE = 60_000;
const LONG_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 240, 360, 720, 1440].map((minutes) => minutes * MINUTE);

/** The least step of those that people count in. */
function stepFor(goal) {
  if (goal > 30_000) return LONG_STEPS.find((step) => step >= goal) ?? 1440 * MINUTE * Math.ceil(goal / (1440 * MINUTE));
  const power = 10 ** Math.floor(Math.log10(goal));
  const step = [1, 2, 5, 10].find((times) => times * power >= goal) * power;
  return step > 10_000 ? [15_000, 20_000, 30_000].find((seconds) => seconds >= goal) : step;
}

export class Axis {
  /** @param {HTMLElement} head Where the overview and the ruler stand. */
  constructor(head, onChange) {
    this.onChange = onChange;
    this.start = 0;
    this.end = 1;
    this.from = 0;
    this.to = 1;
    this.zoomed = false;
    this.canvas = el("canvas", { class: "overview", "aria-hidden": "true" });
    this.brush = el("div", { class: "brush", hidden: true });
    this.ruler = el("div", { class: "ruler", "aria-hidden": "true" });
    head.append(this.canvas, this.brush, this.ruler);
    this.head = head;
    this._listen();
  }

  /** Say how long the run is; what is shown stays, unless it is all. */
  setExtent(start, end) {
    this.start = start;
    this.end = Math.max(end, start + 0.001);
    if (!this.zoomed) [this.from, this.to] = [this.start, this.end];
  }

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

  zoom(factor, around = (this.from + this.to) / 2) {
    this.show(around - (around - this.from) * factor, around + (this.to - around) * factor);
  }

  pan(ms) {
    const width = this.to - this.from;
    const from = Math.min(Math.max(this.from + ms, this.start), this.end - width);
    this.show(from, from + width);
  }

  /** Where a moment lies in the lane, 0 to 1 while it is in sight. */
  place(ms) {
    return (ms - this.from) / (this.to - this.from);
  }

  drawRuler() {
    const width = this.head.clientWidth;
    const goal = (this.to - this.from) / Math.max(3, Math.floor(width / 80));
    const step = stepFor(goal);
    const marks = [];
    for (let n = Math.ceil(this.from / step); n * step <= this.to && marks.length < 40; n++) marks.push(n * step);
    while (this.ruler.children.length > marks.length) this.ruler.lastChild.remove();
    while (this.ruler.children.length < marks.length) this.ruler.append(el("span"));
    marks.forEach((ms, n) => {
      const mark = this.ruler.children[n];
      const place = this.place(ms);
      mark.textContent = tick(ms, step);
      mark.style.left = `${100 * place}%`;
      mark.classList.toggle("last", place * width > width - 50);
    });
    this.brush.hidden = !this.zoomed;
    const all = this.end - this.start;
    this.brush.style.left = `${(100 * (this.from - this.start)) / all}%`;
    this.brush.style.width = `${Math.max(0.4, (100 * (this.to - this.from)) / all)}%`;
  }

  /** Draw all spans small: a span a line while there are few, else several in one. */
  drawOverview(spans, now, colors) {
    const ratio = devicePixelRatio || 1;
    const width = this.head.clientWidth;
    const height = this.canvas.clientHeight;
    if (!width || !height) return;
    if (this.canvas.width !== Math.round(width * ratio)) this.canvas.width = Math.round(width * ratio);
    if (this.canvas.height !== Math.round(height * ratio)) this.canvas.height = Math.round(height * ratio);
    const draw = this.canvas.getContext("2d");
    draw.setTransform(ratio, 0, 0, ratio, 0, 0);
    draw.clearRect(0, 0, width, height);
    const { kind, status, start } = spans.columns;
    const all = this.end - this.start;
    const n = spans.length;
    const step = Math.max(1, Math.ceil(n / 20_000));
    const thick = Math.max(n < 200 ? 2 : 1, Math.min(4, (height - 2) / Math.max(1, n)));
    for (const failed of [false, true]) {
      for (let number = 0; number < n; number += failed ? 1 : step) {
        const at = spans.order[number];
        if ((status[at] === "failed") !== failed) continue;
        const x = ((start[at] - this.start) / all) * width;
        const w = Math.max(2, ((spans.end(at, now) - start[at]) / all) * width);
        draw.fillStyle = failed ? colors.failed : (colors[kind[at]] ?? colors.custom);
        draw.globalAlpha = failed ? 1 : 0.75;
        draw.fillRect(x, 1 + (number / n) * (height - 2 - thick), w, failed ? Math.max(2, thick) : thick);
      }
    }
  }

  _msAt(event) {
    const box = this.head.getBoundingClientRect();
    return { share: (event.clientX - box.left) / box.width, box };
  }

  _listen() {
    // Over the overview a stretch is chosen; over the ruler what is shown is moved.
    let grip = null;
    this.head.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      const { share, box } = this._msAt(event);
      const over = event.clientY < box.top + this.canvas.clientHeight;
      grip = { over, share, from: this.from, to: this.to, moved: false };
      this.head.setPointerCapture(event.pointerId);
    });
    this.head.addEventListener("pointermove", (event) => {
      if (!grip) return;
      const { share } = this._msAt(event);
      if (Math.abs(share - grip.share) < 0.004 && !grip.moved) return;
      grip.moved = true;
      const all = this.end - this.start;
      if (grip.over) {
        const [a, b] = [grip.share, share].sort((x, y) => x - y);
        this.show(this.start + a * all, this.start + b * all);
      } else {
        const by = (grip.share - share) * (grip.to - grip.from);
        const width = grip.to - grip.from;
        const from = Math.min(Math.max(grip.from + by, this.start), this.end - width);
        this.show(from, from + width);
      }
    });
    this.head.addEventListener("pointerup", (event) => {
      if (grip?.over && !grip.moved && this.zoomed) {
        const { share } = this._msAt(event);
        this.pan(this.start + share * (this.end - this.start) - (this.from + this.to) / 2);
      }
      grip = null;
    });
    this.head.addEventListener("dblclick", () => this.showAll());
    this.head.addEventListener("wheel", (event) => this.wheel(event, this.head), { passive: false });
  }

  /** Zoom around the pointer, or pan sideways. */
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
