// Chat messages, as a span's detail and the conversation show them.

import { gallery } from "./blobs.js";
import { el } from "./dom.js";
import { plural } from "./format.js";
import { jsonTree } from "./json.js";
import { Members, parse, write } from "./jsontext.js";
import { longText, named } from "./longtext.js";
import { markdown } from "./markdown.js";

/** @import { BlobAddress } from "./blobs.js" */

const LONG = 1500;
const FOLDED = 280;
const SHORT = 60;

/** How a message looks. A role of any other name is shown as text, and never becomes the name of a class. */
const LOOKS = new Map([
  ["system", "system"],
  ["user", "user"],
  ["assistant", "assistant"],
  ["tool", "tool"],
]);

/** @param {string} role */
export const lookOf = (role) => LOOKS.get(role) ?? "other";

/**
 * Return what shows the text of a message: as Markdown, or as it is.
 * @param {boolean} isMarkdown
 * @returns {(text: string, limit: number, saved?: Saved | null) => Node}
 */
export const proseOf = (isMarkdown) => (text, limit, saved) =>
  isMarkdown ? markdown(text, limit, saved) : longText(text, limit, { class: "prose" }, saved);

/**
 * Return a message: its role, its text, its tool calls, and what else it holds. A long system prompt begins folded.
 * @param {{ role: string, name?: string | null, text: string, others: Part[], calls: Call[], error?: string | null }} message
 * @param {{ head?: Child[], card?: (call: any) => Node, isCut?: boolean, address?: BlobAddress, prose?: ReturnType<typeof proseOf> }} [options]
 *   what follows the role; how a call is shown; whether the text is only the beginning of the recorded one; where its images are; how
 *   its text is shown
 */
export function messageCard(message, { head = [], card = (call) => callCard(call), isCut, address, prose = proseOf(false) } = {}) {
  const limit = message.role === "system" ? FOLDED : LONG;
  const name = message.name && message.name !== message.role ? el("span", { class: "note" }, message.name) : null;
  const article = el(
    "article",
    { class: `message ${lookOf(message.role)}` },
    el("header", null, el("b", null, message.role || "no role"), name, ...head),
    message.text ? prose(message.text, limit, isCut ? null : undefined) : null,
    partList(message.others),
    address ? gallery(textsOf(message), address) : null,
    ...message.calls.map(card),
    message.error ? longText(message.error, LONG, { class: "error-text" }) : null,
  );
  return named(article, message.role || "message");
}

/**
 * Return the texts of a message that may name an image.
 * @param {{ text: string, others: Part[], calls: Call[] }} message
 */
export const textsOf = ({ text, others, calls }) => [
  text,
  ...others.map((part) => part.text),
  ...calls.flatMap((call) => [call.arguments, ...call.others.map((part) => part.text)]),
];

/**
 * Return a tool call with its arguments.
 * @param {Call} call
 * @param {...Child} notes
 */
export function callCard(call, ...notes) {
  return el("div", { class: "call" }, el("b", null, call.name), ...notes, argumentList(call.arguments), partList(call.others));
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
 * Return what a message holds besides text, the short in one line; null where there is nothing.
 * @param {Part[]} parts
 */
export function partList(parts) {
  return parts.length ? el("div", { class: "parts" }, ...parts.map(partChip)) : null;
}

/** @param {Part} part */
function partChip(part) {
  const value = part.length > part.text.length ? undefined : parse(part.text);
  if (part.text.length <= SHORT) {
    return el("span", { class: "chip" }, el("span", { class: "key" }, part.name), " ", typeof value === "string" ? value : part.text);
  }
  const size = plural(part.length, "character");
  const line = el("span", null, el("span", { class: "key" }, part.name), ` ${size}`);
  const rest = part.length > part.text.length ? `… (${plural(part.length - part.text.length, "more character")} in the span)` : "";
  return folded("part", line, () => {
    if (typeof value === "string") return longText(value, LONG, { class: "prose" });
    return value === undefined ? longText(part.text + rest, LONG, { class: "source" }) : jsonTree(value);
  });
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
