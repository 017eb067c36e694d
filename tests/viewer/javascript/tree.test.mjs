// Rows of the tree as text and bars, the way from match to match, and the times that the axis shows.

import assert from "node:assert/strict";
import test from "node:test";

import { TimeRange } from "../../../agentspan/viewer/static/axis.js";
import { tick } from "../../../agentspan/viewer/static/format.js";
import { middle, zoomTo } from "../../../agentspan/viewer/static/keys.js";
import { barOf, durationOf, labelOf, nextOf, noteOf } from "../../../agentspan/viewer/static/tree.js";
import { titleOf, withoutError } from "../../../agentspan/viewer/static/tree.js";
import { alike, at, spansOf } from "./recorded.mjs";

// Rows

test("a failed row has its error beside it, not in its title", () => {
  const spans = spansOf([{ id: "a", status: "failed", summary: "Tool a → E: no", error: "E: no", took: 1500 }]);
  assert.equal(titleOf(spans, 0), "Tool a");
  assert.equal(noteOf(spans, 0), "E: no");
  assert.equal(labelOf(spans, 0, 0), "Tool a, E: no, 1.5 s, failed");
});

test("only the error is removed from a summary, cut or whole", () => {
  assert.equal(withoutError("Tool a → E: no", null), "Tool a → E: no");
  assert.equal(withoutError("Tool a → E: a reason that is rather lo…", "E: a reason that is rather long"), "Tool a");
  assert.equal(withoutError("Tool a → E: a reason that is rather…", "E: a reason that is rather l…"), "Tool a");
  assert.equal(withoutError("Tool a → E: no, again", "E: no"), "Tool a → E: no, again");
  assert.equal(withoutError("E: no", "E: no"), "E: no");
});

test("a folded row says how many spans are in it", () => {
  const spans = spansOf([{ id: "a" }, ...Array.from({ length: 1200 }, (_, n) => ({ id: `${n}`, parent: "a" }))]);
  assert.equal(noteOf(spans, 0), "");
  spans.fold(0, true);
  assert.equal(noteOf(spans, 0), "+1,200");
});

test("failures that are alike have their number and the sum of their times, one by one their own", () => {
  const spans = spansOf(alike(5));
  assert.equal(titleOf(spans, 0), "5 × Tool fetch failed");
  assert.equal(labelOf(spans, 0, 0), "5 × Tool fetch failed, E: late, 10 ms, failed");
  spans.fold(0, false);
  assert.equal(labelOf(spans, 0, 0), "Tool fetch(at=0), E: late, 2.0 ms, failed");
});

test("failures that differ only in values have their error without them, one by one their own", () => {
  const spans = spansOf(alike(4).map((row, n) => ({ ...row, error: `E: wait ${n} s`, failure: "E: wait <n> s" })));
  assert.equal(titleOf(spans, 0), "4 × Tool fetch failed");
  assert.equal(noteOf(spans, 0), "E: wait <n> s");
  spans.fold(0, false);
  assert.equal(noteOf(spans, 0), "E: wait 0 s");
});

test("a row says how long its span took, or why nobody knows", () => {
  const spans = spansOf([
    { id: "done", took: 2100 },
    { id: "open", status: "active", start: 1000 },
    { id: "early", status: "active", start: 9000 },
    { id: "left", status: "active", left_open: true },
    { id: "abandoned", status: "failed", abandoned: true, took: 30 },
    { id: "pending", status: "pending" },
    { id: "cancelled", status: "cancelled", took: 0 },
  ]);
  const told = spans.ids.map((_, each) => durationOf(spans, each, 4000));
  assert.deepEqual(told, ["2.1 s", "3.0 s", "0 ms", "left open", "≥ 30 ms", "pending", "cancelled"]);
  assert.equal(labelOf(spans, at(spans, "left"), 0), "left, left open");
  assert.equal(labelOf(spans, at(spans, "pending"), 0), "pending");
});

test("the row of a step that contains others says the time of its own", () => {
  const spans = spansOf([{ id: "a", took: 2100 }, { id: "b", parent: "a", took: 100 }]);
  spans.setOwn({ own_ms: { a: 2000 } });
  assert.equal(labelOf(spans, 0, 0), "a, 2.1 s, 2.0 s of its own, complete");
});

// Bars

/**
 * @param {number} start
 * @param {number} end
 */
function range(start, end) {
  const made = new TimeRange(() => {});
  made.setExtent(start, end);
  return made;
}

test("a bar is where its span is in the part that is shown, cut at its edges", () => {
  const spans = spansOf([
    { id: "inside", start: 40, took: 20 },
    { id: "around", start: 0, took: 100 },
    { id: "before", start: 0, took: 10 },
    { id: "after", start: 90, took: 10 },
    { id: "open", start: 50, status: "active" },
    { id: "pending", start: 50, status: "pending" },
  ]);
  const shown = range(0, 100);
  shown.show(20, 70);
  const bars = spans.ids.map((_, each) => near(barOf(spans, each, shown, 60)));
  const [inside, around, open] = [{ left: 0.4, width: 0.4 }, { left: 0, width: 1 }, { left: 0.6, width: 0.2 }];
  assert.deepEqual(bars, [inside, around, null, null, open, null]);
});

test("the bar of failures that are alike lasts until the last of them ends", () => {
  assert.deepEqual(near(barOf(spansOf(alike(5)), 0, range(0, 100), 0)), { left: 0.1, width: 0.1 });
});

