// Chat messages, as a span's detail and the conversation show them.

import { el, longText } from "./dom.js";
import { jsonTree } from "./json.js";
import { Members, parse, write } from "./jsontext.js";

const LONG = 1500;
const FOLDED = 280;

/**
 * Return a message: its role, its text, its tool calls. A long system prompt begins folded.
 * @param {{ role: string, text: string, others: string[], calls: Call[], error?: string | null }} message
 * @param {{ onOpen?: () => void, note?: string }} [options]
 */
export function messageCard(message, { onOpen, note } = {}) {
  const head = el("header", null, el("b", null, message.role), note ? el("span", { class: "note" }, note) : null);
  if (onOpen) head.append(el("span", { class: "gap" }), el("button", { type: "button", class: "quiet", onclick: onOpen }, "Open span"));
  const limit = message.role === "system" ? FOLDED : LONG;
  return el(
    "article",
    { class: `message ${roleClass(message.role)}` },
    head,
    message.text ? longText(message.text, limit, { class: "prose" }) : null,
    ...message.others.map((name) => el("span", { class: "chip" }, name)),
    ...message.calls.map(callCard),
    message.error ? el("div", { class: "error-text" }, message.error) : null,
  );
}

/**
 * Return a tool call with its arguments.
 * @param {Call} call
 */
export function callCard(call) {
  return el("div", { class: "call" }, el("b", null, call.name), argumentList(call.arguments));
}

/**
 * Return the arguments of a call, all of them: in one line where they are short, else as a tree.
 * @param {string} text
 */
export function argumentList(text) {
  const value = parse(text);
  const isObject = value instanceof Members;
  if (!isObject && !Array.isArray(value)) return longText(text, LONG, { class: "args" });
  if (!isObject || text.length >= FOLDED) return jsonTree(value);
  const parts = value.entries.flatMap(([key, item], n) => [
    n ? ", " : "",
    el("span", { class: "key" }, key),
    "=",
    el("span", { class: "value" }, typeof item === "string" ? item : write(item)),
  ]);
  return el("span", { class: "args" }, "(", ...parts, ")");
}

/**
 * Return one line that unfolds; the body is made when it first does.
 * @param {string} name
 * @param {Child} line
 * @param {() => Node} makeBody
 */
export function folded(name, line, makeBody) {
  const node = el("details", { class: `folded ${name}` }, el("summary", null, el("span", { class: "hint" }, line)));
  node.addEventListener("toggle", () => {
    if (node.open && node.children.length < 2) node.append(makeBody());
  });
  return node;
}

const KNOWN = new Set(["system", "user", "assistant", "tool"]);

/** @param {string} role */
const roleClass = (role) => (KNOWN.has(role) ? role : "other");
