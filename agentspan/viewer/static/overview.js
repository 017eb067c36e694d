// The answer above the list of runs: brought up to date as the file changes, and a range of times brushed in its histogram.

import { whileFollowing } from "./bar.js";
import { add, byId, el, inside, setText, targetOf } from "./dom.js";
import { poll } from "./source.js";

const EVERY_MS = 3000;
const SVG = "http://www.w3.org/2000/svg";
const BAR = 10;
const PARTS = /** @type {const} */ (["passed", "other", "failed"]);

const picture = () => /** @type {SVGElement} */ (inside(byId("answer-when"), "svg"));
const bars = () => /** @type {SVGAElement[]} */ (/** @type {Element[]} */ ([...picture().querySelectorAll("a")]));

/** @param {boolean} isWhole whether the page has the whole answer already */
export async function followAnswer(isWhole) {
  listenToBrush();
  let shown = "";
  for (let wait = isWhole ? EVERY_MS : 0; ; ) {
    await new Promise((resolve) => setTimeout(resolve, wait));
    await whileFollowing();
    const began = performance.now();
    try {
      /** @type {Answer} */
      const answer = await poll(`answer.json${location.search}`);
      const text = JSON.stringify(answer);
      const isUsed = byId("answer").contains(document.activeElement) || brushed !== null;
      if (text !== shown && !isUsed) {
        show(answer);
        shown = text;
      }
    } catch {
      // The list says that the server is away.
    }
    wait = Math.max(EVERY_MS, 10 * (performance.now() - began));
  }
}

/** @param {Answer} answer */
function show(answer) {
  byId("answer").hidden = !answer.runs;
  const text = byId("answer-text");
  text.replaceChildren();
  add(text, answer.head, answer.parts.length ? ": " : ".");
  answer.parts.forEach((part, n) => {
    const mark = el("span", { "aria-hidden": "true" }, `${part.mark} `);
    add(text, part.href ? el("a", { href: part.href }, mark, part.text) : el("span", null, mark, part.text));
    add(text, n === answer.parts.length - 1 ? "." : ", ");
  });
  byId("answer-when").hidden = answer.bars.length < 2; // one bar tells nothing about when
  const svg = picture();
  svg.setAttribute("viewBox", `0 0 ${BAR * Math.max(1, answer.bars.length)} 44`);
  svg.replaceChildren(...answer.bars.map(barOf));
  setText(byId("answer-since"), answer.since);
  setText(byId("answer-most"), answer.most);
  setText(byId("answer-until"), answer.until);
  const causes = (answer.causes ?? []).map((cause) =>
    el("li", null, el("span", { class: "number" }, `${cause.runs} ×`), " ", el("a", { href: cause.href }, cause.text), cause.only && " ", cause.only && el("b", null, cause.only)),
  );
  byId("answer-causes").replaceChildren(...causes);
  setText(byId("answer-rest"), answer.rest);
}

/**
 * @param {AnswerBar} bar
 * @param {number} n
 */
function barOf(bar, n) {
  const link = document.createElementNS(SVG, "a");
  link.setAttribute("href", bar.href);
  link.setAttribute("tabindex", n ? "-1" : "0");
  const title = document.createElementNS(SVG, "title");
  title.textContent = bar.label;
  link.append(title, rect("whole", BAR * n, 0, BAR, 44));
  for (const name of PARTS) if (bar[name][1]) link.append(rect(name, BAR * n + 1, bar[name][0], BAR - 2, bar[name][1]));
  return link;
}

/** @type {(name: string, x: number, y: number, width: number, height: number) => Element} */
function rect(name, x, y, width, height) {
  const made = document.createElementNS(SVG, "rect");
  for (const [attribute, value] of Object.entries({ class: name, x, y, width, height })) made.setAttribute(attribute, String(value));
  return made;
}

/** The first and the last bar of the range that is being brushed. @type {[number, number] | null} */
let brushed = null;

function listenToBrush() {
  const svg = picture();
  let isDragged = false;
  svg.addEventListener("pointerdown", (event) => {
    const at = placeOf(event);
    if (event.button !== 0 || at < 0) return;
    brushed = [at, at];
    isDragged = false;
    event.preventDefault(); // no drag of a link
  });
  document.addEventListener("pointermove", (event) => {
    if (!brushed) return;
    const at = placeOf(event);
    isDragged ||= at !== brushed[0];
    brush([brushed[0], at]);
  });
  document.addEventListener("pointerup", () => {
    if (brushed && isDragged) go();
    brush(null);
  });
  svg.addEventListener("click", (event) => {
    if (isDragged) event.preventDefault();
  });
  svg.addEventListener("keydown", byKey);
  svg.addEventListener("focusout", (event) => {
    if (!(event.relatedTarget instanceof Node) || !svg.contains(event.relatedTarget)) brush(null);
  });
}

/** @param {KeyboardEvent} event */
function byKey(event) {
  const all = bars();
  const at = all.findIndex((bar) => /** @type {Element} */ (bar) === targetOf(event)?.closest("a"));
  /** @type {Record<string, number>} */
  const places = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 };
  if (event.key in places && at >= 0) {
    const next = Math.min(all.length - 1, Math.max(0, places[event.key]));
    all[at].setAttribute("tabindex", "-1");
    all[next].setAttribute("tabindex", "0");
    all[next].focus();
    brush(event.shiftKey ? [brushed ? brushed[0] : at, next] : null);
  } else if (event.key === "Enter" && brushed) go();
  else if (event.key === "Escape" && brushed) brush(null);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

/** @param {PointerEvent} event */
function placeOf(event) {
  const { left, width } = picture().getBoundingClientRect();
  const number = bars().length;
  return Math.min(number - 1, Math.max(0, Math.floor(((event.clientX - left) / width) * number)));
}

/** @param {[number, number] | null} range */
function brush(range) {
  brushed = range;
  const [first, last] = range ? [Math.min(...range), Math.max(...range)] : [1, 0];
  bars().forEach((bar, n) => bar.classList.toggle("brushed", n >= first && n <= last));
}

/** Show the runs of the brushed range: its times come into the address. */
function go() {
  if (!brushed) return;
  const [first, last] = [Math.min(...brushed), Math.max(...brushed)].map((n) => new URL(bars()[n].getAttribute("href") ?? "", location.href).searchParams);
  const query = new URLSearchParams(location.search);
  query.delete("offset");
  query.set("since", first.get("since") ?? "");
  query.set("until", last.get("until") ?? "");
  location.assign(`?${query}`);
}
