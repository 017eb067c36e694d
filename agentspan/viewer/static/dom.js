// Making elements. What comes from a payload only ever becomes text: nothing here parses HTML.

// Control characters, direction overrides and lone surrogates would hide, reorder or corrupt what is read: they are spelled.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]|\p{Cs}/gu;

/** Return a text as it may be shown. */
export function visible(text) {
  return String(text)
    .replaceAll("\r\n", "\n")
    .replace(UNSEEN, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

/** Make an element: attributes (`class`, `on…` as listeners, the rest as attributes), then texts and elements. */
export function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  add(node, ...children);
  return node;
}

/** Append texts and elements; null is passed over. */
export function add(node, ...children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === "") continue;
    node.append(child instanceof Node ? child : visible(child));
  }
  return node;
}

/** Set a node's text, if it is another one. */
export function setText(node, text) {
  const shown = visible(text ?? "");
  if (node.textContent !== shown) node.textContent = shown;
}

/** Set or remove an attribute, if it has another value. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

export const byId = (id) => document.getElementById(id);

/** Return a button that copies a text, and says that it has. */
export function copyButton(text, label = "Copy") {
  const button = el("button", { type: "button", class: "quiet" }, label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(typeof text === "function" ? text() : text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => (button.textContent = label), 1200);
  });
  return button;
}

/** Return an element with a text, cut at `limit` characters where a button shows the rest. */
export function longText(text, limit, attributes) {
  const node = el("div", attributes);
  if (text.length <= limit * 1.2) return add(node, text);
  const shown = document.createTextNode(visible(text.slice(0, limit)) + "…");
  const more = el("button", { type: "button", class: "more" }, `Show all ${text.length.toLocaleString("en")} characters`);
  more.addEventListener("click", () => {
    shown.data = visible(text);
    more.remove();
  });
  node.append(shown, more);
  return node;
}
