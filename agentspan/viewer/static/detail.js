// The selected span: what it is, what went wrong, what was said, what went in and came out.

import { add, byId, copyButton, el, longText } from "./dom.js";
import * as format from "./format.js";
import { jsonSection, parse } from "./json.js";
import { messageCard } from "./messages.js";
import { withoutError } from "./tree.js";

const SIDES = { in: "What the model was sent", out: "What it answered" };
const SHOWN = 12;

export class Detail {
  constructor(spans, source, { onSelect, now }) {
    this.spans = spans;
    this.source = source;
    this.onSelect = onSelect;
    this.now = now;
    this.box = byId("detail");
    this.known = new Map();
    this.at = -1;
    this.turn = 0;
  }

  /** Show a span: what is known at once, its payloads as soon as they come; what changed since is read again. */
  async show(at, { again = false } = {}) {
    this.at = at;
    const turn = ++this.turn;
    if (at < 0) return;
    const id = this.spans.ids[at];
    const state = this.spans.columns.status[at];
    const kept = this.known.get(id);
    if (kept?.state === state && !again) {
      this._draw(at, kept.all);
      return;
    }
    this._draw(at, null);
    // Somebody who walks through the tree does not want each span that is passed.
    await new Promise((done) => setTimeout(done, this.source.isLocal ? 0 : 60));
    if (turn !== this.turn) return;
    let all;
    try {
      all = await this.source.detail(id);
    } catch (error) {
      if (turn === this.turn) this._fault(error);
      return;
    }
    if (this.known.size > 200) this.known.delete(this.known.keys().next().value);
    this.known.set(id, { state, all });
    if (turn === this.turn) this._draw(at, all);
  }

  _fault(error) {
    this.box.querySelector(".loading")?.replaceWith(el("p", { class: "error-text" }, error.message));
  }

  _draw(at, all) {
    const parts = [this._head(at), this._facts(at, all)];
    if (all) parts.push(...this._body(at, all));
    else parts.push(el("p", { class: "loading" }, "…"));
    const isSame = this.box.dataset.span === this.spans.ids[at];
    const top = this.box.scrollTop;
    this.box.dataset.span = this.spans.ids[at];
    this.box.replaceChildren(...parts.filter(Boolean));
    this.box.scrollTop = isSame ? top : 0;
    this.box.setAttribute("aria-busy", String(!all));
  }

  _head(at) {
    const { columns } = this.spans;
    const status = columns.left[at] ? "left" : columns.status[at];
    const words = columns.left[at] ? "left open, its program died" : columns.status[at];
    return el(
      "header",
      { class: "head" },
      el("div", { class: "what" }, el("i", { class: `kind k-${columns.kind[at]}` }), el("span", null, columns.title[at]), state(status, words)),
      el("h2", null, withoutError(columns.summary[at], columns.error[at])),
    );
  }

  _facts(at, all) {
    const { columns } = this.spans;
    const list = el("dl", { class: "facts" });
    const fact = (name, ...value) => {
      if (value.some((part) => part !== null && part !== "")) list.append(el("div", null, el("dt", null, name), add(el("dd"), ...value)));
    };
    const took = columns.took[at] ?? (columns.status[at] === "active" && !columns.left[at] ? this.now() - columns.start[at] : null);
    fact("took", format.duration(took));
    fact("began", columns.status[at] === "pending" ? "" : `+${format.duration(Math.max(0, columns.start[at]))}`);
    fact("model or name", columns.label[at]);
    if (columns.given[at] !== null || columns.made[at] !== null) {
      fact("tokens", `${columns.given[at] ?? "?"} in, ${columns.made[at] ?? "?"} out`);
    }
    if (columns.cost[at] !== null) fact("cost", format.cost(columns.cost[at]));
    if (columns.name[at] !== columns.kind[at]) fact("type", columns.name[at]);
    const above = this.spans.above[at];
    if (above >= 0) {
      const go = () => this.onSelect(above);
      fact("in", el("button", { type: "button", class: "link", onclick: go }, this.spans.columns.summary[above]));
    }
    if (all) {
      fact("started", el("time", { datetime: all.started_at, title: all.started_at ?? "" }, format.moment(all.started_at)));
      if (all.closed_by) fact("closed", `by being ${all.closed_by}`);
      if (all.program) fact("program", all.program);
    }
    fact("id", el("code", null, this.spans.ids[at]), copyButton(this.spans.ids[at]));
    return list;
  }

  _body(at, all) {
    const result = all.result_payload === null ? undefined : parse(all.result_payload);
    const parts = [failure(result?.error), violations(all.violations)];
    if (all.messages.length) parts.push(...conversation(all.messages));
    parts.push(jsonSection("Payload", all.payload));
    if (all.result_payload !== null) parts.push(jsonSection("Result", all.result_payload));
    else if (this.spans.isOpen(at)) parts.push(el("p", { class: "hint" }, "No result yet: the span has not finished."));
    return parts;
  }
}

/** A status as a mark and a word. */
export function state(status, words = status) {
  return el("span", { class: `state ${status}` }, el("i", { class: `mark ${status}`, "aria-hidden": "true" }), words);
}

/** What a span or a run died of. */
export function failure(error) {
  if (error === null || error === undefined) return null;
  const isObject = typeof error === "object";
  const name = isObject && typeof error.type === "string" ? error.type : "Error";
  const message = isObject ? error.message : error;
  const box = el("section", { class: "failure" }, el("h3", null, name));
  if (message !== null && message !== undefined) {
    box.append(longText(typeof message === "string" ? message : JSON.stringify(message), 2000, { class: "said" }));
  }
  if (isObject && typeof error.stacktrace === "string" && error.stacktrace) {
    const trace = el("details", { open: error.stacktrace.length < 3000 }, el("summary", null, "Traceback"));
    trace.append(longText(error.stacktrace, 6000, { class: "source trace" }));
    box.append(trace);
  }
  return box;
}

function violations(found) {
  if (!found.length) return null;
  const items = found.map((one) =>
    el("li", null, el("code", null, `${one.side === "payload" ? "payload" : "result"} ${one.path}`), ` ${one.message}`),
  );
  return el("section", { class: "violations" }, el("h3", null, "Does not match its schema"), el("ul", null, ...items));
}

function conversation(messages) {
  return ["in", "out", undefined].flatMap((side) => {
    const said = messages.filter((message) => message.side === side);
    if (!said.length) return [];
    const early = said.slice(0, Math.max(0, said.length - SHOWN));
    const box = el("section", { class: "messages" }, side ? el("h3", null, SIDES[side]) : null);
    if (early.length) {
      const more = el("button", { type: "button", class: "more" }, `Show ${format.plural(early.length, "earlier message")}`);
      more.addEventListener("click", () => more.replaceWith(...early.map((message) => messageCard(message))));
      box.append(more);
    }
    box.append(...said.slice(early.length).map((message) => messageCard(message)));
    return [box];
  });
}
