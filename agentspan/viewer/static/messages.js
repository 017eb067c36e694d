// Chat messages, as a span's detail and the conversation show them.

import { gallery } from "./blobs.js";
import { el } from "./dom.js";
import { plural } from "./format.js";
import { jsonSection, jsonTree } from "./json.js";
import { Members, parse, write } from "./jsontext.js";
import { longText, named } from "./longtext.js";
import { markdown } from "./markdown.js";

/** @import { BlobAddress } from "./blobs.js" */

const LONG = 1500;
const FOLDED = 280;
const SHORT = 60;
const ANSWER = 400;
const UNFOLDED = 16;
const SIGNS = new Map([
  ["+", "add"],
  ["-", "del"],
  [" ", "same"],
  ["@", "at"],
]);

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
 * @param {{ head?: Child[], card?: (call: any) => Child, isCut?: boolean, address?: BlobAddress, prose?: ReturnType<typeof proseOf>, isTalk?: boolean }} [options]
 *   what follows the role; how a call is shown; whether the text is only the beginning of the recorded one; where its images are; how
 *   its text is shown; whether it is one of a session, in which words come first and ids last
 */
export function messageCard(message, { head = [], card = (call) => callCard(call), isCut, address, prose = proseOf(false), isTalk } = {}) {
  const limit = message.role === "system" ? FOLDED : LONG;
  const name = message.name && message.name !== message.role ? el("span", { class: "note" }, message.name) : null;
  const parts = isTalk ? partsOfTalk(message.others) : { thoughts: [], said: partList(message.others), rest: null };
  const text = () => prose(message.text, limit, isCut ? null : undefined);
  const isAside = isTalk && !["user", "assistant"].includes(message.role);
  const article = el(
    "article",
    { class: `message ${lookOf(message.role)}` },
    el("header", null, el("b", null, message.role || "no role"), name, ...head),
    ...parts.thoughts,
    !message.text ? null : isAside ? folded("aside", `${message.role}: ${message.text.slice(0, SHORT * 3).replace(/\s+/g, " ")}`, text) : text(),
    parts.said,
    address ? gallery(textsOf(message), address) : null,
    ...message.calls.map(card),
    message.error ? longText(message.error, LONG, { class: "error-text" }) : null,
    parts.rest,
  );
  return named(article, message.role || "message");
}

const THOUGHTS = new Set(["thinking", "reasoning"]);
const SAID = new Set(["finish_reason", "stop_reason", "refusal"]); // only unusual ones are sent

/**
 * Return the parts of a message of a session: what the model thought, what stands beside its words, and one line for all that names and
 * measures it, such as ids.
 * @param {Part[]} parts
 */
function partsOfTalk(parts) {
  const thoughts = parts.filter(({ name }) => THOUGHTS.has(name));
  const said = parts.filter(({ name }) => SAID.has(name));
  const rest = parts.filter((part) => !thoughts.includes(part) && !said.includes(part));
  const line = el("span", { class: "unseen" }, rest.map(({ name }) => name).join(", "));
  return {
    thoughts: thoughts.map((part) => folded("thought", "Thinking", () => partBody(part))),
    said: partList(said),
    rest: rest.length ? folded("part rest", line, () => partList(rest) ?? el("p")) : null,
  };
}

/**
 * Return the lines of an edit, or of a to-do list, the first ones unfolded.
 * @param {ShownCall} shown
 */
function linesOf({ lines, more }) {
  if (!lines.length) return null;
  const rows = lines.map(([sign, text]) => el("div", { class: SIGNS.get(sign) ?? "entry" }, el("span", { class: "sign" }, sign === "@" ? "" : sign), el("span", null, text)));
  const rest = rows.slice(UNFOLDED);
  const left = more ? el("div", { class: "at" }, `${plural(more, "more line")} in the span`) : null;
  const node = el("div", { class: "lines" }, ...rows.slice(0, UNFOLDED));
  if (rest.length) node.append(folded("rest", plural(rest.length + more, "more line"), () => el("div", null, ...rest, left)));
  return node;
}

/**
 * Return the answer of a tool: JSON as a tree, other text as it is; null without one.
 * @param {Turn} turn
 * @param {string} text
 */
export function answerOf(turn, text) {
  if (!text) return null;
  const isJson = text.length < 200_000 && /^\s*[[{]/.test(text) && parse(text) !== undefined;
  return isJson ? jsonSection("answer", text) : longText(text, ANSWER, { class: "prose" }, turn.length > turn.text.length ? null : undefined);
}

/**
 * Return a call of a tool in a session: one line that unfolds, and the lines of an edit or a list.
 * @param {Turn} turn
 * @param {ShownCall} shown
 * @param {string} text its answer
 * @param {Child[]} head
 * @param {BlobAddress} address
 */
export function usedCard(turn, shown, text, head, address) {
  const status = turn.error ? "failed" : turn.status;
  const { thoughts, said, rest } = partsOfTalk(turn.others);
  const given = () => (turn.arguments && turn.arguments !== "{}" ? argumentList(turn.arguments) : null);
  const body = () => el("div", { class: "inside" }, given(), answerOf(turn, text), ...thoughts, said, rest);
  const name = turn.name ?? "tool";
  const rows = text && !shown.lines.length ? text.trimEnd().split("\n").length : 0;
  const mark = el("i", { class: `mark ${status}`, "aria-hidden": "true" });
  const line = el("span", null, mark, el("b", null, name), shown.line.slice(name.length), el("span", { class: "note" }, rows ? ` → ${plural(rows, "line")}` : ""));
  return el(
    "article",
    { class: `message tool ${status}` },
    el("header", null, ...head),
    folded("used", line, body),
    linesOf(shown),
    gallery([turn.arguments, ...textsOf(turn)], address),
    turn.error ? longText(turn.error, ANSWER, { class: "error-text" }) : null,
  );
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
  return folded("part", el("span", null, el("span", { class: "key" }, part.name), ` ${size}`), () => partBody(part));
}

/** @param {Part} part */
function partBody(part) {
  const value = part.length > part.text.length ? undefined : parse(part.text);
  const rest = part.length > part.text.length ? `… (${plural(part.length - part.text.length, "more character")} in the span)` : "";
  if (typeof value === "string") return longText(value, LONG, { class: "prose" });
  return value === undefined ? longText(part.text + rest, LONG, { class: "source" }) : jsonTree(value);
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
