// What each kind of step took in a run: counts, errors, percentiles, and how durations are spread.

import { add, byId, el } from "./dom.js";
import * as format from "./format.js";

const BARS = 24;

export class Stats {
  constructor(spans, { onPick }) {
    this.spans = spans;
    this.onPick = onPick;
    this.box = byId("stats");
    this.read = -1;
  }

  update() {
    if (this.read === this.spans.changes) return;
    this.read = this.spans.changes;
    const groups = gather(this.spans);
    const all = groups.flatMap((group) => group.took).filter((ms) => ms > 0);
    const scale = [Math.min(...minMax(all)), Math.max(...minMax(all))];
    const head = ["", "spans", "failed", "p50", "p95", "p99", "max", "total", "tokens", "cost", "durations"];
    const names = head.map((name, n) => el("th", { scope: "col", class: n && n < 10 ? "number" : "" }, name));
    const body = el("tbody");
    for (const group of groups) body.append(this._row(group, scale));
    const range = all.length ? `Bars: from ${format.duration(scale[0])} to ${format.duration(scale[1])}, each step ×${step(scale).toFixed(1)}.` : "";
    this.box.replaceChildren(
      el("table", null, el("thead", null, el("tr", null, ...names)), body),
      el("p", { class: "hint" }, `${format.plural(this.spans.length, "span")}, by span type and label. ${range}`),
    );
  }

  _row(group, scale) {
    const took = group.took.sort((a, b) => a - b);
    const share = (p) => (took.length ? format.duration(took[Math.max(0, Math.ceil(p * took.length) - 1)]) : "");
    const total = took.reduce((sum, ms) => sum + ms, 0);
    const pick = el("button", { type: "button", class: "link", onclick: () => this.onPick(group.slowest) }, share(1));
    const failed = group.failed ? `${format.whole(group.failed)} (${format.percent(group.failed, group.count)})` : "";
    const cells = [format.whole(group.count), failed, share(0.5), share(0.95), share(0.99), pick, format.duration(total)];
    cells.push(group.tokens === null ? "" : format.count(group.tokens), group.cost === null ? "" : format.cost(group.cost));
    const name = el("th", { scope: "row" }, el("i", { class: `kind ${group.kind}` }), el("span", null, group.title));
    if (group.label) add(name, " ", el("b", null, group.label));
    const numbers = cells.map((cell, n) => add(el("td", { class: n === 1 && group.failed ? "number bad" : "number" }), cell));
    return el("tr", null, name, ...numbers, el("td", null, histogram(took, scale, group.kind)));
  }
}

function gather(spans) {
  const { title, label, kind, name, took, status, given, made, cost } = spans.columns;
  const groups = new Map();
  for (let at = 0; at < spans.length; at++) {
    const key = `${name[at]}\0${label[at] ?? ""}`;
    let group = groups.get(key);
    if (!group) {
      group = { kind: kind[at], title: title[at], label: label[at], count: 0, failed: 0, took: [], tokens: null, cost: null, slowest: at };
      groups.set(key, group);
    }
    group.count++;
    if (status[at] === "failed") group.failed++;
    if (took[at] !== null && status[at] !== "cancelled") {
      group.took.push(took[at]);
      if (took[at] > (took[group.slowest] ?? -1)) group.slowest = at;
    }
    if (given[at] !== null || made[at] !== null) group.tokens = (group.tokens ?? 0) + (given[at] ?? 0) + (made[at] ?? 0);
    if (cost[at] !== null) group.cost = (group.cost ?? 0) + cost[at];
  }
  const total = (group) => group.took.reduce((sum, ms) => sum + ms, 0);
  return [...groups.values()].sort((a, b) => total(b) - total(a) || b.count - a.count);
}

/** Least and greatest; spreading a long list into Math.min would overflow the stack. */
function minMax(values) {
  let least = Infinity;
  let greatest = -Infinity;
  for (const value of values) {
    if (value < least) least = value;
    if (value > greatest) greatest = value;
  }
  return values.length ? [least, Math.max(greatest, least * 1.001)] : [0.001, 1];
}

const step = ([from, to]) => (to / from) ** (1 / BARS);

/** Durations on a scale whose steps multiply: each bar holds as many times its neighbour's. */
function histogram(took, scale, kind) {
  const counts = new Array(BARS).fill(0);
  const width = Math.log(scale[1] / scale[0]) || 1;
  for (const ms of took) {
    const place = ms <= 0 ? 0 : Math.floor((Math.log(ms / scale[0]) / width) * BARS);
    counts[Math.min(BARS - 1, Math.max(0, place))]++;
  }
  const most = Math.max(...counts, 1);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${BARS * 6} 22`);
  svg.setAttribute("class", `histogram ${kind}`);
  svg.setAttribute("role", "img");
  const peak = counts.indexOf(most);
  const from = scale[0] * step(scale) ** peak;
  svg.setAttribute("aria-label", took.length ? `most took about ${format.duration(from)}` : "no durations");
  // One path for all bars: rectangles of their own would be 24 elements a row.
  const bars = counts.map((count, n) => {
    const height = count ? Math.max(2, (20 * count) / most) : 0;
    return count ? `M${n * 6} 22v${-height}h5v${height}z` : "";
  });
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", `M0 21.5h${BARS * 6}v.5h${-BARS * 6}z${bars.join("")}`);
  svg.append(path);
  return svg;
}
