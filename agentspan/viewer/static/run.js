// The page of a run: its head and its three views. While the run is active, the page polls for its changes.

import { Axis } from "./axis.js";
import { whileFollowing } from "./bar.js";
import { caseLine, causeCard } from "./cause.js";
import { Conversation } from "./conversation.js";
import { Detail, failure, statusMark } from "./detail.js";
import { add, byId, copyButton, el, findById, messageOf, setText } from "./dom.js";
import * as format from "./format.js";
import { jsonSection } from "./json.js";
import { parse } from "./jsontext.js";
import { listenToKeys } from "./keys.js";
import { Layout } from "./layout.js";
import { Lost } from "./lost.js";
import { listenToPrinting } from "./print.js";
import { listenToScores, openScores, scoreSection } from "./scores.js";
import { Search } from "./search.js";
import { isOpenStatus, Spans } from "./spans.js";
import { Stats } from "./stats.js";
import { colors } from "./theme.js";
import { listBefore, neighbour } from "./trail.js";
import { Tree } from "./tree.js";
import { visible } from "./visible.js";

const WIDE = globalThis.matchMedia?.("(min-width: 2200px)"); // as in media.css: tree, details and conversation stand side by side
/** @type {View[]} */
const VIEWS = ["tree", "conversation", "stats"];
const AT_ONCE = 200_000; // spans that are loaded without a click on "Load the rest"
const OVERLAP_MS = 3000; // a program stamps a change before it commits it
const STALLED_MS = 10_000; // after that the page tells of a transaction that holds up its cursor
const POLL_ACTIVE_MS = 1000;
const POLL_IDLE_MS = 10_000;
const POLL_SLOW_MS = 5000; // at most, after a slow answer: one moment of a busy machine must not silence the page
const POLL_SLOW_ACTIVE_MS = 1500; // a step is seen within two seconds after it is stored
const OWN_EVERY_MS = 5000; // own times of a run under way; less often where they take long
const SAID_MS = 5000; // a message at the foot of the tree

/**
 * Return the span and the view that an address names; no view where it names another one.
 * @param {string} hash
 */
export function placeOf(hash) {
  const wanted = new URLSearchParams(hash.slice(1));
  return { span: wanted.get("span") ?? "", view: VIEWS.find((name) => name === (wanted.get("view") ?? "tree")) };
}

/**
 * Return the fragment of an address, without what a page shows by itself.
 * @param {{ run: string, span: string, view: View }} place
 */
export function hashOf({ run, span, view }) {
  const parts = Object.entries({ run, span, view: view === "tree" ? "" : view }).filter(([, value]) => value);
  return parts.length ? `#${new URLSearchParams(parts)}` : "";
}

/**
 * Return the time from which changes are read, in the server's form; "" for all.
 * @param {string | null} latest the latest change that is here
 */
export const sinceOf = (latest) => (latest ? new Date(Date.parse(latest) - OVERLAP_MS).toISOString().replace("Z", "000Z") : "");

