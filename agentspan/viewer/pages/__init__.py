"""The pages across runs, in the order of the bar. Each is a module with a `Page`."""

from agentspan.viewer.page import Page

PAGES: tuple[Page, ...] = ()
