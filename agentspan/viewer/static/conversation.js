// The conversation of a run: its messages, and its tool calls with their answers.

import { byId, el, longText, messageOf } from "./dom.js";
import * as format from "./format.js";
import { argumentList, callCard, folded, messageCard } from "./messages.js";
import { jsonSection } from "./json.js";
import { parse } from "./jsontext.js";

/** @import { Spans } from "./spans.js" */

const PAGE = 60;
const SHORT = 400;
const REREAD = 20; // the last turns that are here may have been unfinished

export class Conversation {
  /**
   * @param {Spans} spans
   * @param {RunSource} source
   * @param {{ onOpen: (id: string) => void }} handlers
   */
  constructor(spans, source, { onOpen }) {
    this.spans = spans;
    this.source = source;
    this.onOpen = onOpen;
    this.box = byId("turns");
    this.note = byId("turns-note");
    this.more = byId("turns-more");
    /** @type {Turn[]} */
    this.turns = [];
    this.total = 0;
    this.changes = -1;
    this.shown = 0;
    this.isUpdating = false;
    this.isFetching = false;
    this.more.addEventListener("click", () => this._showMore());
    const observer = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this._showMore(), {
      root: byId("panel-conversation"),
      rootMargin: "600px",
    });
    observer.observe(this.more);
  }

  /** Read the turns that are new or changed; those that are shown stay where they are. */
  async update() {
    if (this.isUpdating || this.changes === this.spans.changes) return;
    this.isUpdating = true;
    try {
      const changes = this.spans.changes;
      const from = Math.max(0, this.turns.length - REREAD);
      const { turns, total } = await this.source.conversation(from);
      this.total = total;
      let same = from;
      while (same < this.turns.length && JSON.stringify(this.turns[same]) === JSON.stringify(turns[same - from])) same++;
      const wasAtEnd = this.shown >= this.turns.length;
      this.turns.splice(same, Infinity, ...turns.slice(same - from));
      if (same < this.shown) {
        while (this.box.children.length > same) this.box.lastChild?.remove();
        this.shown = same;
      }
      if (wasAtEnd || this.shown < PAGE) this._showMore();
      this.changes = changes;
      this._showCount();
    } catch (error) {
      this.note.textContent = messageOf(error);
    } finally {
      this.isUpdating = false;
    }
  }

  async _showMore() {
    if (this.shown >= this.turns.length && this.turns.length < this.total && !this.isFetching) {
      this.isFetching = true;
      try {
        const { turns } = await this.source.conversation(this.turns.length);
        this.turns.push(...turns);
      } finally {
        this.isFetching = false;
      }
    }
    const part = this.turns.slice(this.shown, this.shown + PAGE);
    part.forEach((turn, n) => this.box.append(this._turn(turn, this.turns[this.shown + n - 1])));
    this.shown += part.length;
    this._showCount();
  }

  _showCount() {
    this.more.hidden = this.shown >= this.total;
    this.more.textContent = `${format.whole(this.shown)} of ${format.whole(this.total)} turns; show more`;
    this.note.textContent = this.total
      ? `${format.whole(this.shown)} of ${format.plural(this.total, "turn")}`
      : "This run has no llm, tool or message spans.";
  }

  /**
   * @param {Turn} turn
   * @param {Turn | undefined} before
   */
  _turn(turn, before) {
    const at = this.spans.indexOf.get(turn.span);
    const onOpen = () => this.onOpen(turn.span);
    const parts = [];
    if (turn.agent && turn.agent !== before?.agent) parts.push(el("div", { class: "agent" }, turn.agent));
    const isCut = turn.length > turn.text.length;
    const rest = format.plural(turn.length - turn.text.length, "more character");
    const text = isCut ? `${turn.text}… (${rest} in the span)` : turn.text;
    const duration = at === undefined ? null : this.spans.columns.duration_ms[at];
    const notes = [];
    if (turn.role === "assistant" && turn.name) notes.push(turn.name);
    if ((turn.role === "assistant" || turn.role === "tool") && duration !== null && duration >= 1) notes.push(format.duration(duration));
    const note = notes.join(" · ");
    parts.push(turn.role === "tool" ? this._toolCard(turn, text, note, onOpen) : messageCard({ ...turn, text }, { note, onOpen }));
    return el("div", { class: `turn from-${turn.role}` }, ...parts);
  }

  /**
   * @param {Turn} turn
   * @param {string} text
   * @param {string} note
   * @param {() => void} onOpen
   */
  _toolCard(turn, text, note, onOpen) {
    const status = turn.error ? "failed" : turn.status;
    const value = text.length < 200_000 && /^\s*[[{]/.test(text) ? parse(text) : undefined;
    const isJson = value !== undefined && typeof value === "object" && value !== null;
    const body = () => (isJson ? jsonSection("answer", text) : longText(text, SHORT, { class: "prose" }));
    const start = text.replace(/\s+/g, " ").slice(0, 150);
    const answer = isJson || text.length > 160 ? folded("answer", `→ ${start}`, body) : text ? body() : null;
    const head = el(
      "header",
      null,
      el("i", { class: `mark ${status}`, "aria-hidden": "true" }),
      el("b", null, turn.name ?? "tool"),
      note ? el("span", { class: "note" }, note) : null,
      el("span", { class: "gap" }),
      el("button", { type: "button", class: "quiet", onclick: onOpen }, "Open span"),
    );
    return el(
      "article",
      { class: `message tool ${status}` },
      head,
      turn.arguments && turn.arguments !== "{}" ? argumentList(turn.arguments) : null,
      answer,
      turn.error ? el("div", { class: "error-text" }, turn.error) : null,
      ...turn.calls.map(callCard),
    );
  }
}
