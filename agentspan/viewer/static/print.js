// Printing: the tree and the conversation as far as they are loaded, not only what is visible; and what is missing is said.

import { byId, setText } from "./dom.js";
import { plural, whole } from "./format.js";

/** @import { RunPage } from "./run.js" */

const ROWS = 1000; // about 25 sheets

/**
 * Draw all rows while a page is printed.
 * @param {RunPage} page
 */
export function listenToPrinting(page) {
  const note = byId("on-paper");
  addEventListener("beforeprint", () => {
    page.conversation.showLoaded();
    page.tree.drawAll(ROWS);
    setText(note, missing(page));
  });
  addEventListener("afterprint", () => page.tree.drawVisible());
}

/**
 * Return a sentence about what the print lacks; "" if it lacks nothing.
 * @param {Pick<RunPage, "view" | "run" | "spans" | "conversation">} page
 */
export function missing({ view, run, spans, conversation }) {
  if (view === "stats") return "";
  const command = `\`agentspan show ${run.id}\` prints all.`;
  if (view === "conversation") {
    const { shown, total } = conversation;
    return shown < total ? `Only ${whole(shown)} of ${plural(total, "turn")} are printed here. ${command}` : "";
  }
  const rows = spans.rows.length;
  const total = run.spans?.total ?? spans.length;
  const parts = [];
  if (rows > ROWS) parts.push(`Only the first ${whole(ROWS)} of ${plural(rows, "row")} are printed here.`);
  if (spans.length < total) parts.push(`Only ${whole(spans.length)} of ${plural(total, "span")} were loaded.`);
  if (rows < spans.length) parts.push(`${plural(spans.length - rows, "span")} in folded rows ${spans.length - rows === 1 ? "is" : "are"} not printed.`);
  return parts.length ? `${parts.join(" ")} ${command}` : "";
}
