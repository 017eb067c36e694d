// Markdown as elements: headings, lists, quotes, tables, code, emphasis and links. No HTML is parsed, nothing is loaded, and no
// word of the text is lost. A text is read into values first, in linear time whatever it holds; then these become elements.

import { el } from "./dom.js";
import { longText, saveButton } from "./longtext.js";
import { boundary } from "./visible.js";

/**
 * @typedef {string
 *   | { kind: "code", text: string }
 *   | { kind: "strong" | "em" | "del", children: Inline[], height: number }
 *   | { kind: "link", children: Inline[], address: string, title: string, height: number }} Inline
 * @typedef {{ kind: "paragraph" | "heading", level: number, children: Inline[] }
 *   | { kind: "code", language: string, text: string }
 *   | { kind: "list", isOrdered: boolean, items: { number: number, blocks: Block[] }[] }
 *   | { kind: "quote", blocks: Block[] }
 *   | { kind: "table", rows: Inline[][][] }
 *   | { kind: "rule" }} Block
 */

const MOST = 300_000; // characters that are read as Markdown: 0.2 s; a longer text is shown as text
const LAZY = 20_000; // from so many on, blocks are laid out when they come on the screen
const DEEPEST = 8; // lists in lists, quotes in quotes; what is deeper is a paragraph
const HIGHEST = 12; // emphasis in emphasis
const MOST_OPEN = 200; // marks that wait for their end
const LONGEST = 2000; // characters of an address

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const ITEM = /^([ \t]*)([-*+]|\d{1,9}[.)])([ \t]+|$)/;
const QUOTE = /^ {0,3}> ?/;
const DASHES = /^[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

/**
 * Return the blocks of a text.
 * @param {string} text
 * @returns {Block[]}
 */
export const blocksOf = (text) => blocksIn(text.replace(/\r\n?/g, "\n").split("\n"), 0);

/**
 * @param {string[]} lines
 * @param {number} depth
 * @returns {Block[]}
 */
function blocksIn(lines, depth) {
  /** @type {Block[]} */
  const blocks = [];
  /** @type {string[]} */
  let open = []; // the lines of a paragraph
  const close = () => {
    if (open.length) blocks.push({ kind: "paragraph", level: 0, children: inlinesOf(open.join("\n")) });
    open = [];
  };
  for (let at = 0; at < lines.length; ) {
    const line = lines[at];
    const fence = FENCE.exec(line);
    const heading = HEADING.exec(line);
    if (!line.trim()) {
      close();
      at++;
    } else if (fence) {
      close();
      const end = endOfFence(lines, at + 1, fence[1]);
      blocks.push({ kind: "code", language: fence[2].trim(), text: lines.slice(at + 1, end).join("\n") });
      at = end + 1;
    } else if (heading) {
      close();
      blocks.push({ kind: "heading", level: heading[1].length, children: inlinesOf(line.slice(heading[0].length).trim()) });
      at++;
    } else if (RULE.test(line)) {
      close();
      blocks.push({ kind: "rule" });
      at++;
    } else if (depth < DEEPEST && QUOTE.test(line)) {
      close();
      let end = at;
      while (end < lines.length && QUOTE.test(lines[end])) end++;
      blocks.push({ kind: "quote", blocks: blocksIn(lines.slice(at, end).map((each) => each.replace(QUOTE, "")), depth + 1) });
      at = end;
    } else if (depth < DEEPEST && ITEM.test(line)) {
      close();
      const { list, end } = listAt(lines, at, depth);
      blocks.push(list);
      at = end;
    } else if (line.includes("|") && at + 1 < lines.length && lines[at + 1].includes("|") && DASHES.test(lines[at + 1])) {
      close();
      let end = at + 2;
      while (end < lines.length && lines[end].includes("|") && lines[end].trim()) end++;
      const rows = [line, ...lines.slice(at + 2, end)].map((each) => cellsOf(each).map(inlinesOf));
      blocks.push({ kind: "table", rows });
      at = end;
    } else {
      open.push(line);
      at++;
    }
  }
  close();
  return blocks;
}

/**
 * Return the line that ends a fence of code; the number of lines where none does.
 * @param {string[]} lines
 * @param {number} from
 * @param {string} fence
 */
function endOfFence(lines, from, fence) {
  for (let at = from; at < lines.length; at++) {
    const line = lines[at].trim();
    if (line.length >= fence.length && line === fence[0].repeat(line.length)) return at;
  }
  return lines.length;
}

/**
 * Return the list that begins at a line, and the line after it.
 * @param {string[]} lines
 * @param {number} at
 * @param {number} depth
 * @returns {{ list: Block, end: number }}
 */
function listAt(lines, at, depth) {
  const first = /** @type {RegExpExecArray} */ (ITEM.exec(lines[at]));
  const isOrdered = /\d/.test(first[2]);
  /** @type {{ number: number, lines: string[] }[]} */
  const items = [];
  let inner = 0; // the column at which the text of the item begins
  for (; at < lines.length; at++) {
    const line = lines[at];
    const item = ITEM.exec(line);
    const column = line.length - line.trimStart().length;
    const last = items.at(-1);
    if (last && line.trim() && column >= inner) {
      last.lines.push(line.slice(inner));
    } else if (item && /\d/.test(item[2]) === isOrdered && column >= first[1].length - 1 && !RULE.test(line)) {
      inner = item[0].length > column + 6 ? column + item[2].length + 1 : Math.max(item[0].length, column + item[2].length + 1);
      items.push({ number: parseInt(item[2], 10) || 0, lines: [line.slice(inner)] });
    } else if (last && !line.trim()) {
      const next = lines.slice(at + 1, at + 3).find((each) => each.trim()) ?? "";
      const goesOn = next.length - next.trimStart().length >= inner || (ITEM.test(next) && !RULE.test(next));
      if (!goesOn) break;
      last.lines.push("");
    } else if (last && last.lines.at(-1)?.trim() && !item && ![FENCE, HEADING, RULE, QUOTE].some((each) => each.test(line))) {
      last.lines.push(line); // the paragraph goes on
    } else break;
  }
  return { list: { kind: "list", isOrdered, items: items.map((each) => ({ number: each.number, blocks: blocksIn(each.lines, depth + 1) })) }, end: at };
}

/**
 * Return the texts of a table's row.
 * @param {string} line
 */
function cellsOf(line) {
  const cells = [""];
  const text = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  for (const part of text.split(/(\\?\|)/)) {
    if (part === "|") cells.push("");
    else cells[cells.length - 1] += part === "\\|" ? "|" : part;
  }
  return cells.map((cell) => cell.trim());
}

const SPECIAL = /[\\`*_~[\]<h!]/g;
const TARGET = /\(\s*<?([^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?(?:\s+(?:"([^"]*)"|'([^']*)'))?\s*\)/y;
const BARE = /https?:\/\/[^\s<>"'`|*[\]\\]{1,2000}/iy;
const ESCAPED = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;

/**
 * Return the parts of a paragraph.
 * @param {string} text
 * @returns {Inline[]}
 */
export function inlinesOf(text) {
  const reader = new InlineReader(text);
  return reader.read();
}

/** Reads the parts of a paragraph. Each opener is on a stack until what closes it comes; one that nothing closes is text. */
class InlineReader {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
    /** @type {Inline[]} */
    this.out = [];
    /** @type {{ mark: string, at: number }[]} the marks that may be closed, and their places in `out` */
    this.open = [];
    /** @type {Map<string, number>} how many of each mark are open */
    this.counts = new Map();
    /** @type {ReturnType<typeof ticksOf> | null} */
    this.ticks = null;
  }

  read() {
    const { text } = this;
    let at = 0;
    for (;;) {
      SPECIAL.lastIndex = at;
      const next = SPECIAL.exec(text)?.index ?? text.length;
      this._text(text.slice(at, next));
      if (next >= text.length) return this.out;
      at = this._special(next);
    }
  }

  /** @param {string} part */
  _text(part) {
    const last = this.out.at(-1);
    if (typeof last === "string" && this.open.at(-1)?.at !== this.out.length - 1) this.out[this.out.length - 1] = last + part;
    else if (part) this.out.push(part);
  }

  /**
   * Read what begins with a special character; return where it ends.
   * @param {number} at
   */
  _special(at) {
    const { text } = this;
    const mark = text[at];
    if (mark === "\\" && ESCAPED.test(text[at + 1] ?? "")) {
      this._text(text[at + 1]);
      return at + 2;
    }
    if (mark === "`") return this._code(at);
    if (mark === "*" || mark === "_" || mark === "~") return this._emphasis(at, mark);
    if (mark === "[" || (mark === "!" && text[at + 1] === "[")) {
      const opener = mark === "[" ? "[" : "![";
      this._push(opener);
      return at + opener.length;
    }
    if (mark === "]") return this._link(at);
    if (mark === "h" || mark === "<") return this._bare(at);
    this._text(mark);
    return at + 1;
  }

  /** @param {string} mark */
  _push(mark) {
    if (this.open.length >= MOST_OPEN) return this._text(mark);
    this.open.push({ mark, at: this.out.length });
    this.counts.set(mark, (this.counts.get(mark) ?? 0) + 1);
    this.out.push(mark);
  }

  /**
   * Take what follows the latest opener of a kind out of the text; undefined where there is none. Openers in between are text.
   * @param {...string} marks
   */
  _close(...marks) {
    if (!marks.some((mark) => this.counts.get(mark))) return undefined;
    for (;;) {
      const opener = this.open.pop();
      if (!opener) return undefined;
      this.counts.set(opener.mark, (this.counts.get(opener.mark) ?? 0) - 1);
      if (!marks.includes(opener.mark)) continue;
      const children = this.out.splice(opener.at + 1);
      this.out.pop();
      const height = 1 + Math.max(0, ...children.slice(0, 1000).map((child) => (typeof child === "object" && "height" in child ? child.height : 0)));
      return { mark: opener.mark, children, height };
    }
  }

  /** @param {number} at */
  _code(at) {
    const { text } = this;
    let size = 1;
    while (text[at + size] === "`") size++;
    this.ticks ??= ticksOf(text);
    const runs = this.ticks.get(size);
    while (runs && runs.places[runs.next] <= at) runs.next++;
    const end = runs?.places[runs.next];
    if (end === undefined) {
      this._text(text.slice(at, at + size));
      return at + size;
    }
    this.out.push({ kind: "code", text: text.slice(at + size, end) });
    return end + size;
  }

  /**
   * @param {number} at
   * @param {string} mark
   */
  _emphasis(at, mark) {
    const { text } = this;
    let end = at;
    while (text[end] === mark) end++;
    const before = text[at - 1] ?? " ";
    const after = text[end] ?? " ";
    const isWordy = mark === "_";
    const canOpen = /\S/.test(after) && !(isWordy && WORD.test(before));
    const canClose = /\S/.test(before) && !(isWordy && WORD.test(after));
    let left = end - at;
    while (canClose && left) {
      const wanted = [left > 1 ? mark + mark : "", mark === "~" ? "" : mark].filter(Boolean);
      const closed = this._close(...wanted);
      if (!closed) break;
      left -= closed.mark.length;
      const kind = mark === "~" ? "del" : closed.mark.length > 1 ? "strong" : "em";
      if (closed.height > HIGHEST || !closed.children.length) this.out.push(closed.mark, ...closed.children, closed.mark);
      else this.out.push({ kind, children: closed.children, height: closed.height });
    }
    while (canOpen && left > (mark === "~" ? 1 : 0) && left < 9) {
      const opener = left > 1 ? mark + mark : mark;
      this._push(opener);
      left -= opener.length;
    }
    this._text(mark.repeat(left));
    return end;
  }

  /** @param {number} at */
  _link(at) {
    const { text } = this;
    TARGET.lastIndex = at + 1;
    const found = text[at + 1] === "(" && (this.counts.get("[") || this.counts.get("![")) ? TARGET.exec(text) : null;
    const address = found ? addressOf(found[1]) : null;
    if (!found || address === null) {
      // The bracket that this one closes is no link's.
      const opener = this.open.findLast(({ mark }) => mark === "[" || mark === "![");
      if (opener && opener === this.open.at(-1)) {
        this.open.pop();
        this.counts.set(opener.mark, (this.counts.get(opener.mark) ?? 0) - 1);
      }
      this._text("]");
      return at + 1;
    }
    const closed = this._close("[", "![");
    if (!closed || closed.height > HIGHEST) {
      if (closed) this.out.push(closed.mark, ...closed.children);
      this.out.push("]");
      return at + 1;
    }
    const children = /** @type {Inline[]} */ (closed.mark === "[" ? closed.children : ["image ", ...closed.children]);
    this.out.push({ kind: "link", children: withoutLinks(children), address, title: found[2] ?? found[3] ?? "", height: closed.height });
    return at + 1 + found[0].length;
  }

  /** @param {number} at */
  _bare(at) {
    const { text } = this;
    const from = text[at] === "<" ? at + 1 : at;
    BARE.lastIndex = from;
    const found = text[from] === "h" && !WORD.test(text[from - 1] ?? " ") ? BARE.exec(text) : null;
    let address = found?.[0] ?? "";
    let size = address.length;
    while (size && ".,;:!?".includes(address[size - 1])) size--;
    if (address[size - 1] === ")" && !address.includes("(")) size--;
    address = address.slice(0, size);
    const href = address ? addressOf(address) : null;
    if (href === null) {
      const end = at + Math.max(1, from - at + (found?.[0].length ?? 0));
      this._text(text.slice(at, end));
      return end;
    }
    const isQuoted = from > at && text[from + size] === ">";
    if (from > at && !isQuoted) this._text("<");
    this.out.push({ kind: "link", children: [address], address: href, title: "", height: 1 });
    return from + size + (isQuoted ? 1 : 0);
  }
}

