// Texts of payloads: JSON as recorded, invisible characters, long texts, errors, images; and the details that are kept.

import assert from "node:assert/strict";
import test from "node:test";

import { blobHashes } from "../../../agentspan/viewer/static/blobs.js";
import { DetailCache } from "../../../agentspan/viewer/static/cache.js";
import { errorIn, textsOfError } from "../../../agentspan/viewer/static/detail.js";
import { nestedJson, preview } from "../../../agentspan/viewer/static/json.js";
import { ExactNumber, member, Members, parse, write } from "../../../agentspan/viewer/static/jsontext.js";
import { split } from "../../../agentspan/viewer/static/longtext.js";
import { lookOf, textsOf } from "../../../agentspan/viewer/static/messages.js";
import { boundary, cut, visible } from "../../../agentspan/viewer/static/visible.js";

// JSON

test("JSON is written as it was read: order, members of the same name, numbers, escapes", () => {
  const texts = [
    '{"10":1,"2":2,"b":{"1":0},"a":[]}',
    '{"to":"a","to":"b"}',
    '{"__proto__":1,"toJSON":2,"":{}}',
    "[1e400,-0,-0.0,1.50,12345678901234567890,1E+2,0.1,7,-7]",
    String.raw`["a\"b\\","\\","\u0000","é","\ud83d"]`,
    "[true,false,null]",
    '"text"',
    "[".repeat(500) + "]".repeat(500),
  ];
  for (const text of texts) {
    assert.equal(write(parse(text)), text);
    const spread = text.replaceAll(",", " ,\n").replaceAll("[", "[\t").replaceAll("}", " }\r\n");
    assert.equal(write(parse(` ${spread} `)), text);
  }
});

test("JSON is indented, and nothing stands in what is empty", () => {
  assert.equal(write(parse('{"a":[1,{}],"b":[]}'), "  "), '{\n  "a": [\n    1,\n    {}\n  ],\n  "b": []\n}');
});

test("what is no JSON is not read as JSON", () => {
  const objects = ["{", '{"a"}', "{1:2}"];
  const lists = ["[1,]", "[01]", "[1 2]", "[1]]", "[".repeat(200_000)];
  const others = ["", "nul", '"a', '"a\n"', "NaN", "+1", "1.", '"\\x"', "constructor"];
  for (const text of [...objects, ...lists, ...others]) assert.equal(parse(text), undefined);
});

test("a number is a number only where nothing of it is lost", () => {
  assert.equal(parse("1.5"), 1.5);
  assert(parse("9007199254740993") instanceof ExactNumber);
  assert(parse("1.50") instanceof ExactNumber);
});

test("of members with one name the last counts, and no name leads out of the object", () => {
  const value = parse('{"a":1,"a":2,"__proto__":3}');
  assert.equal(member(value, "a"), 2);
  assert.equal(member(value, "__proto__"), 3);
  assert.equal(member(value, "constructor"), undefined);
  assert.equal(member("text", "length"), undefined);
});

test("an object or list in a text is found, and nothing else", () => {
  assert(nestedJson(' {"a":[1]}') instanceof Members);
  assert.deepEqual(nestedJson("[1]"), [1]);
  const long = `[${"1,".repeat(600_000)}1]`;
  for (const value of ["7", '"a"', "{a}", "", 7, null, long]) assert.equal(nestedJson(value), undefined);
});

test("a preview has the first members in one line", () => {
  const value = parse('{"a":{"b":1},"c":[1],"d":"text","e":1.50,"f":null}');
  assert.equal(preview(value), "a: {…}, c: […], d: text, e: 1.50, f: null");
  assert.equal(preview(parse("[1,[2],{}]")), "1, […], {…}");
  assert.equal(preview(["x".repeat(90), "y".repeat(90)]), `${"x".repeat(39)}…, ${"y".repeat(39)}…`);
  assert(preview(Array.from({ length: 1e5 }, (_, n) => n)).length <= 110);
});

// Characters

test("a character that cannot be seen is spelled out", () => {
  assert.equal(visible("a\u202eb\u0000c\u001b[31md\u200fe\u2066f"), "a\\u202eb\\u0000c\\u001b[31md\\u200fe\\u2066f");
  assert.equal(visible("\u{e0041}\ufeff\u00ad"), "\\u{e0041}\\ufeff\\u00ad");
  assert.equal(visible("a\ud83d"), "a\\ud83d");
  assert.equal(visible("a\r\nb\tc\n\u200b"), "a\nb\tc\n\\u200b");
  assert.equal(visible(null), "null");
});

test("where it has a visible effect, it stays", () => {
  const flag = "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}";
  const seen = ["👩\u200d👩\u200d👧", "❤\ufe0f", "1\ufe0f\u20e3", "می\u200cخواهم", flag];
  for (const text of seen) assert.equal(visible(text), text);
  assert.equal(visible("a\u200db"), "a\\u200db");
});

test("a cut halves no character that a reader sees as one", () => {
  assert.equal(cut("0123456789", 10), "0123456789");
  assert.equal(cut("0123456789abc", 10), "012345678…");
  assert.equal(cut("01234567👋abc", 10), "01234567…");
  assert.equal(cut("01234567e\u0301\u0301abc", 10), "01234567…");
  assert.equal(cut("012345👩\u200d👩\u200d👧", 10), "012345…");
  assert.equal(cut(`a${"\u0301".repeat(200)}`, 10), `a${"\u0301".repeat(8)}…`);
  assert.equal(boundary("ab👋", 3), 2);
});

