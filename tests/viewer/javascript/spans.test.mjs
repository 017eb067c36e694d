// The spans of a run in memory: merged from chunks, ordered as a tree, folded, added up.

import assert from "node:assert/strict";
import test from "node:test";

import { Spans } from "../../../agentspan/viewer/static/spans.js";
import { alike, at, chunkOf, idsOf, spansOf } from "./recorded.mjs";

// Chunks

test("a chunk's columns become those of the spans", () => {
  const { columns } = spansOf([
    { id: "a", type: "agent", label: "planner", status: "active", start: 5, summary: "Agent planner", abandoned: true },
    { id: "b", parent: "a", status: "failed", took: 7, error: "E: no", input_tokens: 3, cost: 0.5, left_open: true },
  ]);
  /** @param {number} n */
  const row = (n) => Object.fromEntries(Object.entries(columns).map(([name, all]) => [name, all[n]]));
  assert.deepEqual(row(0), {
    parent: null,
    schema_name: "agent",
    kind: "agent",
    title: "Agent",
    label: "planner",
    status: "active",
    summary: "Agent planner",
    start_ms: 5,
    duration_ms: null,
    input_tokens: null,
    output_tokens: null,
    cost_usd: null,
    error: null,
    signature: null,
    common_error: null,
    left_open: false,
    abandoned: true,
    aggregate: false,
  });
  assert.deepEqual(row(1), {
    parent: "a",
    schema_name: "tool",
    kind: "tool",
    title: "Tool",
    label: null,
    status: "failed",
    summary: "b",
    start_ms: 0,
    duration_ms: 7,
    input_tokens: 3,
    output_tokens: null,
    cost_usd: 0.5,
    error: "E: no",
    signature: "tool : E: no",
    common_error: "E: no",
    left_open: true,
    abandoned: false,
    aggregate: false,
  });
});

test("a span's number is its place in the tree", () => {
  const spans = spansOf([{ id: "a" }, { id: "b", start: 1 }, { id: "c", parent: "a", start: 2 }]);
  spans.buildTree();
  assert.deepEqual(["a", "b", "c"].map((id) => spans.numberOf(at(spans, id))), [1, 3, 2]);
});

test("columns without any value are sent as null", () => {
  const chunk = chunkOf([{ id: "a" }]);
  const spans = new Spans();
  const none = { parent: null, label: null, input_tokens: null, output_tokens: null, cost_usd: null };
  spans.merge({ ...chunk, columns: { ...chunk.columns, ...none } });
  const { parent, label, input_tokens, output_tokens, cost_usd } = spans.columns;
  assert.deepEqual([parent, label, input_tokens, output_tokens, cost_usd], [[null], [null], [null], [null], [null]]);
});

test("a span that is sent again is updated, and the same chunk changes nothing", () => {
  const spans = spansOf([{ id: "a" }, { id: "b", parent: "a", status: "active" }]);
  const later = chunkOf([{ id: "b", parent: "a", status: "complete", took: 9 }, { id: "c", parent: "b", start: 3 }]);
  assert.equal(spans.merge(later), true);
  assert.equal(spans.merge(later), false);
  spans.buildTree();
  spans.listRows();
  assert.deepEqual(idsOf(spans), ["a", "b", "c"]);
  assert.deepEqual(spans.columns.status, ["complete", "complete", "complete"]);
  assert.equal(spans.columns.duration_ms[1], 9);
});

test("the latest change is kept, whatever comes after it", () => {
  const spans = new Spans();
  for (const latest of ["2026-01-02", "2026-01-03", "2026-01-01", null]) spans.merge(chunkOf([], { latest }));
  assert.equal(spans.latest, "2026-01-03");
});

// The tree

test("siblings stand by their start, then by their ids", () => {
  const spans = spansOf([
    { id: "late", start: 9 },
    { id: "root", start: 1 },
    { id: "z", parent: "root", start: 4 },
    { id: "y", parent: "root", start: 4 },
    { id: "x", parent: "root", start: 8 },
    { id: "inner", parent: "z", start: 5 },
  ]);
  assert.deepEqual(idsOf(spans, spans.order), ["root", "y", "z", "inner", "x", "late"]);
  assert.deepEqual(Array.from(spans.order, (each) => spans.depth[each]), [0, 1, 1, 2, 1, 0]);
  assert.deepEqual(Array.from(spans.order, (each) => spans.size[each]), [5, 1, 2, 1, 1, 1]);
  assert.deepEqual(Array.from(spans.order, (each) => spans.position[each]), [1, 1, 2, 1, 3, 2]);
  assert.deepEqual(Array.from(spans.order, (each) => spans.siblings[each]), [2, 3, 3, 1, 3, 2]);
});

test("a span whose parent is not here is a root, until it comes", () => {
  const spans = spansOf([{ id: "child", parent: "parent", start: 2 }]);
  assert.deepEqual(Array.from(spans.depth), [0]);
  spans.merge(chunkOf([{ id: "parent", start: 1 }]));
  spans.buildTree();
  assert.deepEqual(idsOf(spans, spans.order), ["parent", "child"]);
  assert.equal(spans.depth[at(spans, "child")], 1);
});

