// The spans of a run in memory, column by column, and their order as a tree.
// A span is its index in the columns; in all modules, `at` and `parent` are such indexes, and -1 is no span.

import { alikeOf, causesOf } from "./failures.js";

const OPEN = new Set(["pending", "active"]);

/**
 * Tell whether a status may still change.
 * @param {string} status
 */
export const isOpenStatus = (status) => OPEN.has(status);

/** @type {number[]} */
const NONE = [];

const READ = /error|interrupt|refusal|limit|command$|summary/; // as in analysis/tree.py

export class Spans {
  constructor() {
    /** @type {string[]} */
    this.ids = [];
    /** @type {Map<string, number>} */
    this.indexOf = new Map();
    /** @type {SpanColumns} */
    this.columns = {
      parent: [],
      schema_name: [],
      kind: [],
      title: [],
      label: [],
      status: [],
      summary: [],
      start_ms: [],
      duration_ms: [],
      input_tokens: [],
      output_tokens: [],
      cost_usd: [],
      error: [],
      signature: [],
      common_error: [],
      left_open: [],
      abandoned: [],
      aggregate: [],
    };
    /** @type {Set<number>} */
    this.folded = new Set();
    /** @type {Set<number>} the failed spans in which a failure arose */
    this.causes = new Set();
    /** @type {Map<number, number[]>} the first of equal failed siblings, with the others, which its row stands for */
    this.alike = new Map();
    /** @type {Map<number, number>} each of those others, with the first */
    this.firstOf = new Map();
    /** @type {Set<number>} the first ones whose others have rows of their own */
    this.unfolded = new Set();
    /** @type {Set<number>} hooks that completed, and notices to the model */
    this.notices = new Set();
    /** Whether notices have no rows: they may be half of a coding agent's session. */
    this.isQuiet = false;
    /** @type {Map<number, number>} the time in ms in which no child of a span ran, of those that have children and have ended */
    this.own = new Map();
    /** Whether all spans are here: only then are numbers those of the whole run. */
    this.isWhole = false;
    /** @type {string | null} */
    this.latest = null;
    this.changes = 0;
    /** The last moment at which something is known to have happened, in ms since the run's start. */
    this.lastKnown = 0;
    // The tree: spans in its order, and facts about each span by its index.
    this.order = this.placeOf = this.depth = this.size = this.withRows = this.position = this.siblings = this.parents = new Int32Array(0);
    // The rows that are not folded away: span by row, row by span.
    this.rows = new Int32Array(0);
    this.rowOf = new Int32Array(0);
  }

  get length() {
    return this.ids.length;
  }

  /**
   * Add new spans and update known ones; tell whether anything changed.
   * @param {SpanChunk} chunk
   */
  merge(chunk) {
    const sent = chunk.columns;
    const left = new Set(chunk.left_open);
    const abandoned = new Set(chunk.abandoned);
    const aggregates = new Set(chunk.aggregates);
    const before = this.changes;
    for (let n = 0; n < sent.id.length; n++) {
      const type = chunk.types[sent.type[n]];
      const parent = sent.parent?.[n] ?? null;
      const label = sent.label?.[n] ?? null;
      const failure = chunk.failures[sent.failure?.[n] ?? -1];
      this._put(sent.id[n], {
        parent: typeof parent === "number" ? sent.id[parent] : parent,
        schema_name: type.name,
        kind: type.kind,
        title: type.title,
        label: label === null ? null : chunk.labels[label],
        status: chunk.statuses[sent.status[n]],
        summary: sent.summary[n],
        start_ms: sent.start_ms[n],
        duration_ms: sent.duration_ms[n],
        input_tokens: sent.input_tokens?.[n] ?? null,
        output_tokens: sent.output_tokens?.[n] ?? null,
        cost_usd: sent.cost_usd?.[n] ?? null,
        error: chunk.errors[n] ?? null,
        signature: failure?.signature ?? null,
        common_error: failure?.error ?? null,
        left_open: left.has(n),
        abandoned: abandoned.has(n),
        aggregate: aggregates.has(n),
      });
    }
    if (chunk.latest && (!this.latest || chunk.latest > this.latest)) this.latest = chunk.latest;
    return this.changes !== before;
  }

