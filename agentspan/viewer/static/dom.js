// Makes and changes elements. A text of a payload only ever becomes a text node: nothing here parses HTML.

import { visible } from "./visible.js";

const READ = new Set(["title", "aria-label"]); // attributes that people read

/** @type {(name: string, value: unknown) => string} */
const attribute = (name, value) => (READ.has(name) ? visible(value) : String(value));

/**
 * Make an element: attributes (`class`, `on…` as listeners, the rest as attributes), then texts and elements.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes | null} [attributes]
 * @param {...(Child | Child[])} children
 */
export function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : attribute(name, value));
  }
  return add(node, ...children);
}

/**
 * Append texts and elements; null and "" are left out.
 * @template {Element} Parent
 * @param {Parent} node
 * @param {...(Child | Child[])} children
 */
export function add(node, ...children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === "") continue;
    node.append(child instanceof Node ? child : visible(child));
  }
  return node;
}

/**
 * Set a node's text, if it is another one.
 * @param {Node} node
 * @param {string | null | undefined} text
 */
export function setText(node, text) {
  const shown = visible(text ?? "");
  if (node.textContent !== shown) node.textContent = shown;
}

/**
 * Set or remove an attribute, if it has another value.
 * @param {Element} node
 * @param {string} name
 * @param {string | number | false | null | undefined} value
 */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== attribute(name, value)) node.setAttribute(name, attribute(name, value));
}

/**
 * Return an element that this page may lack.
 * @param {string} id
 */
export const findById = (id) => document.getElementById(id);

/**
 * Return an element of the page, of the class that its user needs.
 * @template {HTMLElement} Kind
 * @param {string} id
 * @param {new () => Kind} [kind]
 * @returns {Kind}
 */
export function byId(id, kind) {
  const node = findById(id);
  if (!(node instanceof (kind ?? HTMLElement))) throw new Error(`The page has no ${kind?.name ?? "element"} with the id ${id}.`);
  return /** @type {Kind} */ (node);
}

/**
 * Return the element inside another that a selector names.
 * @template {Element} [Kind=HTMLElement]
 * @param {ParentNode} node
 * @param {string} selector
 * @returns {Kind}
 */
export function inside(node, selector) {
  const found = node.querySelector(selector);
  if (!found) throw new Error(`There is no ${selector} here.`);
  return /** @type {Kind} */ (found);
}

/**
 * Return the element on which an event occurred.
 * @param {Event} event
 * @returns {Element | null}
 */
export const targetOf = (event) => (event.target instanceof Element ? event.target : null);

/**
 * Return the message of something that was thrown.
 * @param {unknown} error
 */
export const messageOf = (error) => (error instanceof Error ? error.message : String(error));

/**
 * Return a button that copies a text, and then shows that it did.
 * @param {string} text
 */
export function copyButton(text) {
  const label = "Copy";
  const button = el("button", { type: "button", class: "quiet" }, label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => (button.textContent = label), 1200);
  });
  return button;
}
