// What a model call read: what came in, left and was cut since the call before it, by source. Read when it is unfolded.

import { add, el, messageOf } from "./dom.js";
import * as format from "./format.js";

const MARKS = { "+": "came in", "-": "left", "~": "cut", "=": "kept" };

/**
 * Return a section that reads the context of a call when it is unfolded.
 * @param {() => Promise<ContextChange>} read
 * @param {(id: string) => (() => void) | null} opener returns what shows a span; null where the page lacks it
 */
export function contextSection(read, opener) {
  const body = el("div", { class: "context-body" });
  const box = el("details", { class: "folded context" }, el("summary", null, "Context: what it read"), body);
  const load = async () => {
    if (!box.open || body.childNodes.length) return;
    body.append(el("p", { class: "loading" }, "…"));
    try {
      const found = await read();
      body.replaceChildren(...shown(found, opener));
    } catch (error) {
      body.replaceChildren(el("p", { class: "error-text" }, messageOf(error)));
      box.addEventListener("toggle", () => body.replaceChildren(), { once: true }); // unfolding it again tries again
    }
  };
  box.addEventListener("toggle", load);
  return el("section", null, box);
}

/**
 * @param {ContextChange} found
 * @param {(id: string) => (() => void) | null} opener
 */
function shown(found, opener) {
  const sign = found.is_counted ? "" : "~";
  const before = found.before === null ? null : opener(found.before);
  const head = el("p", { class: "hint" }, `${format.plural(found.elements, "element")} · ${sign}${format.count(found.tokens)} tok read · `);
  add(
    head,
    found.before === null
      ? "the agent's first call"
      : before
        ? el("button", { type: "button", class: "link", onclick: before }, "the call before")
        : "compared with the call before",
    found.compactions ? ` · ${format.plural(found.compactions, "compaction")} in between` : "",
    found.is_recorded ? "" : " · taken from the steps before it",
  );
  const more = found.more ? el("p", { class: "hint" }, `${format.plural(found.more, "smaller change")} left out`) : null;
  return [head, sourceTable(found.sources), changeList(found.changes, opener), more].filter((node) => node !== null);
}

/** @param {ContextSource[]} sources */
function sourceTable(sources) {
  /** @type {(name: string) => HTMLElement} */
  const column = (name) => el("th", { class: "number", scope: "col" }, name);
  /** @type {(number: number, sign: string) => HTMLElement} */
  const cell = (number, sign) => el("td", { class: "number" }, number ? `${sign}${format.count(number)}` : sign ? "" : "0");
  const rows = sources.map((each) =>
    el(
      "tr",
      null,
      el("th", { scope: "row" }, each.title),
      cell(each.a, ""),
      cell(each.b, ""),
      cell(each.came_in, "+"),
      cell(each.left, "−"),
      cell(each.cut, "−"),
    ),
  );
  const head = el("tr", null, el("th", { scope: "col" }, "~tok"), ...["before", "now", "in", "left", "cut"].map(column));
  return el("table", { class: "sources" }, el("thead", null, head), el("tbody", null, ...rows));
}

/**
 * @param {ContextElement[]} changes
 * @param {(id: string) => (() => void) | null} opener
 */
function changeList(changes, opener) {
  const items = changes.map((each) => {
    const open = each.span === null ? null : opener(each.span);
    const name = open ? el("button", { type: "button", class: "link", onclick: open }, each.name) : el("span", null, each.name);
    const kind = { "+": "in", "-": "out", "~": "cut", "=": "kept" }[each.mark];
    return el(
      "li",
      { class: `change ${kind}` },
      el("b", { title: MARKS[each.mark] }, each.mark === "-" ? "−" : each.mark),
      el("span", { class: "name" }, name, " ", el("small", null, `~${format.count(each.tokens)} tok`)),
      each.text ? el("span", { class: "text" }, each.text) : null,
    );
  });
  return el("ul", { class: "changes" }, ...items);
}