export class RunPage {
  /**
   * @param {Run} run
   * @param {RunSource} source
   */
  constructor(run, source) {
    this.run = run;
    this.source = source;
    this.spans = new Spans();
    this.spans.isQuiet = Boolean(run.title);
    this.origin = Date.parse(run.started_at ?? run.inserted_at);
    this.lastEnd = 0;
    /** @type {string | null} */
    this.next = null;
    /** Where to read on, if the database has such a place: times do not tell what was committed. @type {string | null} */
    this.cursor = null;
    this.lost = new Lost();
    this.loadAll = () => {};
    this.isLoadingAll = false;
    this.shown = ""; // what the detail of the selected span was made of
    /** Why the run failed; null where it did not, or nobody knows yet. @type {Why | null} */
    this.why = null;
    this.caseDrawn = ""; // what the line about the case of a trial was made of
    this.isExplained = false;
    /** The way to a cause or a slow step that was asked for before it was known. @type {(() => void) | null} */
    this.wanted = null;
    this.hasOwn = false; // whether the own times are known
    this.slow = -1; // the span to which the way along the slowest has led
    this.follows = false; // whether the newest step is kept in sight
    this.ownAt = -Infinity; // when the own times may be read again
    this.ownChanges = -1; // what they were computed of
    this.timer = 0;
    /** @type {View} */
    this.view = "tree";
    this.layout = new Layout(this.spans);
    this.axis = new Axis(byId("axis"), () => this._redraw());
    this.tree = new Tree(this.spans, this.axis, {
      onSelect: (at) => {
        this._stopFollowing();
        if (this.wanted) this.say("");
        this.wanted = null;
        this._drawNotices(); // to show a step may have needed all rows
        this._showDetail(at);
        this.conversation.follow(this.spans.ids[at] ?? "");
      },
    });
    this.canJudge = !source.isLocal && document.body.dataset.readOnly !== "true";
    const onRemove = (/** @type {Score} */ score) => this._remove(score);
    this.scoring = this.canJudge ? { onAdd: () => this.openScores(), onRemove } : null;
    this.detail = new Detail(this.spans, source, { onSelect: (at) => this.open(at), now: () => this.now(), scoring: this.scoring });
    this.conversation = new Conversation(this.spans, source, {
      onOpen: (id) => this.open(this.spans.indexOf.get(id) ?? -1),
      onSelect: (id) => this.tree.select(this.spans.indexOf.get(id) ?? -1),
    });
    this.stats = new Stats(this.spans, source, { onPick: (at) => this.open(at) });
    const onStep = () => {
      if (this.view !== "tree") this.show("tree");
    };
    this.search = new Search(this.spans, this.tree, source, { onStep });
    this._listen();
    this._drawHead();
  }

  /** Milliseconds since the run began. */
  now() {
    return this.run.left_open || this.source.isLocal ? this.lastEnd : Date.now() - this.origin;
  }

  async load() {
    if (!this.run.spans) this._readFacts().catch(() => {}); // the first poll brings them too
    do {
      const chunk = await this.lost.until(() => this.source.spans(this.next ? { after: this.next } : {}));
      if (!this.next) this.cursor = chunk.cursor;
      this._merge(chunk);
      this.next = chunk.next;
      this._drawLoaded();
      if (this.next && this.spans.length >= AT_ONCE && !this.isLoadingAll) await this._untilLoadAll();
    } while (this.next);
    byId("panel-tree").setAttribute("aria-busy", "false");
    this.spans.isWhole = true;
    this._showRun();
    const { wanted } = this;
    this._followAddress();
    this.wanted = wanted; // asked for after the address was
    if (WIDE.matches && this.view === "tree") this.show("tree");
    addEventListener("hashchange", () => this._followAddress());
    document.documentElement.dataset.ready = "true";
    this.search.retry();
    this._readWhy();
    this._readOwnTimes();
    this.wanted?.();
    if (!this.source.isLocal) this._follow();
  }

  /** Read why the run failed, if it has ended. */
  async _readWhy() {
    const isOver = !isOpenStatus(this.run.status);
    try {
      this.why = isOver ? await this.source.why() : null;
    } catch {
      this.why = null; // the page is the same without; the next change of the run asks again
    }
    this.isExplained = true;
    this._drawHead(); // a run that missed a rule is not only complete
    if (this.tree.selected < 0 && this.why) this._showRun();
    this.wanted?.();
  }

  /** Read the own times of the spans, if spans have changed. */
  async _readOwnTimes() {
    const changes = this.spans.changes;
    const now = performance.now();
    if (changes === this.ownChanges || (this._isActive() && now < this.ownAt)) return;
    this.ownAt = Infinity; // while they are being read
    this.ownChanges = changes;
    try {
      this.spans.setOwn(await this.source.ownTimes());
      this.ownAt = now + Math.max(OWN_EVERY_MS, 20 * (performance.now() - now));
    } catch {
      this.ownAt = now + OWN_EVERY_MS;
      this.ownChanges = -1;
      return;
    }
    this.hasOwn = true;
    byId("panel-tree").classList.toggle("with-own", this.spans.own.size > 0);
    this.tree.refresh();
    this.detail.refresh();
    this.wanted?.();
  }

  /**
   * Keep a wish until the run is loaded, and what it needs is known.
   * @param {() => void} wanted
   * @param {string} goal
   */
  _want(wanted, goal) {
    this.wanted = wanted;
    if (!this.spans.isWhole) this._loadRest();
    this.say(`Goes to the ${goal} as soon as the run is loaded…`, true);
  }

