// The selected span: its facts, its error, its messages, its payload and its result.

import { add, byId, copyButton, el, longText, messageOf } from "./dom.js";
import * as format from "./format.js";
import { jsonSection } from "./json.js";
import { member, Members, parse, write } from "./jsontext.js";
import { messageCard } from "./messages.js";
import { withoutError } from "./tree.js";

/** @import { Spans } from "./spans.js" */

/** @type {{ side: SpanMessage["side"], title: string }[]} */
const SIDES = [
  { side: "in", title: "What the model was sent" },
  { side: "out", title: "What it answered" },
  { side: undefined, title: "" },
];
const SHOWN = 12;
const TRACE = 6000; // characters of a traceback that are shown at once
const CACHED = 200;

export class Detail {
  /**
   * @param {Spans} spans
   * @param {RunSource} source
   * @param {{ onSelect: (at: number) => void, now: () => number }} handlers
   */
  constructor(spans, source, { onSelect, now }) {
    this.spans = spans;
    this.source = source;
    this.onSelect = onSelect;
    this.now = now;
    this.box = byId("detail");
    /** @type {Map<string, { status: SpanStatus, detail: SpanDetail }>} */
    this.cache = new Map();
    this.turn = 0;
  }

  /**
   * Show a span: the facts that are here at once, its payloads when they arrive. A changed span is read again.
   * @param {number} at
   * @param {{ again?: boolean }} [options] whether to read it although it is in the cache
   */
  async show(at, { again = false } = {}) {
    const turn = ++this.turn;
    if (at < 0) return;
    const id = this.spans.ids[at];
    const status = this.spans.columns.status[at];
    const cached = this.cache.get(id);
    if (cached?.status === status && !again) {
      this._draw(at, cached.detail);
      return;
    }
    this._draw(at, null);
    // While a key is held down in the tree, the spans that are passed are not read.
    await new Promise((resolve) => setTimeout(resolve, this.source.isLocal ? 0 : 60));
    if (turn !== this.turn) return;
    let detail;
    try {
      detail = await this.source.detail(id);
    } catch (error) {
      if (turn === this.turn) this._showError(error);
      return;
    }
    const [oldest] = this.cache.keys();
    if (oldest !== undefined && this.cache.size > CACHED) this.cache.delete(oldest);
    this.cache.set(id, { status, detail });
    if (turn === this.turn) this._draw(at, detail);
  }

  /**
   * Show other elements than a span's.
   * @param {Node[]} parts
   */
  replace(parts) {
    this.turn++; // a span that is still being read is not shown any more
    this.box.dataset.span = "";
    this.box.replaceChildren(...parts);
  }

  /** @param {unknown} error */
  _showError(error) {
    this.box.querySelector(".loading")?.replaceWith(el("p", { class: "error-text" }, messageOf(error)));
  }

  /**
   * @param {number} at
   * @param {SpanDetail | null} detail
   */
  _draw(at, detail) {
    const body = detail ? this._body(at, detail) : [el("p", { class: "loading" }, "…")];
    const isSame = this.box.dataset.span === this.spans.ids[at];
    const top = this.box.scrollTop;
    this.box.dataset.span = this.spans.ids[at];
    this.box.replaceChildren(this._head(at), this._facts(at, detail), ...body);
    this.box.scrollTop = isSame ? top : 0;
    this.box.setAttribute("aria-busy", String(!detail));
  }

  /** @param {number} at */
  _head(at) {
    const { columns } = this.spans;
    const mark = columns.left_open[at] ? statusMark("left", "left open, its program died") : statusMark(columns.status[at]);
    return el(
      "header",
      { class: "head" },
      el("div", { class: "what" }, el("i", { class: `kind k-${columns.kind[at]}` }), el("span", null, columns.title[at]), mark),
      el("h2", null, withoutError(columns.summary[at], columns.error[at])),
    );
  }

  /**
   * @param {number} at
   * @param {SpanDetail | null} detail
   */
  _facts(at, detail) {
    const { columns } = this.spans;
    const list = el("dl", { class: "facts" });
    /** @type {(name: string, ...value: (Node | string | null)[]) => void} */
    const fact = (name, ...value) => {
      if (value.some((part) => part !== null && part !== "")) list.append(el("div", null, el("dt", null, name), add(el("dd"), ...value)));
    };
    const isRunning = columns.status[at] === "active" && !columns.left_open[at];
    fact("took", format.duration(columns.duration_ms[at] ?? (isRunning ? this.now() - columns.start_ms[at] : null)));
    fact("began", columns.status[at] === "pending" ? "" : `+${format.duration(Math.max(0, columns.start_ms[at]))}`);
    fact("model or name", columns.label[at]);
    if (columns.input_tokens[at] !== null || columns.output_tokens[at] !== null) {
      fact("tokens", `${columns.input_tokens[at] ?? "?"} in, ${columns.output_tokens[at] ?? "?"} out`);
    }
    const cost = columns.cost_usd[at];
    if (cost !== null) fact("cost", format.cost(cost));
    if (columns.schema_name[at] !== columns.kind[at]) fact("type", columns.schema_name[at]);
    const parent = this.spans.parents[at];
    if (parent >= 0) {
      const select = () => this.onSelect(parent);
      fact("in", el("button", { type: "button", class: "link", onclick: select }, columns.summary[parent]));
    }
    if (detail) {
      const time = { datetime: detail.started_at, title: detail.started_at ?? "" };
      fact("started", el("time", time, format.moment(detail.started_at)));
      if (detail.closed) fact("closed", `by being ${detail.closed}`);
      fact("program", detail.program);
    }
    fact("id", el("code", null, this.spans.ids[at]), copyButton(this.spans.ids[at]));
    return list;
  }

