// The selected span: its facts, its error, its messages, its payload and its result.

import { blobHashes, gallery } from "./blobs.js";
import { DetailCache } from "./cache.js";
import { contextSection } from "./context.js";
import { add, byId, copyButton, el, messageOf } from "./dom.js";
import * as format from "./format.js";
import { jsonSection } from "./json.js";
import { member, Members, parse, write } from "./jsontext.js";
import { longText, named, saveButton } from "./longtext.js";
import { markdownSwitch } from "./markdown.js";
import { messageCard, proseOf, textsOf } from "./messages.js";
import { Parts } from "./parts.js";
import { scoreSection } from "./scores.js";
import { frames } from "./traceback.js";
import { withoutError } from "./tree.js";

/** @import { Spans } from "./spans.js" */
/** @import { BlobAddress } from "./blobs.js" */

/** @type {{ side: SpanMessage["side"], title: string }[]} */
const SIDES = [
  { side: "in", title: "What the model was sent" },
  { side: "out", title: "What it answered" },
  { side: undefined, title: "" },
];
const SHOWN = 12;
const UNFINISHED = "No result yet: the span has not finished.";
const TRACE = 6000; // characters of a traceback that are shown at once
const FOLDABLE = 100_000; // characters of a traceback up to which the frames of libraries are folded

export class Detail {
  /**
   * @param {Spans} spans
   * @param {RunSource} source
   * @param {{ onSelect: (at: number) => void, now: () => number, scoring: Parameters<typeof scoreSection>[1] }} handlers
   */
  constructor(spans, source, { onSelect, now, scoring }) {
    this.scoring = scoring;
    this.spans = spans;
    this.source = source;
    this.onSelect = onSelect;
    this.now = now;
    this.box = byId("detail");
    this.parts = new Parts(this.box);
    this.cache = new DetailCache();
    /** @type {SpanDetail | null} */
    this.shown = null;
    this.turn = 0;
    this.unread = -1; // the span that is shown without its payloads, because they could not be read
  }

  /**
   * Show a span: the facts that are here at once, its payloads when they arrive. A changed span is read again.
   * @param {number} at
   * @param {{ again?: boolean }} [options] whether to read it although it is in the cache
   */
  async show(at, { again = false } = {}) {
    const turn = ++this.turn;
    this.unread = -1;
    if (at < 0) return;
    const id = this.spans.ids[at];
    const status = this.spans.columns.status[at];
    const cached = this.cache.get(id, status);
    if (cached && !again) {
      this._draw(at, cached);
      return;
    }
    this._draw(at, this.shown?.id === id ? this.shown : null); // what is there stays until the rest has been read
    this.box.setAttribute("aria-busy", "true");
    // While a key is held down in the tree, the spans that are passed are not read.
    await new Promise((resolve) => setTimeout(resolve, this.source.isLocal ? 0 : 60));
    if (turn !== this.turn) return;
    try {
      const detail = await this.source.detail(id);
      this.cache.put(id, status, detail);
      if (turn === this.turn) this._draw(at, detail);
    } catch (error) {
      if (turn === this.turn) this._showError(at, error);
    }
  }

  /**
   * Show other parts than a span's.
   * @param {string} subject
   * @param {DetailPart[]} parts
   */
  replace(subject, parts) {
    this.turn++; // a span that is still being read is not shown any more
    this.unread = -1;
    this.shown = null;
    this.box.dataset.span = "";
    named(this.box, "run");
    this.parts.show(subject, parts);
    this.box.setAttribute("aria-busy", "false");
  }

  /** Show the same span with what the tree knows now, without reading it again. */
  refresh() {
    const at = this.spans.indexOf.get(this.shown?.id ?? "");
    if (at !== undefined) this._draw(at, this.shown);
  }

  /** Read the shown span again, if that failed. */
  retry() {
    if (this.unread >= 0) this.show(this.unread);
  }

  /**
   * @param {number} at
   * @param {unknown} error
   */
  _showError(at, error) {
    this.unread = at;
    const again = el("button", { type: "button", class: "link", onclick: () => this.retry() }, "Try again");
    const problem = el("p", { class: "error-text" }, messageOf(error), " ", again);
    this._draw(at, this.shown?.id === this.spans.ids[at] ? this.shown : null, problem);
  }

