// Headings of the conversation, figures of the statistics, matches of a search, what a print lacks, and the address.

import assert from "node:assert/strict";
import test from "node:test";

import { entriesOf, figuresOf, pathOf, turnOf } from "../../../agentspan/viewer/static/sections.js";
import { moment, plural } from "../../../agentspan/viewer/static/format.js";
import { missing } from "../../../agentspan/viewer/static/print.js";
import { hashOf, placeOf, sinceOf } from "../../../agentspan/viewer/static/run.js";
import { matchesOf, placeAmong } from "../../../agentspan/viewer/static/search.js";
import { barsOf, bucketsOf, keyOf, rowsOf, slowestOf } from "../../../agentspan/viewer/static/stats.js";
import { idsOf, spansOf } from "./recorded.mjs";

// Conversation

/**
 * Return sections by id, each in the one that is named after it.
 * @param {Record<string, string | null>} parents
 * @returns {Record<string, Section>}
 */
const sectionsOf = (parents) =>
  Object.fromEntries(Object.entries(parents).map(([id, parent]) => [id, { id, parent, name: id, first: 0, turns: 1, tokens: null, cost_usd: null, duration_ms: 0 }]));

const SECTIONS = sectionsOf({ "": null, outer: "", left: "outer", right: "outer", deep: "left" });

/**
 * Return what is shown of turns in threads: numbers of turns, and names of sections.
 * @param {string[]} threads
 * @param {string[]} [folded]
 */
function shownOf(threads, folded = []) {
  const turns = /** @type {Turn[]} */ (threads.map((thread) => ({ thread })));
  const entries = entriesOf(turns, SECTIONS, (id) => folded.includes(id));
  return entries.map((entry) => (entry.turn >= 0 ? entry.turn : `${entry.section}${"isAgain" in entry && entry.isAgain ? " again" : ""}`));
}

test("a section has its line before its first turn, and where it goes on after one in it", () => {
  const threads = ["", "outer", "left", "deep", "left", "right", "outer", ""];
  assert.deepEqual(shownOf(threads), [0, "outer", 1, "left", 2, "deep", 3, "left again", 4, "right", 5, "outer again", 6, " again", 7]);
  assert.deepEqual(shownOf(["deep", "outer"]), ["outer", "left", "deep", 0, "outer", 1]);
});

test("a folded section hides its turns and the sections in it", () => {
  const threads = ["outer", "left", "deep", "left", "right", "outer"];
  assert.deepEqual(shownOf(threads, ["left"]), ["outer", 0, "left", "right", 4, "outer again", 5]);
  assert.deepEqual(shownOf(threads, ["outer"]), ["outer"]);
  assert.deepEqual(shownOf(threads, ["left", "right"]), ["outer", 0, "left", "right", "outer again", 5]);
});

test("a chapter has its line before its first turn, also in a folded section and on a later page", () => {
  const turns = /** @type {Turn[]} */ (["", "left", "left", ""].map((thread) => ({ thread })));
  const chapters = /** @type {Chapter[]} */ ([{ turn: 0 }, { turn: 0 }, { turn: 10 }, { turn: 12 }, { turn: 13 }, { turn: 30 }]);
  /** @param {number} first */
  const shown = (first) => entriesOf(turns, SECTIONS, (id) => id === "left", chapters, first).map((each) => ("chapter" in each ? `chapter ${each.chapter}` : each.turn));
  assert.deepEqual(shown(0), ["chapter 0", "chapter 1", 0, -1, -1, -1, 3]);
  assert.deepEqual(shown(10), ["chapter 2", 0, -1, -1, "chapter 3", "chapter 4", 3]);
});

test("the way to a section ends also where rows were made by hand", () => {
  assert.deepEqual(pathOf(SECTIONS, "deep"), ["", "outer", "left", "deep"]);
  assert.deepEqual(pathOf(sectionsOf({ a: "b", b: "a" }), "a"), ["b", "a"]);
  assert.deepEqual(pathOf({}, "unknown"), ["unknown"]);
});

