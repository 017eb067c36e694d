// Commands to copy are wrapped; what they print keeps its columns.
// A table that is wider than the window can be scrolled with keys. The theme wraps tables once the page is there.
new MutationObserver(() => {
  for (const wrap of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])")) {
    wrap.tabIndex = 0;
    wrap.setAttribute("role", "region");
    wrap.setAttribute("aria-label", `Table ${[...document.querySelectorAll(".md-typeset__scrollwrap")].indexOf(wrap) + 1}`);
  }
  for (const code of document.querySelectorAll("pre code:not(.commands)")) {
    if (/^(\$ .*\n*)+$/.test(code.textContent)) code.classList.add("commands");
  }
}).observe(document.documentElement, { childList: true, subtree: true });
