// Which turns and which lines a conversation shows, and in which order: sections, chapters, and the turn of a step.

import * as format from "./format.js";

/**
 * @typedef {{ turn: number, section: "" } | { turn: -1, section: string, isAgain: boolean } | { turn: -1, section: "", chapter: number }} Entry
 *   a turn; the line of a section, `isAgain` where it goes on after one in it; or the line of a chapter
 */

/**
 * Return the entries to show: turns, each section's line before its first turn, and a line where a section goes on after one in it.
 * Turns of folded sections are left out. A chapter has a line before its first turn.
 * @param {Turn[]} turns
 * @param {Record<string, Section>} sections
 * @param {(id: string) => boolean} isFolded
 * @param {Chapter[]} [chapters]
 * @param {number} [first] the number of the first of these turns
 * @returns {Entry[]}
 */
export function entriesOf(turns, sections, isFolded, chapters = [], first = 0) {
  /** @type {Entry[]} */
  const entries = [];
  const known = new Set([""]); // sections that have their line
  const begun = new Set(); // those of which a turn came
  let before = "";
  let isHidden = false;
  let chapter = chapters.findIndex((each) => each.turn >= first);
  turns.forEach(({ thread }, turn) => {
    for (; chapters[chapter]?.turn === turn + first; chapter++) entries.push({ turn: -1, section: "", chapter });
    if (thread !== before || !turn) {
      isHidden = false;
      const path = pathOf(sections, thread);
      for (const id of path) {
        if (!isHidden && !known.has(id)) entries.push({ turn: -1, section: id, isAgain: false });
        known.add(id);
        isHidden ||= Boolean(id) && isFolded(id);
      }
      const isBack = turn && !pathOf(sections, before).every((id) => path.includes(id));
      const last = entries.at(-1);
      const hasLine = last && last.turn < 0 && last.section === thread;
      if (!isHidden && isBack && !hasLine) entries.push({ turn: -1, section: thread, isAgain: begun.has(thread) });
      before = thread;
    }
    begun.add(thread);
    if (!isHidden) entries.push({ turn, section: "" });
  });
  return entries;
}

/**
 * Return the ids of the sections around a thread, the outermost first, with its own.
 * @param {Record<string, Section>} sections
 * @param {string} thread
 */
export function pathOf(sections, thread) {
  const path = [thread];
  for (let at = sections[thread]?.parent; at !== null && at !== undefined && !path.includes(at); at = sections[at]?.parent) path.unshift(at);
  return path;
}

/**
 * Return the place of the turn that shows a step: its answer, its last one, the first step that it asked for, or an agent's first
 * turn; -1 where none does.
 * @param {Turn[]} turns
 * @param {string} id
 */
export function turnOf(turns, id) {
  const answer = turns.findIndex(({ span, side }) => span === id && side === "out");
  if (answer >= 0) return answer;
  const own = turns.findLastIndex(({ span }) => span === id);
  if (own >= 0) return own;
  const asked = turns.findIndex(({ asked_by }) => asked_by === id);
  return asked >= 0 ? asked : turns.findIndex(({ thread }) => thread === id);
}

/**
 * Return the figures of a section as texts.
 * @param {Section} section
 */
export function figuresOf({ turns, tokens, cost_usd, duration_ms }) {
  const figures = [format.plural(turns, "turn")];
  if (tokens !== null) figures.push(`${format.count(tokens)} tok`);
  if (cost_usd !== null) figures.push(format.cost(cost_usd));
  if (duration_ms) figures.push(format.duration(duration_ms));
  return figures;
}
