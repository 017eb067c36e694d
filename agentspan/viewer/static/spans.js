// The spans of a run in memory, column by column, and their order as a tree.

export const OPEN = new Set(["pending", "active"]);

export class Spans {
  constructor() {
    this.ids = [];
    this.place = new Map();
    this.columns = { parent: [], name: [], kind: [], title: [], label: [], status: [], summary: [], start: [], took: [] };
    Object.assign(this.columns, { given: [], made: [], cost: [], error: [], left: [], aggregate: [] });
    this.folded = new Set();
    this.latest = null;
    this.changes = 0;
    this.order = this.depth = this.size = this.position = this.siblings = this.above = new Int32Array(0);
    this.rows = new Int32Array(0);
    this.rowOf = new Int32Array(0);
  }

  get length() {
    return this.ids.length;
  }

  /** Take spans as the server writes them, new ones and changed ones; tell whether anything is different now. */
  take(answer) {
    const from = answer.columns;
    const left = new Set(answer.left_open);
    const aggregates = new Set(answer.aggregates);
    const before = this.changes;
    for (let n = 0; n < from.id.length; n++) {
      const type = answer.types[from.type[n]];
      const parent = from.parent?.[n] ?? null;
      const number = from.label?.[n] ?? null;
      this._put(from.id[n], {
        parent: typeof parent === "number" ? from.id[parent] : parent,
        name: type.name,
        kind: type.kind,
        title: type.title,
        label: number === null ? null : answer.labels[number],
        status: answer.statuses[from.status[n]],
        summary: from.summary[n],
        start: from.start_ms[n],
        took: from.duration_ms[n],
        given: from.input_tokens?.[n] ?? null,
        made: from.output_tokens?.[n] ?? null,
        cost: from.cost_usd?.[n] ?? null,
        error: answer.errors[n] ?? null,
        left: left.has(n),
        aggregate: aggregates.has(n),
      });
    }
    if (answer.latest && (!this.latest || answer.latest > this.latest)) this.latest = answer.latest;
    return this.changes !== before;
  }

  _put(id, values) {
    let at = this.place.get(id);
    if (at === undefined) {
      at = this.ids.push(id) - 1;
      this.place.set(id, at);
    }
    for (const name in values) {
      if (this.columns[name][at] !== values[name]) {
        this.columns[name][at] = values[name];
        this.changes++;
      }
    }
  }

  isOpen(at) {
    return OPEN.has(this.columns.status[at]);
  }

  /** When a span ended, in ms; an open one has not yet. */
  end(at, now) {
    const { start, took, status, left } = this.columns;
    if (took[at] !== null) return start[at] + took[at];
    return status[at] === "active" && !left[at] ? Math.max(start[at], now) : start[at];
  }

  /** Order the spans as a tree: parents first, siblings by when they began; who has no parent here is a root. */
  arrange() {
    const n = this.length;
    const { start, parent } = this.columns;
    const ids = this.ids;
    const before = (a, b) => start[a] - start[b] || (ids[a] < ids[b] ? -1 : 1);
    const inTime = Array.from({ length: n }, (_, at) => at).sort(before);
    const rank = new Int32Array(n);
    inTime.forEach((at, number) => (rank[at] = number));
    this.above = new Int32Array(n);
    for (let at = 0; at < n; at++) this.above[at] = parent[at] === null ? -1 : (this.place.get(parent[at]) ?? -1);
    this._cutCircles(inTime, rank);
    const first = new Int32Array(n).fill(-1);
    const next = new Int32Array(n).fill(-1);
    const children = new Int32Array(n);
    let root = -1;
    for (let number = n - 1; number >= 0; number--) {
      const at = inTime[number];
      const above = this.above[at];
      next[at] = above < 0 ? root : first[above];
      if (above < 0) root = at;
      else {
        first[above] = at;
        children[above]++;
      }
    }
    this._walk(root, first, next, children);
  }

  _walk(root, first, next, children) {
    const n = this.length;
    this.order = new Int32Array(n);
    this.depth = new Int32Array(n);
    this.size = new Int32Array(n).fill(1);
    this.position = new Int32Array(n);
    this.siblings = new Int32Array(n);
    let roots = 0;
    for (let at = root; at >= 0; at = next[at]) roots++;
    let placed = 0;
    const stack = [];
    for (let at = root; at >= 0 || stack.length; ) {
      if (at < 0) {
        at = next[stack.pop()];
        continue;
      }
      const above = this.above[at];
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
      if (this.above[at] >= 0) this.size[this.above[at]] += this.size[at];
    }
  }

  /** Spans that are their own ancestors, as only hand-made rows are: the first of each circle becomes a root. */
  _cutCircles(inTime, rank) {
    const state = new Uint8Array(this.length); // 1 on the way up, 2 done
    for (const from of inTime) {
      const way = [];
      let at = from;
      while (at >= 0 && state[at] === 0) {
        state[at] = 1;
        way.push(at);
        at = this.above[at];
      }
      if (at >= 0 && state[at] === 1) {
        const circle = way.slice(way.indexOf(at));
        this.above[circle.reduce((a, b) => (rank[b] < rank[a] ? b : a))] = -1;
      }
      for (const passed of way) state[passed] = 2;
    }
  }

  /** List what is shown: all but what lies in folded spans. */
  unroll() {
    const n = this.length;
    const rows = new Int32Array(n);
    this.rowOf = new Int32Array(n).fill(-1);
    let count = 0;
    for (let number = 0; number < n; ) {
      const at = this.order[number];
      this.rowOf[at] = count;
      rows[count++] = at;
      number += this.folded.has(at) ? this.size[at] : 1;
    }
    this.rows = rows.subarray(0, count);
  }

  /** Unfold what a span lies in; tell whether that changed anything. */
  reveal(at) {
    let changed = false;
    for (let above = this.above[at]; above >= 0; above = this.above[above]) changed = this.folded.delete(above) || changed;
    return changed;
  }

  finished() {
    let count = 0;
    for (const status of this.columns.status) if (!OPEN.has(status)) count++;
    return count;
  }

  /** Add up tokens and cost; a span that sums up others repeats what they used. */
  sums() {
    const { aggregate, given, made, cost } = this.columns;
    let tokens = null;
    let usd = null;
    for (let at = 0; at < this.length; at++) {
      if (aggregate[at]) continue;
      if (given[at] !== null || made[at] !== null) tokens = (tokens ?? 0) + (given[at] ?? 0) + (made[at] ?? 0);
      if (cost[at] !== null) usd = (usd ?? 0) + cost[at];
    }
    return { tokens, cost: usd };
  }
}
