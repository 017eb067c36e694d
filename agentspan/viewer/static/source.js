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

/** The server could not be reached, or its answer broke off. */
export class NoAnswer extends Error {
  constructor() {
    super("The server does not answer.");
  }
}

const PATIENCE_MS = 30_000; // for spans; a page that waits for a server that hangs says nothing
let isAway = false;

/**
 * Send a request. The first answer after a request without one is an event, `serverback`.
 * @param {string} url
 * @param {RequestInit} [options]
 */
async function request(url, options) {
  let response, body;
  try {
    response = await fetch(url, { credentials: "same-origin", ...options });
    body = await response.text();
  } catch {
    isAway = true;
    throw new NoAnswer();
  }
  if (isAway) {
    isAway = false;
    dispatchEvent(new Event("serverback"));
  }
  if (response.status === 401) {
    location.reload(); // the session has ended: the server shows the login
    throw new Error("The session has ended.");
  }
  if (response.ok) return JSON.parse(body);
  throw new Error(problemOf(body) ?? `The server answered with status ${response.status}.`);
}

/**
 * Return the message of a refusal; undefined where a proxy has answered with something else.
 * @param {string} body
 * @returns {string | undefined}
 */
function problemOf(body) {
  try {
    return JSON.parse(body).message;
  } catch {
    return undefined;
  }
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
 * Get what a page asks for again and again: a server that hangs does not answer.
 * @param {string} url
 */
export const poll = (url) => request(url, { signal: AbortSignal.timeout(PATIENCE_MS) });

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
   * @param {{ since?: string, cursor?: string, after?: string }} query
   * @returns {Promise<SpanChunk & { run: Run }>}
   */
  spans(query) {
    return poll(`${this.base}spans?${new URLSearchParams(query)}`);
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
   * @param {string} id
   * @returns {Promise<ContextChange>}
   */
  context(id) {
    return get(`${this.base}spans/${id}/context`);
  }

  /**
   * Return the address of an image, or of other bytes, of a span.
   * @param {string} id
   * @param {string} hash
   * @returns {string | null}
   */
  blob(id, hash) {
    return `${this.base}spans/${id}/blobs/${hash}`;
  }

  /**
   * @param {{ offset?: number, span?: string }} from the first turn, or a span around whose turn to read
   * @returns {Promise<TurnPage>}
   */
  conversation({ offset = 0, span }) {
    return get(`${this.base}conversation?${new URLSearchParams(span === undefined ? { offset: String(offset) } : { span })}`);
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

  /**
   * @param {string} limit
   * @param {string} amount
   * @returns {Promise<{ run: Run }>}
   */
  allow(limit, amount) {
    return post(`${this.base}allow`, { limit, amount });
  }

  /**
   * @param {Judgement} judgement
   * @returns {Promise<{ run: Run }>}
   */
  judge(judgement) {
    return post(`${this.base}scores`, { ...judgement });
  }

  /** @returns {Promise<Why | null>} */
  async why() {
    return (await get(`${this.base}why`)).why;
  }

  /** @returns {Promise<OwnTimes>} */
  ownTimes() {
    return get(`${this.base}own-times`);
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
    /** @type {{ turns: Turn[], sections: Record<string, Section> } | null} */
    this._conversation = null;
    /** @type {Map<string, SpanDetail> | null} */
    this._details = null;
    /** @type {Map<string, string> | null} */
    this._blobs = null;
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

  /** @returns {Promise<ContextChange>} */
  async context() {
    throw new Error("A file has no contexts.");
  }

  /**
   * Return an image of the file as a data URL; null for other bytes, which are not in the file.
   * @param {string} _id
   * @param {string} hash
   * @returns {string | null}
   */
  blob(_id, hash) {
    this._blobs ??= new Map(Object.entries(jsonBlock(`blobs-${this.run.id}`)));
    return this._blobs.get(hash) ?? null;
  }

  /**
   * @param {{ offset?: number }} from
   * @returns {Promise<TurnPage>}
   */
  async conversation({ offset = 0 }) {
    /** @type {Pick<TurnPage, "turns" | "sections" | "chapters" | "files">} */
    const { turns, ...rest } = (this._conversation ??= jsonBlock(`conversation-${this.run.id}`));
    return { ...rest, turns: turns.slice(offset), total: turns.length, offset, place: null };
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

  /** @returns {Promise<{ run: Run }>} */
  async allow() {
    throw new Error("A run in a file cannot be allowed more.");
  }

  /** @returns {Promise<{ run: Run }>} */
  async judge() {
    throw new Error("A run in a file cannot be judged.");
  }

  /** @returns {Promise<Why | null>} */
  async why() {
    return jsonBlock(`why-${this.run.id}`).why;
  }

  /** @returns {Promise<OwnTimes>} */
  async ownTimes() {
    return jsonBlock(`own-${this.run.id}`);
  }

  _readDetails() {
    /** @type {() => SpanDetail[]} */
    const read = () => jsonBlock(`details-${this.run.id}`);
    this._details ??= new Map(read().map((detail) => [detail.id, detail]));
    return this._details;
  }
}
