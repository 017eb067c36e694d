// Numbers and times as text for people: the same text as figures.py writes for the same number.
// Numbers are rounded as there: Python rounds ties in another way than `toFixed`, and sums are not exact.

/** @param {number} n */
const twoDigits = (n) => String(n).padStart(2, "0");

/** @param {number} n */
const rounded = (n) => Math.floor(n + 0.500001);

/**
 * Round a positive number to so many digits after the point.
 * @param {number} n
 * @param {number} digits
 */
function decimals(n, digits) {
  const size = 10 ** digits;
  const scaled = rounded(n * size);
  const fraction = digits ? `.${String(scaled % size).padStart(digits, "0")}` : "";
  return whole(Math.floor(scaled / size)) + fraction;
}

/**
 * Milliseconds with a unit.
 * @param {number | null | undefined} ms
 * @returns {string}
 */
export function duration(ms) {
  if (ms === null || ms === undefined) return "";
  if (ms <= 0) return ms ? `-${duration(-ms)}` : "0 ms";
  if (rounded(ms * 1000) < 1000) return `${Math.max(1, rounded(ms * 1000))} µs`;
  if (rounded(ms * 10) < 100) return `${decimals(ms, 1)} ms`;
  if (rounded(ms) < 1000) return `${rounded(ms)} ms`;
  const seconds = ms / 1000;
  if (rounded(seconds * 10) < 600) return `${decimals(seconds, 1)} s`;
  const all = rounded(seconds);
  const minutes = Math.floor(all / 60);
  if (minutes < 60) return `${minutes}m ${twoDigits(all % 60)}s`;
  return `${Math.floor(minutes / 60)}h ${twoDigits(minutes % 60)}m`;
}

/**
 * A time on the ruler, as exact as the distance of its marks.
 * @param {number} ms
 * @param {number} step
 */
export function tick(ms, step) {
  if (ms === 0) return "0";
  /** @param {number} unit */
  const digits = (unit) => Math.max(0, Math.min(3, -Math.floor(Math.log10(step / unit) + 1e-9)));
  if (step < 1) return `${(ms * 1000).toFixed(0)} µs`;
  if (Math.abs(ms) < 1000 && step < 1000) return `${ms.toFixed(digits(1))} ms`;
  if (Math.abs(ms) < 60_000 || step < 1000) return `${(ms / 1000).toFixed(digits(1000))} s`;
  const seconds = Math.round(ms / 1000);
  const hours = Math.floor(seconds / 3600);
  const clock = `${Math.floor(seconds / 60) % 60}:${twoDigits(seconds % 60)}`;
  return hours ? `${hours}:${clock.padStart(5, "0")}` : clock;
}

/**
 * All digits of a number: 12,345.
 * @param {number} n
 */
export const whole = (n) => n.toLocaleString("en");

/**
 * A number in few characters: 950, 12.3k.
 * @param {number} n
 */
export function count(n) {
  if (n >= 999_950) return `${decimals(n / 1e6, 1)}M`; // as thousands it would be 1,000.0k
  if (n >= 1000) return `${decimals(n / 1000, 1)}k`;
  return String(n);
}

/**
 * US dollars, the smaller the more digits.
 * @param {number} usd
 * @returns {string}
 */
export function cost(usd) {
  if (usd <= 0) return usd ? `-${cost(-usd)}` : "$0";
  if (rounded(usd * 1e6) < 1) return "<$0.000001";
  if (usd < 0.01) return `$${decimals(usd, 6).replace(/0{1,2}$/, "")}`;
  return `$${decimals(usd, rounded(usd * 10_000) < 100_000 ? 4 : rounded(usd * 100) < 100_000 ? 2 : 0)}`;
}

/**
 * A share as a percentage. Only nothing is empty, and only all is 100%.
 * @param {number} part
 * @param {number} all
 */
export function percent(part, all) {
  const share = all ? part / all : 0;
  if (share <= 0) return "";
  if (share >= 1) return "100%";
  if (share < 0.001) return "<0.1%";
  if (rounded(1000 * share) < 100 || rounded(100 * share) === 100) return `${decimals(Math.min(99.9, 100 * share), 1)}%`;
  return `${rounded(100 * share)}%`;
}

/**
 * A stored time without its fraction, in UTC as everywhere.
 * @param {string | null} time
 */
export const moment = (time) => (time ? time.slice(0, 19).replace("T", " ") : "");

/**
 * @param {number} n
 * @param {string} noun
 */
export const plural = (n, noun) => `${whole(n)} ${noun}${n === 1 ? "" : "s"}`;