  /**
   * Go to the step in which the failure arose, or from one such step to the next.
   * @param {1 | -1} by
   */
  seekCause(by) {
    const isKnown = this.run.status !== "failed" || this.isExplained || this.tree.selected >= 0;
    if (!this.spans.isWhole || !isKnown) return this._want(() => this.seekCause(by), "cause of the failure");
    this.wanted = null;
    this.say("");
    const leaf = this.spans.indexOf.get(this.why?.step ?? "");
    if (by > 0 && this.tree.selected < 0 && leaf !== undefined) this.tree.select(leaf);
    else if (!this.tree.seekCause(by)) this.say(this.why ? this.why.sentence : "No step failed.");
  }

  /**
   * Go to the next step in the order of the time in which no step inside ran: from the slowest on.
   * @param {1 | -1} by
   */
  seekSlow(by) {
    if (!this.spans.isWhole || !this.hasOwn) return this._want(() => this.seekSlow(by), "slowest step");
    this.wanted = null;
    const order = this.spans.slowest();
    if (!order.length) return this.say("No step has ended yet.");
    const from = this.tree.selected >= 0 && this.tree.selected === this.slow ? order.indexOf(this.slow) : by > 0 ? -1 : order.length;
    const place = (from + by + order.length) % order.length;
    this.slow = order[place];
    this.tree.select(this.slow);
    this.say(`Number ${format.whole(place + 1)} of ${format.whole(order.length)} by self time: ${format.duration(this.spans.ownOf(this.slow))}`);
  }

  /** Keep the newest step in sight, or not any more. */
  toggleFollow() {
    if (this.follows) return this._stopFollowing();
    if (!this._isActive()) return this.say("This run has ended: there is nothing to follow.");
    this.show("tree");
    this.follows = true;
    this._drawFollow();
    this.tree.showNewest();
  }

  _stopFollowing() {
    this.follows = false;
    this._drawFollow();
  }

  _drawFollow() {
    const isActive = this._isActive();
    byId("follow").hidden = !isActive;
    byId("follow").setAttribute("aria-pressed", String(this.follows));
    setText(byId("follow"), this.follows ? "Following" : "Follow");
  }

  /** Open the form for a score, a mark or a note of the selected step, or of the run. */
  openScores() {
    if (!this.canJudge) return this.say(this.source.isLocal ? "A run in a file cannot be judged." : "This server only reads.");
    const at = this.tree.selected;
    if (at < 0) return openScores("", "this run");
    openScores(this.spans.ids[at], `step #${this.spans.numberOf(at)}, ${this.spans.columns.summary[at]}`);
  }

  /**
   * Send what somebody judges, and show it.
   * @param {Judgement} judgement
   */
  async judge(judgement) {
    const { run } = await this.source.judge(judgement);
    this.run = run;
    const at = this.tree.selected;
    if (at >= 0) this.detail.show(at, { again: true });
    else this._showRun();
    if (!judgement.span_id) this._readWhy(); // whether it missed a rule may have changed
  }

  /** @param {Score} score */
  _remove({ target, name, identifier }) {
    return this.judge({ span_id: target === this.run.id ? null : target, name, identifier, remove: true });
  }

  /**
   * Show the next run of the list from which this page was opened, or the one before.
   * @param {1 | -1} by
   */
  goToRun(by) {
    const list = listBefore();
    const next = list && !this.source.isLocal ? neighbour(list.runs, this.run.id, by) : undefined;
    if (next) location.assign(`${encodeURIComponent(next)}${location.search}`);
    else this.say(list?.runs.includes(this.run.id) ? `This is the ${by > 0 ? "last" : "first"} run of the list.` : "Open a run from the list of runs to go on to the next one.");
  }

  /** Compare the run with the nearest one that passed. */
  compare() {
    if (this.source.isLocal || !this.why?.nearest) return this.say("There is no run that passed to compare this one with.");
    location.assign(`../compare?${new URLSearchParams({ a: this.why.nearest, b: this.run.id })}`);
  }

  /**
   * Say something at the foot of the tree; "" for nothing any more.
   * @param {string} text
   * @param {boolean} [stays] whether it stays until something else is said
   */
  say(text, stays = false) {
    clearTimeout(this.timer);
    byId("said").hidden = !text;
    setText(byId("said"), text);
    if (text && !stays) this.timer = window.setTimeout(() => this.say(""), SAID_MS);
  }

