// Spans as the server sends them, made from the few fields that a test is about.

import { Spans } from "../../../agentspan/viewer/static/spans.js";

/**
 * @typedef {{
 *   id: string, parent?: string, type?: string, label?: string, status?: SpanStatus, summary?: string, start?: number,
 *   took?: number | null, input_tokens?: number, output_tokens?: number, cost?: number, error?: string, failure?: string,
 *   left_open?: boolean, abandoned?: boolean, aggregate?: boolean,
 * }} Row a span; by default it is complete and took 1 ms. `start` and `took` are in ms; `failure` is its error without values, by
 *   default the error
 */

/** @type {SpanStatus[]} */
const STATUSES = ["pending", "active", "complete", "failed", "cancelled"];

/**
 * Return spans as one chunk. A parent in the same chunk is its position, another one its id.
 * @param {Row[]} rows
 * @param {Partial<SpanChunk>} [rest]
 * @returns {SpanChunk}
 */
export function chunkOf(rows, rest) {
  const ids = rows.map(({ id }) => id);
  const types = [...new Set(rows.map(({ type }) => type ?? "tool"))];
  const failures = rows.map(({ type, label, error, failure }) => ({ signature: `${type ?? "tool"} ${label ?? ""}: ${failure ?? error}`, error: failure ?? error ?? "" }));
  const labels = [...new Set(rows.flatMap(({ label }) => label ?? []))];
  /** @param {(row: Row) => boolean | undefined} has */
  const positions = (has) => rows.flatMap((row, n) => (has(row) ? [n] : []));
  return {
    origin: "2026-11-24T09:12:04.000000Z",
    columns: {
      id: ids,
      parent: rows.map(({ parent }) => (parent && ids.includes(parent) ? ids.indexOf(parent) : (parent ?? null))),
      type: rows.map(({ type }) => types.indexOf(type ?? "tool")),
      label: rows.map(({ label }) => (label === undefined ? null : labels.indexOf(label))),
      status: rows.map(({ status }) => STATUSES.indexOf(status ?? "complete")),
      summary: rows.map(({ id, summary }) => summary ?? id),
      start_ms: rows.map(({ start }) => start ?? 0),
      duration_ms: rows.map(({ took, status }) => took ?? (isOpen(status) ? null : 1)),
      input_tokens: rows.map(({ input_tokens }) => input_tokens ?? null),
      output_tokens: rows.map(({ output_tokens }) => output_tokens ?? null),
      cost_usd: rows.map(({ cost }) => cost ?? null),
      failure: rows.map(({ status }, n) => (status === "failed" ? n : null)),
    },
    types: types.map((name) => ({ name, kind: name, title: `${name[0].toUpperCase()}${name.slice(1)}` })),
    labels,
    failures,
    statuses: STATUSES,
    errors: Object.fromEntries(rows.flatMap(({ error }, n) => (error === undefined ? [] : [[n, error]]))),
    aggregates: positions((row) => row.aggregate),
    left_open: positions((row) => row.left_open),
    abandoned: positions((row) => row.abandoned),
    next: null,
    latest: null,
    cursor: null,
    stalled_s: 0,
    ...rest,
  };
}

/** @param {SpanStatus | undefined} status */
const isOpen = (status) => status === "pending" || status === "active";

/**
 * Return spans as a page has them after it has read them.
 * @param {Row[]} rows
 */
export function spansOf(rows) {
  const spans = new Spans();
  spans.merge(chunkOf(rows));
  spans.buildTree();
  spans.listRows();
  return spans;
}

/**
 * Return the ids of spans.
 * @param {Spans} spans
 * @param {Iterable<number>} [of] all rows by default
 */
export const idsOf = (spans, of = spans.rows) => Array.from(of, (at) => spans.ids[at]);

/**
 * Return the index of a span.
 * @param {Spans} spans
 * @param {string} id
 */
export const at = (spans, id) => spans.indexOf.get(id) ?? -1;

/**
 * Return failed siblings that are equal in all but their ids and times.
 * @param {number} count
 * @param {string} [parent]
 * @returns {Row[]}
 */
export const alike = (count, parent) =>
  Array.from({ length: count }, (_, n) => ({
    id: `f${n}`,
    parent,
    label: "fetch",
    status: "failed",
    summary: `Tool fetch(at=${n}) → E: late`,
    error: "E: late",
    start: 10 + 2 * n,
    took: 2,
  }));
