"""Recognises credentials: by the names of the members that hold them, and by their form in a text.

Nearly every payload has none, which credential_search tells first. Only what that finds is looked at closely.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

from pydantic_core import SchemaValidator, core_schema

from agentspan import forks

SEPARATOR = "[_ .-]?"
"""Stands between the words of a name."""
NAMES = (
    f"(?:api|access|secret|private){SEPARATOR}keys?"
    f"|(?:signing|encryption|master|account|auth|subscription|consumer|app|application|functions|license|session|shared"
    f"|ssh){SEPARATOR}key"
    f"|passw(?:or)?d(?:s|[0-9])?|pass{SEPARATOR}phrase|pass{SEPARATOR}code|pwd|secrets?|credentials?|authorization|cookies?"
    f"|(?:access|auth|refresh|session|bearer|api|[cx]srf|security|oauth|secret|private|bot|user|deploy|git(?:hub|lab)"
    f"|slack|vault|hf){SEPARATOR}token"
)
"""How the names of members end that hold credentials. `input_tokens` is none."""
ID_TOKEN = f"id{SEPARATOR}token"  # but not `invalid_token`
_NAME = re.compile(f".*?(?:{NAMES}|(?P<id>{ID_TOKEN}))", re.IGNORECASE | re.ASCII | re.DOTALL)

# Names that hold credentials if that is what their value looks like: a `token` is also a word that a model said.
_TOKEN = re.compile(f"(.*?){SEPARATOR}token", re.IGNORECASE | re.ASCII | re.DOTALL)
_PASS = re.compile(r"(?:.*[_.-])?pass", re.IGNORECASE | re.ASCII | re.DOTALL)
_CURSOR = re.compile(
    ".*(?:page|next|prev|previous|continuation|continue|sync|cursor|resume|start|starting|pagination|skip|change|delta"
    "|watermark|stop|end|[beu]os|pad|unk|mask|special|image|audio)",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
ANY = re.compile(r".+", re.DOTALL)
_OPAQUE = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[!#-&*-;=?-~]{16,}")
_NO_WORD = re.compile(r"(?=[^0-9!@#$%^&*+=]*[0-9!@#$%^&*+=])\S{6,}")

_SCHEMA_WORD = re.compile(
    r"\$ref|\$id|\$defs|\$comment|type|title|description|default|examples?|enum|const|format|pattern|m(?:in|ax)Length"
    r"|minimum|maximum|items|properties|required|additionalProperties|anyOf|oneOf|allOf|not|nullable|readOnly|writeOnly"
    r"|deprecated|in|schema|contentEncoding|contentMediaType|x-.*"
)


class _Kind(NamedTuple):
    """One kind of credential: where to look closely, in JSON text as well as in plain text; what to cut out of text.

    `detect` is for an engine without look-around, and finds whatever `cut` does, however JSON escapes it, in less than
    500 characters, unless the kind is one of WHOLE. Of a match of `cut`, the group `secret` is cut out, or the one that
    `judge` says: None for nothing. `matches` yields all matches of `cut`, as its own `finditer` does. Where `cut` skips
    text that may be anything, it stops where it could begin anew: else each beginning would look through the same text.
    """

    detect: str
    cut: str
    judge: Callable[[re.Match[str]], str | None] = lambda match: "secret"
    matches: Callable[[re.Pattern[str], str], Iterator[re.Match[str]]] = re.Pattern.finditer


# --- Keys that are known by how they begin

_C = "[A-Za-z0-9_-]"
_W = "[A-Za-z0-9]"
KEYS = (
    f"sk-{_C}{{16,}}",  # OpenAI, Anthropic, DeepSeek, OpenRouter, Langfuse …
    f"[sr]k_{_C}{{16,}}",  # Stripe, ElevenLabs
    f"whsec_{_W}{{16,}}",
    "A[KS]IA[0-9A-Z]{16,}",  # AWS
    f"gh[pousr]_{_W}{{20,}}",  # GitHub
    f"github_pat_{_C}{{20,}}",
    f"gl(?:pat|rt|dt|ptt)-{_C}{{16,}}",  # GitLab
    f"x(?:ox[abceoprs]|app)-{_C}{{10,}}",  # Slack
    f"AIza{_C}{{30,}}",  # Google
    rf"ya29\.{_C}{{20,}}",
    f"GOCSPX-{_C}{{16,}}",
    f"(?:hf|gsk|r8|npm|shpat|shpss|lin_api|ntn|sbp|e2b|jina|dop_v1)_{_W}{{20,}}",  # Hugging Face, Groq, npm …
    f"(?:dckr_pat|pcsk|figd|glsa|sntrys)_{_C}{{20,}}",  # Docker, Pinecone, Figma, Grafana, Sentry
    f"(?:xai|pplx|tvly|csk)-{_C}{{16,}}",  # xAI, Perplexity, Tavily, Cerebras
    f"(?:pypi-AgE|nvapi-|PMAK-|NRAK-|xkeysib-){_C}{{16,}}",  # PyPI, NVIDIA, Postman, New Relic, Brevo
    f"lsv2_{_C}{{20,}}",  # LangSmith
    f"ATATT3{_C}{{20,}}",  # Atlassian
    rf"hvs\.{_C}{{20,}}",  # Vault
    rf"SG\.{_C}{{16,}}\.{_C}{{16,}}",  # SendGrid
    "dapi[0-9a-f]{32,}",  # Databricks
    "SK[0-9a-f]{32,}",  # Twilio
    f"[0-9]{{8,10}}:AA{_C}{{33}}",  # Telegram
)
_X = "[0-9A-Fa-f]{2}"
_ESCAPE = rf"(?:\\[nrtbf]|(?:\\u{_X}|%){_X})"  # in JSON, or in a URL: the key begins after it
_ESCAPED = re.compile(rf"{_ESCAPE}\Z")

_LIKE_WORDS = ("sk-", "sk_", "rk_", "xai-", "pplx-", "tvly-", "csk-")


def _key(match: re.Match[str]) -> str | None:
    """Distinguish a key from a part of a longer word, and from words with dashes (`sk-learn-compatible-…`)."""
    secret, text, start = match["secret"], match.string, match.start()
    before = text[start - 1 : start]
    if (
        before.isascii()
        and (before.isalnum() or before in ("_", "-"))
        and not _ESCAPED.search(text, max(0, start - 6), start)
    ):
        return None
    if secret.startswith(_LIKE_WORDS):
        longest = max(map(len, re.split("[_-]", secret[:1024])))
        if longest < 12 or (longest < 20 and not any(character in "0123456789" for character in secret)):
            return None
    return "secret"


# --- Assignments within a text: JSON, reprs, YAML, .env files, query strings, code, the source lines of a traceback

_ASSIGNED = f"(?i-u:{NAMES}|{ID_TOKEN}|token|pass)"
_QUOTE = r"(?P<q>\\*[\"'`])"
_UNTIL = r"(?:(?!(?<!\\)(?P=q))[^\r\n]){1,4096}"  # the same quote, but for escaped ones, or the end of the line
_ASSIGNMENT = rf"""(?ix)
    (?P<name>{NAMES}|{ID_TOKEN}|token|pass)
    (?:
        (?P<close>\\*["'`])?\]?[ \t]{{0,8}}
        (?P<sign>:[ \t]{{0,3}}[A-Za-z][\w.\[\]|]{{0,40}}[ \t]{{0,3}}=|[:=]{{1,3}}>?)(?P<gap>[ \t]{{0,8}})
        (?: [bruf]{{0,2}}{_QUOTE}(?P<quoted>{_UNTIL}) | (?P<bare>[^\s"'`<>()\[\]{{}},;&|\\]{{3,4096}}) )
    | >[ \t]{{0,8}}(?P<xml>[^<\s][^<\r\n]{{0,400}})</
    )"""
LONGEST = 16
"""Characters of a name before its end, at most."""
ENDS = "key|keys|phrase|code|passw(?:or)?d(?:s|[0-9])?|pwd|secrets?|credentials?|authorization|cookies?|token|pass"
"""How the names of assignments end. `re` searches for so few in 6 ns a character, for all names in 160."""
_OF_NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
_END_OF_LINE = re.compile(r"[.]?[ \t]*(?:#[^\n]{0,200})?(?:\Z|[\r\n\"'`]|\\[nr])")
_CODE = re.compile(r"[A-Za-z_]+|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)
PLACEHOLDER = re.compile(
    r"string|str|text|char|number|null|none|nil|true|false|undefined|required|optional|include|omit|same-origin"
    r"|\W|\*+|x{3,}|\.{3,}|…|<[^>]*>|\$\{[^}]*\}|\$\([^)]*\)|\$[A-Za-z_]+|%\(?\w+\)?[%s]|\{[^}]*\}|your[ _-].*",
    re.IGNORECASE | re.ASCII,
)


def _assignments(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Yield the assignments in a text: from the end of a name, and its sign, back to the name's start."""
    lower, at = text.lower(), 0
    if len(lower) != len(text):  # of one letter, İ, there are two small ones
        yield from pattern.finditer(text)
        return
    ends, names = _signs()
    while (end := ends.search(lower, at)) is not None:
        name = names.search(lower, max(at, end.start() - LONGEST), end.end())
        match = None if name is None else pattern.match(text, name.start())
        at = end.end() if match is None else match.end()
        if match is not None:
            yield match


@cache
def _signs() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what finds the ends of names, and names, each with the sign behind it."""
    rest = r"""[\\"'`\]\t ]*[:=>]"""
    return re.compile(f"(?:{ENDS}){rest}"), re.compile(f"(?:{NAMES}|{ID_TOKEN}|token|pass){rest}")


def _assigned(match: re.Match[str]) -> str | None:
    """Say which group of an assignment holds a credential: a placeholder, a type or an expression is none."""
    group = "quoted" if match["quoted"] else "xml" if match["xml"] else "bare"
    value, text, start, name = match[group], match.string, match.start(), match["name"].lower()
    head = text[max(0, start - 64) : start]
    prefix = head[len(head.rstrip(_OF_NAMES)) :]
    before = text[max(0, start - len(prefix) - 1) : start - len(prefix)]
    if before == "\\" and prefix[:1] in ("n", "r", "t"):  # a new line in JSON that is a text here
        before, prefix = "\n", prefix[1:]
    # In a URL, on a command line, in an environment: not in code, where names are assigned to names.
    outside = before in ("?", "&", ";") or prefix[:1] == "-" or (prefix + match["name"]).isupper()
    if name == "token":
        no = _CURSOR.fullmatch(prefix.rstrip("_.-")) or not (_NO_WORD if outside else _OPAQUE).fullmatch(value)
    elif name == "pass":
        no = prefix[-1:].isalnum() or not _NO_WORD.fullmatch(value)
    elif name == "pwd":
        no = value[0] in "/~"
    else:
        no = name[:2] == "id" and not _is_id_token(prefix + match["name"], len(prefix))
    if no:
        return None
    if group != "bare":
        return group
    if match["sign"] == "=" and not match["gap"] and text[match.start("sign") - 1] not in " \t":
        code = "." in value or value.lower().endswith(name) or text[match.end() : match.end() + 1] in tuple("()[],")
        return group if outside or not (code and _CODE.fullmatch(value)) else None
    if match["close"]:
        return group if len(value) >= 4 and value.isdigit() else None  # a number in JSON
    if match["sign"] == ":" and "-" in prefix + match["name"]:
        return group  # a header
    return group if _NO_WORD.fullmatch(value) and _END_OF_LINE.match(text, match.end()) else None


def _mixed(match: re.Match[str]) -> str | None:
    """Distinguish base64 from a path or a word."""
    secret = match["secret"]
    return None if secret.islower() or secret.isupper() or (secret.isalpha() and secret.istitle()) else "secret"


def _scheme(match: re.Match[str]) -> str | None:
    return "secret" if match["scheme"] and not match["secret"].isalpha() else _no_word(match)


def _no_word(match: re.Match[str]) -> str | None:
    secret = match["secret"]
    mixed = not secret.istitle() and not secret.islower() and not secret.isupper()
    return "secret" if _NO_WORD.fullmatch(secret) or (len(secret) >= 8 and mixed) else None


def _option(match: re.Match[str]) -> str | None:
    return None if _CURSOR.fullmatch((match["prefix"] or "").rstrip("-")) else _no_word(match)


_HEADERS = f"(?:authorization|cookie|api{SEPARATOR}key|(?:auth|access|private|security){SEPARATOR}token)"
_OPTIONS = "(?:passw(?:or)?d|passphrase|key|secret|token)"

OTHERS = {
    "private key": _Kind(
        "PRIVATE KEY(?: BLOCK)?-----",
        r"(?P<secret>-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?:[^-]|-(?!----BEGIN )){0,16384}?-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
        r"|(?:(?:\s|\\+[nr]){0,8}[A-Za-z0-9+/=]{16,}+){1,1000}(?:(?:\s|\\+[nr]){1,8}[A-Za-z0-9+/=]{1,80})?))",
    ),
    "cookie": _Kind(
        r"(?i-u:cookie)[\\\"'t\t ]*:",
        r"(?i)cookie(?:\\*[\"'])?[ \t]{0,3}:[ \t]{0,3}(?:\\*[\"'])?(?P<secret>[\w.-]{1,100}=[^\r\n\"'\\]{1,4096})",
    ),
    "authorization": _Kind(
        r"(?i-u:authorization)[\\\"'t\t ]*[:=]",
        r"(?i)authorization(?:\\*[\"'])?[ \t]{0,3}[:=][ \t]{0,3}(?:b?\\*[\"'])?"
        r"(?P<scheme>(?:bearer|basic|token|api-?key|key|digest|negotiate)[ \t]{1,4})?"
        r"(?P<secret>[^\s\"'\\,;<>{}\[\]()$]{6,4096})",
        _scheme,
    ),
    "assignment": _Kind(rf"{_ASSIGNED}[\\\"'`\]t\t ]*[:=>]", _ASSIGNMENT, _assigned, _assignments),
    "header in a pair": _Kind(
        rf"(?i-u:{_HEADERS})[\\\"']+,",  # the pairs in a repr
        rf"(?i){_HEADERS}\\*[\"'],[ \t]{{0,3}}b?{_QUOTE}(?P<secret>{_UNTIL})",
    ),
    "bearer": _Kind(
        r"(?i-u:bearer)(?:[ \t]|\\t){1,4}[A-Za-z0-9._~+/-]{16}",
        r"(?i:bearer)[ \t]{1,4}"
        r"(?P<secret>(?=[A-Za-z._~+/-]*[0-9=])[A-Za-z0-9._~+/-]{16,}=*|[A-Za-z._~+/-]{28,})",
    ),
    "basic": _Kind(
        r"(?i-u:basic)(?:[ \t]|\\t){1,4}[A-Za-z0-9+/]{12}",
        r"(?i:basic)[ \t]{1,4}(?P<secret>[A-Za-z0-9+/]{12,}+={0,2}+)(?![\w.-])",
        _mixed,
    ),
    "password in a URL": _Kind(
        r"://[^ \t\n\r\x0b\x0c/\":@]*:[^ \t\n\r\x0b\x0c/\"]*@",
        r"://[^\s/:@\"'?#]{0,100}:(?P<secret>[^\s/\"'?#]{1,200})@",
    ),
    "signed URL": _Kind(
        "[?&](?i-u:sig|(?:x-amz-|x-goog-)?signature)=",
        r"(?i)[?&](?:sig|(?:x-amz-|x-goog-)?signature)=(?P<secret>[^\s&\"'\\<>]{16,4096})",
    ),
    "curl": _Kind(
        r"curl(?s:.*)-(?:u|-user|-proxy-user|b|-cookie)",
        r"curl\b(?:(?!curl\b)[^;|]){0,400}?[ \t](?:"
        r"(?:-u|--user|--proxy-user)[ \t=]{0,3}(?:\\*[\"'])?[^\s:\"'\\]{0,100}:"
        r"|(?:-b|--cookie)[ \t=]{0,3}(?:\\*[\"'])?[\w.-]{1,100}="
        r")(?P<secret>[^\s\"'\\]{1,4096})",
    ),
    "option in a list": _Kind(
        rf"-(?i-u:{_OPTIONS})[\\\"']+,",
        rf"(?i)-(?P<prefix>[a-z0-9-]{{0,30}}-)?{_OPTIONS}\\*[\"'],[ \t]{{0,3}}b?{_QUOTE}(?P<secret>(?!-){_UNTIL})",
        _option,
    ),
    "mysql": _Kind(
        r"(?:mysql(?:dump|admin)?|mariadb)(?s:.*)-p",
        r"(?:mysql(?:dump|admin)?|mariadb)\b(?:(?!(?:mysql(?:dump|admin)?|mariadb)\b)[^\r\n|;]){0,300}?[ \t]-p"
        r"(?P<secret>[^\s\"'\\-][^\s\"'\\]{2,4096})",
    ),
    "password in SQL": _Kind(
        r"(?i-u:password)[ \t]+'",
        r"(?i)\b(?:user|role|login)\b(?:(?!\b(?:user|role|login)\b)[^;']){1,200}?\bpassword[ \t]+'"
        r"(?P<secret>[^'\r\n]{1,4096})'",
    ),
    "option": _Kind(
        rf"-(?i-u:{_OPTIONS})(?:[ \t]|\\t)",
        rf"(?i)(?<!-)--(?P<prefix>[a-z0-9-]{{0,30}}-)?{_OPTIONS}[ \t]{{1,4}}(?:\\*[\"'])?"
        r"(?P<secret>[^\s\"'\\-][^\s\"'\\]{5,4096})",
        _option,
    ),
    "login": _Kind(
        r"(?i-u:sshpass|docker[\\\"', \t]+login|login(?:[ \t]|\\[nrt])|identified by|with (?:encrypted )?password)",
        r"(?i)(?:sshpass[ \t]+-p[ \t]*"
        r"|docker login\b(?:(?!docker login\b)[^\r\n|;]){0,300}?[ \t](?:-p[ \t]*|--password[ \t]+)"
        r"|login[ \t\r\n]+\S{1,100}[ \t\r\n]+password[ \t\r\n]+|(?:identified by|with (?:encrypted )?password)[ \t]+)"
        r"(?:\\*[\"'])?(?P<secret>[^\s\"'\\;-][^\s\"'\\;]{0,4096})",
    ),
    "webhook": _Kind(
        r"(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/",
        r"(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/(?P<secret>[\w/-]{20,})",
    ),
    "JSON web token": _Kind(  # the look behind keeps a text of nothing but their beginnings linear
        rf"eyJ{_C}{{8,}}\.{_C}{{8}}",
        rf"(?P<secret>eyJ(?:(?<!{_C}eyJ)|(?<=\\[nrtbf]eyJ)|(?<=\\u{_X}{_X}eyJ)|(?<=%{_X}eyJ)){_C}{{8,}}\.{_C}{{8,}}(?:\.{_C}*)?)",
    ),
}
WHOLE = ("private key", "JSON web token")
"""What may be long: it is looked for in a text as a whole, and before all others."""
_KEY_KINDS = tuple(_Kind(key, f"(?P<secret>{key})", _key) for key in KEYS)
KINDS = (*OTHERS.values(), *_KEY_KINDS)
SOME_KEY = f"(?:^|[^A-Za-z0-9_-]|{_ESCAPE})(?:{'|'.join(KEYS)})"


def detects(*kinds: str) -> str:
    """Return the pattern that finds these kinds of OTHERS."""
    return "|".join(OTHERS[kind].detect for kind in kinds)


Found = Callable[[Any], bool]
"""Tells whether a text has a match."""


class Ready(NamedTuple):
    """A kind, compiled: whether it is in a text, perhaps; its matches there; and what to cut out of one."""

    found: Found
    matches: Callable[[str], Iterator[re.Match[str]]]
    judge: Callable[[re.Match[str]], str | None]


@cache
def ready() -> tuple[tuple[Found, tuple[Ready, ...]], ...]:
    """Return the kinds, compiled, in groups, each with a search that tells whether any of them is there.

    The first group has what is looked for in a text as a whole.
    """
    parts = [kind for kind in OTHERS if kind not in WHOLE]
    groups = [([OTHERS[kind] for kind in names], detects(*names)) for names in (WHOLE, parts)]
    groups.append(([*_KEY_KINDS], SOME_KEY))
    return tuple((search(any_), tuple(map(_ready, kinds))) for kinds, any_ in groups)


def _ready(kind: _Kind) -> Ready:
    return Ready(search(kind.detect), partial(kind.matches, re.compile(kind.cut, re.ASCII)), kind.judge)


def search(pattern: str) -> Found:
    """Return a function that tells whether a text has a match; pydantic has Rust's regex engine."""
    schema = core_schema.str_schema(pattern=pattern, regex_engine="rust-regex")
    with forks.importing:  # the first validator of a process is made under a lock, which a child would inherit held
        return SchemaValidator(schema).isinstance_python


def names_credential(name: str) -> bool:
    """Return whether a member of this name holds a credential, whatever that looks like."""
    return looks_of(name) is ANY


@lru_cache(maxsize=4096)
def looks_of(name: str) -> re.Pattern[str] | None:
    """Return what texts look like that are credentials in a member of this name, or None if none are."""
    tail = name[-64:]
    if tail.isascii() and not _ends_as_name()(tail):  # 0.3 µs, where the expressions below take up to 10
        return None
    found = _NAME.fullmatch(tail)
    if found is not None and (found["id"] is None or _is_id_token(tail, found.start("id"))):
        return None if name in ("PWD", "OLDPWD") else ANY  # those are folders
    token = _TOKEN.fullmatch(tail)
    if token is not None:
        return None if _CURSOR.fullmatch(token[1]) else _OPAQUE
    return _NO_WORD if _PASS.fullmatch(tail) else None


@cache
def _ends_as_name() -> Found:
    return search(rf"(?i-u:{NAMES}|{ID_TOKEN}|token|pass)$")


def _is_id_token(name: str, start: int) -> bool:
    before = name[start - 1 : start]
    return not before.isalpha() or (before.islower() and name[start].isupper())


def is_schema(keys: Iterable[Any]) -> bool:
    """Return whether an object with these keys is a JSON Schema, in which `password` is no password."""
    found = False
    for key in keys:
        if type(key) is not str or not _SCHEMA_WORD.fullmatch(key):
            return False
        found = True
    return found
