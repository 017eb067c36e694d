// Light or dark: as the system says, or as the button does. A cookie, so that the server sends the right page at once.

import { byId } from "./dom.js";

const KINDS = ["agent", "llm", "tool", "chain", "retrieval", "embedding", "rerank", "guardrail", "evaluation", "human"];
KINDS.push("mcp", "memory", "handoff", "message", "custom");

let known = null;

/** The colours of the span types, for what is drawn. */
export function colors() {
  if (known) return known;
  const probe = document.createElement("i");
  document.body.append(probe);
  known = {};
  for (const name of [...KINDS, "failed"]) {
    probe.className = name === "failed" ? "bar failed" : `bar k-${name}`;
    known[name] = getComputedStyle(probe).backgroundColor;
  }
  probe.remove();
  return known;
}

/** Let the button switch. */
export function theme() {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const changed = () => {
    known = null;
    byId("theme")?.setAttribute("aria-pressed", String(isDark()));
    dispatchEvent(new Event("themechange"));
  };
  if (!root.dataset.theme) {
    try {
      const kept = localStorage.getItem("agentspan-theme");
      if (kept === "dark" || kept === "light") root.dataset.theme = kept;
    } catch {
      // a file may not be allowed to keep anything
    }
  }
  dark.addEventListener("change", changed);
  byId("theme")?.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("agentspan-theme", root.dataset.theme);
      document.cookie = `agentspan_theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
    } catch {
      // as above
    }
    changed();
  });
  changed();
}
