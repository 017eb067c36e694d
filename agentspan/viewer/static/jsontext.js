// JSON text as it was recorded: the order of its members, members of the same name, and its numbers. JSON.parse changes all three.

/** A number that a browser's own type would round or write in another way: its text. */
export class ExactNumber {
  /** @param {string} digits */
  constructor(digits) {
    this.digits = digits;
  }
}

/** A JSON object: its members in the order of the text. */
export class Members {
  /** @param {[string, unknown][]} entries */
  constructor(entries) {
    this.entries = entries;
  }

  get size() {
    return this.entries.length;
  }
}

/**
 * Return the last member of a name, as parsers read it; undefined where there is none, or the value is no object.
 * @param {unknown} value
 * @param {string} name
 * @returns {any}
 */
export const member = (value, name) => (value instanceof Members ? value.entries.findLast(([key]) => key === name)?.[1] : undefined);

/**
 * Parse JSON: objects become Members, some numbers ExactNumber. Undefined where the text is no JSON, or nested too deep.
 * @param {string} text
 * @returns {any}
 */
export function parse(text) {
  try {
    const reader = new Reader(text);
    const value = reader.value();
    reader.blank();
    return reader.at === text.length ? value : undefined;
  } catch {
    return undefined;
  }
}

const BLANK = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
/** @type {Record<string, [string, unknown]>} */
const WORDS = { t: ["true", true], f: ["false", false], n: ["null", null] };

class Reader {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
    this.at = 0;
  }

  blank() {
    if (this.text.charCodeAt(this.at) > 32) return;
    BLANK.lastIndex = this.at;
    BLANK.test(this.text);
    this.at = BLANK.lastIndex;
  }

  /** @returns {unknown} */
  value() {
    this.blank();
    const first = this.text[this.at];
    if (first === '"') return this.string();
    if (first === "{") return new Members(this.list("}", () => this.entry()));
    if (first === "[") return this.list("]", () => this.value());
    const [word, value] = WORDS[first] ?? ["", null];
    if (!word) return this.number();
    this.take(word);
    return value;
  }

  /** @returns {[string, unknown]} */
  entry() {
    this.blank();
    const name = this.string();
    this.blank();
    this.take(":");
    return [name, this.value()];
  }

  /**
   * @template Item
   * @param {string} end
   * @param {() => Item} read
   */
  list(end, read) {
    /** @type {Item[]} */
    const items = [];
    this.at++;
    this.blank();
    if (this.text[this.at] === end) this.at++;
    else {
      for (;;) {
        items.push(read());
        this.blank();
        if (this.text[this.at] === end) break;
        this.take(",");
      }
      this.at++;
    }
    return items;
  }

  /** @returns {string} */
  string() {
    if (this.text[this.at] !== '"') throw new SyntaxError("no string");
    let end = this.at;
    let slashes;
    do {
      end = this.text.indexOf('"', end + 1);
      if (end < 0) throw new SyntaxError("a string without an end");
      slashes = 0;
      while (this.text[end - 1 - slashes] === "\\") slashes++;
    } while (slashes % 2);
    const read = JSON.parse(this.text.slice(this.at, end + 1));
    this.at = end + 1;
    return read;
  }

  number() {
    NUMBER.lastIndex = this.at;
    const [digits] = NUMBER.exec(this.text) ?? [""];
    if (!digits) throw new SyntaxError("no value");
    this.at += digits.length;
    return String(Number(digits)) === digits ? Number(digits) : new ExactNumber(digits);
  }

  /** @param {string} word */
  take(word) {
    if (!this.text.startsWith(word, this.at)) throw new SyntaxError(`no ${word}`);
    this.at += word.length;
  }
}

/**
 * Return a parsed value as JSON text, on one line or, with an indent, on several.
 * @param {unknown} value
 * @param {string} [indent] of one step
 * @param {string} [margin] of this value
 * @returns {string}
 */
export function write(value, indent = "", margin = "") {
  if (value instanceof ExactNumber) return value.digits;
  const isList = Array.isArray(value);
  if (!isList && !(value instanceof Members)) return JSON.stringify(value) ?? "";
  const inner = margin + indent;
  const colon = indent ? ": " : ":";
  const items = isList
    ? value.map((item) => write(item, indent, inner))
    : value.entries.map(([key, item]) => JSON.stringify(key) + colon + write(item, indent, inner));
  const [open, close] = isList ? "[]" : "{}";
  if (!items.length) return open + close;
  return indent ? `${open}\n${inner}${items.join(`,\n${inner}`)}\n${margin}${close}` : open + items.join(",") + close;
}