  /**
   * @param {string} id
   * @param {SpanValues} values
   */
  _put(id, values) {
    let at = this.indexOf.get(id);
    if (at === undefined) {
      at = this.ids.push(id) - 1;
      this.indexOf.set(id, at);
    }
    /** @type {Record<string, unknown[]>} */
    const columns = this.columns;
    for (const [name, value] of Object.entries(values)) {
      if (columns[name][at] !== value) {
        columns[name][at] = value;
        this.changes++;
      }
    }
  }

  /**
   * Return a span's place in the tree, from 1 on: the number by which `agentspan why` names the step.
   * @param {number} at
   */
  numberOf(at) {
    return this.placeOf[at] + 1;
  }

  /**
   * Return the span with a number; -1 where there is none.
   * @param {number} number
   */
  withNumber(number) {
    return this.order[number - 1] ?? -1;
  }

  /**
   * Keep the own times that the server has computed.
   * @param {OwnTimes} times
   */
  setOwn({ own_ms }) {
    this.own.clear();
    for (const [id, ms] of Object.entries(own_ms)) {
      const at = this.indexOf.get(id);
      if (at !== undefined) this.own.set(at, ms);
    }
  }

  /**
   * The time in ms in which none of a span's children ran; null where it is not known.
   * @param {number} at
   */
  ownOf(at) {
    return this.size[at] > 1 ? (this.own.get(at) ?? null) : this.columns.duration_ms[at];
  }

  /** Return the spans that have an own time, the slowest first. */
  slowest() {
    const own = Float64Array.from(this.ids, (_, at) => this.ownOf(at) ?? 0);
    return Array.from(this.order).filter((at) => own[at] > 0).sort((a, b) => own[b] - own[a]);
  }

  /** Return the span that began last; -1 where there is none. Of several it is the last one in tree order. */
  newest() {
    const { start_ms, status } = this.columns;
    return this.order.reduce((last, at) => (status[at] !== "pending" && (last < 0 || start_ms[at] >= start_ms[last]) ? at : last), -1);
  }

  /** @param {number} at */
  isOpen(at) {
    return isOpenStatus(this.columns.status[at]);
  }

  /**
   * Tell whether a span ended with its program, which died.
   * @param {number} at
   */
  isKilled(at) {
    return this.columns.left_open[at] || this.columns.abandoned[at];
  }

  /**
   * When a span ended, in ms since the run's start; an active one has not ended before `now`, and one whose program died not
   * before the last known moment.
   * @param {number} at
   * @param {number} now
   */
  end(at, now) {
    const { start_ms, duration_ms, status, left_open } = this.columns;
    const duration = duration_ms[at];
    if (duration !== null) return start_ms[at] + duration;
    if (status[at] !== "active") return start_ms[at];
    return Math.max(start_ms[at], left_open[at] ? this.lastKnown : now);
  }

  /** Order the spans as a tree: parents first, siblings by start. A span whose parent is not here is a root. */
  buildTree() {
    const n = this.length;
    const { start_ms, duration_ms, parent } = this.columns;
    this.lastKnown = start_ms.reduce((last, start, at) => Math.max(last, start + (duration_ms[at] ?? 0)), 0);
    const ids = this.ids;
    /** @type {(a: number, b: number) => number} */
    const byStart = (a, b) => start_ms[a] - start_ms[b] || (ids[a] < ids[b] ? -1 : 1);
    const inTime = Array.from({ length: n }, (_, at) => at).sort(byStart);
    const rank = new Int32Array(n);
    inTime.forEach((at, number) => (rank[at] = number));
    this.parents = new Int32Array(n);
    for (let at = 0; at < n; at++) this.parents[at] = this.indexOf.get(parent[at] ?? "") ?? -1;
    this._cutCircles(inTime, rank);
    const first = new Int32Array(n).fill(-1);
    const next = new Int32Array(n).fill(-1);
    const children = new Int32Array(n);
    let root = -1;
    for (let number = n - 1; number >= 0; number--) {
      const at = inTime[number];
      const above = this.parents[at];
      next[at] = above < 0 ? root : first[above];
      if (above < 0) root = at;
      else {
        first[above] = at;
        children[above]++;
      }
    }
    this._walk(root, first, next, children);
    this._findNotices();
    this.causes = causesOf(this);
    this.alike = alikeOf(this);
    this.firstOf.clear();
    for (const [at, others] of this.alike) for (const other of others) this.firstOf.set(other, at);
  }