  _loadRest() {
    this.isLoadingAll = true;
    this.loadAll();
  }

  /** @returns {Promise<void>} */
  _untilLoadAll() {
    return new Promise((resolve) => (this.loadAll = resolve));
  }

  /** Show the span and the view that the address names. */
  _followAddress() {
    const { span, view } = placeOf(location.hash);
    const at = this.spans.indexOf.get(span);
    if (at !== undefined && at !== this.tree.selected) this.tree.select(at);
    if (view && view !== this.view) this.show(view);
  }

  /** Read the run's facts with its counts, while its spans are being read. */
  async _readFacts() {
    this.run = await this.source.facts();
    this._drawHead();
    this._drawLoaded();
  }

  /**
   * Add a chunk's spans; tell whether anything changed.
   * @param {SpanChunk & { run?: Run }} chunk
   */
  _merge(chunk) {
    if (chunk.run?.title && !this.run.title) this.spans.isQuiet = true;
    const scores = JSON.stringify(this.run.scores);
    if (chunk.run) this.run = chunk.run;
    const isJudged = JSON.stringify(this.run.scores) !== scores;
    const atEnd = this.tree.box.scrollTop + this.tree.box.clientHeight >= this.tree.box.scrollHeight - 4;
    const follows = atEnd && this.tree.box.scrollTop > 0 && this.tree.selected < 0;
    const changed = this.spans.merge(chunk);
    if (changed) {
      this.spans.buildTree();
      this.layout.fit();
      this._setExtent();
      this.tree.relist();
      if (this.follows) this.tree.showNewest();
      else if (follows) this.tree.box.scrollTop = this.tree.box.scrollHeight;
      this._drawOverview();
    }
    this._drawHead();
    return changed || isJudged;
  }

  _setExtent() {
    const { start, end, isRunning } = this.spans.extent();
    this.lastEnd = Math.max(end, this.run.duration_ms ?? 0);
    // The axis of an unfinished run without active spans does not grow: its steps would become invisibly short.
    this.axis.setExtent(start, isRunning && this._isActive() ? Math.max(this.lastEnd, this.now()) : this.lastEnd);
    this.tree.now = this.now();
  }

  /** Tell whether the run or one of its spans may still change. */
  _isActive() {
    const open = this.run.spans ? this.run.spans.pending + this.run.spans.active : 0;
    return !this.source.isLocal && !this.run.left_open && (isOpenStatus(this.run.status) || open > 0);
  }

  // Polling needs only requests, continues after the server or the browser slept, and shows the writes of all processes.
  async _follow() {
    let readAll = -Infinity;
    let before = this.run.status;
    for (;;) {
      const began = performance.now();
      try {
        let changed = await this._readChanges(this.cursor ? { cursor: this.cursor } : { since: sinceOf(this.spans.latest) });
        // A change that was committed late, with an old time, shows in the counts: then all spans are read again.
        if (this.spans.isBehind(this.run.spans) && began - readAll > POLL_IDLE_MS) {
          readAll = began;
          changed = (await this._readChanges({ since: "" })) || changed;
        }
        this.lost.clear();
        if (changed) this._updateViews();
        if (isOpenStatus(before) && !isOpenStatus(this.run.status)) this._readWhy();
        before = this.run.status;
        this._readOwnTimes();
        const most = this._isActive() ? POLL_SLOW_ACTIVE_MS : POLL_SLOW_MS;
        const rest = Math.min(10 * (performance.now() - began), most);
        const wait = Math.max(this._isActive() ? POLL_ACTIVE_MS : POLL_IDLE_MS, rest);
        await new Promise((resolve) => setTimeout(resolve, wait));
      } catch (error) {
        await this.lost.wait(error);
      }
      await whileFollowing();
    }
  }

  /** @param {{ since?: string, cursor?: string }} query */
  async _readChanges(query) {
    let changed = false;
    /** @type {string | null} */
    let cursor = null;
    /** @type {string | null} */
    let after = "";
    do {
      const chunk = await this.source.spans({ ...query, after });
      if (!after) {
        cursor = chunk.cursor;
        this._drawStalled(chunk.stalled_s);
      }
      changed = this._merge(chunk) || changed;
      after = chunk.next;
    } while (after);
    this.cursor = cursor;
    return changed;
  }

