// Markdown becomes few kinds of elements: no HTML, no address but http and https, no lost word, whatever the text holds.

import assert from "node:assert/strict";
import test from "node:test";

import { addressOf, blocksOf, inlinesOf, markdown } from "../../../agentspan/viewer/static/markdown.js";

// As much of a document as `el` needs.

class Node {
  /** @param {string} tag */
  constructor(tag) {
    this.tag = tag;
    /** @type {Record<string, string>} */
    this.attributes = {};
    /** @type {(Node | string)[]} */
    this.children = [];
    this.style = {};
    this.classList = { add: () => {} };
  }

  /** @type {(name: string, value: string) => void} */
  setAttribute(name, value) {
    this.attributes[name] = value;
  }

  addEventListener() {}

  /** @param {...(Node | string)} children */
  append(...children) {
    this.children.push(...children);
  }
}

const scope = /** @type {any} */ (globalThis);
scope.Node = Node;
scope.document = { createElement: (/** @type {string} */ tag) => new Node(tag), createTextNode: String };

const TAGS = new Set(["div", "p", "pre", "code", "ol", "ul", "li", "blockquote", "table", "thead", "tbody", "tr", "th", "td", "hr", "a", "span", "strong", "em", "del"]);
const ATTRIBUTES = new Set(["class", "href", "rel", "target", "value", "scope"]);

/**
 * Return the text of an element; what no Markdown may become is refused.
 * @param {Node | string} node
 * @returns {string}
 */
