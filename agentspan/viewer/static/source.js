// Where a run's data comes from: the server, or the file that the page itself is.

import { byId } from "./dom.js";

/** Read one of the page's own blocks of JSON. */
export function block(id) {
  const node = byId(id);
  return node ? JSON.parse(node.textContent) : null;
}

async function ask(url, options) {
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
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.message ?? `The server says ${response.status}.`);
  return answer;
}

export const post = (url, body) =>
  ask(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export const get = (url) => ask(url);

/** A run on the server. */
export class Served {
  constructor(run) {
    this.isLocal = false;
    this.base = `${run.id}/`;
  }

  spans(query) {
    return get(`${this.base}spans?${new URLSearchParams(query)}`);
  }

  facts() {
    return get(`${this.base}facts`);
  }

  detail(id) {
    return get(`${this.base}spans/${id}`);
  }

  conversation(offset) {
    return get(`${this.base}conversation?offset=${offset}`);
  }

  search(words) {
    // What is being typed is the beginning of a word.
    const asked = /[\s"*]$/.test(words) ? words : `${words}*`;
    return get(`${this.base}search?${new URLSearchParams({ q: asked })}`);
  }

  stats() {
    return get(`${this.base}stats`);
  }

  terminate(reason) {
    return post(`${this.base}terminate`, { reason });
  }
}

/** A run in an exported file: everything is here, and is parsed when it is first wanted. */
export class Embedded {
  constructor(run) {
    this.isLocal = true;
    this.id = run.id;
  }

  async spans() {
    return block(`spans-${this.id}`);
  }

  async detail(id) {
    return this._details().get(id);
  }

  async conversation(offset) {
    this.turns ??= block(`conversation-${this.id}`);
    return { total: this.turns.length, turns: this.turns.slice(offset) };
  }

  async stats() {
    return block(`stats-${this.id}`);
  }

  async search(words) {
    const wanted = words.toLowerCase();
    const ids = [];
    for (const [id, all] of this._details()) {
      const texts = [all.summary, all.payload, all.result_payload];
      if (texts.some((text) => text?.toLowerCase().includes(wanted))) ids.push(id);
    }
    return { ids, total: ids.length };
  }

  _details() {
    this.details ??= new Map(block(`details-${this.id}`).map((all) => [all.id, all]));
    return this.details;
  }
}
