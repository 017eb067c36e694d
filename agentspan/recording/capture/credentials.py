"""Recognises credentials: by the names of the members that hold them, and by their form in a text.

Nearly every payload has no credential, which the fast searches in `redaction` find first. Only if they find something
are the exact patterns of this module used.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

from pydantic_core import SchemaValidator, core_schema

from agentspan import host
from agentspan.text import lazy_pattern

SEPARATOR = "[_ .-]?"
"""The pattern of the separator between two words of a name."""


def _names(*names: str) -> str:
    """Return the pattern of names. A blank becomes SEPARATOR; a letter beyond ASCII may also be escaped as in JSON."""
    return "|".join("".join(_LETTERS.get(letter) or _letter(letter) for letter in name) for name in names)


def _letter(letter: str) -> str:
    if letter.isascii():
        return letter
    raw = dict.fromkeys((letter, letter.upper(), letter.lower()))
    return f"(?:{'|'.join(raw)}|{'|'.join(map(_ESCAPED_LETTER, map(ord, raw)))})"


_ESCAPED_LETTER = r"\\{{1,4}}u{:04x}".format
_LETTERS = {" ": SEPARATOR}

_KEY_NAMES = (
    f"(?:api|access|secret|private){SEPARATOR}keys?"
    f"|(?:signing|encryption|master|account|auth|subscription|consumer|app|application|functions|license|session|shared"
    f"|ssh|pre{SEPARATOR}shared){SEPARATOR}key"
)
NAMES = (
    f"{_KEY_NAMES}"
    f"|passw(?:or[dt]|d)(?:s|[0-9])?|pass{SEPARATOR}phrase|pass{SEPARATOR}code|pwd|pswd|authorization|cookies?"
    f"|secrets?(?:{SEPARATOR}(?:string|value))?|secret{SEPARATOR}key{SEPARATOR}base|credentials?|passw(?:or)?d{SEPARATOR}(?:confirm(?:ation)?|plain(?:text)?)"
    f"|(?:access|auth|refresh|session|bearer|api|[cx]srf|security|oauth|secret|private|bot|user|deploy|git(?:hub|lab)"
    f"|slack|vault|hf){SEPARATOR}token"
)
"""The endings of names whose members hold credentials. `input_tokens` is not one."""
AS_WORDS = f"id{SEPARATOR}token|psk|senhas?|heslo|haslo"
"""Names of credentials that count only as whole words: `invalid_token` and `desenha` do not match."""
IN_ASCII = _names(
    "mot de passe", "contrasena", "kennwort", "wachtwoord", "kata sandi", "mat khau", "parola d['_]?ordine",
    "(?:clave|chave) (?:secreta|privada|(?:de )?api|de acceso)",
)  # fmt: skip
"""The endings of names of credentials in other languages, as far as they are ASCII."""
_ALPHABETS = (
    "contraseña", "hasło", "şifre", "mật khẩu", "clé (?:secrète|privée|(?:d[e'])? ?api)",
    "(?:api|geheimer|privater) schlüssel", "пароль", "секретный ключ", "ключ api", "api ключ", "κωδικός πρόσβασης",
    "סיסמה", "סיסמא", "كلمة المرور", "كلمة السر", "كلمه المرور", "رمز عبور", "گذرواژه", "پاس ورڈ", "पासवर्ड", "कूटशब्द",
    "পাসওয়ার্ড", "ਪਾਸਵਰਡ", "પાસવર્ડ", "கடவுச்சொல்", "รหัสผ่าน", "パスワード", "暗証番号", "apiキー", "秘密鍵", "密码", "密碼",
    "口令", "密钥", "密鑰", "秘钥", "私钥", "비밀번호", "암호", "비밀키",
)  # fmt: skip
BEYOND_ASCII = _names(*_ALPHABETS)
"""The endings of names of credentials in other alphabets, or with accents."""
_UNSEEN = lazy_pattern("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
"""Characters of zero width. Between the letters of a name, they change it for programs but not for readers."""
ODD = (
    "[\u00ad\u0300-\u036f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u249c-\u24e9\ufb00-\ufb06\ufe00-\ufe0f"
    "\ufeff\uff01-\uff9f\U0001d400-\U0001d7ff]"
)
"""Characters that NFKC normalizes or that have no width, and that could disguise a name."""

# Names that hold credentials only if the value looks like one: a `token` may also be a word of a model's output.
_TOKEN = lazy_pattern(f"(.*?){SEPARATOR}token", re.IGNORECASE | re.ASCII | re.DOTALL)
_CURSOR = lazy_pattern(
    ".*(?:page|next|prev|previous|continuation|continue|sync|cursor|resume|start|starting|pagination|skip|change|delta"
    "|watermark|stop|end|[beu]os|pad|unk|mask|special|image|audio)",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
_REFERENCE = lazy_pattern(".*(?:existing|pull)[_ .-]?secrets?", re.IGNORECASE | re.ASCII | re.DOTALL)
"""Names of members in Kubernetes whose value is the name of a secret, and not the secret."""
ANY = lazy_pattern(r".+", re.DOTALL)
_OPAQUE = lazy_pattern(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[!#-&*-;=?-Z^-z|~]{16,}")
_NO_WORD = lazy_pattern(r"(?=[^0-9!@#$%^&*+=]*[0-9!@#$%^&*+=])\S{6,}")
_NO_SIZE = lazy_pattern(r"(?![0-9.,]+[A-Za-z%]{0,3}\Z|auto\Z|none\Z)\S{4,}")
_MIXED = lazy_pattern(r"(?=[^0-9]*[0-9])(?=[^a-z]*[a-z])(?=[^A-Z!@#$%^&*+=?]*[A-Z!@#$%^&*+=?])\S{8,}")
_LOGIN = lazy_pattern(r"(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])(?=[^0-9=]*[0-9=])[A-Za-z0-9+/]{12,}={0,2}")
_RANDOM = lazy_pattern(r"[0-9a-f-]{32,}|(?=[^0-9]*[0-9])(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])[A-Za-z0-9_-]{20,}")
_WORDS = lazy_pattern(r"(?:[a-z]{3,10}[ \n,]{1,2}){11,23}[a-z]{3,10}", re.IGNORECASE)
PIN = lazy_pattern(r"[0-9]{4,8}")  # a number of three digits is an output of a circuit
_SHORT_PIN = lazy_pattern(r"[0-9]{4}")  # one of six is also the code of a post office
_CARD_CODE = lazy_pattern(r"[0-9]{3,4}")
NUMBERS = (PIN, _SHORT_PIN, _CARD_CODE)
"""The patterns of credentials that may also be numbers instead of texts."""
LARGEST = 10**8
"""The upper bound of numbers that match a pattern in NUMBERS."""

_DOUBTFUL_KEY_NAMES = (
    f"(?:client|server|admin|root|service(?:{SEPARATOR}(?:role|account))?|hmac|aes|decryption|jwt|webhook|write|recovery"
    f"|activation|product|storage|wallet|merchant|maps|openai|anthropic|stripe|google|azure|aws|gemini|mistral|cohere"
    f"|llm){SEPARATOR}key"
)
_AXIS_KEY_NAMES = f"x{SEPARATOR}key"
KEY_NAMES = f"{_KEY_NAMES}|{_DOUBTFUL_KEY_NAMES}|{_AXIS_KEY_NAMES}|secret{SEPARATOR}key{SEPARATOR}base"
"""All names of credentials with the word *key*."""
_MIXED_BEYOND = "schlüssel", "clé"
_OPAQUE_BEYOND = "токен", "令牌", "トークン", "토큰"
_MAY = {
    "pw|psw|mdp": _NO_SIZE,
    "pass|parola|parol|sifre|sandi": _NO_WORD,
    "clave|chave": _MIXED,
    _names(*_MIXED_BEYOND): _MIXED,
    f"{_DOUBTFUL_KEY_NAMES}|jwt": _OPAQUE,
    _names(*_OPAQUE_BEYOND): _OPAQUE,
    _AXIS_KEY_NAMES: _RANDOM,
    "auth": _LOGIN,
    f"mnemonic|seed{SEPARATOR}phrase": _WORDS,
    f"pin|t?otp|otp{SEPARATOR}code": PIN,
    f"pin{SEPARATOR}code": _SHORT_PIN,
    "cvv2?|cvc2?": _CARD_CODE,
}
"""Doubtful names, which count only as whole words, and the pattern of the values that are credentials."""
CODES = "|".join(names for names, looks in _MAY.items() if looks in NUMBERS)
_NO_CODES = [names for names, looks in _MAY.items() if looks not in NUMBERS]
DOUBTFUL = "|".join(names for names in _NO_CODES if names.isascii())
DOUBTFUL_BEYOND_ASCII = "|".join(names for names in _NO_CODES if not names.isascii())

_RAW = [
    re.sub("^.*?([a-z]{0,2} ?[^\x00-\x7f])", r"\1", name) for name in (*_ALPHABETS, *_MIXED_BEYOND, *_OPAQUE_BEYOND)
]
RAW_BEYOND = "|".join(_RAW).replace(" ", SEPARATOR)
"""The names beyond ASCII from their first such letter on, with two letters before it: a fast search for them."""
LETTERS_BEYOND = "|".join(re.findall("[^\x00-\x7f]+", name)[0] for name in _RAW)
"""The first letters beyond ASCII of these names, which stand together also where ASCII is left out."""
_FOREIGN = {letter for letter in "".join(_RAW) if not letter.isascii()}
_CODES_BEYOND = sorted(f"{ord(each):04x}" for letter in _FOREIGN for each in {letter, letter.swapcase()})
ESCAPED_BEYOND = rf"\\[uU](?i-u:{'|'.join(_CODES_BEYOND)})"
"""The pattern of an escaped letter of these names."""

_SCHEMA_WORD = lazy_pattern(
    r"\$ref|\$id|\$defs|\$comment|type|title|description|default|examples?|enum|const|format|pattern|m(?:in|ax)Length"
    r"|minimum|maximum|items|properties|required|additionalProperties|anyOf|oneOf|allOf|not|nullable|readOnly|writeOnly"
    r"|deprecated|in|schema|contentEncoding|contentMediaType|x-.*"
)


class _Kind(NamedTuple):
    """One kind of credential: a fast pattern that detects it, and an exact pattern that cuts it out of a text.

    Attributes:
        detect: the fast pattern, for an engine without look-around. It finds all that `cut` finds, in plain text and in
            JSON text with any escaping, within 500 characters unless the kind is in WHOLE.
        cut: the exact pattern. If it skips any text, it stops where the pattern could begin again; otherwise each begin
            would search through the same text.
        judge: returns the name of the group to cut out of a match of `cut`, `secret` by default; None for no group.
        matches: yields all matches of `cut`, as `finditer` does.
    """

    detect: str
    cut: str
    judge: Callable[[re.Match[str]], str | None] = lambda match: "secret"
    matches: Callable[[re.Pattern[str], str], Iterator[re.Match[str]]] = lambda pattern, text: pattern.finditer(text)


# --- Keys with a known begin

_C = "[A-Za-z0-9_-]"
_W = "[A-Za-z0-9]"
_D = "[A-Za-z0-9_.-]"
_B = "[A-Za-z0-9+/]"
_AZURE = "Ba|MC|St|Sb|Eh|Rm"  # batch, storage, service bus …: Azure's keys say what they are for
_U = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
KEY_GROUPS: tuple[tuple[str | tuple[str, str], ...], ...] = (
    (
        "A(?:[KS]IA|BIA|CCA|3T[0-9A-Z])[0-9A-Z]{16,}",  # AWS
        f"gh[pousr]_{_W}{{20,}}",  # GitHub
        f"[sr]k_{_C}{{16,}}",  # Stripe, ElevenLabs
        f"sk-{_C}{{16,}}",  # OpenAI, Anthropic, DeepSeek, OpenRouter, Langfuse …
    ),
    (
        f"(?:hf|r8|fw|e2b)_{_W}{{20,}}",  # Hugging Face, Replicate, Fireworks, E2B
        r"dt0[a-z][0-9]{2}\.[0-9A-Z]{24}\.[0-9A-Z]{40,}",  # Dynatrace
        rf"dp\.[a-z]{{2,5}}\.{_D}{{30,}}",  # Doppler
        rf"sl\.(?:u\.)?{_C}{{100,}}",  # Dropbox
        f"sm_[aps]at_{_W}{{16}}",  # SettleMint
        "c[ks]_[0-9a-f]{40}",  # WooCommerce
        "fc-[0-9a-f]{32}",  # Firecrawl
        f"re_{_W}{{8}}_{_W}{{20,}}",  # Resend
        f"tk-us-{_C}{{40,}}",  # Scalingo
        f"ls(?:v2|_)_{_C}{{20,}}",  # LangSmith
        f"(?:xai|csk|PMAK)-{_C}{{16,}}",  # xAI, Cerebras, Postman
        f"AQVN{_C}{{35,}}",  # Yandex
        f"AIza{_C}{{30,}}",  # Google
        rf"ya29\.{_C}{{20,}}",
    ),
    (
        f"GOCSPX-{_C}{{16,}}",
        f"1//0{_C}{{40,}}",
        rf"AQ\.Ab8{_C}{{30,}}",
        (f"_(?:api|oauth)_{_W}{{20}}", f"lin_(?:api|oauth)_{_W}{{20,}}"),  # Linear
        rf"hv[brs]\.{_C}{{20,}}",  # Vault
        "ABSK[A-Za-z0-9+/]{60,}={0,2}",  # Amazon Bedrock
        f"LTAI{_W}{{16,}}",  # Alibaba
        f"AKCp{_W}{{40,}}",  # JFrog
        "API-[0-9A-Z]{26}",  # Octopus
        f"CFPAT-{_C}{{40,}}",  # Contentful
        f"FLWSECK(?:_TEST)?-{_W}{{12,}}",  # Flutterwave
        f"GR1348941{_C}{{16,}}",  # GitLab
        f"HRKU-{_C}{{30,}}",  # Heroku
        f"RGAPI-{_U}",  # Riot
        rf"t1\.[A-Z0-9a-z_-]{{10,}}={{0,2}}\.{_C}{{80,}}",  # Yandex
        f"pn[bu]_{_W}{{36}}",  # Prefect
        "p8e-[0-9a-z]{32}",  # Adobe
        ("_mmk", f"{_W}{{6}}_{_W}{{29}}_mmk"),  # MaxMind
        "CLOJARS_[0-9a-z]{40,}",
        "glc_[A-Za-z0-9+/]{32,}",  # Grafana
        r"v1\.0-[0-9a-f]{24}-[0-9a-f]{40,}",  # Cloudflare
        f"ATBB{_W}{{28,}}",
        f"whsec_{_W}{{16,}}",
        f"EAA[A-Z]{_C}{{56,}}",  # Square, Facebook
        f"sb_secret_{_C}{{20,}}",  # Supabase
        (f":AA{_C}{{33}}", f"[0-9]{{8,10}}:AA{_C}{{33}}"),  # Telegram
        f"mdb_sa_sk_{_C}{{20,}}",  # MongoDB
        f"sq0(?:atp|csp)-{_C}{{22,}}",  # Square
        (f"_v1_{_C}{{20}}", f"(?:do[oprt]|tgp|wandb)_v1_{_C}{{20,}}"),  # DigitalOcean, Together, Weights & Biases
    ),
    (
        "f(?:o1|m1[ar]|m2)_[A-Za-z0-9+/=_-]{40,}",  # Fly
        f"cf(?:k|ut|at)_{_W}{{30,}}",  # Cloudflare
        ("_eyJ[A-Za-z0-9+/]{40}", "ops_eyJ[A-Za-z0-9+/]{40,}"),  # 1Password
        f"fio-u-{_C}{{40,}}",  # Frame
        "pul-[0-9a-f]{40}",  # Pulumi
        rf"pat-(?:na|eu|ap)[0-9]-{_U}",  # HubSpot
        rf"[ps]at\.{_C}{{22}}\.{_W}{{24}}\.{_W}{{20}}",  # Harness
        "sgp_(?:[0-9a-f]{16}_|local_)?[0-9a-f]{40}",  # Sourcegraph
        "oy2[0-9a-z]{43,}",  # NuGet
        (f"pat{_W}{{14}}\\.[0-9a-f]{{60}}", f"pat{_W}{{14}}\\.[0-9a-f]{{60,}}"),  # Airtable
        f"nf[cp]_{_W}{{36,}}",  # Netlify
        (f"ss-[spd][a-z]{{5,12}}-{_U}", f"access-(?:sandbox|development|production)-{_U}"),  # Plaid
        rf"SG\.{_C}{{16,}}\.{_C}{{16,}}",  # SendGrid
        (f"-AgE{_C}{{16}}", f"pypi-AgE{_C}{{16,}}"),
        "A3-[0-9A-Z]{6}-[0-9A-Z]{6}[0-9A-Z-]{16,}",  # 1Password
        f"LS0tLS1CRUdJTiB(?:QUklW|SU0Eg|FQyBQ|PUEVO|FTkNS|EU0Eg|QR1Ag){_B}{{40,}}={{0,2}}",  # a private key in base64
    ),
    (
        (rf"\.mws\.{_U}", rf"amzn\.mws\.{_U}"),
        ("(?:kua|rsr)_[0-9a-f]{40}", "(?:bkua|crsr)_[0-9a-f]{40,}"),  # Buildkite, Cursor
        ("(?:api|dme)_[0-9a-z]{40}", "(?:napi_[0-9a-z]{40,}|rdme_[0-9a-z]{60,})"),  # Neon, ReadMe
        (f"ret_{_W}{{40}}", f"secret_{_W}{{40,}}"),  # Notion
        (  # Lob, Mollie, GoCardless …
            f"(?:est|ive)_{_W}{{24}}",
            f"(?:shippo_|duffel_)?(?:live|test)_{_W}{{24,}}{_C}{{6,}}",
        ),
        ("gems_[0-9a-f]{40}", "rubygems_[0-9a-f]{40,}"),
        (f"k-api-key-{_W}{{20}}", f"bedrock-api-key-{_W}{{20,}}"),
        ("le_(?:tkn|oauth|pw)_", "pscale_(?:tkn|oauth|pw)_[A-Za-z0-9_.=-]{30,}"),  # PlanetScale
        (f"256~{_C}{{43}}", f"sha256~{_C}{{43}}"),  # OpenShift
        ("eyJrIjoi[A-Za-z0-9+/]{60}", "eyJrIjoi[A-Za-z0-9+/]{60,}={0,2}"),  # Grafana
        (r"\.atlasv1\.", rf"{_W}{{14}}\.atlasv1\.{_C}{{50,}}"),  # Terraform
        (":APA91b", f"{_C}{{8,30}}:APA91b{_C}{{100,}}"),  # Firebase
        "dapi[0-9a-f]{32,}",  # Databricks
        (f"ina_{_W}{{20}}", f"jina_{_W}{{20,}}"),
        f"vc[kp]_{_W}{{20,}}",  # Vercel
        "sq[apu]_[0-9a-f]{40}",  # SonarQube
        "tfp_[A-Za-z0-9_.=-]{40,}",  # Typeform
        f"ico-{_W}{{32}}",  # Infracost
        (f"ox[a-eprs]-{_C}{{10}}|xapp-{_C}{{10}}", f"x(?:ox[a-eprs]|app)-{_C}{{10,}}"),  # Slack
        (f"p(?:at|ca|pa|ss)_{_W}{{20}}", f"shp(?:at|ca|pa|ss)_{_W}{{20,}}"),  # Shopify
        (f"b_pat_{_C}{{20}}", f"github_pat_{_C}{{20,}}"),
        (  # Docker …
            f"(?:kr_[op]at|csk|igd|lsa|ry[su])_{_C}{{20}}",
            f"(?:dckr_[op]at|pcsk|figd|glsa|sntry[su])_{_C}{{20,}}",
        ),
        (  # Perplexity, Tavily …
            f"(?:plx|vly|api|sib)-{_C}{{16}}",
            f"(?:pplx|tvly|nvapi|xkeysib|xsmtpsib)-{_C}{{16,}}",
        ),
        (  # Mailgun, Tailscale, Defined Networking
            f"key-(?:[0-9a-f]{{32}}|[a-z]{{2,10}}-{_C}{{16}}|{_C}{{40}})",
            f"key-[0-9a-f]{{32}}|tskey-[a-z]{{2,10}}-{_C}{{16,}}|dnkey-{_C}{{40,}}",
        ),
        (  # Braintree
            r"(?:ion|box)\$[0-9a-z]{16}\$",
            r"access_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{32}",
        ),
        ("JQQJ9", f"{_W}{{20,60}}JQQJ9[0-9A-Z]{_W}{{20,}}"),  # Azure
        f"(?:npm|gsk|ntn|sbp|xau|rpa|rnd|phx)_{_W}{{20,}}",  # npm, Groq, Notion, Supabase, Xata, RunPod …
        "s-s4t2(?:ud|af)-[0-9a-f]{64}",
    ),
    (
        ("i_org_[A-Za-z]{30}", "api_org_[A-Za-z]{30,}"),  # Hugging Face
        rf"[MNO][DTjz][A-Za-z0-9_-][wxyz0-5]{_C}{{18,26}}\.{_C}{{6}}\.{_C}{{27,40}}",  # Discord: a number in base64
        f"AT[A-Z]TT3{_C}{{20,}}",  # Atlassian
        rf"gl[a-z]{{2,6}}-{_D}{{16,}}",  # GitLab
        "SK[0-9a-f]{32,}",  # Twilio
        "AGE-SECRET-KEY-1[0-9A-Z]{50,}",
        ("Q~", r"[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,}"),  # Azure
        f"NR[A-Z]{{2}}-{_C}{{16,}}",  # New Relic
        ("-us[0-9]", "[0-9a-f]{32}-us[0-9]{1,2}"),  # Mailchimp
        (f"\\+A(?:{_AZURE}){_B}{{6}}=", f"{_B}{{32}}(?:{_B}{{44}})?\\+A(?:{_AZURE}){_B}{{6}}={{1,2}}"),
    ),
    (  # a few ends for many begins, because each end takes as many states of the search as it has characters
        f"(?:pa-|BSA|ctx7sk-|ydc-sk-|dbt[cpsu]_|secret-(?:live|test)-|bb_(?:live|test)_){_C}{{27,}}",  # Voyage …
        "(?:dtn_|key_|dose|rootly_|signkey-[a-z]{3,8}-)[0-9a-f]{32,}",  # Daytona, Runway, Databricks, Inngest
        f"(?:luma|xa[ap]t)-{_U}",  # Luma, Axiom
        f"CC(?:DB1|IPAT|IPRJ)_{_W}{{16,}}_{_W}{{30,}}",  # CockroachDB, CircleCI
        rf"sdk-{_U}",  # LaunchDarkly
        ("/12[0-9]{14}:[0-9a-f]{32}", "2/[0-9]{16}/12[0-9]{14}:[0-9a-f]{32}"),  # Asana
        rf"snyk_[a-z]{{3}}\.[0-9a-f]{{8}}\.{_C}{{40,}}",
        "IQoJb3JpZ2lu[A-Za-z0-9+/]{100,}={0,2}",  # AWS
        ("jsn[0-9a-f]{12}", "[0-9a-f]{10}msh[0-9a-f]{15}p[0-9a-f]{6}jsn[0-9a-f]{12}"),  # RapidAPI
    ),
    (
        "(?:pylf_v[0-9]_[a-z]{2,9}_|paig_|vtwn_|llx-|m0-|ck-|apify_[a-z]{2,5}_|ste-)"
        f"{_W}{{20,}}",  # Pydantic, Apify …
        f"bu_{_C}{{27,}}",  # Browser Use
        rf"(?:prod|dev|preview|project):[a-z0-9-]{{3,60}}\|{_B}{{40,}}={{0,2}}",  # Convex
    ),
    (
        "(?:cio|cmVmdGtu|dd(?:app|pat)_|hc[abx][ilm]k_|polar_[a-z_]{2,6}_|tr_[a-z]{2,7}_|retool_|EZ[AT]K|aio_)"
        f"{_W}{{20,}}",
    ),
    (
        "(?:bt-st-|nk-|a[ks]-|cal_live_|vercel_blob_rw_|pdl_(?:live|sdbx)_apikey_|tsec_|unkey_|opk_|bxt_|pit_|KGAT_)"
        f"{_W}{{20,}}",
    ),
    (
        "(?:zpka_|hl_sk_|apk_user_|sgamp_user_|lin_wh_|fig(?:o|u)_|vc[air]_|z_1dWlkI|essu_|dG9rOj|cflt|arc_|secret-)"
        f"{_W}{{20,}}",
    ),
)
"""The patterns of keys with a known begin; for keys with a known part inside, a pair: the part, and the whole key.

