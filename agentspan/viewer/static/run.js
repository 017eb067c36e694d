// The page of a run: its head, its three views, the keys, and following a run that is under way.

import { Axis } from "./axis.js";
import { Conversation } from "./conversation.js";
import { Detail, failure, state } from "./detail.js";
import { add, byId, el, setText } from "./dom.js";
import * as format from "./format.js";
import { jsonSection, parse } from "./json.js";
import { keys } from "./keys.js";
import { Search } from "./search.js";
import { OPEN, Spans } from "./spans.js";
import { Stats } from "./stats.js";
import { colors } from "./theme.js";
import { Tree } from "./tree.js";

const VIEWS = ["tree", "conversation", "stats"];
const AT_ONCE = 200_000; // spans that are loaded without being asked for
const OVERLAP_MS = 3000; // a program stamps a change before it commits it
const LIVE_MS = 1000;
const QUIET_MS = 10_000;

export class RunPage {
  constructor(run, source) {
    this.run = run;
    this.source = source;
    this.spans = new Spans();
    this.origin = Date.parse(run.started_at ?? run.inserted_at);
    this.axis = new Axis(byId("axis"), () => this._redraw());
    const onSelect = (at) => this._selected(at);
    this.tree = new Tree(this.spans, this.axis, { onSelect });
    this.detail = new Detail(this.spans, source, { onSelect: (at) => this.open(at), now: () => this.now() });
    this.conversation = new Conversation(this.spans, source, { onOpen: (id) => this.open(this.spans.place.get(id)) });
    this.stats = new Stats(this.spans, source, { onPick: (at) => this.open(at) });
    this.search = new Search(this.spans, this.tree, source, { onStep: () => this.view === "tree" || this.show("tree") });
    this.view = "tree";
    this._wire();
    this._drawHead();
  }

  /** Milliseconds since the run began. */
  now() {
    return this.run.left_open || this.source.isLocal ? this.until ?? 0 : Date.now() - this.origin;
  }

  async load() {
    let next = "";
    if (!this.run.spans) this._count().catch((error) => this.lost(error));
    do {
      const answer = await this.source.spans(next ? { after: next } : {});
      this._take(answer);
      next = answer.next;
      this._drawLoaded(next);
      if (next && this.spans.length >= AT_ONCE && !this.all) await new Promise((go) => (this.goOn = go));
    } while (next);
    byId("panel-tree").setAttribute("aria-busy", "false");
    this._overview();
    this._goToWanted();
    addEventListener("hashchange", () => this._goToWanted());
    document.documentElement.dataset.ready = "true";
    if (!this.source.isLocal) this._follow();
  }

