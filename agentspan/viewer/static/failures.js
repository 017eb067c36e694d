// Failed spans in the tree: those from which others failed, and those that failed alike, one after the other.

/** @import { Spans } from "./spans.js" */

const ALIKE_FROM = 4; // as FOLD_FROM in analysis/tree_folding.py

/**
 * Return the spans in which a failure arose. One whose child failed did not cause it: the error passed through it. But
 * if another child began after that, the program had handled the error, and what failed then is another failure.
 * @param {Spans} spans
 */
export function causesOf(spans) {
  const { status, error, start_ms } = spans.columns;
  const n = spans.length;
  const failedUntil = new Float64Array(n).fill(-Infinity); // when the last failed child ended
  const begunAt = new Float64Array(n).fill(-Infinity); // when the last child began
  const hasPassed = new Uint8Array(n); // whether a child failed with the same error
  for (let at = 0; at < n; at++) {
    const above = spans.parents[at];
    if (above < 0) continue;
    begunAt[above] = Math.max(begunAt[above], start_ms[at]);
    if (status[at] !== "failed") continue;
    failedUntil[above] = Math.max(failedUntil[above], spans.end(at, 0));
    if (error[at] === error[above]) hasPassed[above] = 1;
  }
  /** @type {Set<number>} */
  const causes = new Set();
  for (let at = 0; at < n; at++) {
    if (status[at] === "failed" && !hasPassed[at] && (failedUntil[at] === -Infinity || begunAt[at] > failedUntil[at])) causes.add(at);
  }
  return causes;
}

/**
 * Return groups of siblings in a row that failed alike, by their signature, and have no children: the first of each,
 * with the others.
 * @param {Spans} spans
 */
export function alikeOf(spans) {
  const { status, signature } = spans.columns;
  /** @type {(a: number, b: number) => boolean} */
  const isAlike = (a, b) =>
    status[b] === "failed" && spans.size[b] === 1 && spans.parents[a] === spans.parents[b] && signature[a] === signature[b];
  /** @type {Map<number, number[]>} */
  const groups = new Map();
  const order = spans.order;
  for (let number = 0; number < order.length; ) {
    const at = order[number];
    let next = number + 1;
    if (status[at] === "failed" && spans.size[at] === 1) while (next < order.length && isAlike(at, order[next])) next++;
    if (next - number >= ALIKE_FROM) groups.set(at, Array.from(order.subarray(number + 1, next)));
    number = next;
  }
  return groups;
}