/**
 * Return the places of runs of backticks, by their length, and the number of those that were passed.
 * @param {string} text
 */
function ticksOf(text) {
  /** @type {Map<number, { places: number[], next: number }>} */
  const runs = new Map();
  for (const found of text.matchAll(/`+/g)) {
    const size = found[0].length;
    const known = runs.get(size);
    if (known) known.places.push(found.index ?? 0);
    else runs.set(size, { places: [found.index ?? 0], next: 0 });
  }
  return runs;
}

/**
 * Return links in a link as their texts and addresses.
 * @param {Inline[]} children
 * @returns {Inline[]}
 */
const withoutLinks = (children) =>
  children.flatMap((child) => {
    if (typeof child === "string" || child.kind === "code") return [child];
    return child.kind === "link" ? [...child.children, ` ${child.address}`] : [{ ...child, children: withoutLinks(child.children) }];
  });

/**
 * Return an address in the form in which a browser opens it; null for what a link must not open.
 * @param {string} text
 */
export function addressOf(text) {
  if (text.length > LONGEST || !/^https?:\/\//i.test(text)) return null;
  try {
    const { href, protocol } = new URL(text);
    return protocol === "http:" || protocol === "https:" ? href : null;
  } catch {
    return null;
  }
}

/**
 * Return a text with its Markdown as elements; a long one is cut at `limit` characters, where one button shows the rest.
 * @param {string} text
 * @param {number} limit
 * @param {Saved | null} [saved] what is saved: the text itself unless it is given; null where nothing can be saved
 */
export function markdown(text, limit, saved = { text, suffix: "md" }) {
  if (text.length > MOST) return longText(text, limit, { class: "prose" }, saved);
  const node = el("div", { class: "markdown" });
  if (text.length <= limit * 1.2) {
    node.append(...drawn(text));
    return node;
  }
  const more = el("button", { type: "button", class: "more" }, `Show all ${text.length.toLocaleString("en")} characters`);
  const tools = el("div", { class: "tools" }, more, saved ? saveButton(saved) : null);
  more.addEventListener("click", () => {
    node.replaceChildren(...drawn(text));
    if (saved) node.append(el("div", { class: "tools" }, saveButton(saved)));
    node.tabIndex = -1;
    node.focus({ preventScroll: true }); // the button had it
  });
  node.append(...drawn(`${text.slice(0, boundary(text, limit))}…`), tools);
  return node;
}

/** @param {string} text */
function drawn(text) {
  const nodes = blocksOf(text).map(blockNode);
  if (text.length > LAZY) for (const node of nodes) node.classList.add("block");
  return nodes;
}

/**
 * @param {Block} block
 * @returns {HTMLElement}
 */
function blockNode(block) {
  switch (block.kind) {
    case "heading":
      return el("p", { class: `heading level-${block.level}` }, ...inlineNodes(block.children));
    case "paragraph":
      return el("p", null, ...inlineNodes(block.children));
    case "code":
      return el("div", { class: "fence" }, block.language ? el("span", { class: "language" }, block.language) : null, el("pre", null, el("code", null, block.text)));
    case "list":
      return el(
        block.isOrdered ? "ol" : "ul",
        null,
        ...block.items.map(({ number, blocks }) => el("li", { value: block.isOrdered ? number : null }, ...blocks.map(blockNode))),
      );
    case "quote":
      return el("blockquote", null, ...block.blocks.map(blockNode));
    case "table":
      return tableNode(block.rows);
    case "rule":
      return el("hr");
  }
}

/** @param {Inline[][][]} rows */
function tableNode([head, ...rows]) {
  const columns = head.map((cell) => el("th", { scope: "col" }, ...inlineNodes(cell)));
  const body = rows.map((row) => el("tr", null, ...row.map((cell) => el("td", null, ...inlineNodes(cell)))));
  return el("div", { class: "wide" }, el("table", null, el("thead", null, el("tr", null, ...columns)), el("tbody", null, ...body)));
}

/**
 * @param {Inline[]} parts
 * @returns {Child[]}
 */
const inlineNodes = (parts) => parts.map(inlineNode);

/**
 * @param {Inline} part
 * @returns {Child}
 */
function inlineNode(part) {
  if (typeof part === "string") return part;
  if (part.kind === "code") return el("code", null, part.text);
  if (part.kind !== "link") return el(part.kind, null, ...inlineNodes(part.children));
  // The address is shown: a text can claim to lead elsewhere.
  const link = el("a", { href: part.address, rel: "noreferrer", target: "_blank" }, ...inlineNodes(part.children));
  const isSaid = part.children.length === 1 && [part.address, part.address.replace(/\/$/, "")].includes(String(part.children[0]));
  const title = part.title ? ` “${part.title}”` : "";
  return isSaid && !title ? link : el("span", null, link, el("span", { class: "address" }, ` ${part.address}${title}`));
}

/**
 * Let a button choose between Markdown and the text as it is; this browser keeps the choice for each view.
 * @param {HTMLElement} button
 * @param {string} view
 * @param {() => void} onChange
 */
export function markdownSwitch(button, view, onChange) {
  const stored = `agentspan-markdown-${view}`;
  /** @type {string | null} */
  let chosen = null;
  const choice = {
    isOn: false,
    /** Show Markdown unless the reader has chosen. */
    prefer() {
      choice.isOn = chosen !== "off";
      button.setAttribute("aria-pressed", String(choice.isOn));
    },
  };
  try {
    chosen = localStorage.getItem(stored);
  } catch {
    // A page opened from a file may have no storage.
  }
  choice.isOn = chosen === "on";
  button.setAttribute("aria-pressed", String(choice.isOn));
  button.addEventListener("click", () => {
    choice.isOn = !choice.isOn;
    button.setAttribute("aria-pressed", String(choice.isOn));
    chosen = choice.isOn ? "on" : "off";
    try {
      localStorage.setItem(stored, chosen);
    } catch {
      // as above
    }
    onChange();
  });
  return choice;
}