function read(node) {
  if (typeof node === "string") return node;
  assert(TAGS.has(node.tag), node.tag);
  for (const [name, value] of Object.entries(node.attributes)) {
    assert(ATTRIBUTES.has(name), name);
    if (name === "href") assert.match(value, /^https?:\/\//);
    if (name === "class") assert.match(value, /^(markdown|heading level-[1-6]|fence|language|wide|address)$/);
  }
  if (node.tag === "a") assert.deepEqual([node.attributes.rel, node.attributes.target], ["noreferrer", "_blank"]);
  if (node.tag === "a") assert(!node.children.some((child) => /<a>/.test(outline(child))));
  return `${node.attributes.value ?? ""}${node.children.map(read).join("")}`;
}

/**
 * @param {Node | string} node
 * @returns {string}
 */
const outline = (node) => (typeof node === "string" ? node : `<${node.tag}>${node.children.map(outline).join("")}</${node.tag}>`);

/** @param {string} text */
const rendered = (text) => /** @type {Node} */ (/** @type {unknown} */ (markdown(text, 1e9)));

/** @param {string} text */
const html = (text) => rendered(text).children.map(outline).join("");

test("the usual blocks and marks become elements", () => {
  const cases = {
    "# A *b*": "<p>A <em>b</em></p>",
    "a **b** _c_ ~~d~~ ***e***": "<p>a <strong>b</strong> <em>c</em> <del>d</del> <strong><em>e</em></strong></p>",
    "snake_case_name 2 * 3 * 4": "<p>snake_case_name 2 * 3 * 4</p>",
    "`a *b*` ``c ` d`` `e": "<p><code>a *b*</code> <code>c ` d</code> `e</p>",
    "- a\n- b\n  - c\n\n  d\n- e": "<ul><li><p>a</p></li><li><p>b</p><ul><li><p>c</p></li></ul><p>d</p></li><li><p>e</p></li></ul>",
    "3. a\n4. b\n\nc": "<ol><li><p>a</p></li><li><p>b</p></li></ol><p>c</p>",
    "> a\n> > b": "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>",
    "```js\n# no *h*\n```\nb": "<div><span>js</span><pre><code># no *h*</code></pre></div><p>b</p>",
    "~~~\nopen": "<div><pre><code>open</code></pre></div>",
    "| a | b |\n|---|:-:|\n| `c` | d\\|e |": "<div><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td><code>c</code></td><td>d|e</td></tr></tbody></table></div>",
    "a\n\n---\nb": "<p>a</p><hr></hr><p>b</p>",
    "\\*a\\* a\\b": "<p>*a* a\\b</p>",
  };
  for (const [text, expected] of Object.entries(cases)) assert.equal(html(text), expected);
});

test("a link shows its address, and leads only to http and https", () => {
  assert.equal(read(rendered('[bank](https://evil.example/x "safe")')), "bank https://evil.example/x “safe”");
  assert.equal(html("<https://a.example/> https://b.example/c."), "<p><a>https://a.example/</a> <a>https://b.example/c</a>.</p>");
  assert.equal(read(rendered("![alt](https://a.example/i.png)")), "image alt https://a.example/i.png");
  for (const address of ["javascript:alert(1)", "JAVASCRIPT:alert(1)", "data:text/html,x", "//a.example", "/x", "file:///x", " javascript:x", "https://", "http://[", "vbscript:x"]) {
    assert.equal(addressOf(address), null, address);
    assert(!html(`[a](${address}) <${address}> ![a](${address})`).includes("<a>"), address);
  }
  assert.equal(html("[[a](http://b.example/) c](http://d.example/)").match(/<a>/g)?.length, 1);
});

test("HTML stays text", () => {
  const text = "<img src=x onerror=alert(1)> <script>alert(1)</script> &lt;b&gt; <!-- x -->";
  assert.equal(read(rendered(text)), text);
  assert.match(html(text), /^<p>[^]*<\/p>$/);
});

const PIECES = ["a", "b1", " ", " ", "\n", "\n", "\n\n", "*", "**", "_", "__", "~~", "`", "``", "```", "[", "]", "(", ")", "](", "![", "](http://a.example/b)", "](javascript:x)"];
PIECES.push("<", ">", "> ", "- ", "* ", "1. ", "  ", "    ", "# ", "### ", "|", "|-|-|", "---", "\\", "<script>", "</a>", 'onclick="x"', "https://c.example/d", "http://", '"', "&", "\u202e", "\ud800");

/** @param {number} seed */
function random(seed) {
  let state = seed + 1;
  return (/** @type {number} */ below) => {
    state = (state * 48271) % 2147483647;
    return state % below;
  };
}

test("no text becomes another element or address, or loses a letter", () => {
  for (let seed = 0; seed < 3000; seed++) {
    const next = random(seed);
    const text = Array.from({ length: 1 + next(60) }, () => PIECES[next(PIECES.length)]).join("");
    const shown = read(rendered(text));
    let at = 0;
    for (const letter of text.match(/[a-z0-9]/g) ?? []) {
      at = shown.indexOf(letter, at) + 1;
      assert(at > 0, `seed ${seed}: ${JSON.stringify(text)} became ${JSON.stringify(shown)}`);
    }
  }
});

test("what opens and never closes is read in one go", () => {
  for (const piece of ["[", "![", "`", "*a ", "_a", "> ", ">", "- ", "1. ", "*_~~", "[a](", '](x "', "http://", "https://a!!!!", "`a``b```c", "*_**", "[a](http://b) ", "|-", "|-\n", "  - a\n"]) {
    const text = piece.repeat(20_000);
    assert(blocksOf(text).length, piece);
  }
  for (const nested of [`${"[".repeat(3000)}a${"](http://b)".repeat(3000)}`, `${"*a **b ".repeat(3000)}${"c** d*".repeat(3000)}`]) read(rendered(nested));
});

test("elements are never deep", () => {
  /** @type {(node: Node | string) => number} */
  const height = (node) => (typeof node === "string" ? 0 : 1 + Math.max(0, ...node.children.map(height)));
  const deep = Array.from({ length: 200 }, (_, n) => `${" ".repeat(2 * n)}- a`).join("\n");
  for (const text of [deep, `${"> ".repeat(500)}a`, `${"*a **b ".repeat(100)}${"c** d*".repeat(100)}`, `${"[".repeat(100)}a${"](http://b.example)".repeat(100)}`]) {
    assert(height(rendered(text)) < 50);
    read(rendered(text));
  }
});

test("text beside text is one node", () => {
  assert.deepEqual(inlinesOf("he < she ] h ! x\\_y"), ["he < she ] h ! x_y"]);
});
