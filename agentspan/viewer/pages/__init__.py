"""The pages across runs, in the order of the bar. Each is a module with a `Page`."""

from agentspan.answers.findings import FINDINGS
from agentspan.viewer.page import Page, of_finding
from agentspan.viewer.pages.compare import COMPARE
from agentspan.viewer.pages.cost import COST
from agentspan.viewer.pages.failures import FAILURES
from agentspan.viewer.pages.search import SEARCH
from agentspan.viewer.pages.sessions import SESSIONS
from agentspan.viewer.pages.versions import VERSIONS

_OWN = (FAILURES, VERSIONS, COMPARE, COST, SESSIONS, SEARCH)
PAGES: tuple[Page, ...] = (*_OWN, *map(of_finding, sorted(FINDINGS.keys() - {page.name for page in _OWN})))
