// The card with which the details of a failed run begin: why it failed, in the words of `agentspan why RUN`. And the line at the
// head of a trial: of which case it is one, what became of the other trials, and of the runs that they were compared with.

import { el } from "./dom.js";
import { longText } from "./longtext.js";

const LONG = 400; // characters of a fact that are shown at once
const OF_STEPS = new Set(["asked for by", "later call", "recovered"]); // facts that name a step

/**
 * Return the card.
 * @param {Why} why
 * @param {{ run: string, isLocal: boolean, onStep: ((number: number) => void) | null }} page the run's id; whether the page is a file, which
 *   has no other pages to link to; and what shows a step
 */
export function causeCard(why, { run, isLocal, onStep }) {
  const title = why.rule === null ? "Why it failed" : `Why it missed ${why.rule}`;
  const sentence = el("p", { class: "sentence" });
  /** @type {(number: number | null, text: string, title?: string) => Node} */
  const step = (number, text, title) =>
    onStep && number ? el("button", { type: "button", class: "link", title, onclick: () => onStep(number) }, text) : el("span", null, text);
  sentence.append(step(why.number, why.sentence, "Show this step (e)"));
  const facts = el("dl", { class: "facts" });
  /** @type {(name: string, ...value: Node[]) => void} */
  const fact = (name, ...value) => facts.append(el("div", null, el("dt", null, name), el("dd", null, ...value)));
  if (why.error !== null) fact("the run's error", longText(why.error, LONG, { class: "prose" }));
  for (const [label, text] of why.facts) {
    const named = OF_STEPS.has(label) ? /step ([\d,]+)/.exec(text) : null;
    if (named) {
      const end = named.index + named[0].length;
      fact(label, el("span", { class: "prose" }, text.slice(0, named.index), step(Number(named[1].replaceAll(",", "")), named[0]), text.slice(end)));
      continue;
    }
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

/**
 * Return the parts of the line about the case of a trial.
 * @param {CaseOfTrial} found
 * @param {{ run: string, isLocal: boolean }} page the run's id; whether the page is a file, which has no other pages to link to
 */
export function caseLine(found, { run, isLocal }) {
  /** @type {(address: string, text: string) => Node} */
  const link = (address, text) => (isLocal ? el("span", null, text) : el("a", { href: `../${address}` }, text));
  /** @type {(each: CaseRun, name: string) => Node} */
  const outcome = (each, name) => {
    const title = `${name} ${each.number}: ${each.text}`;
    const mark = el("i", { class: `mark ${each.mark}`, "aria-hidden": "true" });
    const parts = [mark, `${each.number}`, el("span", { class: "unseen" }, ` ${each.text}`)];
    if (each.run === run) return el("b", { title: `${title} (this run)`, "aria-current": "true" }, ...parts);
    return isLocal ? el("span", { title }, ...parts) : el("a", { href: encodeURIComponent(each.run), title }, ...parts);
  };
  /** @type {(name: string, runs: CaseRun[], each: string) => Node} */
  const list = (name, runs, each) => el("span", { class: "outcomes" }, name, ...runs.map((one) => outcome(one, each)));
  const text = `${found.text.slice(0, 1).toUpperCase()}${found.text.slice(1)}`;
  return [
    el("span", null, text, link(found.runs, found.evaluation)),
    list("Trials", found.trials, "trial"),
    ...(found.base === null ? [] : [list(found.base, found.base_runs, found.base)]),
    ...(found.versions === null || isLocal ? [] : [link(found.versions, "All cases")]),
  ];
}
