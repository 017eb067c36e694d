// The conversation of a run, section by section: each agent has one, with those of the agents in it. It follows the selected step.

import { gallery } from "./blobs.js";
import { Chapters, figuresOfChapter } from "./chapters.js";
import { add, byId, el, messageOf, setAttribute, setText, targetOf } from "./dom.js";
import * as format from "./format.js";
import { isForKeys } from "./keys.js";
import { longText, named } from "./longtext.js";
import { markdownSwitch } from "./markdown.js";
import { answerOf, argumentList, callCard, folded, lookOf, messageCard, partList, proseOf, textsOf, usedCard } from "./messages.js";
import { entriesOf, figuresOf, pathOf, turnOf } from "./sections.js";
import { cut } from "./visible.js";

/**
 * @import { Entry } from "./sections.js"
 * @import { Spans } from "./spans.js"
 * @typedef {{ key: string, node: HTMLElement, number: HTMLElement | null, entry: Entry }} Card an entry on the page
 */

const PAGE = 60;
const SHORT = 400;
const HEAD = 34; // pixels of the line above the turns, which stays
const LONG_SECTION = 20; // turns; a longer section in another one begins folded

export class Conversation {
  /**
   * @param {Spans} spans
   * @param {RunSource} source
   * @param {{ onOpen: (id: string) => void, onSelect: (id: string) => void }} handlers `onOpen` shows a step in the tree,
   *   `onSelect` selects it and stays here
   */
  constructor(spans, source, { onOpen, onSelect }) {
    this.spans = spans;
    this.source = source;
    this.onOpen = onOpen;
    this.onSelect = onSelect;
    this.panel = byId("panel-conversation");
    this.box = byId("turns");
    this.note = byId("turns-note");
    this.more = byId("turns-more");
    this.earlier = byId("turns-earlier");
    /** @type {Turn[]} those that are loaded, one after another */
    this.turns = [];
    this.first = 0; // the number of turns before these
    this.total = 0;
    /** @type {Record<string, Section>} */
    this.sections = {};
    /** @type {Chapter[]} */
    this.chapters = [];
    this.list = new Chapters((id, turn) => this._openAt(id, turn));
    /** @type {Map<string, boolean>} what the reader folded or unfolded */
    this.folded = new Map();
    /** @type {Entry[]} */
    this.entries = [];
    /** @type {Card[]} */
    this.cards = [];
    this.start = 0; // the entry that the first card shows
    this.changes = -1;
    this.wanted = ""; // the selected step
    this.current = -1; // the number of its turn
    this.isUpdating = false;
    this.isFetching = false;
    this.markdown = markdownSwitch(byId("turns-markdown"), "conversation", () => this._draw(this.start, this.cards.length));
    byId("turns-fold-all").addEventListener("click", () => this.foldAll(true));
    byId("turns-unfold-all").addEventListener("click", () => this.foldAll(false));
    this.more.addEventListener("click", () => this._showMore());
    this.earlier.addEventListener("click", () => this._showEarlier());
    this.box.addEventListener("click", (event) => this._click(event));
    document.addEventListener("keydown", (event) => this._key(event));
    const observer = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this._showMore(), {
      root: this.panel,
      rootMargin: "600px",
    });
    observer.observe(this.more);
    this.panel.addEventListener("scroll", () => this._markChapter(), { passive: true });
  }

  /** Mark the chapter of the current turn, or where that is not in sight, the one at the top, in the list of chapters. */
  _markChapter() {
    if (!this.chapters.length) return;
    const top = this.panel.getBoundingClientRect().top + 120;
    const turns = this.cards.filter(({ entry }) => entry.turn >= 0);
    const current = turns.find(({ node, entry }) => entry.turn + this.first === this.current && isWithin(node, this.panel));
    const passed = current ?? turns.findLast(({ node }) => node.getBoundingClientRect().top <= top);
    const turn = (passed?.entry.turn ?? 0) + this.first;
    this.list.mark(this.chapters.findLastIndex((each) => each.turn <= turn));
  }

  /** How many turns are on the page. */
  get shown() {
    return this.cards.filter(({ entry }) => entry.turn >= 0).length;
  }

  get isShown() {
    return !this.panel.hidden;
  }

  /**
   * Show the turns, at the selected step; those that are here already are brought up to date.
   * @param {string} id the selected step; "" for none
   */
  async open(id) {
    this.wanted = id;
    if (!this.turns.length) setText(this.note, "Reading the turns…");
    if (!this.turns.length && id) {
      await this._read({ span: id });
      this.changes = this.spans.changes;
    } else await this.update();
    await this.follow(id);
  }

  /** Read the turns again as far as they are here: new ones may be among them. Those that are the same stay on the page. */
  async update() {
    if (this.isUpdating || this.changes === this.spans.changes) return;
    this.isUpdating = true;
    try {
      const changes = this.spans.changes;
      const before = this.turns.length;
      /** @type {Turn[]} */
      const turns = [];
      let page;
      do {
        page = await this.source.conversation({ offset: this.first + turns.length });
        turns.push(...page.turns);
      } while (page.turns.length && turns.length < Math.min(page.total - this.first, before));
      const wasAtEnd = this.start + this.cards.length >= this.entries.length;
      this._take({ ...page, turns, offset: this.first });
      this._draw(this.start, this.cards.length);
      if (wasAtEnd || this.cards.length < PAGE) await this._showMore();
      this.changes = changes;
    } catch (error) {
      setText(this.note, messageOf(error));
    } finally {
      this.isUpdating = false;
    }
  }

  /** @param {TurnPage} page */
  _take({ turns, offset, total, sections, chapters, files }) {
    this.turns = turns;
    this.first = offset;
    this.total = total;
    this.sections = sections;
    if (chapters.length && !this.chapters.length) this.markdown.prefer();
    this.chapters = chapters;
    this.box.classList.toggle("talk", chapters.length > 0);
    this._list();
    this.list.show(chapters, this._nested(), files);
  }

  _list() {
    this.entries = entriesOf(this.turns, this.sections, (id) => this._isFolded(id), this.chapters, this.first);
    byId("turns-fold").hidden = !this._nested().length;
  }

  /** @param {string} id */
  _isFolded(id) {
    const section = this.sections[id];
    // The agent that says most is the one to read.
    return this.folded.get(id) ?? Boolean(section && section.turns > LONG_SECTION && section.turns < this.total / 2 && this._nested().includes(section));
  }

  /** Return the sections that stand in another one. */
  _nested() {
    const all = Object.values(this.sections);
    const outside = all.reduce((sum, { parent, turns }) => sum + (parent === "" ? turns : 0), 0);
    const hasOutside = (this.sections[""]?.turns ?? 0) > outside;
    return all.filter(({ parent }) => parent !== null && (parent !== "" || hasOutside));
  }

  /**
   * Read turns in place of those that are here; return the number of the turn that was asked for.
   * @param {{ offset?: number, span?: string }} from
   */
  async _read(from) {
    try {
      const page = await this.source.conversation(from);
      this._take(page);
      this._draw(0, PAGE);
      return page.place ?? -1;
    } catch (error) {
      setText(this.note, messageOf(error));
      return -1;
    }
  }

  /**
   * Show the turn of a step, and mark it. A step without one, such as a chain, is shown by the turn after it.
   * @param {string} id
   */
  async follow(id) {
    this.wanted = id;
    if (!this.isShown || !this.turns.length) return;
    const shown = this.turns[this.current - this.first];
    if (id && shown && (shown.span === id || shown.asked_by === id)) return;
    const number = id ? await this._find(id) : -1;
    if (id !== this.wanted || number === null) return;
    this._mark(number);
    if (number >= 0) this._reveal(number);
  }

  /**
   * Return the number of the turn that shows the wanted step, which is loaded then; -1 where none does, null where it is not known.
   * @param {string} id
   */
  async _find(id) {
    const here = turnOf(this.turns, id);
    if (here >= 0) return here + this.first;
    if (this.source.isLocal) return -1;
    const page = await this.source.conversation({ span: id }).catch(() => null);
    if (id !== this.wanted || !page) return null;
    const number = page.place ?? -1;
    if (number >= 0 && !this._has(number)) this._take(page);
    return number;
  }

  /**
   * Show the first turn of a chapter, or that of a step, at the top, and select its step.
   * @param {string} id
   * @param {number} [turn] its number, where it is known
   */
  async _openAt(id, turn) {
    this.wanted = id;
    if (turn !== undefined && !this._has(turn)) await this._read({ offset: Math.max(0, turn - PAGE / 2) });
    const number = turn ?? (await this._find(id));
    if (this.wanted !== id || number === null || !this._has(number)) return;
    const node = this._reveal(number);
    this._select(number - this.first);
    const place = this.cards.findIndex((card) => card.node === node);
    this._draw(this.start, Math.max(this.cards.length, place + PAGE)); // else the last turn that is drawn cannot be at the top
    const before = node?.previousElementSibling;
    const head = before?.matches(".agent") ? before : node;
    if (head) this.panel.scrollTop += head.getBoundingClientRect().top - this.panel.getBoundingClientRect().top - HEAD;
    node?.focus({ preventScroll: true });
  }

  /** @param {number} number */
  _has(number) {
    return number >= this.first && number < this.first + this.turns.length;
  }

  /**
   * Unfold what a turn is in, draw it, and scroll to it where it is not visible.
   * @param {number} number
   */
  _reveal(number) {
    const turn = this.turns[number - this.first];
    if (!turn) return null;
    for (const id of pathOf(this.sections, turn.thread)) if (this._isFolded(id)) this.folded.set(id, false);
    this._list();
    const at = this.entries.findIndex((entry) => entry.turn === number - this.first);
    const end = this.start + this.cards.length;
    if (at < this.start - PAGE || at > end + PAGE) this._draw(Math.max(0, at - PAGE / 2), PAGE);
    else this._draw(Math.min(this.start, at), Math.max(end, at + 1) - Math.min(this.start, at));
    const node = this.cards[at - this.start]?.node ?? null;
    if (node && !isWithin(node, this.panel)) node.scrollIntoView({ block: "center" });
    return node;
  }

  /** @param {number} number */
  _mark(number) {
    this.current = number;
    for (const card of this.cards) this._markCard(card);
    this._markChapter();
  }

  /** @param {Card} card */
  _markCard({ node, entry }) {
    const isCurrent = entry.turn >= 0 && entry.turn + this.first === this.current;
    const isOfStep = entry.turn >= 0 && this.current >= 0 && this.turns[entry.turn]?.span === this.turns[this.current - this.first]?.span;
    node.classList.toggle("current", isCurrent);
    node.classList.toggle("of-step", isOfStep);
    setAttribute(node, "aria-current", isCurrent ? "true" : null);
  }

  /**
   * Select the step of a turn.
   * @param {number} at the place of the turn in those that are loaded
   */
  _select(at) {
    const turn = this.turns[at];
    if (!turn) return;
    this._mark(at + this.first);
    this.wanted = turn.span;
    this.onSelect(turn.span);
  }

  async _showMore() {
    const end = this.start + this.cards.length;
    while (end + PAGE > this.entries.length && this.first + this.turns.length < this.total && !this.isFetching) {
      this.isFetching = true;
      try {
        const page = await this.source.conversation({ offset: this.first + this.turns.length });
        this._take({ ...page, turns: [...this.turns, ...page.turns], offset: this.first });
        if (!page.turns.length) break;
      } catch (error) {
        setText(this.note, messageOf(error));
        return;
      } finally {
        this.isFetching = false;
      }
    }
    this._draw(this.start, end - this.start + PAGE);
  }

  async _showEarlier() {
    if (!this.start && this.first && !this.isFetching) {
      this.isFetching = true;
      const offset = Math.max(0, this.first - 5 * PAGE);
      try {
        const page = await this.source.conversation({ offset });
        const turns = page.turns.slice(0, this.first - offset);
        const before = this.entries.length;
        this._take({ ...page, turns: [...turns, ...this.turns] });
        this.start = Math.max(0, this.entries.length - before);
      } catch (error) {
        setText(this.note, messageOf(error));
        return;
      } finally {
        this.isFetching = false;
      }
    }
    const start = Math.max(0, this.start - PAGE);
    this._draw(start, this.cards.length + this.start - start);
  }

  /** Show all turns that are loaded. */
  showLoaded() {
    this._draw(0, this.entries.length);
  }

  /**
   * Show so many entries. What is on the page for an equal one stays, with what the reader unfolded in it.
   * @param {number} start
   * @param {number} count
   */
  _draw(start, count) {
    /** @type {Map<string, Card[]>} */
    const known = new Map();
    for (const card of this.cards) known.set(card.key, [...(known.get(card.key) ?? []), card]);
    this.start = start;
    this.cards = this.entries.slice(start, start + count).map((entry) => {
      const key = this._keyOf(entry);
      const card = known.get(key)?.shift() ?? this._made(key, entry);
      card.entry = entry;
      return card;
    });
    const kept = new Set(this.cards.map(({ node }) => node));
    for (const child of [...this.box.children]) if (!(child instanceof HTMLElement && kept.has(child))) child.remove();
    // Cards that stay are not moved: that would drop the focus.
    this.cards.forEach((card, n) => {
      const { node, number, entry } = card;
      if (number) setText(number, `${this.first + entry.turn + 1}`);
      if (this.box.children[n] !== node) this.box.insertBefore(node, this.box.children[n] ?? null);
      this._markCard(card);
    });
    this._showCount();
    this._markChapter();
  }

  /**
   * @param {string} key
   * @param {Entry} entry
   */
  _made(key, entry) {
    if (entry.turn >= 0) return this._card(key, entry);
    return "chapter" in entry ? this._chapter(key, entry, entry.chapter) : this._line(key, entry);
  }

  /**
   * Return the line of a chapter: its number, and what it took. Its prompt follows as a turn, except a command.
   * @param {string} key
   * @param {Entry} entry
   * @param {number} number
   * @returns {Card}
   */
  _chapter(key, entry, number) {
    const chapter = this.chapters[number];
    const isSaid = this.turns[chapter.turn - this.first]?.span === chapter.span_id;
    const name = el("span", isSaid ? { class: "unseen" } : null, chapter.name);
    const figures = figuresOfChapter(chapter).map((text) => el("span", { class: "figure" }, text));
    return { key, node: el("h2", { class: "agent chapter" }, el("span", { class: "number" }, `${number + 1}`), name, ...figures), number: null, entry };
  }

  /** @param {Entry} entry */
  _keyOf(entry) {
    if (entry.turn >= 0) return JSON.stringify([this.turns[entry.turn], this.markdown.isOn, this._depthOf(this.turns[entry.turn].thread)]);
    return JSON.stringify([entry, "chapter" in entry ? this.chapters[entry.chapter] : this.sections[entry.section], this._isFolded(entry.section)]);
  }

  _showCount() {
    const { shown } = this;
    const isEnd = this.start + this.cards.length >= this.entries.length && this.first + this.turns.length >= this.total;
    this.more.hidden = isEnd;
    this.more.textContent = "Show more";
    this.earlier.hidden = !this.start && !this.first;
    this.earlier.textContent = "Show earlier turns";
    const turns = format.plural(this.total, "turn");
    const text = shown === this.total ? turns : `${format.whole(shown)} of ${turns}`;
    setText(this.note, this.total ? text : "This run has no llm, tool or message spans.");
  }

  /**
   * Scroll to a turn, and give it the focus.
   * @param {number} number
   */
  async _goTo(number) {
    if (!this._has(number - 1)) await this._read({ offset: Math.max(0, number - 1 - PAGE / 2) });
    this._reveal(number - 1)?.focus({ preventScroll: true });
  }

  /** @param {string} thread */
  _depthOf(thread) {
    return pathOf(this.sections, thread).filter(Boolean).length;
  }

  /**
   * Return the line of a section: its name, and what it took.
   * @param {string} key
   * @param {Entry} entry
   * @returns {Card}
   */
  _line(key, entry) {
    const section = this.sections[entry.section];
    const name = section?.name ?? (entry.section ? "Agent" : "Outside any agent");
    const isAgain = "isAgain" in entry && entry.isAgain;
    const isFolded = this._isFolded(entry.section);
    const figures = isAgain || !section || !entry.section ? [] : figuresOf(section);
    const title = isAgain ? `${name}, continued` : name;
    const fold = () => this._fold(entry.section, !isFolded);
    const button =
      isAgain || !entry.section ? el("span", null, title) : el("button", { type: "button", class: "twist", "aria-expanded": String(!isFolded), onclick: fold }, title);
    const node = el("h2", { class: `agent${isFolded && !isAgain ? " shut" : ""}` }, button, ...figures.map((text) => el("span", { class: "figure" }, text)));
    node.style.setProperty("--deep", String(Math.max(0, this._depthOf(entry.section) - 1)));
    return { key, node, number: null, entry };
  }

  /**
   * @param {string} id
   * @param {boolean} isFolded
   */
  _fold(id, isFolded) {
    this.folded.set(id, isFolded);
    this._list();
    const count = this.cards.length;
    this._draw(Math.min(this.start, this.entries.length), Math.max(count, PAGE));
    const line = this.cards.find(({ entry }) => entry.section === id && entry.turn < 0);
    line?.node.querySelector("button")?.focus({ preventScroll: true });
  }

  /**
   * Fold or unfold all sections that are in another one.
   * @param {boolean} isFolded
   */
  foldAll(isFolded) {
    for (const { id } of this._nested()) this.folded.set(id, isFolded);
    this._list();
    this._draw(Math.min(this.start, Math.max(0, this.entries.length - PAGE)), PAGE);
  }

  /**
   * @param {string} key
   * @param {Entry} entry
   * @returns {Card}
   */
  _card(key, entry) {
    const turn = this.turns[entry.turn];
    const isCut = turn.length > turn.text.length;
    const rest = format.plural(turn.length - turn.text.length, "more character");
    const text = isCut ? `${turn.text}… (${rest} in the span)` : turn.text;
    const number = el("span", { class: "place" });
    const open = el("button", { type: "button", class: "quiet", onclick: () => this.onOpen(turn.span) }, "Open span");
    const head = [...this._notes(turn), el("span", { class: "gap" }), open, number];
    const isTalk = this.chapters.length > 0;
    const prose = proseOf(this.markdown.isOn && !(isTalk && turn.role === "user"));
    // In a session, the step of a call is the line below the answer.
    const card = (/** @type {TurnCall} */ call) => (isTalk && call.same !== null && turn.side === "out" ? null : this._callCard(call));
    const options = { head, isCut, prose, card, address: this._address(turn), isTalk };
    const isStep = turn.role === "tool" && turn.side === "";
    const body = !isStep ? messageCard({ ...turn, text }, options) : turn.shown ? usedCard(turn, turn.shown, text, head, options.address) : this._stepCard(turn, text, head);
    if (turn.again.length) body.append(this._again(turn));
    const node = el("div", { class: `turn from-${lookOf(turn.role)}`, tabindex: "-1" }, body);
    node.style.setProperty("--deep", String(this._depthOf(turn.thread)));
    return { key, node: named(node, turn.span), number, entry };
  }

  /**
   * Return what a call was sent again, in one line that unfolds.
   * @param {Turn} turn
   */
  _again({ role, again }) {
    const count = again.reduce((sum, [first, last]) => sum + last - first + 1, 0);
    const model = role === "tool" ? " by the model that asked" : "";
    return folded("again", `${format.plural(count, "message")} as before`, () => el("p", null, `Read again${model}: `, ...this._links(again)));
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
    if (turn.asked_by && !turn.shown) {
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
    const start = cut(text.replace(/\s+/g, " "), 150);
    const body = answerOf(turn, text);
    const answer = body && (!body.matches(".prose") || text.length > 160) ? folded("answer", `→ ${start}`, () => body) : body;
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

  /**
   * Select the turn on which somebody clicked; not where they press a button, or mark a text.
   * @param {MouseEvent} event
   */
  _click(event) {
    const target = targetOf(event);
    if (target?.closest("button, a, summary, input, audio, .json") || getSelection()?.isCollapsed === false) return;
    const node = target?.closest(".turn");
    const card = this.cards.find((each) => each.node === node);
    if (card) this._select(card.entry.turn);
  }

  /**
   * Go from turn to turn, and fold sections.
   * @param {KeyboardEvent} event
   */
  _key(event) {
    if (document.body.dataset.view !== "conversation" || event.defaultPrevented || !isForKeys(event)) return;
    const target = targetOf(event);
    /** @type {Record<string, () => void>} */
    const keys = {
      j: () => this._move(1),
      k: () => this._move(-1),
      g: () => this._moveTo(this.first ? null : 0, 0),
      G: () => this._moveTo(this.first + this.turns.length < this.total ? null : this.turns.length - 1, this.total - 1),
      h: () => this._foldAround(true),
      l: () => this._foldAround(false),
      H: () => this.foldAll(true),
      L: () => this.foldAll(false),
      Enter: () => byId("detail").focus(),
    };
    const isControl = target?.closest("button, a, summary, #detail, [role=tab], [role=separator]");
    const action = event.key === "Enter" && isControl ? undefined : keys[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  /**
   * Select the turn some turns after the current one.
   * @param {1 | -1} by
   */
  async _move(by) {
    const shown = this.entries.filter(({ turn }) => turn >= 0);
    const at = shown.findIndex(({ turn }) => turn + this.first === this.current);
    if (by > 0 && at === shown.length - 1) await this._showMore();
    if (by < 0 && at === 0) await this._showEarlier();
    const all = this.entries.filter(({ turn }) => turn >= 0);
    const from = all.findIndex(({ turn }) => turn + this.first === this.current);
    const next = all[from < 0 ? 0 : Math.min(all.length - 1, Math.max(0, from + by))];
    if (next) this._pick(next.turn);
  }

  /**
   * Select the first or the last turn; it is read where it is not here.
   * @param {number | null} at
   * @param {number} number
   */
  async _moveTo(at, number) {
    if (at === null) await this._read({ offset: Math.max(0, number - PAGE) });
    this._pick(number - this.first);
  }

  /** @param {number} at */
  _pick(at) {
    const hadFocus = this.panel.contains(document.activeElement);
    this._select(at);
    const node = this._reveal(at + this.first);
    if (hadFocus) node?.focus({ preventScroll: true });
  }

  /**
   * Fold the section of the current turn, or unfold the first folded one below it.
   * @param {boolean} isFolded
   */
  _foldAround(isFolded) {
    const focused = this.cards.find(({ node, entry }) => entry.turn < 0 && node.contains(document.activeElement));
    const turn = this.turns[this.current - this.first];
    const id = focused?.entry.section ?? (isFolded ? turn?.thread : this.entries.find(({ section }) => section && this._isFolded(section))?.section);
    if (id) this._fold(id, isFolded);
  }
}

/**
 * Tell whether the beginning of an element is visible in a box.
 * @param {HTMLElement} node
 * @param {HTMLElement} box
 */
function isWithin(node, box) {
  const { top } = node.getBoundingClientRect();
  const around = box.getBoundingClientRect();
  return top >= around.top && top < around.bottom - 40;
}
