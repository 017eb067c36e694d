// The steps that contain the text of the list's filter: searched when the page is shown, and again from time to time.

import { add, byId, el, findById, messageOf, setText } from "./dom.js";
import { get } from "./source.js";

const EVERY_MS = 10_000;

/** Search the steps, if the page of runs has a text to search. */
export async function followSteps() {
  if (!findById("found")) return;
  for (;;) {
    const began = performance.now();
    try {
      show(await get(`steps.json${location.search}`));
    } catch (error) {
      setText(byId("found-count"), `The steps could not be searched: ${messageOf(error)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(EVERY_MS, 20 * (performance.now() - began))));
    while (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}

/** @param {FoundSteps} found */
function show({ steps, count }) {
  setText(byId("found-count"), steps.length ? `${count}:` : `${count}. Steps are searched for whole words; the last one may be a beginning.`);
  const list = byId("found-steps");
  const shown = JSON.stringify(steps);
  if (list.dataset.shown === shown) return; // it would lose the focus
  list.dataset.shown = shown;
  list.replaceChildren(...steps.map(item));
}

/** @param {FoundStep} step */
function item(step) {
  const address = `runs/${encodeURIComponent(step.run)}#${new URLSearchParams({ span: step.span })}`;
  const snippet = el("span", { class: "snippet" });
  step.parts.forEach((part, n) => add(snippet, n % 2 ? el("mark", null, part) : part));
  return el(
    "li",
    null,
    el("i", { class: `mark ${step.status}`, role: "img", "aria-label": step.status }),
    el("a", { href: address }, step.summary),
    " ",
    el("span", { class: "hint" }, [step.agent, step.started].filter(Boolean).join(" · ")),
    snippet,
  );
}
