// A page across runs: the server made all of it. Its rows open by click and key, and it loads anew when the file has changed.

import { focusSearch, whileFollowing } from "./bar.js";
import { findById } from "./dom.js";
import { isForKeys } from "./keys.js";
import { Lost } from "./lost.js";
import { listenToRows, openOnClick } from "./rows.js";
import { poll } from "./source.js";

const EVERY_MS = 3000;
const AGAIN = 10; // times as long as the page took: a page that takes a second is not loaded each second

export function startPartsPage() {
  /** @type {NodeListOf<HTMLElement>} */
  const rows = document.querySelectorAll("[data-row]");
  for (const row of rows) openOnClick(row);
  listenToRows("[data-row] a.opens", focusSearch);
  listenToChanges();
  document.addEventListener("keydown", (event) => {
    if (event.key === "d" && isForKeys(event)) findById("dataset")?.click();
  });
  follow();
}

/** Let `d` and `D` go to the next and the previous difference of two runs, from the one that has the focus. */
function listenToChanges() {
  const changes = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("[data-change]")]);
  if (!changes.length) return;
  document.addEventListener("keydown", (event) => {
    if (!isForKeys(event) || (event.key !== "d" && event.key !== "D")) return;
    const focused = document.activeElement?.closest("[data-change]");
    const at = changes.findIndex((change) => change === focused);
    const next = at < 0 ? 0 : at + (event.key === "d" ? 1 : -1);
    changes[Math.max(0, Math.min(changes.length - 1, next))].focus();
    event.preventDefault();
  });
}

async function follow() {
  const lost = new Lost();
  const ask = () => poll(`${document.body.dataset.up}stamp`);
  const { stamp } = await lost.until(ask);
  const [navigation] = performance.getEntriesByType("navigation");
  const wait = Math.max(EVERY_MS, AGAIN * (navigation?.duration ?? 0));
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, wait));
    await whileFollowing();
    const now = (await lost.until(ask)).stamp;
    const isUsed = document.activeElement?.closest("input, select, textarea, dialog") || getSelection()?.toString();
    if (now && now !== stamp && !isUsed) return location.reload();
  }
}
