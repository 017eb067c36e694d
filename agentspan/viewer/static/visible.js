// Text as a reader can see all of it. The rules are those of `visible` in text.py; a test compares them.

// Control characters, direction overrides, characters without a width, tags, variation selectors, halves of surrogate pairs.
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}\p{Cs}]/u;
const EMOJI =
  /[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u25fe\u2600-\u27bf\u2934\u2935\u2b05-\u2b55\u3030\u303d\u3297\u3299\u{1f000}-\u{1faff}][\ufe0e\ufe0f\u{1f3fb}-\u{1f3ff}]?/u.source;
// Where those have a visible effect: in emoji, in three flags, in a keycap, between letters of cursive scripts.
const SEEN = [
  `${EMOJI}(?:\\u200d${EMOJI})*`,
  /(?<=\u{1f3f4})\u{e0067}\u{e0062}(?:\u{e0065}\u{e006e}\u{e0067}|\u{e0073}\u{e0063}\u{e0074}|\u{e0077}\u{e006c}\u{e0073})\u{e007f}/u.source,
  /(?<=[#*0-9])\ufe0f(?=\u20e3)/u.source,
  /(?<=[\u0620-\u0dff])[\u200c\u200d](?=[\u0620-\u0dff])/u.source,
].join("|");
const SEEN_OR_UNSEEN = new RegExp(`${SEEN}|(${UNSEEN.source})`, "gu");

/**
 * Return a value as text in which each invisible character is spelled out: \u202e, \u{e0041}.
 * @param {unknown} value
 */
export function visible(value) {
  const text = String(value);
  if (!UNSEEN.test(text)) return text;
  return text.replaceAll("\r\n", "\n").replace(SEEN_OR_UNSEEN, (found, unseen) => (unseen === undefined ? found : spelled(unseen)));
}

/** @param {string} character */
function spelled(character) {
  const code = (character.codePointAt(0) ?? 0).toString(16);
  return code.length > 4 ? `\\u{${code}}` : `\\u${code.padStart(4, "0")}`;
}

const LONGEST = 100;
const CLINGING = /^(?:\p{M}|\u200d|[\u{1f3fb}-\u{1f3ff}]|[\u{e0020}-\u{e007f}])/u;

/**
 * Cut a text to at most `limit` characters, never within one that a reader sees as one; what is cut ends in `…`.
 * @param {string} text
 * @param {number} limit
 */
export function cut(text, limit) {
  if (text.length <= limit) return text;
  return text.slice(0, boundary(text, limit - 1)) + "…";
}

/**
 * Return the last place up to `end` where no character of a text is cut into halves, or from its accents and joiners.
 * @param {string} text
 * @param {number} end
 */
export function boundary(text, end) {
  let at = end;
  while (at > 0 && at > end - LONGEST && isWithin(text, at)) at--;
  if (at > 0 && at > end - LONGEST) return at;
  return isHalf(text, end) ? end - 1 : end; // all of it clings
}

/** @type {(text: string, at: number) => boolean} */
const isHalf = (text, at) => /^[\udc00-\udfff]/.test(text[at]) && /^[\ud800-\udbff]/.test(text[at - 1]);

/** @type {(text: string, at: number) => boolean} */
const isWithin = (text, at) => isHalf(text, at) || CLINGING.test(text.slice(at, at + 2)) || text[at - 1] === "\u200d";
