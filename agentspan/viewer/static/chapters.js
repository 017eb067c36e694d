// The chapters of a session beside its conversation: its prompts and sub-agents in order, and the files that it edited. Each leads to its turn.

import { byId, el, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";

const BESIDE = globalThis.matchMedia?.("(min-width: 1100px)"); // as in pages.css: the list stands beside the turns
const FILES = 100;

export class Chapters {
  /** @param {(id: string, turn?: number) => void} onOpen shows the turn of a step; its number, where it is known */
  constructor(onOpen) {
    this.onOpen = onOpen;
    this.box = /** @type {HTMLDetailsElement} */ (byId("chapters"));
    this.list = byId("chapters-list");
    this.drawn = "";
    this.current = -1;
    if (BESIDE?.matches) this.box.open = true;
  }

  /**
   * Show the chapters, the sub-agents in them, and the files.
   * @param {Chapter[]} chapters
   * @param {Section[]} agents
   * @param {EditedFile[]} files
   */
  show(chapters, agents, files) {
    const drawn = JSON.stringify([chapters, agents, files]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.box.hidden = !chapters.length;
    document.body.classList.toggle("with-chapters", chapters.length > 0);
    const parts = [format.plural(chapters.length, "prompt"), files.length ? `${format.plural(files.length, "file")} edited` : ""];
    setText(byId("chapters-line"), parts.filter(Boolean).join(", "));
    const items = [
      ...chapters.map((each, n) => ({ turn: each.turn, rank: 0, node: this._item(each.span_id, each.turn, `${n + 1}`, each.name, each) })),
      ...agents.map((each) => ({ turn: each.first, rank: 1, node: this._item(each.id, each.first, "", each.name ?? "Agent", each) })),
    ].sort((a, b) => a.turn - b.turn || a.rank - b.rank);
    this.list.replaceChildren(el("ol", null, ...items.map(({ node }) => node)), ...this._files(files));
    this.current = -1;
  }

  /**
   * @param {string} id
   * @param {number} turn
   * @param {string} number "" for a sub-agent
   * @param {string} name
   * @param {{ duration_ms: number, cost_usd: number | null }} figures
   */
  _item(id, turn, number, name, { duration_ms, cost_usd }) {
    const figures = [duration_ms ? format.duration(duration_ms) : "", cost_usd === null ? "" : money(cost_usd)];
    const button = el(
      "button",
      { type: "button", title: name, onclick: () => this.onOpen(id, turn) },
      el("span", { class: "place" }, number),
      el("span", { class: "name" }, name),
      ...figures.map((text) => el("span", { class: "figure" }, text)),
    );
    return el("li", { class: number ? "prompt" : "sub" }, button);
  }

  /** @param {EditedFile[]} files */
  _files(files) {
    if (!files.length) return [];
    const items = files.slice(0, FILES).map(({ path, added, removed, edits, span_id }) => {
      const name = path.split(/[/\\]/).findLast(Boolean) ?? path;
      const times = edits > 1 ? ` ×${edits}` : "";
      const changed = [added ? el("span", { class: "add" }, `+${added}`) : null, removed ? el("span", { class: "del" }, `−${removed}`) : null];
      return el("li", null, el("button", { type: "button", title: path, onclick: () => this.onOpen(span_id) }, el("span", { class: "name" }, name, times), ...changed));
    });
    const more = files.length > FILES ? [el("li", { class: "hint" }, `and ${files.length - FILES} more`)] : [];
    return [el("h3", null, "Edited files"), el("ul", null, ...items, ...more)];
  }

  /**
   * Mark a chapter as the one that is read.
   * @param {number} number
   */
  mark(number) {
    if (number === this.current) return;
    this.current = number;
    const prompts = [...this.list.querySelectorAll(".prompt > button")];
    for (const [n, button] of prompts.entries()) setAttribute(button, "aria-current", n === number ? "true" : null);
    const node = prompts[number];
    if (node instanceof HTMLElement && BESIDE?.matches) {
      const { offsetTop, offsetHeight } = node;
      if (offsetTop < this.list.scrollTop || offsetTop + offsetHeight > this.list.scrollTop + this.list.clientHeight) this.list.scrollTop = offsetTop - 60;
    }
  }
}

/**
 * Return a cost with cents; one below a cent with its digits.
 * @param {number} usd
 */
const money = (usd) => (usd >= 0.01 ? `$${usd.toFixed(2)}` : format.cost(usd));

/**
 * Return the figures of a chapter as texts: when it began, how long it took, its tokens and its cost.
 * @param {Chapter} chapter
 */
export function figuresOfChapter({ at, duration_ms, tokens, cost_usd }) {
  const figures = [format.moment(at).slice(0, 16)];
  if (duration_ms) figures.push(format.duration(duration_ms));
  if (tokens !== null) figures.push(`${format.count(tokens)} tok`);
  if (cost_usd !== null) figures.push(money(cost_usd));
  return figures;
}