  _updateViews() {
    if (this.conversation.isShown) this.conversation.update();
    if (this.view === "stats") this.stats.update();
    const at = this.tree.selected;
    if (at < 0) this._showRun();
    else if (this._outlineOf(at) !== this.shown) this._showDetail(at);
  }

  _redraw() {
    this.axis.drawRuler();
    this.tree.refresh();
  }

  _drawOverview() {
    this.axis.drawRuler();
    this.axis.drawOverview(this.spans, this.now(), colors());
  }

  /** @param {number} seconds */
  _drawStalled(seconds) {
    byId("stalled").hidden = seconds * 1000 < STALLED_MS;
    const took = format.duration(seconds * 1000);
    setText(byId("stalled"), `A transaction in the database has been open for ${took}. Until it ends, this page reads the same changes again.`);
  }

  _drawLoaded() {
    const total = this.run.spans?.total ?? this.spans.length;
    byId("loaded").hidden = !this.next;
    setText(byId("loaded-count"), `${format.whole(this.spans.length)} of ${format.plural(total, "span")} loaded`);
    byId("load-all").hidden = !(this.next && this.spans.length >= AT_ONCE);
  }

  _toggleNotices() {
    this.spans.isQuiet = !this.spans.isQuiet;
    this.tree.relist();
    this._drawNotices();
  }

  _drawNotices() {
    const { notices, isQuiet } = this.spans;
    byId("notices").hidden = !this.run.title || !notices.size;
    setText(byId("notices-count"), `${format.whole(notices.size)} hooks and events are ${isQuiet ? "not shown" : "shown"}.`);
    setText(byId("notices-show"), isQuiet ? "Show them" : "Leave them out");
  }

  _drawHead() {
    const { run } = this;
    setText(byId("title"), run.title ?? "");
    byId("title").hidden = !run.title;
    this._drawNotices();
    this._drawCase();
    const name = run.version ? `${run.agent} ${run.version}` : run.agent;
    setText(byId("agent"), run.agent);
    setText(byId("version"), run.version);
    document.title = visible(`${run.title ?? name} · ${run.status}`);
    const missed = this.why?.rule && run.status === "complete" ? statusMark("missed", `complete, missed ${this.why.rule}`) : null;
    const mark = missed ?? (run.left_open ? statusMark("left", "left open, its program died") : statusMark(run.status));
    if (byId("status").textContent !== mark.textContent) byId("status").replaceChildren(mark);
    const sums = this.spans.sums();
    const took = run.duration_ms ?? (this._isActive() && run.started_at ? this.now() : null);
    setText(byId("fact-started"), format.moment(run.started_at ?? run.inserted_at));
    setText(byId("fact-took"), this._took(took) || (run.left_open && this.lastEnd ? `≥ ${format.duration(this.lastEnd)}` : "–"));
    const failed = Math.max(sums.failed, run.spans?.failed ?? 0); // the server counts by status, also spans that are not here yet
    setText(byId("fact-spans"), run.spans ? format.whole(run.spans.total) : "…");
    setText(byId("fact-failed"), failed ? format.whole(failed) : "–");
    byId("fact-failed").classList.toggle("bad", failed > 0);
    setText(byId("fact-tokens"), sums.tokens === null ? "–" : format.count(sums.tokens));
    setText(byId("fact-cost"), sums.cost === null ? "–" : format.cost(sums.cost));
    byId("allow").hidden = this.source.isLocal || document.body.dataset.readOnly === "true" || run.status !== "active" || !run.budget;
    byId("allow").classList.toggle("primary", Boolean(run.budget?.waits));
    byId("terminate").hidden = this.source.isLocal || document.body.dataset.readOnly === "true" || run.status !== "active" || Boolean(run.title);
    byId("live").hidden = !this._isActive();
    if (this.follows && !this._isActive()) this.follows = false;
    this._drawFollow();
  }

  /**
   * Return a duration as text, with the time in which a step went on if that is less than half of it.
   * @param {number | null} took
   */
  _took(took) {
    const active = this.spans.isWhole && took !== null && took >= 60_000 ? this.spans.active() : Infinity;
    return format.duration(took) + (took !== null && active < took / 2 ? ` (${format.duration(active)} active)` : "");
  }