test("spans that are their own ancestors are all shown, the first of them as a root", () => {
  const spans = spansOf([
    { id: "b", parent: "a", start: 2 },
    { id: "a", parent: "c", start: 1 },
    { id: "c", parent: "b", start: 3 },
    { id: "self", parent: "self", start: 4 },
    { id: "beside", parent: "c", start: 5 },
  ]);
  assert.deepEqual(idsOf(spans, spans.order), ["a", "b", "c", "beside", "self"]);
});

// Folding

const NESTED = [
  { id: "root" },
  { id: "a", parent: "root", start: 1 },
  { id: "a1", parent: "a", start: 2 },
  { id: "a2", parent: "a1", start: 3 },
  { id: "b", parent: "root", start: 4 },
];

test("a folded span hides all that is in it", () => {
  const spans = spansOf(NESTED);
  spans.fold(at(spans, "a"), true);
  spans.listRows();
  assert.deepEqual(idsOf(spans), ["root", "a", "b"]);
  assert.deepEqual(NESTED.map(({ id }) => spans.rowOf[at(spans, id)]), [0, 1, -1, -1, 2]);
  assert.equal(spans.isFolded(at(spans, "a")), true);
  assert.equal(spans.canFold(at(spans, "b")), false);
  spans.fold(at(spans, "a"), false);
  spans.listRows();
  assert.equal(spans.rows.length, 5);
});

test("all is folded and unfolded, and a span that is sought is revealed", () => {
  const spans = spansOf(NESTED);
  spans.foldAll(true);
  spans.listRows();
  assert.deepEqual(idsOf(spans), ["root"]);
  assert.equal(spans.reveal(at(spans, "a1")), true);
  assert.equal(spans.reveal(at(spans, "a1")), false);
  spans.listRows();
  assert.deepEqual(idsOf(spans), ["root", "a", "a1", "b"]);
  spans.foldAll(false);
  spans.listRows();
  assert.equal(spans.rows.length, 5);
});

test("four siblings in a row that failed alike are one row, three are not", () => {
  assert.deepEqual(idsOf(spansOf(alike(3))), ["f0", "f1", "f2"]);
  const spans = spansOf([{ id: "root" }, ...alike(4, "root"), { id: "after", parent: "root", start: 90 }]);
  assert.deepEqual(idsOf(spans), ["root", "f0", "after"]);
  const first = at(spans, "f0");
  assert.deepEqual(idsOf(spans, spans.hidden(first)), ["f1", "f2", "f3"]);
  assert.equal(spans.isFolded(first), true);
  spans.fold(first, false);
  spans.listRows();
  assert.deepEqual(idsOf(spans), ["root", "f0", "f1", "f2", "f3", "after"]);
  spans.fold(first, true);
  assert.equal(spans.reveal(at(spans, "f2")), true);
  assert.equal(spans.isFolded(first), false);
});

test("when all is unfolded, so are failures that are alike; when all is folded, they are one row again", () => {
  const spans = spansOf(alike(5));
  spans.foldAll(false);
  spans.listRows();
  assert.equal(spans.rows.length, 5);
  spans.foldAll(true);
  spans.listRows();
  assert.equal(spans.rows.length, 1);
});

test("what differs in its error, label, type, or status is not alike", () => {
  /** @type {Partial<import("./recorded.mjs").Row>[]} */
  const others = [{ error: "E: other" }, { label: "other" }, { type: "step" }, { status: "complete" }];
  for (const other of others) {
    const rows = alike(7);
    rows[3] = { ...rows[3], ...other };
    assert.equal(spansOf(rows).alike.size, 0, JSON.stringify(other));
  }
});

test("failures that are alike are one row with all that is inside them, and what is searched for in it unfolds it", () => {
  const inside = alike(4, "root").flatMap((row) => [row, { ...row, id: `in ${row.id}`, parent: row.id, label: "http" }]);
  const spans = spansOf([{ id: "root", status: "failed" }, ...inside, { id: "after", parent: "root", start: 90 }]);
  assert.deepEqual(idsOf(spans), ["root", "f0", "after"]);
  assert(spans.isFolded(at(spans, "f0")));
  assert(spans.isInOther(at(spans, "in f2")));
  assert(!spans.isInOther(at(spans, "in f0")));
  assert(spans.reveal(at(spans, "in f2")));
  spans.listRows();
  assert.deepEqual(idsOf(spans).slice(0, 4), ["root", "f0", "in f0", "f1"]);
  assert(!spans.reveal(at(spans, "in f2")));
  spans.fold(at(spans, "f0"), true);
  spans.listRows();
  assert.deepEqual(idsOf(spans), ["root", "f0", "after"]);
  assert(spans.reveal(at(spans, "in f0")));
  assert(!spans.isInOther(at(spans, "in f2")));
});

