// Statistics of a run's span types and their labels: counts, errors, percentiles, and a histogram of durations. And what each
// prompt of the run used.

import { add, byId, el, messageOf } from "./dom.js";
import * as format from "./format.js";
import { Parts } from "./parts.js";

/** @import { Spans } from "./spans.js" */

const SVG = "http://www.w3.org/2000/svg";
const BAR = 7;
const HINT = "Durations are those of complete and failed spans. An agent span's tokens and cost repeat those of the spans in it.";
const LEGEND =
  "A bar counts the spans of a range of durations; the ranges grow: 1, 2, 5, 10 … (a logarithmic scale, the same in all rows). The highest bar of a row has its full height.";

/** Columns that are left out where no row has a value. @type {{ name: string, has: (stat: Stat) => boolean }[]} */
const OPTIONAL = [
  { name: "failed", has: (stat) => stat.failed > 0 },
  { name: "tokens", has: (stat) => stat.input_tokens !== null || stat.output_tokens !== null },
  { name: "cost", has: (stat) => stat.cost_usd !== null },
];

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
    /** @type {Set<string>} the rows that were asked for */
    this.asked = new Set();
    const [head, body] = [el("thead"), el("tbody")];
    this.head = new Parts(head);
    this.body = new Parts(body);
    this.shown = [el("table", null, head, body), el("p", { class: "hint" }, LEGEND), el("p", { class: "hint" }, HINT)];
    /** @type {Statistics} */
    this.statistics = { stats: [], bounds_ms: [], rests: [], prompts: [] };
    const prompts = el("tbody");
    this.prompts = new Parts(prompts);
    const names = ["Prompt", "Calls", "Tokens in", "Out", "Cost"];
    const heads = names.map((name, n) => el("th", { scope: "col", class: n ? "number" : null }, name));
    const table = el("table", null, el("thead", null, el("tr", null, ...heads)), prompts);
    this.shownPrompts = el("details", { open: "" }, el("summary", null, "What each prompt cost, with all until the next"), table);
  }

  async update() {
    if (this.isUpdating || this.changes === this.spans.changes) return;
    this.isUpdating = true;
    if (!this.shown[0].isConnected) {
      this.box.replaceChildren(el("p", { class: "busy", role: "status" }, `Adding up ${format.plural(this.spans.length, "span")} …`));
    }
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
    this.shown[0].dataset.empty = OPTIONAL.flatMap(({ name, has }) => (stats.some(has) ? [] : [name])).join(" ");
    const names = ["Step", "Spans", "Failed", "p50", "p95", "p99", "Max", "Total", "Tokens", "Cost"];
    const head = names.map((name, n) => el("th", { scope: "col", class: n ? "number" : null }, name));
    /** @param {number} bucket */
    const edge = (bucket) => el("span", null, bucket ? format.duration(bounds[bucket - 1]) : "0");
    head.push(el("th", { scope: "col" }, "Durations, logarithmic", el("span", { class: "scale" }, edge(first), edge(last))));
    const slowest = slowestOf(this.spans);
    /** @type {DetailPart[]} */
    const rows = rowsOf(this.statistics, this.asked).map((each) => {
      if ("schema_name" in each) {
        const name = keyOf(each.schema_name, each.label);
        const make = () => this._row(each, slowest, bounds, first, last);
        return { name, data: [JSON.stringify(each), slowest.get(name), first, last], make };
      }
      const { of, left, number, unsent } = each;
      return { name: `rest ${restKey(of, left)}`, data: [number, unsent], make: () => this._rest(of, left, number, unsent, names.length + 1) };
    });
    this.head.show("", [{ name: "head", data: [first, last], make: () => el("tr", null, ...head) }]);
    this.body.show("", rows);
    const { prompts } = this.statistics;
    this.prompts.show("", prompts.map((each) => ({ name: each.span ?? "", data: [JSON.stringify(each)], make: () => this._prompt(each) })));
    if (!this.shown[0].isConnected) this.box.replaceChildren(...this.shown);
    if (this.shownPrompts.isConnected !== prompts.length > 0) byId("prompts").replaceChildren(...(prompts.length ? [this.shownPrompts] : []));
  }

  /** @param {PromptUse} use */
  _prompt({ name, span, calls, input_tokens, output_tokens, cost_usd, unpriced_calls }) {
    const open = () => this.onPick(this.spans.indexOf.get(span ?? "") ?? -1);
    const title = span === null ? "before the first prompt" : el("button", { type: "button", class: "link", onclick: open }, name);
    const cost = cost_usd === null ? "" : `${unpriced_calls ? "≥ " : ""}${format.cost(cost_usd)}`;
    const numbers = [format.whole(calls), ...[input_tokens, output_tokens].map((n) => (n === null ? "" : format.count(n))), cost];
    return el("tr", null, el("th", { scope: "row" }, title), ...numbers.map((text) => el("td", { class: "number" }, text)));
  }

  /**
   * Return the row that stands for others, and shows them when it is asked to.
   * @param {string | null} of
   * @param {"once" | "more"} left
   * @param {number} number
   * @param {number} unsent how many of them the page does not have
   * @param {number} columns
   */
  _rest(of, left, number, unsent, columns) {
    const what = left === "once" ? `${format.plural(number, "label")} that ${number === 1 ? "occurs" : "occur"} once` : format.plural(number, of === null ? "more type" : "more label");
    const button = el("button", { type: "button", class: "link" }, `Show ${what}`);
    const cell = el("th", { scope: "row", colspan: columns }, unsent ? `… and ${format.whole(unsent)} more: agentspan stats RUN --all` : button);
    const row = el("tr", { class: of === null ? null : "rest" }, cell);
    button.addEventListener("click", () => {
      const place = [...(row.parentNode?.children ?? [])].indexOf(row);
      this.asked.add(restKey(of, left));
      this._draw();
      this.box.querySelectorAll("tbody tr")[place]?.querySelector("button")?.focus();
    });
    return row;
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
 * Return the rows to show: statistics, and for those that are shown only on request one row with their number.
 * @param {Statistics} statistics
 * @param {Set<string>} asked the keys of the rows that were asked for
 * @returns {(Stat | { of: string | null, left: "once" | "more", number: number, unsent: number })[]}
 */
export function rowsOf({ stats, rests }, asked) {
  /** @type {ReturnType<typeof rowsOf>} */
  const rows = [];
  const isShown = (/** @type {Stat} */ { schema_name, label, left }) => !left || asked.has(restKey(label === null ? null : schema_name, left));
  /** @type {(name: string | null, own: Stat[]) => void} */
  const addRests = (name, own) => {
    for (const left of /** @type {const} */ (["more", "once"])) {
      const sent = own.filter((stat) => stat.left === left).length;
      const number = rests.find(({ schema_name, is_once }) => schema_name === name && is_once === (left === "once"))?.number ?? sent;
      const isAsked = asked.has(restKey(name, left));
      if (number > (isAsked ? sent : 0)) rows.push({ of: name, left, number, unsent: isAsked ? number - sent : 0 });
    }
  };
  const types = stats.filter(({ label }) => label === null);
  for (const type of types.filter(isShown)) {
    const own = stats.filter(({ schema_name, label }) => schema_name === type.schema_name && label !== null);
    rows.push(type, ...own.filter(isShown));
    addRests(type.schema_name, own);
  }
  addRests(null, types);
  return rows;
}

/**
 * @param {string | null} name the type, null for types
 * @param {string} left
 */
const restKey = (name, left) => `${left}\0${name ?? ""}`;

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