// Long texts

test("a long text is split where lines end, and nothing of it is lost", () => {
  const text = Array.from({ length: 8000 }, (_, n) => `${n}: why are invoices late? 😀\n`).join("");
  const blocks = split(text);
  assert.equal(blocks.join(""), text);
  assert(blocks.length > 10);
  assert(blocks.every((block) => block.endsWith("\n") && block.length <= 2 * 8192));
});

test("a line that is too long for a block ends the block before it", () => {
  const start = "a line\n".repeat(1000);
  assert.deepEqual(split(start + "x".repeat(20_000)).slice(0, 2), [start, "x".repeat(8192)]);
});

test("a long line is split at blanks, else between two characters", () => {
  assert(split("word ".repeat(10_000)).slice(0, -1).every((block) => block.endsWith(" ")));
  const line = "0123456é😀".repeat(12_000);
  const blocks = split(line);
  assert.equal(blocks.join(""), line);
  assert(blocks.every((block) => !/^[\udc00-\udfff]/.test(block)));
  assert.deepEqual(split(""), []);
  assert.deepEqual(split("short"), ["short"]);
});

// Errors

test("only what tells of an error is one, unless the step failed", () => {
  for (const nothing of ["null", "false", '""', "0", "{}", "[]"]) {
    assert.equal(errorIn(`{"error":${nothing}}`, false), null);
  }
  assert.equal(errorIn('{"error":"no"}', false), "no");
  assert.equal(errorIn('{"error":false}', true), false);
  assert.equal(errorIn('{"output":1}', true), null);
  assert.equal(errorIn('"error"', false), null);
  assert.equal(errorIn(null, true), null);
  assert.equal(textsOfError(errorIn('{"error_type":"Late","message":"no"}', false)).name, "Late");
});

test("the texts of an error are found in each of its forms", () => {
  const error = parse('{"type":"Late","message":"no answer","stacktrace":"Traceback"}');
  assert.deepEqual(textsOfError(error), { name: "Late", message: "no answer", stacktrace: "Traceback" });
  assert.deepEqual(textsOfError("no"), { name: "Error", message: "no", stacktrace: "" });
  assert.deepEqual(textsOfError(false), { name: "Error", message: "false", stacktrace: "" });
  assert.deepEqual(textsOfError(parse('{"type":7,"errorType":"E"}')), { name: "E", message: null, stacktrace: "" });
  assert.equal(textsOfError(parse('{"message":{"2":1,"1":2}}')).message, '{"2":1,"1":2}');
  assert.equal(textsOfError(parse('{"stacktrace":["a"]}')).stacktrace, "");
});

// Messages and images

test("a role of another name never becomes the name of a class", () => {
  assert.deepEqual(["system", "user", "assistant", "tool"].map(lookOf), ["system", "user", "assistant", "tool"]);
  for (const role of ["", "critic unseen", "constructor", "__proto__"]) assert.equal(lookOf(role), "other");
});

test("images are found in each text of a message, each once", () => {
  const hashes = ["a", "b", "c", "d"].map((digit) => digit.repeat(64));
  const [first, second, third, fourth] = hashes.map((hash) => `[image/png, 3.0 MB, ${hash}]`);
  const part = (/** @type {string} */ text) => ({ name: "p", text, length: text.length });
  const call = { id: null, name: "f", arguments: `{"a":"${third}"}`, others: [part(fourth)] };
  const texts = textsOf({ text: `see ${first} and ${first}`, others: [part(second)], calls: [call] });
  assert.deepEqual([...blobHashes([...texts, null])], hashes);
});

test("what only looks like an image is none", () => {
  const hash = "a".repeat(64);
  const alike = ["[IMAGE, 3 B, #]", "[image/png, 3 B, a#]", "[image/png, #]", '[image/"png, 3 B, #]'];
  for (const text of alike) assert.equal(blobHashes([text.replace("#", hash)]).size, 0, text);
});

// What is kept

/**
 * @param {number} characters
 * @returns {SpanDetail}
 */
function detail(characters) {
  const times = { started_at: null, finished_at: null, inserted_at: "" };
  const rest = { closed: null, program: null, result_payload: null, messages: [], facts: {}, scores: [], violations: [] };
  return { id: "", schema_name: "", summary: null, ...times, ...rest, payload: "x".repeat(characters) };
}

test("a detail is kept for the status in which it was read", () => {
  const cache = new DetailCache();
  const kept = detail(1);
  cache.put("a", "active", kept);
  assert.equal(cache.get("a", "active"), kept);
  assert.equal(cache.get("a", "complete"), undefined);
  assert.equal(cache.get("b", "active"), undefined);
});

test("details are kept up to a number of bytes; the one used longest ago goes first", () => {
  const cache = new DetailCache();
  const large = detail(9_000_000);
  for (const id of ["a", "b", "c"]) cache.put(id, "complete", large);
  cache.get("a", "complete");
  cache.put("d", "complete", large);
  assert.deepEqual(["a", "b", "c", "d"].filter((id) => cache.get(id, "complete")), ["a", "c", "d"]);
  cache.put("a", "complete", detail(1)); // in the place of the large one
  cache.put("e", "complete", large);
  assert.deepEqual(["a", "c", "d", "e"].filter((id) => cache.get(id, "complete")), ["a", "c", "d", "e"]);
  cache.put("f", "complete", { ...detail(17_000_000), result_payload: "x".repeat(17_000_000) }); // more than the limit
  assert.equal(cache.get("f", "complete"), undefined);
});
