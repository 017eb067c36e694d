// The banner that says what is wrong with the server, and when the page asks it again.

import { byId, el, messageOf } from "./dom.js";

const FIRST_MS = 1000;
const LONGEST_MS = 5000;

export class Lost {
  constructor() {
    this.box = byId("lost");
    this.tries = 0;
    this.timer = 0;
    /** Ends the wait for the next try. @type {() => void} */
    this.tryNow = () => {};
    // An answer to anything hides the banner, and is a reason to go on at once.
    addEventListener("serverback", () => {
      this.clear();
      this.tryNow();
    });
    addEventListener("online", () => this.tryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.tryNow());
  }

  /**
   * Ask until there is an answer.
   * @template Answer
   * @param {() => Promise<Answer>} ask
   * @returns {Promise<Answer>}
   */
  async until(ask) {
    for (;;) {
      try {
        const answer = await ask();
        this.clear();
        return answer;
      } catch (error) {
        await this.wait(error);
      }
    }
  }

  /** Hide the banner: the server has answered. */
  clear() {
    this.tries = 0;
    this.box.hidden = true;
  }

  /**
   * Say what is wrong, and wait until it is time for the next try; each wait is twice as long, up to five seconds.
   * @param {unknown} error
   * @returns {Promise<void>}
   */
  wait(error) {
    const until = performance.now() + Math.min(LONGEST_MS, FIRST_MS * 2 ** this.tries++);
    const next = el("span", { "aria-hidden": "true" }); // a screen reader would say each second
    const show = () => {
      const seconds = Math.ceil((until - performance.now()) / 1000);
      next.textContent = seconds > 0 ? `Next try in ${seconds} s.` : "Trying again…";
      if (seconds <= 0) this.tryNow();
    };
    return new Promise((resolve) => {
      this.tryNow = () => {
        clearInterval(this.timer);
        next.textContent = "Trying again…";
        this.tryNow = () => {};
        resolve();
      };
      const button = el("button", { type: "button", class: "link", onclick: () => this.tryNow() }, "Try now");
      this._say(messageOf(error), next, button);
      this.timer = window.setInterval(show, 250);
      show();
    });
  }

  /**
   * Write the banner; its button keeps the focus.
   * @param {string} message
   * @param {HTMLElement} next
   * @param {HTMLButtonElement} button
   */
  _say(message, next, button) {
    const hadFocus = this.box.contains(document.activeElement);
    const said = this.box.querySelector("span");
    if (said?.textContent === message && !this.box.hidden) {
      this.box.replaceChildren(said, " ", next, " ", button); // not announced once more
    } else this.box.replaceChildren(el("span", null, message), " ", next, " ", button);
    this.box.hidden = false;
    if (hadFocus) button.focus();
  }
}
