// Where a run's data comes from: what the server is asked, what its answers mean, and the blocks of an exported file.

import assert from "node:assert/strict";
import test from "node:test";

import { FileSource, NoAnswer, poll, post, ServerSource } from "../../../agentspan/viewer/static/source.js";

const RUN = /** @type {Run} */ ({ id: "r1" });
const scope = /** @type {any} */ (globalThis);

/**
 * Answer requests; return them. Events of the page are kept as their names.
 * @param {() => Response} answer
 */
function serve(answer = () => Response.json({})) {
  /** @type {{ url: string, options: RequestInit }[]} */
  const asked = [];
  /** @type {string[]} */
  const events = [];
  scope.fetch = async (/** @type {string} */ url, /** @type {RequestInit} */ options) => {
    asked.push({ url, options });
    return answer();
  };
  scope.dispatchEvent = (/** @type {Event} */ event) => events.push(event.type);
  return { asked, events };
}

test("a run's data has addresses below its page", async () => {
  const { asked } = serve();
  const source = new ServerSource(RUN);
  await source.spans({ cursor: "c 1", after: "" });
  await source.detail("s1");
  await source.conversation({ offset: 60 });
  await source.conversation({ span: "s1" });
  await source.facts();
  await source.stats();
  const urls = ["spans?cursor=c+1&after=", "spans/s1", "conversation?offset=60", "conversation?span=s1", "facts", "stats"];
  assert.deepEqual(asked.map(({ url }) => url), urls.map((url) => `r1/${url}`));
  assert.equal(source.blob("s1", "abc"), "r1/spans/s1/blobs/abc");
});

test("the last word of a search may be a beginning, unless it has ended", async () => {
  const { asked } = serve();
  const source = new ServerSource(RUN);
  for (const text of ["no answ", "no answer ", '"no answer"', "answ*", "a&b"]) await source.search(text);
  const queries = asked.map(({ url }) => new URLSearchParams(url.split("?")[1]).get("q"));
  assert.deepEqual(queries, ["no answ*", "no answer ", '"no answer"', "answ*", "a&b*"]);
});

test("a termination is sent as JSON, with its reason", async () => {
  const { asked } = serve();
  await new ServerSource(RUN).terminate("it loops <b>");
  const [{ url, options }] = asked;
  assert.deepEqual([url, options.method, options.body], ["r1/terminate", "POST", '{"reason":"it loops <b>"}']);
  assert.equal(new Headers(options.headers).get("Content-Type"), "application/json");
});

test("a refusal has the server's message, one of a proxy its status", async () => {
  serve(() => Response.json({ message: "Not now." }, { status: 409 }));
  await assert.rejects(post("x", {}), /^Error: Not now\.$/);
  serve(() => new Response("<h1>Bad gateway</h1>", { status: 502 }));
  await assert.rejects(post("x", {}), /^Error: The server answered with status 502\.$/);
});

test("a session that has ended loads the page again, which shows the login", async () => {
  serve(() => new Response("{}", { status: 401 }));
  let reloads = 0;
  scope.location = { reload: () => reloads++ };
  await assert.rejects(poll("x"), /session has ended/);
  assert.equal(reloads, 1);
});

test("the first answer after none is an event, and no other one is", async () => {
  const { events } = serve(() => {
    throw new TypeError("network");
  });
  for (let n = 0; n < 2; n++) await poll("x").catch((error) => assert(error instanceof NoAnswer));
  assert.deepEqual(events, []);
  const later = serve(() => Response.json({}, { status: 404 })).events; // a refusal is an answer too
  for (let n = 0; n < 2; n++) await poll("x").catch(() => {});
  assert.deepEqual(later, ["serverback"]);
});

// A file

/** @param {Record<string, unknown>} blocks of JSON, by their ids */
function page(blocks) {
  const texts = new Map(Object.entries(blocks).map(([id, value]) => [id, { textContent: JSON.stringify(value) }]));
  scope.document = { getElementById: (/** @type {string} */ id) => texts.get(id) ?? null };
}

test("a file's blocks are those of its run", async () => {
  const details = [
    { id: "s1", summary: "Tool a", payload: '{"q":"Late invoices"}', result_payload: null },
    { id: "s2", summary: null, payload: "{}", result_payload: '{"output":"no answer"}' },
  ];
  const turns = [{ text: "one" }, { text: "two" }, { text: "three" }];
  page({ "spans-r1": { next: null }, "details-r1": details, "conversation-r1": { turns, sections: {} }, "blobs-r1": { abc: "data:x" } });
  const source = new FileSource(RUN);
  assert.deepEqual(await source.spans(), { next: null });
  assert.deepEqual(await source.detail("s2"), details[1]);
  await assert.rejects(source.detail("s3"), /no such span/);
  assert.deepEqual(await source.conversation({ offset: 1 }), { total: 3, turns: turns.slice(1), sections: {}, offset: 1, place: null });
  assert.deepEqual([source.blob("s1", "abc"), source.blob("s1", "def")], ["data:x", null]);
  assert.deepEqual(await source.search("late INV"), { ids: ["s1"], total: 1 });
  assert.deepEqual(await source.search("answer"), { ids: ["s2"], total: 1 });
  assert.deepEqual(await source.search("tool a"), { ids: ["s1"], total: 1 });
  await assert.rejects(source.terminate(), /cannot be terminated/);
});
