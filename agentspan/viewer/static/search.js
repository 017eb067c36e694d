// Search in a run: summaries at once, payloads and results as the server finds them.

import { byId, setText } from "./dom.js";
import { whole } from "./format.js";

const WAIT_MS = 200;

export class Search {
  constructor(spans, tree, source, { onStep }) {
    this.onStep = onStep;
    this.spans = spans;
    this.tree = tree;
    this.source = source;
    this.input = byId("search");
    this.found = byId("found");
    this.turn = 0;
    this.input.addEventListener("input", () => this._later());
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

  /** Go to the next match, or the one before. */
  step(by) {
    const matches = this.tree.matches;
    if (!matches.size) return;
    this.onStep();
    this.tree.seek((at) => matches.has(at), by);
    this._tell();
  }

  _later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this._run(), WAIT_MS);
  }

  async _run() {
    const words = this.input.value.trim();
    const turn = ++this.turn;
    if (!words) return this.clear();
    const matches = this._inSight(words.toLowerCase());
    this._mark(matches, "");
    try {
      const answer = await this.source.search(words);
      if (turn !== this.turn) return;
      for (const id of answer.ids) {
        const at = this.spans.place.get(id);
        if (at !== undefined) matches.add(at);
      }
      this._mark(matches, answer.ids.length < answer.total ? ` (${whole(answer.ids.length)} of ${whole(answer.total)} marked)` : "");
    } catch (error) {
      if (turn === this.turn) setText(this.found, error.message);
    }
  }

  _inSight(words) {
    const { summary, label, title, error } = this.spans.columns;
    const matches = new Set();
    for (let at = 0; at < this.spans.length; at++) {
      const texts = [summary[at], label[at], title[at], error[at], this.spans.ids[at]];
      if (texts.some((text) => text?.toLowerCase().includes(words))) matches.add(at);
    }
    return matches;
  }

  _mark(matches, note) {
    this.note = note;
    this.tree.matches = matches;
    this.tree.refresh();
    this._tell();
  }

  _tell() {
    const matches = this.tree.matches;
    if (!this.input.value.trim()) return setText(this.found, "");
    if (!matches.size) return setText(this.found, "no match");
    let before = 0;
    if (matches.has(this.tree.selected)) {
      for (const at of this.spans.order) {
        if (matches.has(at)) before++;
        if (at === this.tree.selected) break;
      }
    }
    setText(this.found, `${before ? `${whole(before)} of ` : ""}${whole(matches.size)}${this.note}`);
  }
}
