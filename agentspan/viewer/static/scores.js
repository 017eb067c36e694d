// Scores, marks and notes of a run or a step: the list in the details, and the form that adds one.

import { byId, el, messageOf, setText } from "./dom.js";
import { moment } from "./format.js";
import { longText } from "./longtext.js";

/** @import { RunPage } from "./run.js" */

const STORED = "agentspan-judge";
const LONG = 600;

/**
 * Return the scores that count as a section; null where there is nothing to show or to do.
 * @param {Score[]} scores
 * @param {{ onAdd: () => void, onRemove: (score: Score) => Promise<void> } | null} handlers null where nothing can be changed
 */
export function scoreSection(scores, handlers) {
  if (!scores.length && !handlers) return null;
  const items = scores.map((score) => {
    const who = el("div", { class: "who" }, `${score.by} · `, el("time", { datetime: score.at, title: score.at }, moment(score.at)));
    if (handlers) who.append(" ", removeButton(score, handlers.onRemove));
    return el("li", null, longText(score.text, LONG, { class: "prose" }, null), who);
  });
  const add = handlers && el("button", { type: "button", class: "quiet", title: "Score, mark or note (m)", onclick: handlers.onAdd }, "Add…");
  const head = el("header", null, el("h3", null, "Scores and notes"), add);
  return el("section", { class: "scores" }, head, items.length ? el("ul", null, ...items) : null);
}

/**
 * @param {Score} score
 * @param {(score: Score) => Promise<void>} onRemove
 */
function removeButton(score, onRemove) {
  const button = el("button", { type: "button", class: "quiet", "aria-label": `Remove ${score.name}` }, "Remove");
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await onRemove(score);
    } catch (error) {
      button.disabled = false;
      setText(button, messageOf(error));
    }
  });
  return button;
}

/**
 * Return what a form says, as `agentspan score` takes it; a sentence where it says nothing, or too much.
 * @param {{ mark: string, name: string, value: string, note: string }} form
 * @returns {Pick<Judgement, "mark" | "name" | "value" | "note"> | string}
 */
export function judgementOf({ mark, name, value, note }) {
  if (mark && (name || value)) return "Give a mark, or a score with its name and value, not both.";
  if (value && !name) return "Give the score a name, such as reward.";
  if (name && !value && !note) return "Give the score a value: a number, true, false, or a word.";
  if (!mark && !name && !note) return "Give a mark, a score, or a note.";
  return Object.fromEntries(Object.entries({ mark, name, value, note }).filter(([, text]) => text));
}

/**
 * Let the form of a page send what somebody judges.
 * @param {RunPage} page
 */
export function listenToScores(page) {
  const dialog = byId("score-dialog", HTMLDialogElement);
  const problem = byId("score-problem");
  const judge = byId("score-judge", HTMLInputElement);
  const note = byId("score-note", HTMLTextAreaElement);
  try {
    judge.value = localStorage.getItem(STORED) ?? "";
  } catch {
    // A page opened from a file may have no storage.
  }
  byId("score-cancel").addEventListener("click", () => dialog.close());
  byId("score-good").addEventListener("click", () => (byId("score-mark", HTMLInputElement).value = "good"));
  byId("score-bad").addEventListener("click", () => (byId("score-mark", HTMLInputElement).value = "bad"));
  byId("score-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const [mark, name, value] = ["mark", "name", "value"].map((each) => byId(`score-${each}`, HTMLInputElement).value.trim());
    const said = judgementOf({ mark, name, value, note: note.value.trim() });
    if (typeof said === "string") return setText(problem, said);
    try {
      await page.judge({ ...said, span_id: dialog.dataset.span || null, identifier: judge.value.trim() || null });
      dialog.close();
    } catch (error) {
      return setText(problem, messageOf(error));
    }
    try {
      localStorage.setItem(STORED, judge.value.trim());
    } catch {
      // as above
    }
  });
}

/**
 * Open the form.
 * @param {string} span the id of the step that is judged; "" for the run
 * @param {string} what
 */
export function openScores(span, what) {
  const dialog = byId("score-dialog", HTMLDialogElement);
  dialog.dataset.span = span;
  setText(byId("score-of"), what);
  setText(byId("score-problem"), "");
  for (const name of ["mark", "name", "value"]) byId(`score-${name}`, HTMLInputElement).value = "";
  byId("score-note", HTMLTextAreaElement).value = "";
  dialog.showModal();
  byId("score-mark").focus();
}
