// The steps that contain the text of the list's filter: searched when the page is shown, and again from time to time.

import { whileFollowing } from "./bar.js";
import { add, byId, el, findById, messageOf, setText } from "./dom.js";
import { plural } from "./format.js";
import { Parts } from "./parts.js";
import { poll } from "./source.js";

const EVERY_MS = 10_000;

/** Search the steps, if the page of runs has a text to search. */
export async function followSteps() {
  if (!findById("found")) return;
  const list = new Parts(byId("found-steps"));
  for (;;) {
    const began = performance.now();
    let wait = EVERY_MS;
    try {
      show(await poll(`steps.json${location.search}`), list);
      wait = Math.max(EVERY_MS, 20 * (performance.now() - began));
    } catch (error) {
      setText(byId("found-count"), `The steps could not be searched: ${messageOf(error)}`);
    }
    await new Promise((resolve) => {
      setTimeout(resolve, wait);
      addEventListener("serverback", resolve, { once: true });
    });
    await whileFollowing();
  }
}

/**
 * @param {FoundSteps} found
 * @param {Parts} list
 */
function show({ steps, count }, list) {
  setText(byId("found-count"), steps.length ? `${count}:` : `${count}. Steps are searched for whole words; the last one may be a beginning.`);
  list.show(
    "",
    steps.map((step) => ({ name: step.span, data: [JSON.stringify(step)], make: () => item(step) })),
  );
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
    el("span", { class: "hint" }, [step.agent, step.started, step.repeats ? `and in ${plural(step.repeats, "later step")}` : ""].filter(Boolean).join(" · ")),
    snippet,
  );
}