The prefixes and lengths are those documented by the makers of the keys, or else those in the rules of gitleaks. Each
group is one of the fast searches of a long text; the order within a group makes it fast (see `redaction`).
"""
_KEYS = [key for keys in KEY_GROUPS for key in keys]
_X = "[0-9A-Fa-f]{2}"
_ESCAPE = rf"(?:\\[nrtbf]|(?:\\u{_X}|%){_X})"  # in JSON, or in a URL: the key begins after it
_ESCAPED = lazy_pattern(rf"{_ESCAPE}\Z")

_LIKE_WORDS = ("sk-", "sk_", "rk_", "xai-", "pplx-", "tvly-", "csk-", "test_", "live_", "API-", "fw_", "secret", "pa-")
_SHORT = ("BSA", "cio", "tr_", "pa-", "m0-", "ck-", "ste-", "nk-", "ak-", "as-", "bu_", "arc_")
"""Begins that are so short that a key must have letters of both cases and digits, too."""


def _key(match: re.Match[str]) -> str | None:
    """Judge: a part of a longer word is no key, and words with dashes (`sk-learn-compatible-…`) are none."""
    secret, text, start = match["secret"], match.string, match.start()
    before = text[start - 1 : start]
    if (
        before.isascii()
        and (before.isalnum() or before in ("_", "-"))
        and not _ESCAPED.search(text, max(0, start - 6), start)
    ):
        return None
    if secret.startswith(_LIKE_WORDS):
        parts = re.split("[_-]", secret[:1024])
        longest = max(map(len, parts))
        of_keys = [part for part in parts if len(part) >= 7 and not part.isalpha() and not part.isdigit()]
        if (longest < 12 and len(of_keys) < 3) or (longest < 20 and not any(map(str.isdigit, secret))):
            return None
    if secret.startswith(_SHORT) and not _MIXED.fullmatch(secret[3:]):
        return None
    return "secret"


# --- Assignments within a text: JSON, reprs, YAML, .env files, query strings, code, the source lines of a traceback

_QUOTE = r"(?P<q>\\*[\"'`])"
_UNTIL = r"(?:(?!(?<!\\)(?P=q))[^\r\n]){1,4096}"  # up to the unescaped closing quote, or the end of the line
_TOLD = f"passw(?:or[dt]|d)|pass{SEPARATOR}(?:phrase|code)|pin"
THEN = r"[\\\"'`\]t\t ]*"


_NOT_OF_DIGITS = f"{NAMES}|{AS_WORDS}|{IN_ASCII}|{DOUBTFUL}|token|pass"
ASSIGNED = f"{_NOT_OF_DIGITS}|{CODES}"
"""The ASCII names to which credentials are assigned."""
LONGEST = 16
"""The largest number of characters of a name before its last word."""
ENDS = (
    "key|keys|phrase|code|passw(?:or[dt]|d)(?:s|[0-9])?|pwd|pswd|secrets?|string|value|base|confirm(?:ation)?|plain(?:text)?"
    "|credentials?|authorization|cookies?|token|pass"
    "|psk|senhas?|heslo|haslo|passe|sena|wort|woord|sandi|khau|ordine|secreta|privada|api|acceso"
    "|psw|pw|mdp|parola?|parol|sifre|clave|chave|jwt|auth|mnemonic|pin|otp|cv[vc]2?"
)
"""The last words of the names in assignments. `re` searches for these in 8 ns a character, for all names in 160 ns."""


def _assignment(names: str) -> str:
    return rf"""(?ix)
    (?P<name>{names})
    (?:
        (?P<close>\\*["'`])?\]?[ \t]{{0,8}}
        (?P<sign>:[ \t]{{0,3}}[A-Za-z][\w.\[\]|]{{0,40}}[ \t]{{0,3}}=|[:=]{{1,3}}>?(?!(?<=:)//)|[：是为為][：:]?)
        (?P<gap>[ \t]{{0,8}})
        (?: [bruf]{{0,2}}{_QUOTE}(?P<quoted>{_UNTIL}) | (?P<bare>[^\s"'`<>()\[\]{{}},;&|\\，。；、]{{3,4096}}) )
    | >[ \t]{{0,8}}(?P<xml>[^<\s][^<\r\n]{{0,400}})</
    )"""


_OF_NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
_END_OF_LINE = lazy_pattern(r"[.]?[ \t]*(?:#[^\n]{0,200})?(?:\Z|[\r\n\"'`]|\\[nr])")
_CODE = lazy_pattern(r"[A-Za-z_]+|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)
PLACEHOLDER = lazy_pattern(
    r"string|str|text|char|number|null|none|nil|true|false|undefined|required|optional|include|omit|same-origin"
    r"|\W|(?:[a-z0-9]{1,12}[_-]){0,3}(?:\*+|x{3,}|\.{3,}|…)[a-z0-9]{0,4}"
    r"|<[^>]*>|\$\{[^}]*\}|\$\([^)]*\)|\$[A-Za-z_]+|%\(?\w+\)?[%s]|\{[^}]*\}|your[ _-].*",
    re.IGNORECASE | re.ASCII,
)


MASK = lazy_pattern(r"[*•]+|x{3,}|\[(?:redacted|masked|hidden|filtered)\]", re.IGNORECASE | re.ASCII)
"""Texts in place of a credential that was masked before."""
_BEHIND = lazy_pattern(r"[ \t),;]|\.\w+\(", re.ASCII)
"""Code behind a quoted prompt that ends in a name and a colon: `input("Password: ").strip()`."""
_EXPRESSION = lazy_pattern(r"\[[^\]]{0,40}[A-Za-z0-9]-[A-Za-z0-9]", re.ASCII)
"""A part of a regular expression that finds credentials, such as `[A-Za-z0-9]`."""
COOKIES = lazy_pattern(".*cookies?", re.IGNORECASE | re.ASCII | re.DOTALL)
"""Names of members in which a number is a count (24 cookies), because a cookie is never a number."""
_ESCAPE_OF_LETTER = lazy_pattern(r"\\+u([0-9a-f]{4})", re.IGNORECASE)


def _assignments(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Yield the assignments in a text. Finds the last word of a name and its `:`, `=` or `>`, then the name's start."""
    return _named(_signs(), pattern, text)


def _pairs(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Yield the pairs in a text as `_assignments` does: the whole pattern takes 400 ns a character."""
    return _named(_commas(), pattern, text)


def _named(
    signs: tuple[re.Pattern[str], re.Pattern[str]], pattern: re.Pattern[str], text: str
) -> Iterator[re.Match[str]]:
    lower, at = text.lower(), 0
    if len(lower) != len(text):  # the letter İ becomes two characters in lower case
        yield from pattern.finditer(text)
        return
    ends, names = signs
    while (end := ends.search(lower, at)) is not None:
        name = names.search(lower, max(at, end.start() - LONGEST), end.end())
        match = None if name is None else pattern.match(text, name.start())
        at = end.end() if match is None else match.end()
        if match is not None:
            yield match


@cache
def _signs() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the pattern of the last words of names, and the pattern of names, each followed by `:`, `=` or `>`."""
    rest = r"""[\\"'`\]\t ]*[:=>]"""
    return re.compile(f"(?:{ENDS}){rest}"), re.compile(f"(?:{ASSIGNED}){rest}")


@cache
def _commas() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the pattern of the last words of names, and the pattern of names, each followed by a quote and a comma."""
    rest = r"""\\*["'],"""
    return re.compile(f"(?:{ENDS}){rest}"), re.compile(f"(?:{_HEADERS}|{NAMES}){rest}")


def _logins(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Yield the logins in a text. Finds their first words in lower case: the whole pattern takes 120 ns a character."""
    lower, at = text.lower(), 0
    if len(lower) != len(text):
        yield from pattern.finditer(text)
        return
    while (begin := _LOGINS.search(lower, at)) is not None:
        match = pattern.match(text, begin.start())
        at = begin.start() + 1 if match is None else match.end()
        if match is not None:
            yield match


_LOGINS = lazy_pattern(
    "sshpass|docker login|redis-cli|ldap|oathtool|secret_access_key|requirepass|login|identified by|with encrypted"
    "|with password"
)


def _assigned(match: re.Match[str]) -> str | None:
    """Judge an assignment: return the group with the credential; None for a placeholder, a type or an expression."""
    group = "quoted" if match["quoted"] else "xml" if match["xml"] else "bare"
    value, text, start, name = match[group], match.string, match.start(), match["name"].lower()
    head = text[max(0, start - 64) : start]
    prefix = head[len(head.rstrip(_OF_NAMES)) :]
    before = text[max(0, start - len(prefix) - 1) : start - len(prefix)]
    if before == "\\" and prefix[:1] in ("n", "r", "t"):  # an escaped new line in a JSON text
        before, prefix = "\n", prefix[1:]
    # True in a URL, on a command line or in an environment; in code, a value may be the name of a variable.
    outside = before in ("?", "&", ";", "#") or prefix[:1] == "-" or (prefix + match["name"]).isupper()
    if before == ":" and text.rfind("arn:", max(0, start - 100), start) >= 0:
        return None
    looks = _looks(prefix + _ESCAPE_OF_LETTER.sub(lambda found: chr(int(found[1], 16)), match["name"]))
    if looks is _OPAQUE and outside:
        looks = _NO_WORD
    if looks is None or (name == "pwd" and value[0] in "/~"):
        return None
    if looks in NUMBERS:
        return group if looks.fullmatch(value.rstrip(".")) else None
    if looks is not ANY and not looks.fullmatch(value):
        return None
    if group != "bare":
        is_code = group == "quoted" and (_BEHIND.match(value) or ("[" in value and _EXPRESSION.search(value)))
        return None if is_code else group
    if match["sign"] == "=" and not match["gap"] and text[match.start("sign") - 1] not in " \t":
        code = "." in value or value.lower().endswith(name) or text[match.end() : match.end() + 1] in tuple("()[],")
        return group if outside or not (code and _CODE.fullmatch(value)) else None
    if match["close"]:
        is_number = len(value) >= 4 and value.isdigit()  # in JSON
        return group if is_number and not COOKIES.fullmatch(name) else None
    if match["sign"] == ":" and "-" in prefix + match["name"]:
        return group  # a header
    is_sure = _MIXED.fullmatch(value) or (_NO_WORD.fullmatch(value) and _END_OF_LINE.match(text, match.end()))
    return group if is_sure else None


def _said(match: re.Match[str]) -> str | None:
    """Judge a sentence: a password in it is a secret, a statement about passwords is not."""
    secret = match["secret"].rstrip(".!?")
    if match["name"].lower() == "pin":
        is_word = re.search(r"(?:^|[^A-Za-z]|\\[nrt])\Z", match.string[max(0, match.start() - 2) : match.start()])
        return "secret" if is_word and PIN.fullmatch(secret) else None
    is_said = _NO_WORD.fullmatch(secret) and not _ABOUT.match(secret) and not secret.isdigit()
    return "secret" if is_said else None


_ABOUT = lazy_pattern(
    r"(?:base|sha|md|utf|aes|rsa|hs|rs|es|ed|b?crypt|argon|pbkdf|o?auth)-?[0-9]|[0-9]+\W|http|[$%/{]", re.IGNORECASE
)


def _mixed(match: re.Match[str]) -> str | None:
    """Judge: base64 is a secret, a path or a word is not."""
    secret = match["secret"]
    return None if secret.islower() or secret.isupper() or (secret.isalpha() and secret.istitle()) else "secret"


def _in_a_query(match: re.Match[str]) -> str | None:
    """Judge a query parameter: a key is a secret; a searched word or a six-digit code (often a product) is not."""
    looks = _NO_SIZE if match["name"].lower() in ("pw", "psk") else _OPAQUE
    return "secret" if looks.fullmatch(match["secret"].replace("%", "")) else None


def _scheme(match: re.Match[str]) -> str | None:
    return "secret" if match["scheme"] and not match["secret"].isalpha() else _no_word(match)


def _no_word(match: re.Match[str]) -> str | None:
    secret = match["secret"]
    mixed = not secret.istitle() and not secret.islower() and not secret.isupper()
    return "secret" if _NO_WORD.fullmatch(secret) or (len(secret) >= 8 and mixed) else None


def _opaque(match: re.Match[str]) -> str | None:
    """Judge: a token has a part of letters and digits, a name does not."""
    parts = re.split("[._~-]", match["secret"])
    return "secret" if any(len(part) >= 16 and not part.isalpha() and not part.isdigit() for part in parts) else None


def _no_name(match: re.Match[str]) -> str | None:
    """Judge: in a manual, a name such as PASSWORD stands for the password."""
    return None if _looks(match["secret"].rstrip(":,.])")) is ANY else "secret"


def _manifests(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Yield the values in the data of manifests of Kubernetes whose kind is Secret, in YAML or JSON."""
    at = 0
    while at < len(text):
        end = text.find("\n---", at)
        end = len(text) if end < 0 else end + 4
        if _OF_SECRET.search(text, at, end):
            for block in _DATA.finditer(text, at, end):
                yield from pattern.finditer(text, *block.span("json" if block["json"] else "yaml"))
        at = end


_OF_SECRET = lazy_pattern(r"\bkind[\"']?[ \t]*:[ \t]*[\"']?Secret\b(?![\w-])")
_DATA = lazy_pattern(
    r"^(?P<in>[ \t]*)(?:- )?(?:stringData|data):[ \t]*\r?\n(?P<yaml>(?:(?P=in)[ \t]+[^\n]*(?:\n|\Z))+)"
    r"|\"(?:stringData|data)\"\s*:\s*(?P<json>\{[^{}]*\})",
    re.MULTILINE,
)


def _option(match: re.Match[str]) -> str | None:
    return None if _CURSOR.fullmatch((match["prefix"] or "").rstrip("-")) else _no_word(match)


_HEADERS = f"(?:authorization|cookie|api{SEPARATOR}key|(?:auth|access|private|security){SEPARATOR}token)"
_OPTIONS = "(?:pass(?:w(?:or)?d|phrase|code)?|key|secret|token)"

_IN_ENVIRONMENT = "(?:KEY|TOKEN|SECRET|PASS(?:WORD|WD)?)"
_FROM_STDIN = r"(?:--password-stdin|--with-token|sudo[ \t]+-S)"
_WEBHOOKS = (
    r"hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/(?:v[0-9]+/)?webhooks/"
    r"|webhook\.office\.com/webhookb2/|hooks\.zapier\.com/hooks/catch/|(?:feishu\.cn|larksuite\.com)/open-apis/bot/v2/hook/"
    r"|telegram\.org/(?:file/)?bot|with/key/|hook\.[a-z0-9]+\.make\.com/|infura\.io/v3/|alchemy\.com/v2/"
)
_OF_MCP = r"//mcp\.[a-z0-9.-]{3,60}/(?:[a-z0-9_-]{1,20}/){0,4}"
_PARAMETERS = r"(?:[?&](?:amp;)?|\\u0026)(?i{0}:{1})="
_SIGNATURES = "sig|(?:x-amz-|x-goog-)?signature|hmac"
_IN_A_QUERY = "key|code|auth|ticket|appid|sas|psk|pw"

OTHERS = {
    "webhook": _Kind(f"(?:{_WEBHOOKS})[A-Za-z0-9_/:@-]{{16}}", rf"(?:{_WEBHOOKS})(?P<secret>[\w/:@-]{{16,}})"),
    "key in the path of an MCP server": _Kind(
        rf"{_OF_MCP}[A-Za-z0-9_+=~-]{{24}}", rf"{_OF_MCP}(?P<secret>[\w+=~-]{{24,}})", _opaque
    ),
    "private key": _Kind(
        "PRIVATE KEY(?: BLOCK)?-----|Private-Lines: ",
        r"(?P<secret>(?:(?<=Private-Lines: [0-9])|(?<=Private-Lines: [0-9][0-9]))"
        r"(?:(?:\s|\\+[nr]){1,4}[A-Za-z0-9+/=]{16,76}){1,99}|-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
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
    "assignment": _Kind(
        rf"(?i-u:{_NOT_OF_DIGITS}){THEN}[:=>]|(?i-u:{CODES})[\\\"'` \t]*[:=][\\\"'` \t]*[0-9]{{3}}",
        _assignment(ASSIGNED),
        _assigned,
        _assignments,
    ),
    "sentence": _Kind(
        rf"(?i-u:{_TOLD}) (?:is|ist) [^\r\n]{{0,30}}[0-9!@#$%^&*]",
        rf"(?i)(?P<name>{_TOLD}) (?:is|ist) (?:now |jetzt )?"
        r"(?:\\*[\"'`*]{1,2})?(?P<secret>[^\s\"'`\\,;<>{}()]{4,200})",
        _said,
    ),
    "pair": _Kind(  # of a header in a repr, or of a constant in PHP
        rf"(?i-u:{_HEADERS}|{NAMES})[\\\"']*[\"'],[bt\\\"' \t]*[\"']",
        rf"(?i)(?:(?P<header>{_HEADERS})|{NAMES})\\*[\"'],[ \t]{{0,3}}b?{_QUOTE}(?P<secret>{_UNTIL})",
        lambda match: "secret" if match["header"] or _MIXED.fullmatch(match["secret"]) else None,
        _pairs,
    ),
    "name and value": _Kind(  # in XML, in JSON that is a text, in YAML
        rf"(?i-u:{NAMES})[\\\"', \t\r\nnrt]{{1,60}}value[\\\"' \t]*[:=]",
        rf"(?i)(?:{NAMES})(?:[\\\"',\s]|\\[nrt]){{1,60}}value(?:\\*[\"'])?[ \t]{{0,8}}[:=][ \t]{{0,8}}"
        r"(?:\\*[\"'])?(?P<secret>[^\s\"'\\<>]{1,4096})",
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
    "token in a URL": _Kind(
        r"://[A-Za-z0-9_.~-]+@|x-oauth-basic@",
        r"://(?P<secret>[A-Za-z0-9_.~-]{20,})(?::x-oauth-basic)?@",
        _opaque,
    ),
    "password in a URL": _Kind(
        r"://[^ \t\n\r\x0b\x0c/\":@]*:[^ \t\n\r\x0b\x0c/\"]*@",
        r"://[^\s/:@\"'?#]{0,100}:(?P<secret>[^\s/\"'?#]{1,200})@",
    ),
    ".pgpass": _Kind(
        r":(?:[56]4[0-9]{2}|\*):",
        r"(?<![^\s\"'n])[\w.*-]{1,200}:(?:[56]4[0-9]{2}|\*):[^\s:\"'\\]{1,100}:[^\s:\"'\\]{1,100}:"
        r"(?P<secret>[^\s\"'\\]{4,4096})",
        _no_word,
    ),
    "kind: Secret": _Kind(
        r"kind[\\\"' \t]*:[\\\"' \t]*Secret",
        r"[\"']?[\w.-]+[\"']?[ \t]*:[ \t]*[\"']?(?P<secret>[^\s\"'|>{}][^\s\"',{}]{3,})",
        matches=_manifests,
    ),
    "command": _Kind(
        r"ConvertTo-SecureString[ \t]|h secret set[ \t]|(?:smb|rpc)client[ \t]|-pass(?:in|out)?[ \t]+pass:"
        rf"|d-authtoken[ \t]|(?:ENV|ARG)[ \t]+[A-Z0-9_]*{_IN_ENVIRONMENT}[ \t]|{_FROM_STDIN}",
        r"(?:ConvertTo-SecureString[ \t]+(?:-String[ \t]+)?(?=\\*[\"'])"
        r"|gh secret set\b(?:(?!gh secret)[^\r\n|;]){0,200}?[ \t](?:-b|--body)[ \t=]+"
        r"|(?:smb|rpc)client\b(?:(?!client)[^\r\n|;]){0,200}?[ \t]-U[ \t]*(?:\\*[\"'])?[^\s%\"']{1,60}%"
        r"|-pass(?:in|out)?[ \t]+pass:|\badd-authtoken[ \t]+"
        rf"|\b(?:ENV|ARG)[ \t]+[A-Z0-9_]{{0,60}}{_IN_ENVIRONMENT}[ \t]+"
        rf"|\becho[ \t]+(?:-n[ \t]+)?(?=[^|\r\n]{{4,400}}\|[^|\r\n]{{0,200}}{_FROM_STDIN}))"
        r"(?:\\*[\"'])?(?P<secret>[^\s\"'\\;$<-][^\s\"'\\;|]{3,4096})",
        _no_name,
    ),
    "signed URL": _Kind(
        _PARAMETERS.format("-u", _SIGNATURES),
        _PARAMETERS.format("", _SIGNATURES) + r"(?P<secret>[^\s&\"'\\<>]{16,4096})",
    ),
    "key in a URL": _Kind(
        _PARAMETERS.format("-u", _IN_A_QUERY) + r"[^ \t\n\r&\"'\\<>#]{6}",
        _PARAMETERS.format("", f"(?P<name>{_IN_A_QUERY})") + r"(?P<secret>[^\s&\"'\\<>#]{6,4096})",
        _in_a_query,
    ),
    "curl": _Kind(
        r"curl(?s:.*)-(?:u|-user|-proxy-user|b|-cookie)",
        r"curl\b(?:(?!curl\b)[^;|]){0,400}?[ \t](?:"
        r"(?:-u|--user|--proxy-user)[ \t=]{0,3}(?:\\*[\"'])?[^\s:\"'\\]{0,100}:(?:\\*[\"'])?"
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
        r"(?:\\*[\"'])?(?P<secret>[^\s\"'\\-][^\s\"'\\]{2,4096})",
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
        r"(?i-u:sshpass|docker[\\\"', \t]+login|login(?:[ \t]|\\[nrt])|identified by|with (?:encrypted )?password"
        r"|secret_access_key[ \t]|requirepass[ \t]|redis-cli[ \t]|ldap[a-z]+[ \t]|oathtool[ \t])",
        r"(?i)(?:sshpass[ \t]+-p[ \t]*"
        r"|docker login\b(?:(?!docker login\b)[^\r\n|;]){0,300}?[ \t](?:-p[ \t]*|--password[ \t]+)"
        r"|redis-cli\b(?:(?!redis-cli\b)[^\r\n|;]){0,300}?[ \t]-a[ \t]+"
        r"|ldap[a-z]{3,8}[ \t](?:(?!ldap[a-z]{3,8}[ \t])[^\r\n|;]){0,300}?[ \t]-w[ \t]+"
        r"|oathtool\b(?:(?!oathtool\b)[^\r\n|;]){0,300}?[ \t](?:-b|--base32)[ \t]+"
        r"|(?:secret_access_key|requirepass)[ \t]+"
        r"|login[ \t\r\n]+\S{1,100}[ \t\r\n]+password[ \t\r\n]+|(?:identified by|with (?:encrypted )?password)[ \t]+)"
        r"(?:\\*[\"'])?(?P<secret>[^\s\"'\\;-][^\s\"'\\;]{0,4096})",
        _no_name,
        _logins,
    ),
    "JSON web token": _Kind(  # the look behind keeps a text of nothing but their beginnings linear
        rf"eyJ{_C}{{8,}}\.\.?{_C}{{8}}",
        rf"(?P<secret>eyJ(?:(?<!{_C}eyJ)|(?<=\\[nrtbf]eyJ)|(?<=\\u{_X}{_X}eyJ)|(?<=%{_X}eyJ)){_C}{{8,}}\.\.?{_C}{{8,}}(?:\.{_C}+){{0,3}}\.?)",
    ),
}
WHOLE = ("private key", "JSON web token", "kind: Secret")
"""Kinds that may be long: they are searched in the whole text, before all other kinds."""
BEYOND = {
    "assignment in another alphabet": _Kind(
        f"(?i:{BEYOND_ASCII}|{DOUBTFUL_BEYOND_ASCII}){THEN}[:=>：是为為]|(?i-u:{ASSIGNED}){THEN}[：是为為]",
        _assignment(f"{BEYOND_ASCII}|{DOUBTFUL_BEYOND_ASCII}|{ASSIGNED}"),
        _assigned,
    ),
}
"""Kinds that need letters beyond ASCII, or escapes. Kept separate: they would double the table of the search."""
ESCAPED = r"""\\u[0-9A-Fa-f]{4}[A-Za-z _.-]*\\*["'][ \t]*[:=]"""
"""The pattern of a name with an escaped letter."""
_KEY_KINDS = [
    [_Kind(key, f"(?P<secret>{key})", _key) for key in (each if isinstance(each, str) else each[1] for each in keys)]
    for keys in KEY_GROUPS
]
KINDS = (*OTHERS.values(), *(kind for kinds in _KEY_KINDS for kind in kinds))
"""All kinds that a text of ASCII may have. The other kinds are in BEYOND."""
_BEFORE = f"(?:^|[^A-Za-z0-9_-]|{_ESCAPE})"


def may_be_key(keys: Iterable[str | tuple[str, str]]) -> str:
    """Return the pattern of possible keys of these kinds, and of all keys with a known part inside.

    It requires at most 16 characters of each part: with exact counts, the states for all keys would not fit into the
    engine's memory, and base64 would take 300 times as long.
    """
    begins = "|".join(key for key in keys if isinstance(key, str))
    insides = [key[0] for key in _KEYS if not isinstance(key, str)]
    return re.sub(
        r"\{([0-9]{2,})(?:,[0-9]*)?\}",
        lambda count: f"{{{min(int(count[1]), 16)},}}",
        "|".join([f"{_BEFORE}(?:{begins})", *insides]),
    )


MAY_BE_KEY = may_be_key(_KEYS)


def of_group(number: int) -> str:
    """Return the pattern that finds the keys of one of KEY_GROUPS."""
    return "|".join(key if isinstance(key, str) else key[0] for key in KEY_GROUPS[number])


def detects(*kinds: str) -> str:
    """Return the pattern that detects any of these kinds of OTHERS."""
    return _any(OTHERS[kind] for kind in kinds)


def _any(kinds: Iterable[_Kind]) -> str:
    return "|".join(kind.detect for kind in kinds)


Found = Callable[[Any], bool]
"""A function that returns whether a text has a match."""


class Ready(NamedTuple):
    """A compiled kind: `found` detects it, `matches` yields exact matches, `judge` names the group to cut out."""

    found: Found
    matches: Callable[[str], Iterator[re.Match[str]]]
    judge: Callable[[re.Match[str]], str | None]


class Group(NamedTuple):
    """Kinds and groups of kinds, with one search that detects whether any of them is in a text."""

    found: Found
    kinds: tuple[Ready, ...] = ()
    groups: tuple["Group", ...] = ()


@cache
def ready() -> tuple[Group, ...]:
    """Return the compiled kinds in groups. The first group has the kinds that are searched in the whole text."""
    beyond, has_escape = _group(BEYOND.values()), search(r"\\u")
    keys = tuple(_group(kinds, of_group(number)) for number, kinds in enumerate(_KEY_KINDS))[::-1]
    return (
        _group(OTHERS[name] for name in WHOLE),
        _group(kind for name, kind in OTHERS.items() if name not in WHOLE),
        Group(search(f"{_BEFORE}(?:{'|'.join(map(_any, _KEY_KINDS))})"), groups=keys),
        beyond._replace(found=lambda text: (not text.isascii() or has_escape(text)) and beyond.found(text)),
    )


def _group(kinds: Iterable[_Kind], found: str = "") -> Group:
    kinds = [*kinds]
    return Group(search(found or _any(kinds)), tuple(map(_ready, kinds)))


def _ready(kind: _Kind) -> Ready:
    return Ready(_search_later(kind.detect), partial(kind.matches, lazy_pattern(kind.cut, re.ASCII)), kind.judge)


def _search_later(pattern: str) -> Found:
    """Return `search` that is compiled at its first use. To compile all kinds takes a quarter of a second."""
    compiled = cache(lambda: search(pattern))
    return lambda text: compiled()(text)


def search(pattern: str) -> Found:
    """Return a function that returns whether a text has a match, by Rust's regex engine, which pydantic has."""
    schema = core_schema.str_schema(pattern=pattern, regex_engine="rust-regex")
    with host.importing:  # the first validator of a process is made under a lock, which a child would inherit held
        return SchemaValidator(schema).isinstance_python


def names_credential(name: str) -> bool:
    """Return whether any value of a member with this name is a credential."""
    return looks_of(name) is ANY


@lru_cache(maxsize=4096)
def looks_of(name: str) -> re.Pattern[str] | None:
    """Return the pattern of texts that are credentials in a member with this name; None if no text is."""
    if name in ("PWD", "OLDPWD"):  # environment variables with a folder
        return None
    if not name.isascii():
        name = _as_read(name)
        return _looks(name) if _may_end_as_name(name[-64:]) else None
    return _looks(name) if _ends_as_name()(name[-64:]) else None  # 0.3 µs, where _looks takes up to 25


@cache
def _ends_as_name() -> Found:
    return search(f"(?i-u:{ASSIGNED})$")


@cache
def _ends_beyond_ascii() -> Found:
    return search(f"(?i:{ASSIGNED}|{BEYOND_ASCII}|{DOUBTFUL_BEYOND_ASCII})$")


def _may_end_as_name(tail: str) -> bool:
    """Return whether a normalized name may hold credentials. A fast check: a request may have 300,000 such names."""
    if tail.isascii():
        return _ends_as_name()(tail)
    try:
        tail.encode()
    except UnicodeEncodeError:  # half a character, which the search cannot read
        return True
    return _ends_beyond_ascii()(tail)


@cache
def _normalize() -> Callable[[str], str]:
    with host.importing:
        from unicodedata import normalize
    return partial(normalize, "NFKC")


def _as_read(name: str) -> str:
    """Return a name as people read it: with full-width letters normalized, and without zero-width characters."""
    return _normalize()(_UNSEEN.sub("", name[-256:]))


@cache
def _compiled() -> tuple[re.Pattern[str], tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]]:
    """Return the pattern of names of credentials, and the patterns of doubtful names with their values (once, 5 ms)."""
    flags = re.IGNORECASE | re.ASCII | re.DOTALL
    name = re.compile(f".*?(?:{NAMES}|{IN_ASCII}|{BEYOND_ASCII}|(?P<whole>{AS_WORDS}))", flags)
    return name, tuple((re.compile(f".*?(?P<whole>{names})", flags), looks) for names, looks in _MAY.items())


@lru_cache(maxsize=4096)
def _looks(name: str) -> re.Pattern[str] | None:
    tail = name[-64:]
    names, may_be = _compiled()
    found = names.fullmatch(tail)
    if found is not None and _REFERENCE.fullmatch(tail):
        return None
    if found is not None and (found["whole"] is None or _is_word(tail, found.start("whole"))):
        return ANY
    token = _TOKEN.fullmatch(tail)
    if token is not None:
        return None if _CURSOR.fullmatch(token[1]) else _OPAQUE
    for pattern, looks in may_be:
        found = pattern.fullmatch(tail)
        if found is not None and _is_word(tail, found.start("whole")):
            return looks
    return None


def _is_word(name: str, start: int) -> bool:
    """Return whether a word begins at `start`: `pin` does in `cardPin` and `card_pin`, but not in `spin`."""
    before = name[start - 1 : start]
    return before.lower() == before.upper() or (before.islower() and name[start].isupper())


def is_schema(keys: Iterable[Any]) -> bool:
    """Return whether an object with these keys is a JSON Schema, which describes a `password` and has none."""
    found = False
    for key in keys:
        if type(key) is not str or not _SCHEMA_WORD.fullmatch(key):
            return False
        found = True
    return found
