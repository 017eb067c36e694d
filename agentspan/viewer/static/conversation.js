// The conversation of a run: its messages, and its tool calls with their answers, thread by thread.

import { gallery } from "./blobs.js";
import { add, byId, el, messageOf, setText } from "./dom.js";
import * as format from "./format.js";
import { jsonSection } from "./json.js";
import { parse } from "./jsontext.js";
import { longText, named } from "./longtext.js";
import { argumentList, callCard, folded, lookOf, messageCard, partList, textsOf } from "./messages.js";
import { cut } from "./visible.js";

/** @import { Spans } from "./spans.js" */

const PAGE = 60;
const SHORT = 400;

/** @typedef {{ key: string, node: HTMLElement, number: HTMLElement }} Card a turn on the page */

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
    /** @type {Card[]} */
    this.cards = [];
    this.total = 0;
    this.changes = -1;
    this.isUpdating = false;
    this.isFetching = false;
    this.more.addEventListener("click", () => this._showMore());
    const observer = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this._showMore(), {
      root: byId("panel-conversation"),
      rootMargin: "600px",
    });
    observer.observe(this.more);
  }

  /** Read the turns again as far as they are here: new ones may be among them. Those that are the same stay on the page. */
  async update() {
    if (this.isUpdating || this.changes === this.spans.changes) return;
    this.isUpdating = true;
    try {
      const changes = this.spans.changes;
      /** @type {Turn[]} */
      const turns = [];
      let page;
      do {
        page = await this.source.conversation(turns.length);
        turns.push(...page.turns);
      } while (page.turns.length && turns.length < Math.min(page.total, this.turns.length));
      const wasAtEnd = this.cards.length >= this.turns.length;
      this.turns = turns;
      this.total = page.total;
      this._draw(Math.min(this.cards.length, turns.length));
      if (wasAtEnd || this.cards.length < PAGE) this._showMore();
      this.changes = changes;
      this._showCount();
    } catch (error) {
      setText(this.note, messageOf(error));
    } finally {
      this.isUpdating = false;
    }
  }

  async _showMore() {
    if (this.cards.length >= this.turns.length && this.turns.length < this.total && !this.isFetching) {
      this.isFetching = true;
      try {
        const { turns } = await this.source.conversation(this.turns.length);
        this.turns.push(...turns);
      } catch (error) {
        setText(this.note, messageOf(error));
        return;
      } finally {
        this.isFetching = false;
      }
    }
    this._draw(Math.min(this.cards.length + PAGE, this.turns.length));
    this._showCount();
  }

  /** Show all turns that are loaded. */
  showLoaded() {
    this._draw(this.turns.length);
    this._showCount();
  }

  /**
   * Show so many turns. What is on the page for an equal turn stays, with what the reader unfolded in it.
   * @param {number} count
   */
  _draw(count) {
    /** @type {Map<string, Card[]>} */
    const known = new Map();
    for (const card of this.cards) known.set(card.key, [...(known.get(card.key) ?? []), card]);
    this.cards = this.turns.slice(0, count).map((turn, n) => {
      const heading = headingAt(this.turns, n);
      const key = JSON.stringify([turn, heading]);
      return known.get(key)?.shift() ?? this._card(key, turn, heading);
    });
    const kept = new Set(this.cards.map(({ node }) => node));
    for (const child of [...this.box.children]) if (!(child instanceof HTMLElement && kept.has(child))) child.remove();
    // Cards that stay are not moved: that would drop the focus.
    this.cards.forEach(({ node, number }, n) => {
      setText(number, `${n + 1}`);
      if (this.box.children[n] !== node) this.box.insertBefore(node, this.box.children[n] ?? null);
    });
  }

  _showCount() {
    this.more.hidden = this.cards.length >= this.total;
    this.more.textContent = `${format.whole(this.cards.length)} of ${format.whole(this.total)} turns; show more`;
    this.note.textContent = this.total
      ? `${format.whole(this.cards.length)} of ${format.plural(this.total, "turn")}`
      : "This run has no llm, tool or message spans.";
  }

  /**
   * Scroll to a turn, and give it the focus.
   * @param {number} number
   */
  async _goTo(number) {
    while (this.cards.length < number && this.cards.length < this.total) await this._showMore();
    const node = this.cards[number - 1]?.node;
    node?.scrollIntoView({ block: "center" });
    node?.focus({ preventScroll: true });
  }

  /**
   * @param {string} key
   * @param {Turn} turn
   * @param {string} heading
   * @returns {Card}
   */
  _card(key, turn, heading) {
    const isCut = turn.length > turn.text.length;
    const rest = format.plural(turn.length - turn.text.length, "more character");
    const text = isCut ? `${turn.text}… (${rest} in the span)` : turn.text;
    const number = el("span", { class: "place" });
    const open = el("button", { type: "button", class: "quiet", onclick: () => this.onOpen(turn.span) }, "Open span");
    const head = [...this._notes(turn), el("span", { class: "gap" }), open, number];
    const isStep = turn.role === "tool" && turn.side === "";
    const body = isStep
      ? this._stepCard(turn, text, head)
      : messageCard({ ...turn, text }, { head, isCut, card: (call) => this._callCard(call), address: this._address(turn) });
    const model = turn.role === "tool" ? "The model that asked" : "The model";
    if (turn.again.length) body.append(el("p", { class: "again" }, `${model} was sent again: `, ...this._links(turn.again)));
    const node = el("div", { class: `turn from-${lookOf(turn.role)}`, tabindex: "-1" }, heading ? el("div", { class: "agent" }, heading) : null, body);
    return { key, node: named(node, turn.span), number };
  }

  /**
   * @param {Turn} turn
   * @returns {(hash: string) => string | null}
   */
  _address(turn) {
    return (hash) => this.source.blob(turn.span, hash);
  }

  /** @param {Turn} turn */
  _notes(turn) {
    const at = this.spans.indexOf.get(turn.span);
    const duration = at === undefined || turn.side === "in" ? null : this.spans.columns.duration_ms[at];
    /** @type {Child[]} */
    const notes = [];
    if (turn.role === "assistant" && turn.side === "in") notes.push(el("span", { class: "note" }, "as the model was sent it"));
    if ((turn.role === "assistant" || turn.role === "tool") && duration !== null && duration >= 1) {
      notes.push(el("span", { class: "note" }, format.duration(duration)));
    }
    if (turn.asked_by) {
      const id = turn.asked_by;
      const model = this.spans.columns.label[this.spans.indexOf.get(id) ?? -1] ?? "a model";
      notes.push(el("span", { class: "note" }, "for ", el("button", { type: "button", class: "link", onclick: () => this.onOpen(id) }, model)));
    }
    if (turn.differs.length) {
      const isAnswer = turn.role === "tool" && turn.side === "in";
      const what = isAnswer || turn.role !== "tool" ? "differs from the tool's step, " : "differs from what the model asked or was told, ";
      notes.push(el("span", { class: "differs" }, what, ...this._links(turn.differs.map((one) => [one, one]))));
    }
    return notes;
  }

  /** @param {TurnCall} call */
  _callCard(call) {
    const { same, differs } = call;
    if (same !== null) return el("div", { class: "call" }, el("b", null, call.name), " ", el("span", { class: "note" }, "same as ", ...this._links([[same, same]])));
    return callCard(call, differs === null ? null : el("span", { class: "differs" }, "differs from the tool's step, ", ...this._links([[differs, differs]])));
  }

  /**
   * Return ranges of turns as links: turn 4, turns 6–9.
   * @param {[number, number][]} ranges
   */
  _links(ranges) {
    return ranges.flatMap(([first, last], n) => {
      const text = first === last ? `turn ${format.whole(first)}` : `turns ${format.whole(first)}–${format.whole(last)}`;
      return [n ? ", " : "", el("button", { type: "button", class: "link", onclick: () => this._goTo(first) }, text)];
    });
  }

  /**
   * Return a step of a tool: what it was given, and what it returned.
   * @param {Turn} turn
   * @param {string} text
   * @param {Child[]} head
   */
  _stepCard(turn, text, head) {
    const status = turn.error ? "failed" : turn.status;
    const value = text.length < 200_000 && /^\s*[[{]/.test(text) ? parse(text) : undefined;
    const isJson = value !== undefined;
    const body = () => (isJson ? jsonSection("answer", text) : longText(text, SHORT, { class: "prose" }, turn.length > turn.text.length ? null : undefined));
    const start = cut(text.replace(/\s+/g, " "), 150);
    const answer = isJson || text.length > 160 ? folded("answer", `→ ${start}`, body) : text ? body() : null;
    const name = el("b", null, turn.name ?? "tool");
    return add(
      el("article", { class: `message tool ${status}` }),
      add(el("header"), el("i", { class: `mark ${status}`, "aria-hidden": "true" }), name, ...head),
      turn.arguments && turn.arguments !== "{}" ? argumentList(turn.arguments) : null,
      answer,
      partList(turn.others),
      gallery([turn.arguments, ...textsOf(turn)], this._address(turn)),
      turn.error ? longText(turn.error, SHORT, { class: "error-text" }) : null,
    );
  }
}

/**
 * Return the name of a turn's thread, where the turn before is of another one.
 * @param {Turn[]} turns
 * @param {number} n
 */
export function headingAt(turns, n) {
  const { thread, agent } = turns[n];
  if (thread === (n ? turns[n - 1].thread : "")) return "";
  const isContinued = turns.slice(0, n).some((turn) => turn.thread === thread);
  return `${agent ?? (thread ? "Agent" : "Outside any agent")}${isContinued ? ", continued" : ""}`;
}