  /**
   * @param {number} at
   * @param {SpanDetail} detail
   */
  _body(at, detail) {
    const result = detail.result_payload === null ? undefined : parse(detail.result_payload);
    const error = errorOf(result);
    const hasFailed = this.spans.columns.status[at] === "failed" || !isNothing(error);
    const parts = [hasFailed ? failure(error) : null, violationList(detail.violations), ...messageSections(detail.messages)];
    parts.push(jsonSection("Payload", detail.payload));
    if (detail.result_payload !== null) parts.push(jsonSection("Result", detail.result_payload));
    else if (this.spans.isOpen(at)) parts.push(el("p", { class: "hint" }, "No result yet: the span has not finished."));
    return parts.filter((part) => part !== null);
  }
}

/**
 * Return a status as a mark and a text.
 * @param {string} status
 * @param {string} text
 */
export function statusMark(status, text = status) {
  return el("span", { class: `state ${status}` }, el("i", { class: `mark ${status}`, "aria-hidden": "true" }), text);
}

/**
 * Return the error in a result: its member `error`, or the result itself as @prefactor/core sends it.
 * @param {unknown} result
 */
function errorOf(result) {
  return member(result, "error") ?? (typeof member(result, "error_type") === "string" ? result : null);
}

/**
 * Tell whether an error says that there is none, as `{"error": false}` does.
 * @param {unknown} error
 */
const isNothing = (error) => !error || (Array.isArray(error) && !error.length) || (error instanceof Members && !error.size);

/**
 * Return the error of a span or a run, whose JSON may have any form; null where there is none.
 * @param {unknown} error
 */
export function failure(error) {
  if (error === null || error === undefined) return null;
  const isObject = error instanceof Members;
  const name = ["type", "error_type", "errorType"].map((each) => member(error, each)).find((each) => typeof each === "string");
  const message = isObject ? member(error, "message") : error;
  const box = el("section", { class: "failure" }, el("h3", null, name || "Error"));
  if (message !== null && message !== undefined) {
    box.append(longText(typeof message === "string" ? message : write(message), 2000, { class: "prose" }));
  }
  const stacktrace = member(error, "stacktrace");
  if (typeof stacktrace === "string" && stacktrace) {
    const trace = el("details", { open: stacktrace.length < 3000 }, el("summary", null, "Traceback"));
    trace.append(...traceback(stacktrace));
    box.append(trace);
  }
  return box;
}

/**
 * Return a traceback. Its last line is the error's message: where it is long, its beginning is left out until asked for.
 * @param {string} text
 */
function traceback(text) {
  /** @param {string} part */
  const lines = (part) =>
    longText(part, TRACE, { class: "source trace", role: "group", "aria-label": "Traceback", tabindex: 0 });
  if (text.length <= TRACE * 1.2) return [lines(text)];
  const begin = text.indexOf("\n", text.length - TRACE) + 1 || text.length - TRACE;
  const more = el("button", { type: "button", class: "more" }, `Show the ${format.whole(begin)} characters before`);
  more.addEventListener("click", () => more.replaceWith(lines(text.slice(0, begin))));
  return [more, lines(text.slice(begin))];
}

/** @param {Violation[]} violations */
function violationList(violations) {
  if (!violations.length) return null;
  const items = violations.map((violation) => {
    const place = `${violation.side === "payload" ? "payload" : "result"} ${violation.path}`;
    return el("li", null, el("code", null, place), ` ${violation.message}`);
  });
  return el("section", { class: "violations" }, el("h3", null, "Does not match its schema"), el("ul", null, ...items));
}

/** @param {SpanMessage[]} messages */
function messageSections(messages) {
  return SIDES.flatMap(({ side, title }) => {
    const ofSide = messages.filter((message) => message.side === side);
    if (!ofSide.length) return [];
    const early = ofSide.slice(0, Math.max(0, ofSide.length - SHOWN));
    const box = el("section", { class: "messages" }, title ? el("h3", null, title) : null);
    if (early.length) {
      const more = el("button", { type: "button", class: "more" }, `Show ${format.plural(early.length, "earlier message")}`);
      more.addEventListener("click", () => more.replaceWith(...early.map((message) => messageCard(message))));
      box.append(more);
    }
    box.append(...ofSide.slice(early.length).map((message) => messageCard(message)));
    return [box];
  });
}
