// Where a run's data comes from: the server, or the exported file that the page itself is.

import { findById } from "./dom.js";

/**
 * Parse one of the page's own blocks of JSON; null where the page has none of that id.
 * @param {string} id
 */
export function jsonBlock(id) {
  const node = findById(id);
  return node ? JSON.parse(node.textContent ?? "") : null;
}

/**
 * @param {string} url
 * @param {RequestInit} [options]
 */
async function request(url, options) {
  let response;
  try {
    response = await fetch(url, { credentials: "same-origin", ...options });
  } catch {
    throw new Error("The server does not answer.");
  }
  if (response.status === 401) {
    location.reload(); // the session has ended: the server shows the login
    throw new Error("The session has ended.");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.message ?? `The server answered with status ${response.status}.`);
  return body;
}

/**
 * @param {string} url
 * @param {Record<string, unknown>} body
 */
export const post = (url, body) =>
  request(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

/** @param {string} url */
export const get = (url) => request(url);

/**
 * A run on the server.
 * @implements {RunSource}
 */
export class ServerSource {
  /** @param {Run} run */
  constructor(run) {
    this.isLocal = false;
    this.base = `${run.id}/`;
  }

  /**
   * @param {{ since?: string, after?: string }} query
   * @returns {Promise<SpanChunk & { run: Run }>}
   */
  spans(query) {
    return get(`${this.base}spans?${new URLSearchParams(query)}`);
  }

  /** @returns {Promise<Run>} */
  facts() {
    return get(`${this.base}facts`);
  }

  /**
   * @param {string} id
   * @returns {Promise<SpanDetail>}
   */
  detail(id) {
    return get(`${this.base}spans/${id}`);
  }

  /**
   * @param {number} offset
   * @returns {Promise<TurnPage>}
   */
  conversation(offset) {
    return get(`${this.base}conversation?offset=${offset}`);
  }

  /**
   * @param {string} text
   * @returns {Promise<Matches>}
   */
  search(text) {
    // While it is being typed, the last word is only the beginning of one.
    const query = /[\s"*]$/.test(text) ? text : `${text}*`;
    return get(`${this.base}search?${new URLSearchParams({ q: query })}`);
  }

  /** @returns {Promise<Statistics>} */
  stats() {
    return get(`${this.base}stats`);
  }

  /**
   * @param {string} reason
   * @returns {Promise<{ run: Run }>}
   */
  terminate(reason) {
    return post(`${this.base}terminate`, { reason });
  }
}

/**
 * A run in an exported file: each block of it is parsed when it is first needed.
 * @implements {RunSource}
 */
export class FileSource {
  /** @param {Run} run */
  constructor(run) {
    this.isLocal = true;
    this.run = run;
    /** @type {Turn[] | null} */
    this._turns = null;
    /** @type {Map<string, SpanDetail> | null} */
    this._details = null;
  }

  /** @returns {Promise<SpanChunk>} */
  async spans() {
    return jsonBlock(`spans-${this.run.id}`);
  }

  async facts() {
    return this.run;
  }

  /** @param {string} id */
  async detail(id) {
    const detail = this._readDetails().get(id);
    if (!detail) throw new Error("This file has no such span.");
    return detail;
  }

  /**
   * @param {number} offset
   * @returns {Promise<TurnPage>}
   */
  async conversation(offset) {
    /** @type {Turn[]} */
    const turns = (this._turns ??= jsonBlock(`conversation-${this.run.id}`));
    return { total: turns.length, turns: turns.slice(offset) };
  }

  /** @returns {Promise<Statistics>} */
  async stats() {
    return jsonBlock(`stats-${this.run.id}`);
  }

  /** @param {string} text */
  async search(text) {
    const wanted = text.toLowerCase();
    const ids = [];
    for (const [id, detail] of this._readDetails()) {
      const texts = [detail.summary, detail.payload, detail.result_payload];
      if (texts.some((part) => part?.toLowerCase().includes(wanted))) ids.push(id);
    }
    return { ids, total: ids.length };
  }

  /** @returns {Promise<{ run: Run }>} */
  async terminate() {
    throw new Error("A run in a file cannot be terminated.");
  }

  _readDetails() {
    /** @type {() => SpanDetail[]} */
    const read = () => jsonBlock(`details-${this.run.id}`);
    this._details ??= new Map(read().map((detail) => [detail.id, detail]));
    return this._details;
  }
}
