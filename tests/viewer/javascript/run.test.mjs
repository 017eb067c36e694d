// The page of a run: tracebacks, own times and numbers of steps, what is searched for by number, judgements, the list behind it.

import assert from "node:assert/strict";
import test from "node:test";

import { judgementOf } from "../../../agentspan/viewer/static/scores.js";
import { numberIn } from "../../../agentspan/viewer/static/search.js";
import { labelOfFrames, libraryOf, piecesOf } from "../../../agentspan/viewer/static/traceback.js";
import { neighbour } from "../../../agentspan/viewer/static/trail.js";
import { at, idsOf, spansOf } from "./recorded.mjs";

// Tracebacks

const PYTHON = `Traceback (most recent call last):
  File "/home/ann/agent/main.py", line 7, in run
    answer = ask(question)
             ^^^^^^^^^^^^^
  File "/home/ann/.venv/lib/python3.11/site-packages/httpx/_client.py", line 914, in send
    response = self._send_handling_auth(
  File "/home/ann/.venv/lib/python3.11/site-packages/httpcore/_sync/http.py", line 3, in handle
  File "/usr/lib/python3.11/socket.py", line 706, in readinto
    return self._sock.recv_into(b)

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/home/ann/agent/tools.py", line 3, in fetch
    raise Late() from error
agent.Late: no answer
  of the server`;

test("the frames of a traceback are those of the program, or of a library", () => {
  const pieces = piecesOf(PYTHON);
  assert.deepEqual(
    pieces.map(({ isFrame, library }) => (isFrame ? (library ?? "own") : "")),
    ["", "own", "httpx", "httpcore", "socket", "", "own", ""],
  );
  assert.equal(pieces.map(({ text }) => text).join("\n"), PYTHON);
  assert.equal(pieces.at(-1)?.text, "agent.Late: no answer\n  of the server");
  assert.equal(pieces[1].text.split("\n").length, 3);
});

test("a traceback of Node.js has frames, too", () => {
  const pieces = piecesOf(`TypeError: x is not a function
    at run (file:///app/src/agent.js:10:5)
    at /app/node_modules/@scope/kit/dist/index.js:3:1
    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)`);
  assert.deepEqual(pieces.map(({ library }) => library), [null, null, "@scope/kit", "Node.js"]);
});

test("a library is known by its path", () => {
  const paths = ["C:\\Python311\\Lib\\asyncio\\base_events.py", "<frozen importlib._bootstrap>", "/x/dist-packages/six.py", "<string>", "a.py"];
  assert.deepEqual(paths.map(libraryOf), ["asyncio", "importlib._bootstrap", "six", null, null]);
});

test("folded frames are counted, and their libraries named", () => {
  const frames = ["httpx", "httpx", "anyio"].map((library) => ({ text: "", isFrame: true, library }));
  assert.equal(labelOfFrames(frames), "3 frames of httpx, anyio");
  assert.equal(labelOfFrames([..."abcde"].map((library) => ({ text: "", isFrame: true, library }))), "5 frames of a, b, 3 others");
});

// Steps

test("steps are ordered by the time in which no step inside ran", () => {
  const spans = spansOf([
    { id: "root", took: 100 },
    { id: "a", parent: "root", took: 30, start: 1 },
    { id: "b", parent: "root", took: 60, start: 31 },
    { id: "open", parent: "root", status: "active", start: 95 },
  ]);
  assert.equal(spans.ownOf(at(spans, "root")), null); // not known before the server has said it
  spans.setOwn({ own_ms: { root: 10, unknown: 5 } });
  assert.deepEqual(idsOf(spans, spans.slowest()), ["b", "a", "root"]);
  assert.equal(spans.ownOf(at(spans, "b")), 60);
  assert.equal(spans.ownOf(at(spans, "open")), null);
});

test("the newest step is the one that began last", () => {
  const spans = spansOf([{ id: "a", start: 5 }, { id: "b", parent: "a", start: 7 }, { id: "c", start: 6 }, { id: "later", status: "pending", start: 9 }]);
  assert.equal(spans.ids[spans.newest()], "b");
  assert.equal(spansOf([]).newest(), -1);
});

test("a step is found by its number", () => {
  const spans = spansOf([{ id: "a", start: 5 }, { id: "b", parent: "a", start: 7 }, { id: "c", start: 1 }]);
  assert.deepEqual(idsOf(spans, [1, 2, 3].map((number) => spans.withNumber(number))), ["c", "a", "b"]);
  assert.equal(spans.withNumber(4), -1);
  assert.equal(spans.withNumber(spans.numberOf(at(spans, "b"))), at(spans, "b"));
  assert.deepEqual(["#12", "#1,234", "12", "#", "# 12", "#12a"].map(numberIn), [12, 1234, 0, 0, 0, 0]);
});

// Judgements

test("a judgement has a mark, or a name and a value, or a note", () => {
  const nothing = { mark: "", name: "", value: "", note: "" };
  assert.deepEqual(judgementOf({ ...nothing, mark: "bad", note: "loops" }), { mark: "bad", note: "loops" });
  assert.deepEqual(judgementOf({ ...nothing, name: "reward", value: "0.5" }), { name: "reward", value: "0.5" });
  assert.deepEqual(judgementOf({ ...nothing, note: "read it" }), { note: "read it" });
  for (const wrong of [nothing, { ...nothing, value: "1" }, { ...nothing, name: "reward" }, { ...nothing, name: "a", value: "1", mark: "good" }]) {
    assert.equal(typeof judgementOf(wrong), "string");
  }
});

// The list

test("a run has neighbours in the list from which it was opened", () => {
  assert.equal(neighbour(["a", "b", "c"], "b", 1), "c");
  assert.equal(neighbour(["a", "b", "c"], "a", -1), undefined);
  assert.equal(neighbour(["a", "b", "c"], "c", 1), undefined);
  assert.equal(neighbour(["a", "b", "c"], "x", 1), undefined);
});
