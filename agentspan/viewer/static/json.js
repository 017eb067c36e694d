// JSON as a tree that folds. Members become elements when their parent is unfolded, a hundred at a time.

import { add, copyButton, el, longText } from "./dom.js";
import { whole } from "./format.js";
import { visible } from "./visible.js";

const PAGE = 100;
const LONG = 1200;
const AT_ONCE = 60;

/** A number that a browser's own type would round: its digits. */
export class ExactNumber {
  /** @param {string} digits */
  constructor(digits) {
    this.digits = digits;
  }
}

/**
 * Parse JSON without rounding; undefined where the text is no JSON.
 * @param {string} text
 * @returns {any}
 */
export function parse(text) {
  try {
    return JSON.parse(text, (_key, value, context) =>
      typeof value === "number" && context?.source && String(value) !== context.source ? new ExactNumber(context.source) : value,
    );
  } catch {
    return undefined;
  }
}

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
  return el("section", { class: "payload" }, head, body);
}

/**
 * @param {string} text
 * @param {unknown} value
 */
function indented(text, value) {
  /** @type {(key: string, item: unknown) => unknown} */
  const replacer = (_key, item) => (item instanceof ExactNumber ? (JSON.rawJSON?.(item.digits) ?? item.digits) : item);
  return longText(value === undefined ? text : JSON.stringify(value, replacer, 2), 20_000, { class: "source" });
}

/**
 * Tell whether a value is an object or a list.
 * @param {unknown} value
 * @returns {value is Record<string, unknown> | unknown[]}
 */
const isBranch = (value) => typeof value === "object" && value !== null && !(value instanceof ExactNumber);

/**
 * Return the members of an object or list as lines; those that do not fit into `room` elements begin folded.
 * @param {unknown} value
 * @param {number} room
 */
function members(value, room) {
  if (!isBranch(value)) return leaf(value);
  /** @type {[string | number, unknown][]} */
  const entries = Array.isArray(value) ? value.map((item, n) => [n, item]) : Object.entries(value);
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
  if (!isBranch(value) || !Object.keys(value).length) {
    return el("div", { class: "member" }, name, leaf(item));
  }
  let size = Array.isArray(value) ? `[${whole(value.length)}]` : `{${whole(Object.keys(value).length)}}`;
  if (value !== item) size = `"${size}"`;
  const summary = el("summary", null, name, el("span", { class: "size" }, size), el("span", { class: "hint" }, preview(value)));
  const node = el("details", null, summary);
  const fill = () => {
    if (node.children.length < 2) node.append(members(value, room));
  };
  node.addEventListener("toggle", () => {
    if (node.open) fill();
  });
  if (room > Object.keys(value).length + 2) {
    node.open = true;
    fill();
  }
  return node;
}

/**
 * Return the object or list in a text that is JSON itself, as tools often return it; its size is shown in quotes.
 * @param {unknown} value
 */
function nestedJson(value) {
  if (typeof value !== "string" || value.length > 1e6 || !/^\s*[[{]/.test(value)) return undefined;
  const nested = parse(value);
  return isBranch(nested) ? nested : undefined;
}

/**
 * The first members of a folded object or list, in one line.
 * @param {Record<string, unknown> | unknown[]} value
 */
function preview(value) {
  const parts = [];
  let length = 0;
  for (const key in value) {
    const item = Array.isArray(value) ? value[Number(key)] : value[key];
    const text = isBranch(item) ? (Array.isArray(item) ? "[…]" : "{…}") : leafText(item);
    parts.push(Array.isArray(value) ? text : `${key}: ${text}`);
    if ((length += text.length + key.length) > 90) break;
  }
  return parts.join(", ").slice(0, 110);
}

/** @param {unknown} value */
function leafText(value) {
  if (typeof value === "string") return value.length > 40 ? `${value.slice(0, 40)}…` : value;
  return value instanceof ExactNumber ? value.digits : String(value);
}

/** @param {unknown} value */
function leaf(value) {
  if (typeof value === "string") return longText(value, LONG, { class: "string" });
  if (isBranch(value)) return el("span", { class: "empty" }, Array.isArray(value) ? "[]" : "{}");
  const type = value === null ? "null" : typeof value === "boolean" ? "boolean" : "number";
  return el("span", { class: type }, visible(value instanceof ExactNumber ? value.digits : value));
}
