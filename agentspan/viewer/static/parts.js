// Parts of an element, of which each is made anew only when its data changed: what a reader has unfolded, selected or focused
// in the others stays.

const FOCUSABLE = "button, a, summary, input, [tabindex]";

export class Parts {
  /** @param {HTMLElement} box */
  constructor(box) {
    this.box = box;
    this.subject = "";
    /** @type {Map<string, { data: unknown[], node: Node }>} */
    this.shown = new Map();
  }

  /**
   * Show the parts of a subject, in their order; those of another subject are all made anew. A focus in a part that is made
   * anew goes to the same control of the new one, else to the box.
   * @param {string} subject
   * @param {DetailPart[]} parts
   */
  show(subject, parts) {
    const focus = this._focus();
    const isSame = subject === this.subject;
    const before = isSame ? this.shown : new Map();
    const top = isSame ? this.box.scrollTop : 0;
    this.subject = subject;
    this.shown = new Map();
    for (const { name, data, make } of parts) {
      const old = before.get(name);
      const node = old && data.every((value, n) => value === old.data[n]) ? old.node : make();
      if (node) this.shown.set(name, { data, node });
    }
    const nodes = [...this.shown.values()].map(({ node }) => node);
    // Nodes that stay are never moved: that would drop the focus.
    for (const child of [...this.box.childNodes]) if (!nodes.includes(child)) child.remove();
    nodes.forEach((node, n) => {
      if (this.box.childNodes[n] !== node) this.box.insertBefore(node, this.box.childNodes[n] ?? null);
    });
    this.box.scrollTop = top;
    if (focus && !this.box.contains(document.activeElement)) this._focusAgain(isSame ? focus : { name: "", number: 0 });
  }

  /** Return the part that has the focus, and the number of the control in it; null where the focus is elsewhere. */
  _focus() {
    const focused = document.activeElement;
    if (!focused || focused === this.box) return null;
    for (const [name, { node }] of this.shown) {
      if (node.contains(focused)) return { name, number: controls(node).indexOf(focused) };
    }
    return null;
  }

  /** @param {{ name: string, number: number }} focus */
  _focusAgain({ name, number }) {
    const control = controls(this.shown.get(name)?.node)[number];
    (control instanceof HTMLElement ? control : this.box).focus({ preventScroll: true });
  }
}

/** @param {Node | undefined} node */
const controls = (node) => (node instanceof Element ? [...node.querySelectorAll(FOCUSABLE)] : []);