test("a step is shown by its answer, its last turn, what it asked for, or its agent's first turn", () => {
  const turns = /** @type {Turn[]} */ ([
    { span: "llm", side: "in", thread: "agent" },
    { span: "llm", side: "out", thread: "agent" },
    { span: "llm", side: "in", thread: "agent" },
    { span: "quiet", side: "in", thread: "agent" },
    { span: "quiet", side: "in", thread: "agent" },
    { span: "tool", side: "", asked_by: "other", thread: "agent" },
  ]);
  assert.deepEqual(["llm", "quiet", "tool", "other", "agent", "chain"].map((id) => turnOf(turns, id)), [1, 4, 5, 5, 0, -1]);
});

test("the line of a section has only the figures that are known", () => {
  const { left } = SECTIONS;
  assert.deepEqual(figuresOf(left), ["1 turn"]);
  assert.deepEqual(figuresOf({ ...left, turns: 12, tokens: 8100, cost_usd: 0.25, duration_ms: 4200 }), ["12 turns", "8.1k tok", "$0.2500", "4.2 s"]);
});

// Statistics

/**
 * @param {string} schema_name
 * @param {string | null} [label]
 * @param {Partial<Stat>} [rest]
 * @returns {Stat}
 */
function stat(schema_name, label = null, rest = {}) {
  const counts = { count: 1, failed: 0, cancelled: 0, open: 0, total_ms: 1, is_aggregate: false, histogram: [] };
  const unknown = { p50_ms: null, p95_ms: null, p99_ms: null, max_ms: null, input_tokens: null, output_tokens: null };
  return { kind: "tool", left: "", schema_name, label, ...counts, ...unknown, cost_usd: null, ...rest };
}

/**
 * Return the rows that are shown of statistics.
 * @param {Stat[]} stats
 * @param {StatRest[]} rests
 * @param {...string} asked
 */
function rowsShown(stats, rests, ...asked) {
  const rows = rowsOf({ stats, rests, bounds_ms: [], prompts: [] }, new Set(asked));
  return rows.map((row) => ("of" in row ? `${row.number} ${row.left} of ${row.of}${row.unsent ? `, ${row.unsent} unsent` : ""}` : (row.label ?? row.schema_name)));
}

test("what is shown only on request has a row with its number", () => {
  const rare = ["a", "b"].map((label) => stat("tool", label, { left: "once" }));
  const stats = [stat("llm"), stat("llm", "m"), stat("tool"), stat("tool", "big"), ...rare, stat("chain", null, { left: "more" }), stat("chain", "c", { left: "more" })];
  const rests = [{ schema_name: "tool", number: 312, is_once: true }, { schema_name: null, number: 1, is_once: false }];
  const types = ["llm", "m", "tool", "big"];
  assert.deepEqual(rowsShown(stats, rests), [...types, "312 once of tool", "1 more of null"]);
  assert.deepEqual(rowsShown(stats, rests, "once\0tool"), [...types, "a", "b", "312 once of tool, 310 unsent", "1 more of null"]);
  assert.deepEqual(rowsShown(stats, rests, "more\0"), [...types, "312 once of tool", "chain", "1 more of chain"]);
  assert.deepEqual(rowsShown(stats, rests, "more\0", "more\0chain"), [...types, "312 once of tool", "chain", "c"]);
});

test("histograms show the buckets that are used, and at least a handful", () => {
  /** @param {number[]} used */
  const buckets = (...used) => {
    const histogram = Array.from({ length: 21 }, (_, n) => Number(used.includes(n)));
    return bucketsOf([stat("a", null, { histogram })], 20);
  };
  assert.deepEqual(buckets(5, 18), [4, 19]);
  assert.deepEqual(buckets(5), [4, 11]);
  assert.deepEqual(buckets(0), [0, 7]);
  assert.deepEqual(buckets(20), [19, 20]);
  assert.deepEqual(bucketsOf([], 20), [19, 20]);
});

test("bars are as high as their share of the highest, and small ones can be seen", () => {
  assert.equal(barsOf([0, 10, 5, 0, 1]), "M7 22v-20h6v20zM14 22v-10h6v10zM28 22v-2h6v2z");
  assert.equal(barsOf([1, 1000]), "M0 22v-2h6v2zM7 22v-20h6v20z");
  assert.equal(barsOf([0, 0]), "");
});

