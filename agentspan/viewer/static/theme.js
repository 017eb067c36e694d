// Light or dark: the system's setting, or what the button chose. The choice is in a cookie, so that the server sends the right page.

import { findById } from "./dom.js";

const KINDS = ["agent", "llm", "tool", "chain", "retrieval", "embedding", "rerank", "guardrail", "evaluation", "human"];
KINDS.push("mcp", "memory", "handoff", "message", "compaction", "hook", "event", "custom");

/** @type {Record<string, string> | null} */
let cache = null;

/** Return the colours of the span types, for drawing on a canvas. */
export function colors() {
  if (cache) return cache;
  const probe = document.createElement("i");
  document.body.append(probe);
  /** @type {Record<string, string>} */
  const read = {};
  for (const name of [...KINDS, "failed"]) {
    probe.className = name === "failed" ? "bar failed" : `bar k-${name}`;
    read[name] = getComputedStyle(probe).backgroundColor;
  }
  probe.remove();
  cache = read;
  return read;
}

/** Apply the chosen theme, and let the button switch it. */
export function startTheme() {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const refresh = () => {
    cache = null;
    findById("theme")?.setAttribute("aria-pressed", String(isDark()));
    dispatchEvent(new Event("themechange"));
  };
  if (!root.dataset.theme) {
    try {
      const stored = localStorage.getItem("agentspan-theme");
      if (stored === "dark" || stored === "light") root.dataset.theme = stored;
    } catch {
      // A page opened from a file may have no storage.
    }
  }
  dark.addEventListener("change", refresh);
  findById("theme")?.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    root.dataset.theme = theme;
    try {
      localStorage.setItem("agentspan-theme", theme);
      document.cookie = `agentspan_theme=${theme}; path=/; max-age=31536000; samesite=strict`;
    } catch {
      // as above
    }
    refresh();
  });
  refresh();
}