test("failures that differ only in values are alike", () => {
  const rows = alike(5).map((row, n) => ({ ...row, error: `E: wait ${n} s`, failure: "E: wait <n> s" }));
  const spans = spansOf(rows);
  assert.deepEqual(idsOf(spans), ["f0"]);
  spans.foldAll(false);
  spans.listRows();
  assert.equal(spans.rows.length, 5);
});

// Failures

/**
 * The failed spans in which a failure arose.
 * @param {import("./recorded.mjs").Row[]} rows
 */
function causes(rows) {
  const spans = spansOf(rows.map((row) => ({ status: "failed", error: "E: no", ...row })));
  return idsOf(spans, spans.causes).sort();
}

test("an error that passes through spans arose in the deepest one", () => {
  assert.deepEqual(causes([{ id: "a" }, { id: "b", parent: "a" }, { id: "c", parent: "b" }]), ["c"]);
  assert.deepEqual(causes([{ id: "a", error: "Other: no" }, { id: "b", parent: "a" }]), ["b"]);
});

test("what fails after another child began is another failure, unless it is the same error", () => {
  const handled = [
    { id: "a", error: "Other: no", took: 9 },
    { id: "b", parent: "a", start: 1, took: 2 },
    { id: "goes on", parent: "a", start: 5, status: /** @type {const} */ ("complete") },
  ];
  assert.deepEqual(causes(handled), ["a", "b"]);
  assert.deepEqual(causes([{ id: "a", took: 9 }, ...handled.slice(1)]), ["b"]);
});

// Times, counts and sums

test("an open span lasts until now, one of a dead program until the last known moment", () => {
  const spans = spansOf([
    { id: "done", start: 10, took: 40 },
    { id: "open", start: 20, status: "active" },
    { id: "left", start: 30, status: "active", left_open: true },
    { id: "pending", start: 45, status: "pending" },
  ]);
  assert.deepEqual(["done", "open", "left", "pending"].map((id) => spans.end(at(spans, id), 100)), [50, 100, 50, 45]);
  assert.equal(spans.end(at(spans, "open"), 5), 20); // a clock that is behind
});

test("a run's extent has all spans, and tells whether one goes on", () => {
  const ended = spansOf([{ id: "a", start: -3 }, { id: "b", start: 4, took: 5 }]);
  assert.deepEqual(ended.extent(), { start: -3, end: 9, isRunning: false });
  assert.deepEqual(spansOf([{ id: "a", start: 4, status: "active" }]).extent(), { start: 0, end: 4, isRunning: true });
  assert.equal(spansOf([{ id: "a", status: "active", left_open: true }]).extent().isRunning, false);
});

test("spans or ends that the server counted and that are not here are missed", () => {
  const spans = spansOf([{ id: "a" }, { id: "b", status: "active" }]);
  const counts = { pending: 0, active: 1, complete: 1, failed: 0, cancelled: 0, total: 2, finished: 1 };
  assert.equal(spans.isBehind(null), false);
  assert.equal(spans.isBehind(counts), false);
  assert.equal(spans.isBehind({ ...counts, total: 3 }), true);
  assert.equal(spans.isBehind({ ...counts, finished: 2 }), true);
});

test("failed steps are counted, tokens and cost are added up without aggregates, and unknown is not zero", () => {
  /** @type {import("./recorded.mjs").Row[]} */
  const rows = [
    { id: "agent", aggregate: true, input_tokens: 90, cost: 9 },
    { id: "a", input_tokens: 10, output_tokens: 2, cost: 0.5 },
    { id: "b", output_tokens: 3, status: "failed" },
  ];
  assert.deepEqual(spansOf(rows).sums(), { failed: 1, tokens: 15, cost: 0.5 });
  assert.deepEqual(spansOf([{ id: "a" }]).sums(), { failed: 0, tokens: null, cost: null });
});

test("the active time is that in which a step went on, without what sums up steps", () => {
  const rows = [
    { id: "a", start: 0, took: 90, aggregate: true },
    { id: "b", start: 50, took: 10 },
    { id: "c", start: 0, took: 20 },
    { id: "d", start: 10, took: 20 },
  ];
  assert.equal(spansOf(rows).active(), 40);
});

// Hooks and events of a coding agent's session

test("hooks and notices have no rows in a quiet tree, until one of them is shown", () => {
  const spans = spansOf([
    { id: "a", type: "tool" },
    { id: "b", parent: "a", type: "hook", start: 1 },
    { id: "c", type: "event", label: "skill_listing", start: 2 },
    { id: "d", type: "event", label: "interrupted", start: 3 },
    { id: "e", type: "hook", status: "failed", start: 4 },
  ]);
  spans.isQuiet = true;
  spans.listRows();
  assert.deepEqual([...spans.rows].map((n) => spans.ids[n]), ["a", "d", "e"]);
  assert.equal(spans.canFold(at(spans, "a")), false);
  assert.equal(spans.reveal(at(spans, "b")), true);
  spans.listRows();
  assert.deepEqual([...spans.rows].map((n) => spans.ids[n]), ["a", "b", "c", "d", "e"]);
  assert.equal(spans.canFold(at(spans, "a")), true);
});
