// The bar on top of the pages of a server: its search field, and the setting that lets a page follow the file.

import { findById } from "./dom.js";

const STORED = "agentspan-follow";

/** Return the checkbox of the setting; null in an exported file. */
const setting = () => /** @type {HTMLInputElement | null} */ (findById("updates"));

/** Let Ctrl-K go to the search, and keep the setting in this browser. */
export function startBar() {
  document.addEventListener("keydown", (event) => {
    if (event.key !== "k" || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return;
    if (focusSearch()) event.preventDefault();
  });
  const box = setting();
  if (!box) return;
  try {
    box.checked = localStorage.getItem(STORED) !== "off";
    box.addEventListener("change", () => localStorage.setItem(STORED, box.checked ? "on" : "off"));
  } catch {
    // A browser may forbid storage: the setting then holds for this page.
  }
}

/** Go to the search over all runs; return whether the page has it. */
export function focusSearch() {
  const look = /** @type {HTMLInputElement | null} */ (findById("look"));
  look?.focus();
  look?.select();
  return look !== null;
}

/** Wait until somebody sees the page, and it may follow the file. */
export async function whileFollowing() {
  const box = setting();
  while (document.hidden || (box && !box.checked)) {
    await new Promise((resolve) => {
      document.addEventListener("visibilitychange", resolve, { once: true });
      box?.addEventListener("change", resolve, { once: true });
    });
  }
}
