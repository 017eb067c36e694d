// Statistics of a run's span types and their labels: counts, errors, percentiles, and a histogram of durations.

import { add, byId, el, messageOf } from "./dom.js";
import * as format from "./format.js";
import { Parts } from "./parts.js";

/** @import { Spans } from "./spans.js" */

const SVG = "http://www.w3.org/2000/svg";
const BAR = 7;
const ROWS = 60; // until more are asked for
const HINT = "Durations are those of complete and failed spans. An agent span's tokens and cost repeat those of the spans in it.";

export class Stats {
  /**
   * @param {Spans} spans
   * @param {RunSource} source
   * @param {{ onPick: (at: number) => void }} handlers
   */
  constructor(spans, source, { onPick }) {
    this.spans = spans;
    this.source = source;
    this.onPick = onPick;
    this.box = byId("stats");
    this.changes = -1;
    this.isUpdating = false;
    /** @type {Set<string>} the types whose labels are all shown */
    this.whole = new Set();
    this.hasAllTypes = false;
    const [head, body] = [el("thead"), el("tbody")];
    this.head = new Parts(head);
    this.body = new Parts(body);
    this.shown = [el("table", null, head, body), el("p", { class: "hint" }, HINT)];
    /** @type {Statistics} */
    this.statistics = { stats: [], bounds_ms: [] };
  }

  async update() {
    if (this.isUpdating || this.changes === this.spans.changes) return;
    this.isUpdating = true;
    try {
      const changes = this.spans.changes;
      this.statistics = await this.source.stats();
      this._draw();
      this.changes = changes;
    } catch (error) {
      if (!this.shown[0].isConnected) this.box.replaceChildren(el("p", { class: "error-text" }, messageOf(error)));
    } finally {
      this.isUpdating = false;
    }
  }

  /** Draw the rows that have changed; the others keep the focus and what is selected in them. */
  _draw() {
    const { stats, bounds_ms: bounds } = this.statistics;
    const [first, last] = bucketsOf(stats, bounds.length);
    const names = ["Step", "Spans", "Failed", "p50", "p95", "p99", "Max", "Total", "Tokens", "Cost"];
    const head = names.map((name, n) => el("th", { scope: "col", class: n ? "number" : null }, name));
    /** @param {number} bucket */
    const edge = (bucket) => el("span", null, bucket ? format.duration(bounds[bucket - 1]) : "0");
    head.push(el("th", { scope: "col" }, el("span", { class: "scale" }, edge(first), edge(last))));
    const slowest = slowestOf(this.spans);
    /** @type {(name: string | null, text: string) => HTMLElement} */
    const rest = (name, text) => {
      const button = el("button", { type: "button", class: "link" }, text);
      const row = el("tr", null, el("th", { scope: "row", colspan: names.length + 1 }, button));
      button.addEventListener("click", () => {
        const place = [...(row.parentNode?.children ?? [])].indexOf(row);
        if (name === null) this.hasAllTypes = true;
        else this.whole.add(name);
        this._draw();
        this.box.querySelectorAll("tbody tr")[place]?.querySelector("button")?.focus();
      });
      return row;
    };
    /** @type {DetailPart[]} */
    const rows = shorten(stats, this.whole, this.hasAllTypes).map((each) => {
      if ("schema_name" in each) {
        const name = keyOf(each.schema_name, each.label);
        const make = () => this._row(each, slowest, bounds, first, last);
        return { name, data: [JSON.stringify(each), slowest.get(name), first, last], make };
      }
      const { of, left } = each;
      const text = of === null ? `Show ${format.plural(left, "more type")}` : `Show ${format.whole(left)} more of ${of}`;
      return { name: `\0${of}`, data: [text], make: () => rest(of, text) };
    });
    this.head.show("", [{ name: "head", data: [first, last], make: () => el("tr", null, ...head) }]);
    this.body.show("", rows);
    if (!this.shown[0].isConnected) this.box.replaceChildren(...this.shown);
  }

  /**
   * @param {Stat} stat
   * @param {Map<string, number>} slowestOf
   * @param {number[]} bounds
   * @param {number} first the first bucket that is shown
   * @param {number} last
   */
  _row(stat, slowestOf, bounds, first, last) {
    const slowest = slowestOf.get(keyOf(stat.schema_name, stat.label)) ?? -1;
    const max = format.duration(stat.max_ms);
    const pick = () => this.onPick(slowest);
    const failed = stat.failed ? `${format.whole(stat.failed)} · ${format.percent(stat.failed, stat.count)}` : "";
    const hasTokens = stat.input_tokens !== null || stat.output_tokens !== null;
    const tokens = hasTokens ? format.count((stat.input_tokens ?? 0) + (stat.output_tokens ?? 0)) : "";
    /** @type {Child[]} */
    const cells = [format.whole(stat.count), failed, ...[stat.p50_ms, stat.p95_ms, stat.p99_ms].map(format.duration)];
    cells.push(slowest < 0 ? max : el("button", { type: "button", class: "link", title: "Open the slowest", onclick: pick }, max));
    cells.push(stat.max_ms === null ? "" : format.duration(stat.total_ms), tokens, stat.cost_usd === null ? "" : format.cost(stat.cost_usd));
    const name = el("th", { scope: "row" });
    if (stat.label === null) add(name, el("i", { class: `kind k-${stat.kind}` }), stat.schema_name);
    else add(name, el("span", { class: "label" }, stat.label));
    const numbers = cells.map((cell, n) => add(el("td", { class: n === 1 && stat.failed ? "number bad" : "number" }), cell));
    const spread = el("td", null, histogram(stat, bounds, first, last));
    return el("tr", { class: stat.label === null ? "group" : null }, name, ...numbers, spread);
  }
}