  _drawCase() {
    const found = this.run.case;
    const line = JSON.stringify(found);
    if (line === this.caseDrawn) return; // a link that has the focus keeps it
    this.caseDrawn = line;
    byId("case").hidden = !found;
    byId("case").replaceChildren(...(found ? caseLine(found, { run: this.run.id, isLocal: this.source.isLocal }) : []));
  }

  /** Show the run in the detail, while no span is selected. */
  _showRun() {
    const { run } = this;
    const facts = el("dl", { class: "facts" });
    /** @type {(name: string, ...values: (Node | string | null)[]) => void} */
    const fact = (name, ...values) => {
      if (values[0]) facts.append(el("div", null, el("dt", null, name), add(el("dd"), ...values)));
    };
    fact("run", el("code", null, run.id));
    fact("named", run.external_identifier);
    fact("purpose", run.purpose === "live" ? null : run.purpose);
    fact("started", run.started_at);
    fact("finished", run.finished_at);
    fact("closed", run.closed ? `by being ${run.closed}` : null);
    fact("program", run.program);
    fact("commit", run.git_commit);
    fact(run.case ? "case" : "task", run.task);
    fact("trial", run.case && `${run.case.number} in ${run.case.evaluation}`);
    const session = run.session && new URLSearchParams({ session: run.session });
    fact("session", session && !this.source.isLocal ? el("a", { href: `../sessions?${session}` }, run.session) : run.session);
    fact("user", run.user);
    fact("budget", run.budget && run.budget.text);
    fact(run.tags.length === 1 ? "tag" : "tags", run.tags.join(", "));
    const name = run.version ? `${run.agent} ${run.version}` : run.agent;
    const { code } = document.body.dataset;
    if (code) fact("in a notebook", el("code", null, code), copyButton(code));
    const reason = run.termination_reason;
    const head = () => el("header", { class: "head" }, el("div", { class: "what" }, "Run"), el("h2", null, name));
    /** @type {(text: string) => Node} */
    const terminated = (text) => el("section", { class: "failure" }, el("h3", null, "Terminated"), el("div", { class: "prose" }, text));
    const hint = () => el("p", { class: "hint" }, "Select a step to see what went in and what came out. Press ? for the keys.");
    /** @type {(name: string, text: string | null, make?: (text: string) => Node | null) => DetailPart} */
    const part = (name, text, make = (json) => jsonSection(name, json)) => ({ name, data: [text], make: () => (text ? make(text) : null) });
    const leaf = this.spans.indexOf.get(this.why?.step ?? "");
    const onStep = leaf === undefined ? null : () => this.open(leaf);
    const { why } = this;
    this.detail.replace(run.id, [
      { name: "cause", data: [why, leaf], make: () => why && causeCard(why, { run: run.id, isLocal: this.source.isLocal, onStep }) },
      part("head", name, head),
      { name: "facts", data: [facts.textContent], make: () => facts },
      { name: "scores", data: [JSON.stringify(run.scores)], make: () => scoreSection(run.scores, this.scoring) },
      part("Terminated", reason, terminated),
      part("Error", run.error, (json) => failure(parse(json))),
      part("Metadata", run.metadata),
      part("Result", run.result),
      part("Quality", run.quality),
      part("hint", "hint", hint),
    ]);
  }

  /**
   * Return what tells that a span has changed: a program may also change the payload of an open one.
   * @param {number} at
   */
  _outlineOf(at) {
    const { status, summary, error, left_open } = this.spans.columns;
    return JSON.stringify([status[at], summary[at], error[at], left_open[at]]);
  }

  /** @param {number} at */
  _showDetail(at) {
    this.shown = this._outlineOf(at);
    this.detail.show(at, { again: this.spans.isOpen(at) });
    this.search.showCount();
    this._writeAddress();
  }

  /**
   * Show a span in the tree.
   * @param {number} at
   */
  open(at) {
    if (at < 0) return;
    this.show("tree");
    this.tree.select(at);
    this.tree.box.focus();
  }

