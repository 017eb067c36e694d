// Search in a run: summaries at once, payloads and results when the source has searched them.

import { byId, messageOf, setText } from "./dom.js";
import { whole } from "./format.js";

/**
 * @import { Spans } from "./spans.js"
 * @import { Tree } from "./tree.js"
 */

const WAIT_MS = 200;

export class Search {
  /**
   * @param {Spans} spans
   * @param {Tree} tree
   * @param {RunSource} source
   * @param {{ onStep: () => void }} handlers
   */
  constructor(spans, tree, source, { onStep }) {
    this.onStep = onStep;
    this.spans = spans;
    this.tree = tree;
    this.source = source;
    this.input = byId("search", HTMLInputElement);
    this.count = byId("found");
    this.note = "";
    this.turn = 0;
    this.hasFailed = false;
    this.timer = 0;
    this.input.addEventListener("input", () => this._schedule());
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") {
        event.preventDefault();
        this.step(event.shiftKey ? -1 : 1);
      } else if (event.key === "Escape") {
        this.clear();
        this.tree.box.focus();
      }
      event.stopPropagation();
    });
  }

  focus() {
    this.input.focus();
    this.input.select();
  }

  clear() {
    this.input.value = "";
    this.turn++;
    clearTimeout(this.timer);
    this._mark(new Set(), "");
  }

  /**
   * Select the next match, or the one before.
   * @param {1 | -1} by
   */
  step(by) {
    const matches = this.tree.matches;
    if (!matches.size) return;
    this.onStep();
    this.tree.seek((at) => matches.has(at), by);
    this.showCount();
  }

  /** Search again, if the server did not answer. */
  retry() {
    if (this.hasFailed) this._run();
  }

  _schedule() {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this._run(), WAIT_MS);
  }

  async _run() {
    const text = this.input.value.trim();
    const turn = ++this.turn;
    this.hasFailed = false;
    if (!text) return this.clear();
    const matches = this._matchesHere(text.toLowerCase());
    this._mark(matches, "");
    try {
      const { ids, total } = await this.source.search(text);
      if (turn !== this.turn) return;
      for (const id of ids) {
        const at = this.spans.indexOf.get(id);
        if (at !== undefined) matches.add(at);
      }
      this._mark(matches, ids.length < total ? ` (${whole(ids.length)} of ${whole(total)} marked)` : "");
    } catch (error) {
      if (turn !== this.turn) return;
      this.hasFailed = true;
      setText(this.count, messageOf(error));
    }
  }

  /**
   * Return the spans whose outline has a text.
   * @param {string} text in lower case
   */
  _matchesHere(text) {
    const { summary, label, title, error } = this.spans.columns;
    /** @type {Set<number>} */
    const matches = new Set();
    for (let at = 0; at < this.spans.length; at++) {
      const texts = [summary[at], label[at], title[at], error[at], this.spans.ids[at]];
      if (texts.some((part) => part?.toLowerCase().includes(text))) matches.add(at);
    }
    return matches;
  }

  /**
   * @param {Set<number>} matches
   * @param {string} note
   */
  _mark(matches, note) {
    this.note = note;
    this.tree.matches = matches;
    this.tree.refresh();
    this.showCount();
  }

  /** Show how many matches there are, and which of them is selected. */
  showCount() {
    const matches = this.tree.matches;
    if (!this.input.value.trim()) return setText(this.count, "");
    if (!matches.size) return setText(this.count, "no match");
    let before = 0;
    if (matches.has(this.tree.selected)) {
      for (const at of this.spans.order) {
        if (matches.has(at)) before++;
        if (at === this.tree.selected) break;
      }
    }
    setText(this.count, `${before ? `${whole(before)} of ` : ""}${whole(matches.size)}${this.note}`);
  }
}