  /**
   * @param {number} root the first root
   * @param {Int32Array} first each span's first child
   * @param {Int32Array} next each span's next sibling
   * @param {Int32Array} children how many each span has
   */
  _walk(root, first, next, children) {
    const n = this.length;
    this.order = new Int32Array(n);
    this.placeOf = new Int32Array(n);
    this.depth = new Int32Array(n);
    this.size = new Int32Array(n).fill(1);
    this.position = new Int32Array(n);
    this.siblings = new Int32Array(n);
    let roots = 0;
    for (let at = root; at >= 0; at = next[at]) roots++;
    let placed = 0;
    /** @type {number[]} */
    const stack = [];
    for (let at = root; ; ) {
      if (at < 0) {
        const above = stack.pop();
        if (above === undefined) break;
        at = next[above];
        continue;
      }
      const above = this.parents[at];
      this.placeOf[at] = placed;
      this.order[placed++] = at;
      this.depth[at] = stack.length;
      this.siblings[at] = above < 0 ? roots : children[above];
      this.position[at] ||= 1;
      if (next[at] >= 0) this.position[next[at]] = this.position[at] + 1;
      stack.push(at);
      at = first[at];
    }
    for (let number = n - 1; number >= 0; number--) {
      const at = this.order[number];
      if (this.parents[at] >= 0) this.size[this.parents[at]] += this.size[at];
    }
  }

  /**
   * Make a root of the first span of each circle. Only rows made by hand are their own ancestors.
   * @param {number[]} inTime
   * @param {Int32Array} rank
   */
  _cutCircles(inTime, rank) {
    const state = new Uint8Array(this.length); // 1 on the way up, 2 done
    for (const from of inTime) {
      const path = [];
      let at = from;
      while (at >= 0 && state[at] === 0) {
        state[at] = 1;
        path.push(at);
        at = this.parents[at];
      }
      if (at >= 0 && state[at] === 1) {
        const circle = path.slice(path.indexOf(at));
        this.parents[circle.reduce((a, b) => (rank[b] < rank[a] ? b : a))] = -1;
      }
      for (const passed of path) state[passed] = 2;
    }
  }

  /** Find the spans that only say what a program did on the way, and of each span how many it has with rows. */
  _findNotices() {
    const { schema_name, label, status, error } = this.columns;
    this.notices.clear();
    this.withRows = this.size.slice();
    for (let number = this.length - 1; number >= 0; number--) {
      const at = this.order[number];
      const kind = schema_name[at];
      const isOne = kind === "hook" || (kind === "event" && !READ.test(label[at] ?? ""));
      if (!isOne || status[at] !== "complete" || error[at] || this.size[at] > 1) continue;
      this.notices.add(at);
      for (let above = this.parents[at]; above >= 0; above = this.parents[above]) this.withRows[above]--;
    }
  }

  /** @param {number} at */
  _isLeftOut(at) {
    return this.isQuiet && this.notices.has(at);
  }

  /** List the rows: all spans but those inside folded ones, and notices if it is quiet. */
  listRows() {
    const n = this.length;
    const rows = new Int32Array(n);
    this.rowOf = new Int32Array(n).fill(-1);
    let count = 0;
    for (let number = 0; number < n; ) {
      const at = this.order[number];
      if (this._isLeftOut(at)) {
        number++;
        continue;
      }
      this.rowOf[at] = count;
      rows[count++] = at;
      const others = this.hidden(at);
      if (others.length) number += others.reduce((sum, other) => sum + this.size[other], this.size[at]);
      else number += this.folded.has(at) ? this.size[at] : 1;
    }
    this.rows = rows.subarray(0, count);
  }

  /**
   * The equal failed siblings that the row of a span stands for, beside itself.
   * @param {number} at
   */
  hidden(at) {
    return (!this.unfolded.has(at) && this.alike.get(at)) || NONE;
  }