  /** Show what the address asks for. */
  _goToWanted() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const at = this.spans.place.get(wanted.get("span") ?? "");
    if (at !== undefined && at !== this.tree.selected) this.tree.select(at);
    const view = wanted.get("view") ?? "tree";
    if (VIEWS.includes(view) && view !== this.view) this.show(view);
  }

  /** Say that something could not be read. */
  lost(error) {
    setText(byId("lost"), error.message);
    byId("lost").hidden = false;
  }

  /** Ask how many spans there are, while they come. */
  async _count() {
    this.run = await this.source.facts();
    this._drawHead();
    this._drawLoaded(this.next);
  }

  _take(answer) {
    if (answer.run) this.run = answer.run;
    const atEnd = this.tree.box.scrollTop + this.tree.box.clientHeight >= this.tree.box.scrollHeight - 4;
    const follows = atEnd && this.tree.box.scrollTop > 0;
    const changed = this.spans.take(answer);
    if (changed) {
      this.spans.arrange();
      this._extent();
      this.tree.relist();
      if (follows) this.tree.box.scrollTop = this.tree.box.scrollHeight;
      this._drawOverview();
    }
    this._drawHead();
    return changed;
  }

  _extent() {
    let end = this.run.duration_ms ?? 0;
    let start = 0;
    let isUnderWay = false;
    for (let at = 0; at < this.spans.length; at++) {
      if (this.spans.columns.start[at] < start) start = this.spans.columns.start[at];
      isUnderWay ||= this.spans.columns.status[at] === "active" && !this.spans.columns.left[at];
      const ended = this.spans.end(at, 0);
      if (ended > end) end = ended;
    }
    this.until = end;
    // A run that nobody finished, and in which nothing is going on, does not grow: its steps would shrink to nothing.
    if (isUnderWay && this._isLive()) end = Math.max(end, this.now());
    this.axis.setExtent(start, end);
    this.tree.now = this.now();
  }

  _isLive() {
    const open = this.run.spans ? this.run.spans.pending + this.run.spans.active : 0;
    return !this.source.isLocal && !this.run.left_open && (OPEN.has(this.run.status) || open > 0);
  }

  // Polling: it needs nothing but requests, goes on after either side was away, and sees what any process writes.
  async _follow() {
    let readAll = -Infinity;
    for (;;) {
      const began = performance.now();
      try {
        const latest = this.spans.latest;
        const since = latest ? new Date(Date.parse(latest) - OVERLAP_MS).toISOString().replace("Z", "000Z") : "";
        let changed = await this._catchUp(since);
        // A change that came late, with an old stamp, shows in the counts: then everything is read again.
        if (this._isBehind() && began - readAll > QUIET_MS) {
          readAll = began;
          changed = (await this._catchUp("")) || changed;
        }
        if (changed) this._changed();
        byId("lost").hidden = true;
      } catch (error) {
        this.lost(error);
      }
      const wait = Math.max(this._isLive() ? LIVE_MS : QUIET_MS, 10 * (performance.now() - began));
      await new Promise((go) => setTimeout(go, wait));
      while (document.hidden) await new Promise((go) => document.addEventListener("visibilitychange", go, { once: true }));
    }
  }

  async _catchUp(since) {
    let changed = false;
    let after = "";
    do {
      const answer = await this.source.spans({ since, after });
      changed = this._take(answer) || changed;
      after = answer.next;
    } while (after);
    return changed;
  }

  /** Tell whether spans, or ends of spans, are missing here: the server counts before it reads. */
  _isBehind() {
    const { total, finished } = this.run.spans;
    return this.spans.length < total || this.spans.finished() < finished;
  }

  _changed() {
    if (this.view === "conversation") this.conversation.update();
    if (this.view === "stats") this.stats.update();
    const at = this.tree.selected;
    if (at < 0) this._overview();
    else if (this.spans.columns.status[at] !== this.shownStatus) this._selected(at);
  }

  _redraw() {
    this.axis.drawRuler();
    this.tree.refresh();
  }

  _drawOverview() {
    this.axis.drawRuler();
    this.axis.drawOverview(this.spans, this.now(), colors());
  }

  _drawLoaded(next) {
    const total = this.run.spans?.total ?? this.spans.length;
    this.next = next;
    byId("loaded").hidden = !next;
    setText(byId("loaded-count"), `${format.whole(this.spans.length)} of ${format.plural(total, "span")} loaded`);
    byId("load-all").hidden = !(next && this.spans.length >= AT_ONCE);
  }

  _drawHead() {
    const { run } = this;
    const name = run.version ? `${run.agent} ${run.version}` : run.agent;
    setText(byId("agent"), run.agent);
    setText(byId("version"), run.version);
    document.title = `${name} · ${run.status}`;
    const words = run.left_open ? "left open, its program died" : run.status;
    const mark = state(run.left_open ? "left" : run.status, words);
    if (byId("status").textContent !== mark.textContent) byId("status").replaceChildren(mark);
    const sums = this.spans.sums();
    const took = run.duration_ms ?? (this._isLive() && run.started_at ? this.now() : null);
    setText(byId("fact-started"), format.moment(run.started_at ?? run.inserted_at));
    setText(byId("fact-took"), format.duration(took) || "–");
    const counts = run.spans ?? { total: 0, failed: 0 };
    setText(byId("fact-spans"), run.spans ? format.whole(counts.total) : "…");
    setText(byId("fact-failed"), counts.failed ? format.whole(counts.failed) : "–");
    byId("fact-failed").classList.toggle("bad", counts.failed > 0);
    setText(byId("fact-tokens"), sums.tokens === null ? "–" : format.count(sums.tokens));
    setText(byId("fact-cost"), sums.cost === null ? "–" : format.cost(sums.cost));
    byId("terminate").hidden = this.source.isLocal || document.body.dataset.readOnly === "true" || run.status !== "active";
    byId("live").hidden = !this._isLive();
  }

  /** What the detail shows before a span is selected: the run itself. */
  _overview() {
    const { run } = this;
    const error = run.error ? parse(run.error) : null;
    const facts = el("dl", { class: "facts" });
    const fact = (name, value) => value && facts.append(el("div", null, el("dt", null, name), add(el("dd"), value)));
    fact("run", el("code", null, run.id));
    fact("named", run.external_identifier);
    fact("purpose", run.purpose === "live" ? null : run.purpose);
    fact("started", run.started_at);
    fact("finished", run.finished_at);
    fact("closed", run.closed_by ? `by being ${run.closed_by}` : null);
    fact("program", run.program);
    const parts = [
      el("header", { class: "head" }, el("div", { class: "what" }, "Run"), el("h2", null, run.version ? `${run.agent} ${run.version}` : run.agent)),
      facts,
      run.termination_reason ? el("section", { class: "failure" }, el("h3", null, "Terminated"), el("div", { class: "said" }, run.termination_reason)) : null,
      failure(error),
      ...[["Metadata", run.metadata], ["Result", run.result], ["Quality", run.quality]].map(([title, text]) => (text ? jsonSection(title, text) : null)),
      el("p", { class: "hint" }, "Select a step to see what went in and what came out. Press ? for the keys."),
    ];
    this.detail.at = -1;
    this.detail.box.dataset.span = "";
    this.detail.box.replaceChildren(...parts.filter(Boolean));
  }

  _selected(at) {
    this.shownStatus = this.spans.columns.status[at];
    this.detail.show(at, { again: this.spans.isOpen(at) });
    this.search._tell();
    this._remember();
  }

  /** Show a span in the tree. */
  open(at) {
    if (at === undefined || at < 0) return;
    this.show("tree");
    this.tree.select(at);
    this.tree.box.focus();
  }

  show(view) {
    this.view = view;
    for (const name of VIEWS) {
      const isShown = name === view;
      byId(`panel-${name}`).hidden = !isShown;
      byId(`tab-${name}`).setAttribute("aria-selected", String(isShown));
      byId(`tab-${name}`).tabIndex = isShown ? 0 : -1;
    }
    document.body.dataset.view = view;
    if (view === "conversation") this.conversation.update();
    if (view === "stats") this.stats.update();
    if (view === "tree") {
      this._drawOverview();
      this.tree.refresh();
    }
    this._remember();
  }

  _remember() {
    const at = this.tree.selected;
    const parts = new URLSearchParams();
    if (this.source.isLocal && byId("runs-list")) parts.set("run", this.run.id);
    if (at >= 0) parts.set("span", this.spans.ids[at]);
    if (this.view !== "tree") parts.set("view", this.view);
    history.replaceState(null, "", parts.size ? `#${parts}` : location.pathname + location.search);
  }

  _wire() {
    for (const name of VIEWS) byId(`tab-${name}`).addEventListener("click", () => this.show(name));
    byId("tabs").addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      event.stopPropagation();
      this.show(VIEWS[(VIEWS.indexOf(this.view) + by + VIEWS.length) % VIEWS.length]);
      byId(`tab-${this.view}`).focus();
    });
    byId("load-all").addEventListener("click", () => {
      this.all = true;
      this.goOn?.();
    });
    new ResizeObserver(() => this._drawOverview()).observe(byId("axis"));
    addEventListener("themechange", () => this._drawOverview());
    keys(this);
    this._wireTerminate();
    setInterval(() => this._tickOn(), 500);
  }

  /** What is open grows with time. */
  _tickOn() {
    if (document.hidden || !this._isLive() || !this.spans.length) return;
    this._extent();
    this._redraw();
    this._drawHead();
    this.axis.drawOverview(this.spans, this.now(), colors());
  }

  _wireTerminate() {
    const dialog = byId("terminate-dialog");
    const problem = byId("terminate-problem");
    byId("terminate").addEventListener("click", () => {
      setText(problem, "");
      dialog.showModal();
      byId("reason").focus();
    });
    byId("terminate-cancel").addEventListener("click", () => dialog.close());
    byId("terminate-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        const answer = await this.source.terminate(byId("reason").value.trim());
        dialog.close();
        this.run = answer.run;
        this._drawHead();
      } catch (error) {
        setText(problem, error.message);
      }
    });
  }
}
