// The way between the list of runs and a run: the list keeps its filters, and a run leads to the next one of the list.

import { findById } from "./dom.js";

const STORED = "agentspan-list";

/** @typedef {{ query: string, runs: string[] }} Trail the list's filters, and its runs in their order */

/** Keep the list of runs as it is left. */
export function keepList() {
  addEventListener("pagehide", () => {
    const rows = [...document.querySelectorAll("[data-run]")];
    const runs = rows.map((row) => row.getAttribute("data-run") ?? "");
    try {
      sessionStorage.setItem(STORED, JSON.stringify({ query: location.search, runs }));
    } catch {
      // Without a storage the list is shown unfiltered.
    }
  });
}

/** Return the list from which this tab came; null where there is none. @returns {Trail | null} */
export function listBefore() {
  try {
    return JSON.parse(sessionStorage.getItem(STORED) ?? "null");
  } catch {
    return null;
  }
}

/** Let the link to the list lead to it as it was. */
export function restoreList() {
  const query = listBefore()?.query;
  if (!query) return;
  const link = /** @type {HTMLAnchorElement | null} */ (findById("to-runs"));
  if (link) link.search = query;
}

/**
 * Return the run so many places after another one in a list; undefined where there is none.
 * @param {string[]} runs
 * @param {string} run
 * @param {number} by
 */
export function neighbour(runs, run, by) {
  const place = runs.indexOf(run);
  return place < 0 ? undefined : runs[place + by];
}
