// Parts of an element, of which each is made anew only when its data changed: what a reader has unfolded, selected or focused
// in the others stays.

export class Parts {
  /** @param {HTMLElement} box */
  constructor(box) {
    this.box = box;
    this.subject = "";
    /** @type {Map<string, { data: unknown[], node: Node }>} */
    this.shown = new Map();
  }

  /**
   * Show the parts of a subject, in their order; those of another subject are all made anew.
   * @param {string} subject
   * @param {DetailPart[]} parts
   */
  show(subject, parts) {
    const hadFocus = this.box.contains(document.activeElement) && document.activeElement !== this.box;
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
    if (hadFocus && !this.box.contains(document.activeElement)) this.box.focus({ preventScroll: true });
  }
}
