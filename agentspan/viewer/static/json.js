// JSON as a tree that folds. Members become elements when they are unfolded, and a hundred at a time.

import { add, copyButton, el, longText, visible } from "./dom.js";
import { whole } from "./format.js";

const PAGE = 100;
const LONG = 1200;
const AT_ONCE = 60;

/** A number that a browser's own would round: its digits. */
export class Digits {
  constructor(text) {
    this.text = text;
  }
}

/** Parse JSON without rounding; undefined where the text is no JSON. */
export function parse(text) {
  try {
    return JSON.parse(text, (key, value, context) =>
      typeof value === "number" && context?.source && String(value) !== context.source ? new Digits(context.source) : value,
    );
  } catch {
    return undefined;
  }
}

/** Return a section that shows a JSON text: as a tree, or as it is. */
export function jsonSection(title, text) {
  const value = parse(text);
  const body = el("div", { class: "json" });
  const raw = el("button", { type: "button", class: "quiet", "aria-pressed": "false" }, "Text");
  const show = (asText) => {
    body.replaceChildren(asText || value === undefined ? plain(text, value) : members(value, AT_ONCE));
    raw.setAttribute("aria-pressed", String(asText));
  };
  raw.addEventListener("click", () => show(raw.getAttribute("aria-pressed") === "false"));
  show(false);
  const head = el("header", null, el("h3", null, title), el("span", { class: "gap" }), raw, copyButton(text));
  return el("section", { class: "payload" }, head, body);
}

function plain(text, value) {
  const pretty = value === undefined ? text : JSON.stringify(value, (k, v) => (v instanceof Digits ? JSON.rawJSON?.(v.text) ?? v.text : v), 2);
  return longText(pretty, 20_000, { class: "source" });
}

const isBranch = (value) => typeof value === "object" && value !== null && !(value instanceof Digits);

/** Return the members of an object or list as lines; what does not fit into `room` elements begins folded. */
function members(value, room) {
  if (!isBranch(value)) return leaf(value);
  const entries = Array.isArray(value) ? value.map((item, n) => [n, item]) : Object.entries(value);
  const node = el("div", { class: "members" });
  if (!entries.length) return add(node, el("span", { class: "empty" }, Array.isArray(value) ? "[]" : "{}"));
  const each = Math.floor((room - entries.length) / entries.filter(([, item]) => isBranch(item)).length || 1);
  const more = (from) => {
    node.append(...entries.slice(from, from + PAGE).map(([key, item]) => line(key, item, each)));
    if (from + PAGE >= entries.length) return;
    const shown = `${whole(from + PAGE)} of ${whole(entries.length)} shown; show more`;
    const button = el("button", { type: "button", class: "more" }, shown);
    button.addEventListener("click", () => {
      button.remove();
      more(from + PAGE);
    });
    node.append(button);
  };
  more(0);
  return node;
}

function line(key, given, room) {
  const name = el("span", { class: typeof key === "number" ? "index" : "key" }, String(key));
  const value = inner(given) ?? given;
  if (!isBranch(value) || !Object.keys(value).length) {
    return el("div", { class: "member" }, name, leaf(given));
  }
  let size = Array.isArray(value) ? `[${whole(value.length)}]` : `{${whole(Object.keys(value).length)}}`;
  if (value !== given) size = `"${size}"`;
  const summary = el("summary", null, name, el("span", { class: "size" }, size), el("span", { class: "hint" }, hint(value)));
  const node = el("details", null, summary);
  const fill = () => node.children.length > 1 || node.append(members(value, room));
  node.addEventListener("toggle", () => node.open && fill());
  if (room > Object.keys(value).length + 2) {
    node.open = true;
    fill();
  }
  return node;
}

/** What a text holds that is JSON itself, as tools often return it; its size is shown in quotes. */
function inner(value) {
  if (typeof value !== "string" || value.length > 1e6 || !/^\s*[[{]/.test(value)) return undefined;
  const found = parse(value);
  return isBranch(found) ? found : undefined;
}

/** The beginning of what is folded. */
function hint(value) {
  const parts = [];
  let length = 0;
  for (const key in value) {
    const item = value[key];
    const text = isBranch(item) ? (Array.isArray(item) ? "[…]" : "{…}") : shortLeaf(item);
    parts.push(Array.isArray(value) ? text : `${key}: ${text}`);
    if ((length += text.length + key.length) > 90) break;
  }
  return parts.join(", ").slice(0, 110);
}

function shortLeaf(value) {
  if (typeof value === "string") return value.length > 40 ? `${value.slice(0, 40)}…` : value;
  return value instanceof Digits ? value.text : String(value);
}

function leaf(value) {
  if (typeof value === "string") return longText(value, LONG, { class: "string" });
  if (isBranch(value)) return el("span", { class: "empty" }, Array.isArray(value) ? "[]" : "{}");
  const kind = value === null ? "null" : typeof value === "boolean" ? "boolean" : "number";
  return el("span", { class: kind }, visible(value instanceof Digits ? value.text : value));
}