/** @param {{ left: number, width: number } | null} bar without errors of rounding */
function near(bar) {
  return bar && { left: Number(bar.left.toFixed(9)), width: Number(bar.width.toFixed(9)) };
}

// From match to match

test("after the last match comes the first, and the other way round", () => {
  const order = Int32Array.of(3, 1, 0, 2);
  /** @param {number} each */
  const isMatch = (each) => each !== 1;
  const forwards = [-1, 3, 0, 2].map((selected) => nextOf(order, selected, isMatch, 1));
  const backwards = [-1, 3, 0, 2].map((selected) => nextOf(order, selected, isMatch, -1));
  assert.deepEqual(forwards, [3, 0, 2, 3]);
  assert.deepEqual(backwards, [2, 2, 3, 0]);
  assert.equal(nextOf(order, 1, isMatch, 1), 0); // from what is no match
  assert.equal(nextOf(order, 0, () => false, 1), -1);
  assert.equal(nextOf(order, 0, (each) => each === 0, 1), 0); // the only one
  assert.equal(nextOf(new Int32Array(0), -1, () => true, 1), -1);
});

// Times

test("the part that is shown stays within the run and is never empty", () => {
  const shown = range(0, 1000);
  shown.show(-50, 100);
  assert.deepEqual([shown.from, shown.to, shown.zoomed], [0, 150, true]);
  shown.show(950, 1100);
  assert.deepEqual([shown.from, shown.to], [850, 1000]);
  shown.show(500, 500);
  assert.equal(shown.to - shown.from > 0, true);
  shown.showAll();
  assert.deepEqual([shown.from, shown.to, shown.zoomed], [0, 1000, false]);
});

test("zooming keeps the time around which it zooms at its place", () => {
  const shown = range(0, 1000);
  shown.zoom(0.5, 200);
  assert.deepEqual([shown.from, shown.to], [100, 600]);
  assert.equal(shown.place(200), 0.2);
  shown.zoom(0.5);
  assert.deepEqual([shown.from, shown.to], [225, 475]);
});

test("panning moves the part without changing its length", () => {
  const shown = range(0, 1000);
  shown.show(100, 300);
  shown.pan(50);
  assert.deepEqual([shown.from, shown.to], [150, 350]);
  shown.pan(5000);
  assert.deepEqual([shown.from, shown.to], [800, 1000]);
});

test("a run that grows is shown whole, a zoomed part stays", () => {
  const shown = range(0, 1000);
  shown.setExtent(0, 2000);
  assert.deepEqual([shown.from, shown.to], [0, 2000]);
  shown.show(500, 600);
  shown.setExtent(0, 3000);
  assert.deepEqual([shown.from, shown.to], [500, 600]);
  shown.setExtent(5, 5); // a run without a length
  assert.equal(shown.end > shown.start, true);
});

test("every change is told", () => {
  let told = 0;
  const shown = new TimeRange(() => told++);
  shown.setExtent(0, 100);
  shown.zoom(0.5);
  shown.pan(1);
  shown.show(1, 2);
  shown.showAll();
  assert.equal(told, 4);
});

test("the ruler has round times, and none where the last one has no room", () => {
  /** @type {(start: number, end: number, width: number) => string[]} */
  const texts = (start, end, width) => range(start, end).ticks(width).map(({ text }) => text);
  assert.deepEqual(texts(0, 41_200, 400), ["0", "10 s", "20 s", "30 s", ""]);
  assert.deepEqual(texts(0, 1, 240), ["0", "500 µs", ""]);
  assert.deepEqual(texts(0, 110_000, 400), ["0", "30 s", "1:00", "1:30"]);
  assert.deepEqual(texts(0, 7_200_000, 320), ["0", "30:00", "1:00:00", "1:30:00", ""]);
  const ticks = range(0, 100).ticks(1000);
  assert.deepEqual(ticks.map(({ place }) => place), [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]);
  assert.deepEqual(ticks.map(({ isLast }) => isLast).lastIndexOf(false), 9);
  for (const end of [0.003, 0.7, 13, 999, 29_999, 61_000, 4e6, 9e7, 1e10]) {
    const count = range(0, end).ticks(800).length;
    assert(count >= 2 && count <= 40, `${count} for ${end} ms`);
  }
});

test("a time on the ruler is as exact as the distance of its marks", () => {
  const told = [
    [0, 1],
    [0.25, 0.05],
    [2.5, 0.5],
    [250, 50],
    [1250, 50],
    [2000, 1000],
    [90_000, 30_000],
    [3_723_000, 60_000],
    [-2000, 1000],
  ].map(([ms, step]) => tick(ms, step));
  assert.deepEqual(told, ["0", "250 µs", "2500 µs", "250 ms", "1.25 s", "2 s", "1:30", "1:02:03", "-2 s"]);
});

test("keys zoom around the selected span, or to it with some room", () => {
  const spans = spansOf([{ id: "a", start: 400, took: 100 }]);
  const axis = range(0, 1000);
  /** @param {number} selected */
  const page = (selected) => /** @type {any} */ ({ spans, axis, tree: { selected, now: 0 } });
  assert.equal(middle(page(-1)), undefined);
  assert.equal(middle(page(0)), 450);
  zoomTo(page(-1));
  assert.equal(axis.zoomed, false);
  zoomTo(page(0));
  assert.deepEqual([axis.from, axis.to], [392, 508]);
  axis.show(0, 300);
  assert.equal(middle(page(0)), 300); // within what is shown
});
