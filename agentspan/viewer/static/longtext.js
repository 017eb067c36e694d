// Long texts: the beginning at first; then all of it in blocks, of which a browser lays out only those on the screen.
// One element with 10 MB of text takes a browser between 10 and 80 seconds.

import { add, el } from "./dom.js";
import { boundary, visible } from "./visible.js";

const BLOCK = 8192;
const HALF = /\p{Cs}/gu;

/**
 * Return an element with a text, cut at `limit` characters where one button shows the rest, and another one saves the text.
 * @param {string} text
 * @param {number} limit
 * @param {Attributes} attributes
 * @param {Saved | null} [saved] what is saved: the text itself unless it is given; null where nothing can be saved
 */
export function longText(text, limit, attributes, saved = { text, suffix: "txt" }) {
  const node = el("div", attributes);
  if (text.length <= limit * 1.2) return add(node, text);
  node.classList.add("long");
  const beginning = document.createTextNode(visible(text.slice(0, boundary(text, limit))) + "…");
  const more = el("button", { type: "button", class: "more" }, `Show all ${text.length.toLocaleString("en")} characters`);
  const tools = el("div", { class: "tools" }, more, saved ? saveButton(saved) : null);
  more.addEventListener("click", () => {
    beginning.replaceWith(...blocks(text, node));
    more.remove();
    node.tabIndex = -1;
    node.focus({ preventScroll: true }); // the button had it
  });
  node.addEventListener("copy", (event) => copyWithoutBreaks(event, node));
  node.append(beginning, tools);
  return node;
}

/**
 * Return a button that saves a text as a file, named after the parts of the page in which the button is.
 * @param {Saved} saved
 */
export function saveButton({ text, suffix }) {
  const button = el("button", { type: "button", class: "quiet" }, "Download");
  button.addEventListener("click", () => {
    // UTF-8 has no bytes for half a character: it is saved as it is shown.
    const url = URL.createObjectURL(new Blob([text.replace(HALF, visible)], { type: "text/plain;charset=utf-8" }));
    el("a", { href: url, download: `${nameOf(button)}.${suffix}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  });
  return button;
}

/** The names of elements that show a part of a payload. Not attributes: no text of a payload becomes one. */
const NAMES = new WeakMap();

/**
 * Name an element for the files that are saved in it.
 * @template {HTMLElement} Kind
 * @param {Kind} node
 * @param {string | number} name
 * @returns {Kind}
 */
export function named(node, name) {
  NAMES.set(node, name);
  return node;
}

/**
 * Return a name for a file: the span, then the way to the text in it, as the elements around the button are named.
 * @param {HTMLElement} node
 */
function nameOf(node) {
  const parts = [];
  for (let around = node.parentElement; around; around = around.parentElement) {
    if (NAMES.has(around)) parts.unshift(NAMES.get(around));
  }
  const name = parts.join("-").replace(/[^\p{L}\p{N}_-]+/gu, "_");
  return name.slice(0, 100) || "text";
}

/**
 * Return a text as blocks that together are as high as the text.
 * @param {string} text
 * @param {HTMLElement} node where they will be
 */
function blocks(text, node) {
  const { fontFamily, fontSize, whiteSpace } = getComputedStyle(node);
  const width = (fontFamily.includes("mono") ? 0.6 : 0.55) * parseFloat(fontSize); // of a character
  const perRow = whiteSpace === "pre" ? Infinity : Math.max(20, node.clientWidth / width - 2); // a row ends with a word
  return split(text).map((part) => {
    const block = el("div", { class: "block" }, part);
    let rows = 0;
    for (const line of part.split("\n")) rows += Math.max(1, Math.ceil(line.length / perRow));
    if (part.endsWith("\n")) rows--;
    block.style.containIntrinsicBlockSize = `auto ${rows}lh`; // until it is laid out
    return block;
  });
}

/**
 * Split a text where a line ends, else at a blank, else between two characters.
 * @param {string} text
 */
export function split(text) {
  const parts = [];
  for (let from = 0; from < text.length; ) {
    const ahead = text.slice(from, from + 2 * BLOCK);
    const size = ahead.length <= BLOCK ? ahead.length : endOfBlock(ahead);
    parts.push(ahead.slice(0, size));
    from += size;
  }
  return parts;
}

/** @param {string} ahead */
function endOfBlock(ahead) {
  const line = ahead.indexOf("\n", BLOCK) + 1 || ahead.lastIndexOf("\n", BLOCK) + 1;
  if (line) return line;
  const blank = ahead.lastIndexOf(" ", BLOCK) + 1;
  return blank > BLOCK / 2 ? blank : boundary(ahead, BLOCK);
}

/**
 * Copy what is selected without a line break where a block ends within a line.
 * @param {ClipboardEvent} event
 * @param {HTMLElement} node
 */
function copyWithoutBreaks(event, node) {
  const selection = getSelection();
  if (!selection?.rangeCount || !event.clipboardData) return;
  const range = selection.getRangeAt(0);
  if (!node.contains(range.commonAncestorContainer)) return;
  const copied = range.cloneContents();
  copied.querySelector(".tools")?.remove();
  event.clipboardData.setData("text/plain", copied.textContent ?? "");
  event.preventDefault();
}