  /**
   * Tell whether a span is one of the equal failures that another row stands for, or inside one.
   * @param {number} at
   */
  isInOther(at) {
    for (let above = at; above >= 0; above = this.parents[above]) {
      const first = this.firstOf.get(above);
      if (first !== undefined && !this.unfolded.has(first)) return true;
    }
    return false;
  }

  /**
   * Tell whether the row of a span can be folded: it has children, or equal failed siblings.
   * @param {number} at
   */
  canFold(at) {
    return (this.isQuiet ? this.withRows : this.size)[at] > 1 || this.alike.has(at);
  }

  /** @param {number} at */
  isFolded(at) {
    return this.folded.has(at) || this.hidden(at).length > 0;
  }

  /**
   * @param {number} at
   * @param {boolean} shut
   */
  fold(at, shut) {
    if (this.alike.has(at)) this.folded.delete(at);
    const [set, isIn] = this.alike.has(at) ? [this.unfolded, !shut] : [this.folded, shut];
    if (isIn) set.add(at);
    else set.delete(at);
  }

  /** @param {boolean} shut */
  foldAll(shut) {
    this.folded.clear();
    this.unfolded.clear();
    for (let at = 0; at < this.length; at++) if (this.canFold(at) && (shut || this.alike.has(at))) this.fold(at, shut);
  }

  /**
   * Unfold what hides a span; tell whether something did.
   * @param {number} at
   */
  reveal(at) {
    let changed = false;
    for (let above = at; above >= 0; above = this.parents[above]) {
      const first = this.firstOf.get(above) ?? (above !== at && this.alike.has(above) ? above : -1);
      changed ||= first >= 0 && !this.unfolded.has(first);
      if (first >= 0) this.unfolded.add(first);
    }
    if (this._isLeftOut(at)) {
      this.isQuiet = false;
      changed = true;
    }
    for (let above = this.parents[at]; above >= 0; above = this.parents[above]) changed = this.folded.delete(above) || changed;
    return changed;
  }

  /** When the first span began and the last one ended, as far as is known, and whether one goes on. The run itself began at 0. */
  extent() {
    const { start_ms, status, left_open } = this.columns;
    let [start, end, isRunning] = [0, 0, false];
    for (let at = 0; at < this.length; at++) {
      start = Math.min(start, start_ms[at]);
      end = Math.max(end, this.end(at, 0));
      isRunning ||= status[at] === "active" && !left_open[at];
    }
    return { start, end, isRunning };
  }

  /**
   * Tell whether spans, or ends of spans, are missing here: the server counts before it reads.
   * @param {SpanCounts | null} counts
   */
  isBehind(counts) {
    if (!counts) return false;
    const finished = this.columns.status.filter((status) => !isOpenStatus(status)).length;
    return this.length < counts.total || finished < counts.finished;
  }

  /** Return for how many ms at least one step went on. Agents and others that sum up steps do not count. */
  active() {
    const { start_ms, duration_ms, aggregate } = this.columns;
    let [covered, reached] = [0, 0];
    for (const at of [...start_ms.keys()].sort((one, other) => start_ms[one] - start_ms[other])) {
      if (aggregate[at]) continue;
      const end = Math.max(reached, start_ms[at] + (duration_ms[at] ?? 0));
      [covered, reached] = [covered + end - Math.max(start_ms[at], reached), end];
    }
    return covered;
  }

  /** Count the failed spans, and add up tokens and cost; an aggregate repeats those of the spans in it. */
  sums() {
    const { aggregate, input_tokens, output_tokens, cost_usd, signature } = this.columns;
    let failed = 0;
    /** @type {number | null} */
    let tokens = null;
    /** @type {number | null} */
    let cost = null;
    for (let at = 0; at < this.length; at++) {
      if (signature[at] !== null) failed++;
      if (aggregate[at]) continue;
      if (input_tokens[at] !== null || output_tokens[at] !== null) {
        tokens = (tokens ?? 0) + (input_tokens[at] ?? 0) + (output_tokens[at] ?? 0);
      }
      const usd = cost_usd[at];
      if (usd !== null) cost = (cost ?? 0) + usd;
    }
    return { failed, tokens, cost };
  }
}