  /** @param {View} view */
  show(view) {
    this.view = view;
    for (const name of VIEWS) {
      const isShown = name === view;
      byId(`panel-${name}`).hidden = !isShown && !(WIDE.matches && view !== "stats" && name !== "stats");
      byId(`tab-${name}`).setAttribute("aria-selected", String(isShown));
      byId(`tab-${name}`).tabIndex = isShown ? 0 : -1;
    }
    document.body.dataset.view = view;
    if (this.conversation.isShown) this.conversation.open(this.spans.ids[this.tree.selected] ?? "");
    if (view === "stats") this.stats.update();
    if (!byId("panel-tree").hidden) {
      this._drawOverview();
      if (this.tree.selected >= 0) this.tree.scrollTo(this.spans.rowOf[this.tree.selected]);
      this.tree.refresh();
    }
    this._writeAddress();
  }

  _writeAddress() {
    if (location.protocol === "about:") return; // in the frame of a notebook, which has no address
    const run = this.source.isLocal && findById("runs-list") ? this.run.id : "";
    const hash = hashOf({ run, span: this.spans.ids[this.tree.selected] ?? "", view: this.view });
    history.replaceState(null, "", hash || location.pathname + location.search);
  }

  _listen() {
    for (const name of VIEWS) byId(`tab-${name}`).addEventListener("click", () => this.show(name));
    byId("tabs").addEventListener("keydown", (event) => {
      const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
      if (!by) return;
      event.stopPropagation();
      this.show(VIEWS[(VIEWS.indexOf(this.view) + by + VIEWS.length) % VIEWS.length]);
      byId(`tab-${this.view}`).focus();
    });
    byId("notices-show").addEventListener("click", () => this._toggleNotices());
    byId("load-all").addEventListener("click", () => this._loadRest());
    byId("follow").addEventListener("click", () => this.toggleFollow());
    for (const moved of ["wheel", "touchmove", "pointerdown"]) {
      this.tree.box.addEventListener(moved, () => this.follows && this._stopFollowing(), { passive: true });
    }
    new ResizeObserver(() => this._drawOverview()).observe(byId("axis"));
    addEventListener("serverback", () => {
      this._updateViews();
      this.detail.retry();
      this.search.retry();
    });
    addEventListener("themechange", () => this._drawOverview());
    WIDE.addEventListener("change", () => this.show(this.view));
    listenToKeys(this);
    listenToPrinting(this);
    this._listenToTerminate();
    this._listenToAllow();
    listenToScores(this);
    setInterval(() => this._grow(), 500);
  }

  /** Draw open spans as long as they have run until now. */
  _grow() {
    if (document.hidden || !this._isActive() || !this.spans.length) return;
    this._setExtent();
    this._redraw();
    this._drawHead();
    this.axis.drawOverview(this.spans, this.now(), colors());
  }

  _listenToAllow() {
    const dialog = byId("allow-dialog", HTMLDialogElement);
    const limit = byId("allow-limit", HTMLSelectElement);
    const amount = byId("allow-amount", HTMLInputElement);
    const problem = byId("allow-problem");
    byId("allow").addEventListener("click", () => {
      const budget = this.run.budget;
      if (!budget) return;
      setText(problem, "");
      setText(byId("allow-budget"), budget.text);
      limit.replaceChildren(...budget.limits.map((name) => el("option", null, name)));
      dialog.showModal();
      amount.focus();
    });
    byId("allow-cancel").addEventListener("click", () => dialog.close());
    byId("allow-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        const { run } = await this.source.allow(limit.value, amount.value.trim());
        dialog.close();
        this.run = run;
        this._drawHead();
        if (this.tree.selected < 0) this._showRun();
      } catch (error) {
        setText(problem, messageOf(error));
      }
    });
  }

  _listenToTerminate() {
    const dialog = byId("terminate-dialog", HTMLDialogElement);
    const reason = byId("reason", HTMLInputElement);
    const problem = byId("terminate-problem");
    byId("terminate").addEventListener("click", () => {
      setText(problem, "");
      dialog.showModal();
      reason.focus();
    });
    byId("terminate-cancel").addEventListener("click", () => dialog.close());
    byId("terminate-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        const { run } = await this.source.terminate(reason.value.trim());
        dialog.close();
        this.run = run;
        this._drawHead();
      } catch (error) {
        setText(problem, messageOf(error));
      }
    });
  }
}
