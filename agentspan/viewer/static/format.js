// Numbers and times as text for people. Durations read as on the command line, and below 1 ms in µs.

/** @param {number} n */
const twoDigits = (n) => String(n).padStart(2, "0");

/** @param {number | null | undefined} ms */
export function duration(ms) {
  if (ms === null || ms === undefined) return "";
  if (ms < 0.9995) return ms === 0 ? "0 ms" : `${Math.max(1, Math.round(ms * 1000))} µs`;
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const rounded = Math.round(seconds);
  const minutes = Math.floor(rounded / 60);
  if (minutes < 60) return `${minutes}m ${twoDigits(rounded % 60)}s`;
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
 * A number in few characters: 12.3k.
 * @param {number} n
 */
export function count(n) {
  if (n >= 1e6) return `${(n / 1e6).toFixed(1)}M`;
  if (n >= 10_000) return `${(n / 1000).toFixed(1)}k`;
  return whole(n);
}

/** @param {number} usd */
export function cost(usd) {
  const digits = usd !== 0 && Math.abs(usd) < 0.01 ? 6 : 4;
  return `$${usd.toFixed(digits).replace(/(\.\d{4}\d*?)0+$/, "$1")}`;
}

/**
 * @param {number} part
 * @param {number} all
 */
export function percent(part, all) {
  return all ? `${((100 * part) / all).toFixed(part / all < 0.1 ? 1 : 0)} %` : "";
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
