// JSON as a tree that folds. Members become elements when their parent is unfolded, a hundred at a time.

import { add, copyButton, el } from "./dom.js";
import { whole } from "./format.js";
import { ExactNumber, Members, parse, write } from "./jsontext.js";
import { longText, named, saveButton } from "./longtext.js";
import { cut, visible } from "./visible.js";

const PAGE = 100;
const LONG = 1200;
const AT_ONCE = 60;
const SOURCE = 20_000;

/**
 * Return a section that shows a JSON text, as a tree or as text.
 * @param {string} title
 * @param {string} text
 */
export function jsonSection(title, text) {
  const value = parse(text);
  const body = el("div", { class: "json" });
  const raw = el("button", { type: "button", class: "quiet", "aria-pressed": "false" }, "Text");
  /** @param {boolean} asText */
  const show = (asText) => {
    body.replaceChildren(asText || value === undefined ? indented(text, value) : members(value, AT_ONCE));
    raw.setAttribute("aria-pressed", String(asText));
  };
  raw.addEventListener("click", () => show(raw.getAttribute("aria-pressed") === "false"));
  show(false);
  const head = el("header", null, el("h3", null, title), el("span", { class: "gap" }), raw, copyButton(text));
  if (text.length > SOURCE) head.append(saveButton({ text, suffix: "json" }));
  return named(el("section", { class: "payload" }, head, body), title.toLowerCase());
}

/**
 * Return a parsed value as a tree without a head.
 * @param {unknown} value
 */
export const jsonTree = (value) => el("div", { class: "json" }, members(value, AT_ONCE));

/**
 * @param {string} text
 * @param {unknown} value
 */
function indented(text, value) {
  const shown = value === undefined ? text : write(value, "  ");
  return longText(shown, SOURCE, { class: "source" }, { text, suffix: "json" });
}

/**
 * Tell whether a value is an object or a list.
 * @param {unknown} value
 * @returns {value is Members | unknown[]}
 */
const isBranch = (value) => Array.isArray(value) || value instanceof Members;

/**
 * Return the members of an object or a list, each with its name or its number.
 * @param {Members | unknown[]} value
 * @returns {[string | number, unknown][]}
 */
const entriesOf = (value) => (Array.isArray(value) ? value.map((item, n) => [n, item]) : value.entries);

/** @param {Members | unknown[]} value */
const sizeOf = (value) => (Array.isArray(value) ? value.length : value.size);

/**
 * Return the members of an object or list as lines; those that do not fit into `room` elements begin folded.
 * @param {unknown} value
 * @param {number} room
 */
function members(value, room) {
  if (!isBranch(value)) return leaf(value);
  const entries = entriesOf(value);
  const node = el("div", { class: "members" });
  if (!entries.length) return add(node, el("span", { class: "empty" }, Array.isArray(value) ? "[]" : "{}"));
  const roomOfEach = Math.floor((room - entries.length) / entries.filter(([, item]) => isBranch(item)).length || 1);
  /** @param {number} from */
  const addPage = (from) => {
    node.append(...entries.slice(from, from + PAGE).map(([key, item]) => memberLine(key, item, roomOfEach)));
    if (from + PAGE >= entries.length) return;
    const shown = `${whole(from + PAGE)} of ${whole(entries.length)} shown; show more`;
    const button = el("button", { type: "button", class: "more" }, shown);
    button.addEventListener("click", () => {
      button.remove();
      addPage(from + PAGE);
    });
    node.append(button);
  };
  addPage(0);
  return node;
}

/**
 * @param {string | number} key
 * @param {unknown} item
 * @param {number} room
 */
function memberLine(key, item, room) {
  const name = el("span", { class: typeof key === "number" ? "index" : "key" }, String(key));
  const value = nestedJson(item) ?? item;
  if (!isBranch(value) || !sizeOf(value)) {
    return named(el("div", { class: "member" }, name, leaf(item)), key);
  }
  let size = Array.isArray(value) ? `[${whole(value.length)}]` : `{${whole(value.size)}}`;
  if (value !== item) size = `"${size}"`;
  const summary = el("summary", null, name, el("span", { class: "size" }, size), el("span", { class: "hint" }, preview(value)));
  const node = named(el("details", null, summary), key);
  const fill = () => {
    if (node.children.length < 2) node.append(members(value, room));
  };
  node.addEventListener("toggle", () => {
    if (node.open) fill();
  });
  if (room > sizeOf(value) + 2) {
    node.open = true;
    fill();
  }
  return node;
}

/**
 * Return the object or list in a text that is JSON itself, as tools often return it; its size is shown in quotes.
 * @param {unknown} value
 */
export function nestedJson(value) {
  if (typeof value !== "string" || value.length > 1e6 || !/^\s*[[{]/.test(value)) return undefined;
  const nested = parse(value);
  return isBranch(nested) ? nested : undefined;
}

/**
 * The first members of a folded object or list, in one line.
 * @param {Members | unknown[]} value
 */
export function preview(value) {
  const parts = [];
  let length = 0;
  for (const [key, item] of entriesOf(value)) {
    const text = isBranch(item) ? (Array.isArray(item) ? "[…]" : "{…}") : leafText(item);
    parts.push(Array.isArray(value) ? text : `${key}: ${text}`);
    if ((length += text.length + String(key).length) > 90) break;
  }
  return cut(parts.join(", "), 110);
}

/** @param {unknown} value */
function leafText(value) {
  if (typeof value === "string") return cut(value, 40);
  return value instanceof ExactNumber ? value.digits : String(value);
}

/** @param {unknown} value */
function leaf(value) {
  if (typeof value === "string") return longText(value, LONG, { class: "string" });
  if (isBranch(value)) return el("span", { class: "empty" }, Array.isArray(value) ? "[]" : "{}");
  const type = value === null ? "null" : typeof value === "boolean" ? "boolean" : "number";
  return el("span", { class: type }, visible(value instanceof ExactNumber ? value.digits : value));
}
