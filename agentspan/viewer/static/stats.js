// What each kind of step took in a run: counts, errors, percentiles, and how durations are spread.

import { add, byId, el } from "./dom.js";
import * as format from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const BAR = 7;

export class Stats {
  constructor(spans, source, { onPick }) {
    this.spans = spans;
    this.source = source;
    this.onPick = onPick;
    this.box = byId("stats");
    this.read = -1;
  }

  async update() {
    if (this.busy || this.read === this.spans.changes) return;
    this.busy = true;
    try {
      const seen = this.spans.changes;
      this._draw(await this.source.stats());
      this.read = seen;
    } catch (error) {
      this.box.replaceChildren(el("p", { class: "error-text" }, error.message));
    } finally {
      this.busy = false;
    }
  }

  _draw({ stats, bounds_ms: bounds }) {
    const used = stats.flatMap((one) => one.histogram.flatMap((n, bucket) => (n ? [bucket] : [])));
    // At least a handful of buckets, so that one bar does not look like all there is.
    const first = Math.max(0, Math.min(...used, bounds.length) - 1);
    const last = Math.min(bounds.length, Math.max(...used, first + 6) + 1);
    const names = ["Step", "Spans", "Failed", "p50", "p95", "p99", "Max", "Total", "Tokens", "Cost"];
    const head = names.map((name, n) => el("th", { scope: "col", class: n ? "number" : null }, name));
    const edge = (bucket) => el("span", null, bucket ? format.duration(bounds[bucket - 1]) : "0");
    head.push(el("th", { scope: "col" }, el("span", { class: "scale" }, edge(first), edge(last))));
    const rows = stats.map((one) => this._row(one, bounds, first, last));
    this.box.replaceChildren(
      el("table", null, el("thead", null, el("tr", null, ...head)), el("tbody", null, ...rows)),
      el("p", { class: "hint" }, "Durations are those of complete and failed spans. An agent span's tokens and cost repeat what the spans in it used."),
    );
  }

  _row(one, bounds, first, last) {
    const slowest = this._slowest(one);
    const max = format.duration(one.max_ms);
    const pick = () => this.onPick(slowest);
    const failed = one.failed ? `${format.whole(one.failed)} · ${format.percent(one.failed, one.count)}` : "";
    const tokens = one.input_tokens === null && one.output_tokens === null ? "" : format.count((one.input_tokens ?? 0) + (one.output_tokens ?? 0));
    const cells = [format.whole(one.count), failed, ...[one.p50_ms, one.p95_ms, one.p99_ms].map(format.duration)];
    cells.push(slowest < 0 ? max : el("button", { type: "button", class: "link", title: "Open the slowest", onclick: pick }, max));
    cells.push(one.max_ms === null ? "" : format.duration(one.total_ms), tokens, one.cost_usd === null ? "" : format.cost(one.cost_usd));
    const name = el("th", { scope: "row" });
    if (one.label === null) add(name, el("i", { class: `kind k-${one.kind}` }), one.schema_name);
    else add(name, el("span", { class: "label" }, one.label));
    const numbers = cells.map((cell, n) => add(el("td", { class: n === 1 && one.failed ? "number bad" : "number" }), cell));
    const spread = el("td", null, histogram(one, bounds, first, last));
    return el("tr", { class: one.label === null ? "group" : null }, name, ...numbers, spread);
  }

  _slowest(one) {
    const { name, label, took } = this.spans.columns;
    let slowest = -1;
    for (let at = 0; at < this.spans.length; at++) {
      if (name[at] !== one.schema_name || (one.label !== null && label[at] !== one.label)) continue;
      if (took[at] !== null && (slowest < 0 || took[at] > took[slowest])) slowest = at;
    }
    return slowest;
  }
}

/** How many spans lie in each bucket; one path for all bars, which as rectangles would be an element each. */
function histogram(one, bounds, first, last) {
  const counts = one.histogram.slice(first, last + 1);
  const most = Math.max(...counts, 1);
  const width = counts.length * BAR;
  const bars = counts.map((count, n) => {
    const height = count ? Math.max(2, (20 * count) / most) : 0;
    return count ? `M${n * BAR} 22v${-height}h${BAR - 1}v${height}z` : "";
  });
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", bars.join(""));
  svg.setAttribute("viewBox", `0 0 ${width} 22`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", `histogram k-${one.kind}`);
  svg.setAttribute("role", "img");
  const words = counts.flatMap((count, n) => (count ? [`${format.whole(count)} from ${n + first ? format.duration(bounds[n + first - 1]) : "0"}`] : []));
  svg.setAttribute("aria-label", words.join(", ") || "no durations");
  const title = document.createElementNS(SVG, "title");
  title.textContent = words.join("\n");
  svg.append(title, path);
  return svg;
}
