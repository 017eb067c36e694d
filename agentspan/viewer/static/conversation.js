// The conversation of a run: who said what, and what the tools answered.

import { byId, el, longText } from "./dom.js";
import * as format from "./format.js";
import { argumentsOf, callCard, folded, messageCard } from "./messages.js";
import { jsonSection, parse } from "./json.js";

const PAGE = 60;
const SHORT = 400;

export class Conversation {
  constructor(spans, source, { onOpen }) {
    this.spans = spans;
    this.source = source;
    this.onOpen = onOpen;
    this.box = byId("turns");
    this.note = byId("turns-note");
    this.more = byId("turns-more");
    this.turns = [];
    this.total = 0;
    this.read = -1;
    this.shown = 0;
    this.more.addEventListener("click", () => this._next());
    new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this._next(), {
      root: byId("panel-conversation"),
      rootMargin: "600px",
    }).observe(this.more);
  }

  /** Read what was said since; what is shown stays where it is. */
  async update() {
    if (this.busy || this.read === this.spans.changes) return;
    this.busy = true;
    try {
      const seen = this.spans.changes;
      // The last turns that are here may have been unfinished.
      const from = Math.max(0, this.turns.length - 20);
      const answer = await this.source.conversation(from);
      this.total = answer.total;
      const fresh = answer.turns;
      let same = from;
      while (same < this.turns.length && JSON.stringify(this.turns[same]) === JSON.stringify(fresh[same - from])) same++;
      const wasAtEnd = this.shown >= this.turns.length;
      this.turns.splice(same, Infinity, ...fresh.slice(same - from));
      if (same < this.shown) {
        while (this.box.children.length > same) this.box.lastChild.remove();
        this.shown = same;
      }
      if (wasAtEnd || this.shown < PAGE) this._next();
      this.read = seen;
      this._tell();
    } catch (error) {
      this.note.textContent = error.message;
    } finally {
      this.busy = false;
    }
  }

  async _next() {
    if (this.shown >= this.turns.length && this.turns.length < this.total && !this.fetching) {
      this.fetching = true;
      try {
        const answer = await this.source.conversation(this.turns.length);
        this.turns.push(...answer.turns);
      } finally {
        this.fetching = false;
      }
    }
    const part = this.turns.slice(this.shown, this.shown + PAGE);
    part.forEach((turn, n) => this.box.append(this._turn(turn, this.turns[this.shown + n - 1])));
    this.shown += part.length;
    this._tell();
  }

  _tell() {
    this.more.hidden = this.shown >= this.total;
    this.more.textContent = `${format.whole(this.shown)} of ${format.whole(this.total)} turns; show more`;
    this.note.textContent = this.total
      ? `${format.whole(this.shown)} of ${format.plural(this.total, "turn")}`
      : "Nothing was said: this run has no llm, tool or message spans.";
  }

  _turn(turn, before) {
    const at = this.spans.place.get(turn.span);
    const onOpen = () => this.onOpen(turn.span);
    const parts = [];
    if (turn.agent && turn.agent !== before?.agent) parts.push(el("div", { class: "agent" }, turn.agent));
    const cut = turn.length > turn.text.length;
    const text = cut ? `${turn.text}… (${format.plural(turn.length - turn.text.length, "more character")} in the span)` : turn.text;
    const took = at === undefined ? null : this.spans.columns.took[at];
    const isDone = turn.role === "assistant" || turn.role === "tool";
    const note = [turn.role === "assistant" ? turn.name : null, isDone && took >= 1 ? format.duration(took) : null].filter(Boolean);
    parts.push(
      turn.role === "tool"
        ? this._tool(turn, text, note, onOpen)
        : messageCard({ ...turn, text }, { note: note.join(" · "), onOpen }),
    );
    return el("div", { class: `turn from-${turn.role}` }, ...parts);
  }

  _tool(turn, text, note, onOpen) {
    const state = turn.error ? "failed" : turn.status;
    const value = text.length < 200_000 && /^\s*[[{]/.test(text) ? parse(text) : undefined;
    const isJson = value !== undefined && typeof value === "object" && value !== null;
    const body = () => (isJson ? jsonSection("answer", text) : longText(text, SHORT, { class: "said" }));
    const start = text.replace(/\s+/g, " ").slice(0, 150);
    const answer = isJson || text.length > 160 ? folded("answer", `→ ${start}`, body) : text ? body() : null;
    const head = el(
      "header",
      null,
      el("i", { class: `mark ${state}`, "aria-hidden": "true" }),
      el("b", null, turn.name ?? "tool"),
      note.length ? el("span", { class: "note" }, note.join(" · ")) : null,
      el("span", { class: "gap" }),
      el("button", { type: "button", class: "quiet", onclick: onOpen }, "Open span"),
    );
    return el(
      "article",
      { class: `message tool ${state}` },
      head,
      turn.arguments && turn.arguments !== "{}" ? argumentsOf(turn.arguments) : null,
      answer,
      turn.error ? el("div", { class: "error-text" }, turn.error) : null,
      ...turn.calls.map(callCard),
    );
  }
}