/**
 * Leave out types and labels until so many rows are left, as shorten in analysis/stats.py does; but what was asked
 * for is shown whole. `left` are the labels of a type, or with null the types, that are left out at this place.
 * @param {Stat[]} stats
 * @param {Set<string>} whole the types whose labels are all shown
 * @param {boolean} hasAllTypes
 */
export function shorten(stats, whole, hasAllTypes) {
  const types = stats.filter((stat) => stat.label === null);
  const labels = stats.filter((stat) => stat.label !== null);
  const most = hasAllTypes ? types.length : Math.max(1, Math.floor(ROWS / 2), ROWS - labels.length);
  const shown = new Set(types.slice(0, most).map((stat) => stat.schema_name));
  const longest = labels.filter((stat) => shown.has(stat.schema_name)).sort((a, b) => b.total_ms - a.total_ms);
  const kept = new Set(longest.slice(0, Math.max(0, ROWS - shown.size)));
  /** @type {(Stat | { of: string | null, left: number })[]} */
  const rows = [];
  let left = 0;
  stats.forEach((stat, n) => {
    if (!shown.has(stat.schema_name)) return;
    if (stat.label === null || kept.has(stat) || whole.has(stat.schema_name)) rows.push(stat);
    else left++;
    if (left && stats[n + 1]?.schema_name !== stat.schema_name) {
      rows.push({ of: stat.schema_name, left });
      left = 0;
    }
  });
  if (shown.size < types.length) rows.push({ of: null, left: types.length - shown.size });
  return rows;
}

/**
 * Return the first and the last bucket of the histograms. At least a handful, so that one bar does not look like all there is.
 * @param {Stat[]} stats
 * @param {number} end the last bucket that there is
 */
export function bucketsOf(stats, end) {
  const used = stats.flatMap((stat) => stat.histogram.flatMap((n, bucket) => (n ? [bucket] : [])));
  const first = Math.max(0, Math.min(...used, end) - 1);
  return [first, Math.min(end, Math.max(...used, first + 6) + 1)];
}

/**
 * Return the slowest span of each type, and of each of its labels, of those that have ended.
 * @param {Spans} spans
 */
export function slowestOf(spans) {
  const { schema_name, label, duration_ms } = spans.columns;
  /** @type {Map<string, number>} */
  const slowest = new Map();
  for (let at = 0; at < spans.length; at++) {
    const duration = duration_ms[at];
    if (duration === null) continue;
    for (const name of new Set([null, label[at]])) {
      const key = keyOf(schema_name[at], name);
      const known = slowest.get(key);
      if (known === undefined || duration > (duration_ms[known] ?? 0)) slowest.set(key, at);
    }
  }
  return slowest;
}

/**
 * @param {string} schema_name
 * @param {string | null} label
 */
export const keyOf = (schema_name, label) => (label === null ? schema_name : `${schema_name}\0${label}`);

/**
 * Return bars as one path: as rectangles, each would be an element.
 * @param {number[]} counts
 */
export function barsOf(counts) {
  const most = Math.max(...counts);
  /** @param {number} height */
  const bar = (height) => `22v${-height}h${BAR - 1}v${height}z`;
  return counts.map((count, n) => (count ? `M${n * BAR} ${bar(Math.max(2, (20 * count) / most))}` : "")).join("");
}

/**
 * Draw how many spans are in each bucket.
 * @param {Stat} stat
 * @param {number[]} bounds
 * @param {number} first
 * @param {number} last
 */
function histogram(stat, bounds, first, last) {
  const counts = stat.histogram.slice(first, last + 1);
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", barsOf(counts));
  svg.setAttribute("viewBox", `0 0 ${counts.length * BAR} 22`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", `histogram k-${stat.kind}`);
  svg.setAttribute("role", "img");
  const labels = counts.flatMap((count, n) => (count ? [`${format.whole(count)} from ${n + first ? format.duration(bounds[n + first - 1]) : "0"}`] : []));
  svg.setAttribute("aria-label", labels.join(", ") || "no durations");
  const title = document.createElementNS(SVG, "title");
  title.textContent = labels.join("\n");
  svg.append(title, path);
  return svg;
}