test("the slowest span of a type and of a label is one that has ended", () => {
  const spans = spansOf([
    { id: "a", label: "x", took: 5 },
    { id: "b", label: "x", took: 9 },
    { id: "c", label: "y", took: 7 },
    { id: "d", label: "y", status: "active" },
    { id: "e", type: "llm", status: "active" },
  ]);
  const slowest = slowestOf(spans);
  assert.deepEqual([...slowest.keys()], [keyOf("tool", null), keyOf("tool", "x"), keyOf("tool", "y")]);
  assert.deepEqual(idsOf(spans, slowest.values()), ["b", "b", "c"]);
});

// Search

test("a search finds what an outline shows, in upper or lower case", () => {
  const spans = spansOf([
    { id: "a", summary: "Tool Fetch" },
    { id: "b", label: "fetcher" },
    { id: "c", type: "fetching" },
    { id: "d", error: "E: not FETCHED" },
    { id: "fetch-id" },
    { id: "f", summary: "other" },
  ]);
  assert.deepEqual(idsOf(spans, matchesOf(spans, "fEtch")), ["a", "b", "c", "d", "fetch-id"]);
  assert.equal(matchesOf(spans, "none.*").size, 0);
});

test("a selected match has its number in the order of the tree", () => {
  const order = Int32Array.of(4, 2, 0, 1);
  const matches = new Set([0, 4, 1]);
  assert.deepEqual([4, 0, 1, 2, -1].map((selected) => placeAmong(matches, selected, order)), [1, 2, 3, 0, 0]);
});

// Print

test("a print says what it lacks", () => {
  const spans = spansOf([{ id: "a" }, ...Array.from({ length: 1100 }, (_, n) => ({ id: `${n}`, parent: "a" }))]);
  /** @type {(view: View, total?: number) => string} */
  const lacks = (view, total = 1101) => {
    const run = { id: "r1", spans: { total } };
    return missing(/** @type {any} */ ({ view, run, spans, conversation: { shown: 2, total: 3 } }));
  };
  const command = "`agentspan show r1` prints all.";
  assert.equal(lacks("stats"), "");
  assert.equal(lacks("conversation"), `Only 2 of 3 turns are printed here. ${command}`);
  assert.equal(lacks("tree"), `Only the first 1,000 of 1,101 rows are printed here. ${command}`);
  spans.fold(0, true);
  spans.listRows();
  assert.equal(lacks("tree"), `1,100 spans in folded rows are not printed. ${command}`);
  spans.fold(0, false);
  assert.match(lacks("tree", 2000), /Only 1,101 of 2,000 spans were loaded\./);
});

// Address

test("the address of a span and a view leads there again", () => {
  for (const view of /** @type {View[]} */ (["tree", "conversation", "stats"])) {
    for (const span of ["", "01abc", "a&view=stats#%\u00e9"]) {
      assert.deepEqual(placeOf(hashOf({ run: "r", span, view })), { span, view });
    }
  }
});

test("an address names only what is not shown anyway", () => {
  assert.equal(hashOf({ run: "", span: "", view: "tree" }), "");
  assert.equal(hashOf({ run: "", span: "s1", view: "tree" }), "#span=s1");
  assert.equal(hashOf({ run: "r1", span: "s1", view: "stats" }), "#run=r1&span=s1&view=stats");
});

test("an address with another view names none", () => {
  assert.deepEqual(placeOf("#span=s&view=constructor"), { span: "s", view: undefined });
  assert.deepEqual(placeOf(""), { span: "", view: "tree" });
});

test("changes are read from a little before the latest one, in the server's form", () => {
  assert.equal(sinceOf("2026-11-24T09:12:04.123456Z"), "2026-11-24T09:12:01.123000Z");
  assert.equal(sinceOf(null), "");
});

// Words

test("a time without its fraction, and a noun with its number", () => {
  assert.deepEqual([moment("2026-11-24T09:12:04.5Z"), moment(null)], ["2026-11-24 09:12:04", ""]);
  assert.deepEqual([plural(1, "turn"), plural(0, "turn"), plural(1234, "turn")], ["1 turn", "0 turns", "1,234 turns"]);
});