  /**
   * @param {number} at
   * @param {SpanDetail | null} detail
   * @param {Node} [problem] why there is no newer detail
   */
  _draw(at, detail, problem) {
    const { columns, ids } = this.spans;
    const [brief, facts] = this._facts(at, detail);
    /** @type {DetailPart[]} */
    const parts = [
      {
        name: "head",
        data: [columns.title[at], columns.status[at], columns.left_open[at], columns.summary[at], columns.error[at]],
        make: () => this._head(at),
      },
      { name: "brief", data: [brief.textContent], make: () => brief },
    ];
    if (problem) parts.push({ name: "problem", data: [problem], make: () => problem });
    if (detail) parts.push(...this._body(at, detail));
    else if (!problem) parts.push({ name: "loading", data: [], make: () => el("p", { class: "loading" }, "…") });
    parts.push({ name: "facts", data: [facts.textContent], make: () => facts });
    this.shown = detail;
    this.box.dataset.span = ids[at];
    named(this.box, ids[at]);
    this.parts.show(ids[at], parts);
    this.box.setAttribute("aria-busy", String(!detail && !problem));
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
   * Return the figures of a span, which stand below its title, and its names and ids, which stand at the end.
   * @param {number} at
   * @param {SpanDetail | null} detail
   */
  _facts(at, detail) {
    const { columns } = this.spans;
    const brief = el("dl", { class: "facts brief" });
    let list = brief;
    /** @type {(name: string, ...value: (Node | string | null)[]) => void} */
    const fact = (name, ...value) => {
      if (value.some((part) => part !== null && part !== "")) list.append(el("div", null, el("dt", null, name), add(el("dd"), ...value)));
    };
    const isRunning = columns.status[at] === "active" && !columns.left_open[at];
    if (this.spans.isWhole) fact("step", `#${this.spans.numberOf(at)}`);
    fact("took", format.duration(columns.duration_ms[at] ?? (isRunning ? this.now() - columns.start_ms[at] : null)));
    fact("self", format.duration(this.spans.own.get(at)));
    if (columns.left_open[at]) fact("ended", `not known; the run's last known moment is +${format.duration(this.spans.lastKnown)}`);
    fact("began", columns.status[at] === "pending" ? "" : `+${format.duration(Math.max(0, columns.start_ms[at]))}`);
    if (columns.input_tokens[at] !== null || columns.output_tokens[at] !== null) {
      fact("tokens", `${columns.input_tokens[at] ?? "?"} in, ${columns.output_tokens[at] ?? "?"} out`);
    }
    const cost = columns.cost_usd[at];
    if (cost !== null) fact("cost", format.cost(cost));
    list = el("dl", { class: "facts" });
    const parent = this.spans.parents[at];
    if (parent >= 0) {
      const select = () => this.onSelect(parent);
      fact("in", el("button", { type: "button", class: "link", onclick: select }, columns.summary[parent]));
    }
    fact("model or name", columns.label[at]);
    if (columns.schema_name[at] !== columns.kind[at]) fact("type", columns.schema_name[at]);
    if (detail) {
      const time = { datetime: detail.started_at, title: detail.started_at ?? "" };
      fact("started", el("time", time, format.moment(detail.started_at)));
      if (detail.closed) fact("closed", `by being ${detail.closed}`);
      fact("program", detail.program);
      for (const [name, value] of Object.entries(detail.facts)) fact(name.replaceAll("_", " "), value);
    }
    fact("id", el("code", null, this.spans.ids[at]), copyButton(this.spans.ids[at]));
    return [brief, list];
  }

  /** @param {number} at */
  _context(at) {
    if (this.source.isLocal || this.spans.columns.kind[at] !== "llm") return null;
    const id = this.spans.ids[at];
    return contextSection(
      () => this.source.context(id),
      (other) => {
        const place = other === id ? -1 : (this.spans.indexOf.get(other) ?? -1);
        return place < 0 ? null : () => this.onSelect(place);
      },
    );
  }

  /**
   * @param {number} at
   * @param {SpanDetail} detail
   * @returns {DetailPart[]}
   */
  _body(at, { payload, result_payload: result, violations, messages, scores }) {
    const isOpen = this.spans.isOpen(at);
    const hasFailed = this.spans.columns.status[at] === "failed";
    const id = this.spans.ids[at];
    const address = (/** @type {string} */ hash) => this.source.blob(id, hash);
    const inMessages = blobHashes(messages.flatMap(textsOf));
    return [
      { name: "failure", data: [result, hasFailed], make: () => failure(errorIn(result, hasFailed)) },
      { name: "scores", data: [JSON.stringify(scores)], make: () => scoreSection(scores, this.scoring) },
      { name: "violations", data: [JSON.stringify(violations)], make: () => violationList(violations) },
      ...SIDES.map(({ side, title }) => ({
        name: `messages ${side}`,
        data: side === "in" ? [payload] : [payload, result],
        make: () => messageSection(title, messages.filter((message) => message.side === side), address),
      })),
      { name: "context", data: [isOpen], make: () => this._context(at) },
      { name: "payload", data: [payload], make: () => jsonSection("Payload", payload) },
      { name: "payload blobs", data: [payload], make: () => gallery([payload], address, inMessages) },
      {
        name: "result",
        data: [result, isOpen],
        make: () => (result !== null ? jsonSection("Result", result) : isOpen ? el("p", { class: "hint" }, UNFINISHED) : null),
      },
      { name: "result blobs", data: [payload, result], make: () => gallery([result], address, new Set([...inMessages, ...blobHashes([payload])])) },
    ];
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
 * Return the error in a result; null where the step has not failed, and its result says that there is no error.
 * @param {string | null} text
 * @param {boolean} hasFailed
 */
export function errorIn(text, hasFailed) {
  const error = text === null ? null : errorOf(parse(text));
  return hasFailed || !isNothing(error) ? error : null;
}

/**
 * Return the texts of an error, whose JSON may have any form.
 * @param {unknown} error
 */
export function textsOfError(error) {
  const name = ["type", "error_type", "errorType"].map((each) => member(error, each)).find((each) => typeof each === "string");
  const message = (error instanceof Members ? member(error, "message") : error) ?? null;
  const stacktrace = member(error, "stacktrace");
  return {
    name: name || "Error",
    message: message === null || typeof message === "string" ? message : write(message),
    stacktrace: typeof stacktrace === "string" ? stacktrace : "",
  };
}

/**
 * Return the error of a span or a run as an element; null where there is none.
 * @param {unknown} error
 */
export function failure(error) {
  if (error === null || error === undefined) return null;
  const { name, message, stacktrace } = textsOfError(error);
  const box = named(el("section", { class: "failure" }, el("h3", null, name)), "error");
  if (message !== null) box.append(longText(message, 2000, { class: "prose" }));
  if (stacktrace) {
    const trace = named(el("details", { open: stacktrace.length < 3000 }, el("summary", null, "Traceback")), "traceback");
    trace.append(...traceback(stacktrace));
    box.append(trace);
  }
  return box;
}

/**
 * Return a traceback: its last lines, then its frames, of which those of libraries are folded.
 * @param {string} text
 */
function traceback(text) {
  const box = el("div", { class: "source trace", role: "group", "aria-label": "Traceback", tabindex: 0 });
  if (text.length <= FOLDABLE) return [add(box, ...frames(text, (lines) => endOf(lines, lines)))];
  return [add(box, ...endOf(text, text))];
}

/**
 * Return lines of a traceback. The last ones matter most: where there are many, the beginning is left out until asked for.
 * @param {string} text
 * @param {string} whole what is saved
 */
function endOf(text, whole) {
  const saved = { text: whole, suffix: "txt" };
  if (text.length <= TRACE * 1.2) return [el("div", null, text)];
  const begin = text.indexOf("\n", text.length - TRACE) + 1 || text.length - TRACE;
  const more = el("button", { type: "button", class: "more" }, `Show the ${format.whole(begin)} characters before`);
  const tools = el("div", { class: "tools" }, more, saveButton(saved));
  more.addEventListener("click", () => {
    tools.after(longText(text.slice(0, begin), TRACE, {}, saved));
    more.remove();
  });
  return [tools, el("div", null, text.slice(begin))];
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

/**
 * @param {string} title
 * @param {SpanMessage[]} messages
 * @param {BlobAddress} address
 */
function messageSection(title, messages, address) {
  if (!messages.length) return null;
  let early = messages.slice(0, Math.max(0, messages.length - SHOWN));
  const list = el("div", { class: "messages" });
  const button = el("button", { type: "button", class: "quiet" }, "Markdown");
  const choice = markdownSwitch(button, "details", () => draw());
  const draw = () => {
    const cards = messages.slice(early.length).map((message) => messageCard(message, { address, prose: proseOf(choice.isOn) }));
    const more = el("button", { type: "button", class: "more" }, `Show ${format.plural(early.length, "earlier message")}`);
    more.addEventListener("click", () => {
      early = [];
      draw();
    });
    list.replaceChildren(...(early.length ? [more] : []), ...cards);
  };
  draw();
  return el("section", null, el("header", null, title ? el("h3", null, title) : null, el("span", { class: "gap" }), button), list);
}
