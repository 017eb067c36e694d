// Numbers and times as a person says them; durations as the command line writes them, and below that in µs.

export function duration(ms) {
  if (ms === null || ms === undefined) return "";
  if (ms < 0.9995) return ms === 0 ? "0 ms" : `${Math.max(1, Math.round(ms * 1000))} µs`;
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  const two = (n) => String(n).padStart(2, "0");
  if (minutes < 60) return `${minutes}m ${two(whole % 60)}s`;
  return `${Math.floor(minutes / 60)}h ${two(minutes % 60)}m`;
}

/** A moment on the ruler, as exact as its step. */
export function tick(ms, step) {
  if (ms === 0) return "0";
  const digits = (unit) => Math.max(0, Math.min(3, -Math.floor(Math.log10(step / unit) + 1e-9)));
  if (step < 1) return `${(ms * 1000).toFixed(0)} µs`;
  if (Math.abs(ms) < 1000 && step < 1000) return `${ms.toFixed(digits(1))} ms`;
  if (Math.abs(ms) < 60_000 || step < 1000) return `${(ms / 1000).toFixed(digits(1000))} s`;
  const seconds = Math.round(ms / 1000);
  const two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  const clock = `${Math.floor(seconds / 60) % 60}:${two(seconds % 60)}`;
  return hours ? `${hours}:${clock.padStart(5, "0")}` : clock;
}

export const whole = (n) => Number(n).toLocaleString("en");

export function count(n) {
  if (n >= 1e6) return `${(n / 1e6).toFixed(1)}M`;
  if (n >= 10_000) return `${(n / 1000).toFixed(1)}k`;
  return whole(n);
}

export function cost(usd) {
  const digits = usd !== 0 && Math.abs(usd) < 0.01 ? 6 : 4;
  return `$${usd.toFixed(digits).replace(/(\.\d{4}\d*?)0+$/, "$1")}`;
}

export function percent(part, all) {
  return all ? `${((100 * part) / all).toFixed(part / all < 0.1 ? 1 : 0)} %` : "";
}

/** A stored time for people, in UTC as everywhere. */
export const moment = (text) => (text ? text.slice(0, 19).replace("T", " ") : "");

export const plural = (n, noun) => `${whole(n)} ${noun}${n === 1 ? "" : "s"}`;
