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
    this.isSearching = false; // the source has not answered yet: what matches so far is not all
    /** @type {1 | -1 | 0} */
    this.wanted = 0; // a step that was asked for while nothing had been found yet
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
    this.isSearching = false;
    this.wanted = 0;
    this._mark(new Set(), "");
  }

  /**
   * Select the next match, or the one before.
   * @param {1 | -1} by
   */
  step(by) {
    const matches = this.tree.matches;
    this.wanted = matches.size || !this.isSearching ? 0 : by;
    if (!matches.size) return;
    this.onStep();
    this.tree.seek((at) => matches.has(at), by);
    this.showCount();
  }

  /** Search again, if the server did not answer, or not all spans were here. */
  retry() {
    if (this.hasFailed) this._run();
  }

  _schedule() {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this._run(), WAIT_MS);
    this.turn++; // an answer to the text before is too late
    this.wanted = 0;
    this.isSearching = this.input.value.trim() !== "";
    this._mark(new Set(), "");
  }

  async _run() {
    const text = this.input.value.trim();
    const turn = ++this.turn;
    this.hasFailed = false;
    if (!text) return this.clear();
    const number = numberIn(text);
    const matches = number ? new Set([this.spans.withNumber(number)].filter((at) => at >= 0)) : matchesOf(this.spans, text);
    if (number && !this.spans.isWhole) {
      this.hasFailed = true; // tried again when all spans are here: a step's number is its place among them
      return setText(this.count, "loading…");
    }
    this._mark(matches, "");
    if (number) {
      this.isSearching = false;
      this.showCount();
      if (this.wanted) this.step(this.wanted);
      return;
    }
    try {
      const { ids, total } = await this.source.search(text);
      if (turn !== this.turn) return;
      for (const id of ids) {
        const at = this.spans.indexOf.get(id);
        if (at !== undefined) matches.add(at);
      }
      this.isSearching = false;
      this._mark(matches, ids.length < total ? ` (${whole(ids.length)} of ${whole(total)} marked)` : "");
      if (this.wanted) this.step(this.wanted);
    } catch (error) {
      if (turn !== this.turn) return;
      this.hasFailed = true;
      this.isSearching = false;
      setText(this.count, messageOf(error));
    }
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
    const { matches, selected } = this.tree;
    if (!this.input.value.trim()) return setText(this.count, "");
    if (!matches.size) return setText(this.count, this.isSearching ? "searching…" : "no match");
    const place = placeAmong(matches, selected, this.spans.order);
    setText(this.count, `${place ? `${whole(place)} of ` : ""}${whole(matches.size)}${this.isSearching ? ", searching…" : this.note}`);
  }
}

/**
 * Return the number of a step that is searched for, as in #12; 0 where a text is searched for.
 * @param {string} text
 */
export const numberIn = (text) => Number(/^#([\d,]+)$/.exec(text)?.[1].replaceAll(",", "") ?? 0);

/**
 * Return the spans whose outline has a text, in upper or lower case.
 * @param {Spans} spans
 * @param {string} text
 */
export function matchesOf(spans, text) {
  const { summary, label, title, error } = spans.columns;
  const wanted = text.toLowerCase();
  /** @type {Set<number>} */
  const matches = new Set();
  for (let at = 0; at < spans.length; at++) {
    const texts = [summary[at], label[at], title[at], error[at], spans.ids[at]];
    if (texts.some((part) => part?.toLowerCase().includes(wanted))) matches.add(at);
  }
  return matches;
}

/**
 * Return the number of the selected match in tree order, from 1; 0 where the selected span is none.
 * @param {Set<number>} matches
 * @param {number} selected
 * @param {Int32Array} order
 */
export const placeAmong = (matches, selected, order) => order.filter((at) => matches.has(at)).indexOf(selected) + 1;
