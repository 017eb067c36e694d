// Images, audio and other bytes of a span. In its texts stands what they are; the bytes have addresses of their own.

import { el } from "./dom.js";
import { named } from "./longtext.js";

const BLOB = /\[([a-z0-9.+-]+\/[a-z0-9.+-]+), ([\d.,]+ (?:[kM]?B|bytes)), ([0-9a-f]{64})\]/g;
// What agentspan/blobs.py lists. An SVG can hold scripts: it is never shown.
const IMAGES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);
const AUDIO = new Set(["audio/wav", "audio/mpeg", "audio/ogg", "audio/flac", "audio/mp4", "audio/webm"]);

/** @typedef {(hash: string) => string | null} BlobAddress the address of a blob of a span; null where there is none */

/**
 * Return the hashes of the blobs that texts name.
 * @param {(string | null)[]} texts
 */
export const blobHashes = (texts) => new Set([...found(texts)].map(({ hash }) => hash));

/**
 * Return the blobs that texts name, each once: images, sound, and links to what is neither; null where there is none.
 * @param {(string | null)[]} texts
 * @param {BlobAddress} address
 * @param {Set<string>} [shown] the hashes of those that are shown already
 */
export function gallery(texts, address, shown = new Set()) {
  const nodes = [];
  const known = new Set(shown);
  for (const { type, size, hash } of found(texts)) {
    if (known.has(hash)) continue;
    known.add(hash);
    nodes.push(figure(type, size, address(hash)));
  }
  return nodes.length ? named(el("div", { class: "blobs" }, ...nodes), "blobs") : null;
}

/** @param {(string | null)[]} texts */
function* found(texts) {
  for (const text of texts) {
    for (const [, type, size, hash] of text?.matchAll(BLOB) ?? []) yield { type, size, hash };
  }
}

/**
 * @param {string} type
 * @param {string} size
 * @param {string | null} address
 */
function figure(type, size, address) {
  const what = `${type}, ${size}`;
  if (address === null) return el("figure", { class: "blob" }, el("figcaption", null, what));
  const link = el("a", { href: address, download: "" }, what);
  const node = el("figure", { class: "blob" });
  if (IMAGES.has(type)) node.append(el("img", { src: address, alt: what, loading: "lazy", decoding: "async" }));
  if (AUDIO.has(type)) node.append(el("audio", { src: address, controls: true, preload: "none", "aria-label": what }));
  node.append(el("figcaption", null, link));
  return node;
}
