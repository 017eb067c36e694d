// The card with which the details of a failed run begin: why it failed, in the words of `agentspan why RUN`.

import { el } from "./dom.js";
import { longText } from "./longtext.js";

const LONG = 400; // characters of a fact that are shown at once

/**
 * Return the card.
 * @param {Why} why
 * @param {{ run: string, isLocal: boolean, onStep: (() => void) | null }} page the run's id; whether the page is a file, which has no
 *   other pages to link to; and what shows the step that failed
 */
export function causeCard(why, { run, isLocal, onStep }) {
  const title = why.rule === null ? "Why it failed" : `Why it missed ${why.rule}`;
  const sentence = el("p", { class: "sentence" });
  if (onStep) sentence.append(el("button", { type: "button", class: "link", title: "Show this step (e)", onclick: onStep }, why.sentence));
  else sentence.append(el("span", null, why.sentence));
  const facts = el("dl", { class: "facts" });
  /** @type {(name: string, ...value: Node[]) => void} */
  const fact = (name, ...value) => facts.append(el("div", null, el("dt", null, name), el("dd", null, ...value)));
  if (why.error !== null) fact("the run's error", longText(why.error, LONG, { class: "prose" }));
  for (const [label, text] of why.facts) {
    fact(label, longText(text, LONG, { class: label === "given" ? "source" : label === "error" ? "prose error-text" : "prose" }));
  }
  const failures = `../failures?${new URLSearchParams({ signature: why.signature })}`;
  if (why.elsewhere !== null) fact("elsewhere", why.others && !isLocal ? el("a", { href: failures }, why.elsewhere) : el("span", null, why.elsewhere));
  if (why.nearest === null) fact("compare", el("span", null, why.nearest_text));
  else {
    const compare = `../compare?${new URLSearchParams({ a: why.nearest, b: run })}`;
    const link = isLocal ? null : el("a", { class: "button", href: compare }, "Compare");
    fact("compare", el("span", null, `${why.nearest_text} `), el("code", null, why.nearest), el("p", { class: "hint" }, why.parting), ...(link ? [link] : []));
  }
  return el("section", { class: "cause", "aria-label": title }, el("h2", null, title), sentence, facts);
}
