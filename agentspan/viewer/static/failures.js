// Failed spans in the tree: those from which others failed, and those that failed alike, one after the other.

/** @import { Spans } from "./spans.js" */

const ALIKE_FROM = 4; // as FOLD_FROM in analysis/tree.py

/**
 * Return the spans in which a failure arose. One whose child failed did not cause it: the error passed through it. But
 * if another child began after that, the program had handled the error, and what failed then is another failure.
 * @param {Spans} spans
 */
export function causesOf(spans) {
  const { signature, error, start_ms } = spans.columns; // only failed spans have a signature
  const n = spans.length;
  const failedUntil = new Float64Array(n).fill(-Infinity); // when the last failed child ended
  const begunAt = new Float64Array(n).fill(-Infinity); // when the last child began
  const hasPassed = new Uint8Array(n); // whether a child failed with the same error
  for (let at = 0; at < n; at++) {
    const above = spans.parents[at];
    if (above < 0) continue;
    begunAt[above] = Math.max(begunAt[above], start_ms[at]);
    if (signature[at] === null) continue;
    failedUntil[above] = Math.max(failedUntil[above], spans.end(at, 0));
    if (error[at] === error[above]) hasPassed[above] = 1;
  }
  /** @type {Set<number>} */
  const causes = new Set();
  for (let at = 0; at < n; at++) {
    if (signature[at] !== null && !hasPassed[at] && (failedUntil[at] === -Infinity || begunAt[at] > failedUntil[at])) causes.add(at);
  }
  return causes;
}

/**
 * Return groups of siblings in a row that failed alike, by their signature, whatever is inside them: the first of each, with
 * the others.
 * @param {Spans} spans
 */
export function alikeOf(spans) {
  const { signature } = spans.columns;
  const { order, size, parents } = spans;
  /** @type {Map<number, number[]>} */
  const groups = new Map();
  /** @type {Set<number>} */
  const taken = new Set();
  for (let number = 0; number < order.length; number++) {
    const at = order[number];
    if (signature[at] === null || taken.has(at)) continue;
    const others = [];
    for (let next = number + size[at]; next < order.length; next += size[order[next]]) {
      const other = order[next];
      if (parents[other] !== parents[at] || signature[other] !== signature[at]) break;
      others.push(other);
    }
    if (others.length + 1 < ALIKE_FROM) continue;
    groups.set(at, others);
    for (const other of others) taken.add(other);
  }
  return groups;
}
