// Rows that open what they are about: on a click anywhere in them, and by keys.

import { byId, inside, targetOf } from "./dom.js";
import { isForKeys, startKeyHelp } from "./keys.js";

/** @param {HTMLElement} row */
export function openOnClick(row) {
  row.addEventListener("click", (event) => {
    if (targetOf(event)?.closest("a, button, input, label, summary") || getSelection()?.toString()) return;
    inside(row, "a").click();
  });
}

/**
 * Let keys move between links, one a row, go to the pages of the bar, and show the keys. Enter opens the first link while none
 * has the focus.
 * @param {string} selector of the links
 * @param {() => void} search goes to a search field
 */
export function listenToRows(selector, search) {
  startKeyHelp();
  /** @type {Record<string, number>} */
  const steps = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };
  document.addEventListener("keydown", (event) => {
    if (!isForKeys(event)) return;
    /** @type {NodeListOf<HTMLAnchorElement>} */
    const links = document.querySelectorAll(selector);
    const by = steps[event.key];
    /** @type {NodeListOf<HTMLAnchorElement>} */
    const pages = document.querySelectorAll(".top-bar a[id^=to-]");
    const page = /^[1-9]$/.test(event.key) ? pages[Number(event.key) - 1] : null;
    if (event.key === "Enter" && document.activeElement === document.body && links.length) links[0].click();
    else if (event.key === "/") search();
    else if (page) page.click();
    else if (event.key === "?") byId("help-dialog", HTMLDialogElement).showModal();
    else if (by && links.length) {
      const focused = [...links].findIndex((link) => link === document.activeElement);
      links[focused < 0 ? 0 : Math.min(links.length - 1, Math.max(0, focused + by))].focus();
    } else return;
    event.preventDefault();
  });
}
