// Tracebacks: the last line first, then the frames; those of libraries are folded, the program's own are not.

import { el } from "./dom.js";
import { plural } from "./format.js";

/** @typedef {{ text: string, isFrame: boolean, library: string | null }} Piece lines of a traceback: one frame, or what stands between frames */

const PYTHON = /^[\s|+-]*File "(.+)", line \d+/;
const NODE = /^\s+at (?:.*\()?((?:file:\/\/|node:|[A-Za-z]:\\|\/).*?):\d+(?::\d+)?\)?$/;
const CARETS = /\n[ |]*[~^][ ~^]*(?=\n|$)/g; // they point to nothing in lines that wrap

/**
 * Return the package, or the part of the language, that a file is of; null for one of the program itself.
 * @param {string} path
 */
export function libraryOf(path) {
  const file = path.replaceAll("\\", "/");
  const installed = /.*\/(?:site|dist)-packages\/([^/]+)/.exec(file) ?? /.*\/node_modules\/(@[^/]+\/[^/]+|[^/]+)/.exec(file);
  const builtIn = /^<frozen ([\w.]+)/.exec(file) ?? /\/lib(?:64)?\/python3[^/]*\/([^/]+)/.exec(file) ?? /\/python3\d+\/lib\/([^/]+)/i.exec(file);
  if (file.startsWith("node:")) return "Node.js";
  return (installed ?? builtIn)?.[1].replace(/\.pyc?$/, "") ?? null;
}

/**
 * Split a traceback into its frames and the lines between them. The source lines below a frame are part of it.
 * @param {string} text
 */
export function piecesOf(text) {
  /** @type {Piece[]} */
  const pieces = [];
  for (const line of text.split("\n")) {
    const path = (PYTHON.exec(line) ?? NODE.exec(line))?.[1];
    const last = pieces.at(-1);
    if (path !== undefined) pieces.push({ text: line, isFrame: true, library: libraryOf(path) });
    else if (last && (last.isFrame ? /^\s{3,}|^\s*\|\s{3,}/.test(line) && !NODE.test(line) : true)) last.text += `\n${line}`;
    else pieces.push({ text: line, isFrame: false, library: null });
  }
  return pieces;
}

/**
 * Return the label of folded frames: how many they are, and of which libraries.
 * @param {Piece[]} frames
 */
export function labelOfFrames(frames) {
  const names = [...new Set(frames.map(({ library }) => library))];
  const shown = names.length > 3 ? [...names.slice(0, 2), `${names.length - 2} others`] : names;
  return `${plural(frames.length, "frame")} of ${shown.join(", ")}`;
}

/**
 * Return the nodes of a traceback: its last lines, then all frames in their order.
 * @param {string} text
 * @param {(lines: string) => Node[]} shown makes the nodes of lines that are not folded
 */
export function frames(text, shown) {
  const pieces = piecesOf(text.replace(CARETS, "").replace(/\n+$/, ""));
  if (!pieces.some(({ isFrame }) => isFrame)) return shown(text);
  /** @type {Node[]} */
  const nodes = [];
  const last = pieces.at(-1);
  if (last && !last.isFrame) {
    pieces.pop();
    nodes.push(el("div", { class: "last-line" }, last.text.trim()));
  }
  for (let from = 0; from < pieces.length; ) {
    const isFolded = pieces[from].library !== null;
    let to = from + 1;
    while (to < pieces.length && (pieces[to].library !== null) === isFolded) to++;
    const group = pieces.slice(from, to);
    const lines = group.map((piece) => piece.text).join("\n");
    if (isFolded) nodes.push(el("details", { class: "frames" }, el("summary", null, labelOfFrames(group)), el("div", null, lines)));
    else nodes.push(...shown(lines));
    from = to;
  }
  return nodes;
}
