"""The published forms of credentials, of which the tests draw examples: none is written down, so nothing looks live.

A form is a text with parts such as `<W32>`: 32 characters of an alphabet, or `<u>` for a UUID. `{}` in a context is the
place of the credential.
"""

import base64
import random
import re
import string
from collections.abc import Iterator

from tests.recording.secrets.corpus import Case

_ALPHABETS = {
    "W": string.ascii_letters + string.digits,
    "C": string.ascii_letters + string.digits + "_-",
    "B": string.ascii_letters + string.digits + "+/",
    "h": "0123456789abcdef",
    "l": string.ascii_lowercase + string.digits,
    "U": string.ascii_uppercase + string.digits,
    "N": string.digits,
}
PROSE = ("it answers 401 with {}, why?", "use `{}` for the call", "$ curl https://a.example -H 'X-K: {}'", '["{}", 5]')
KEYS = {
    "Context7": "ctx7sk-<u>",
    "Voyage": "pa-<C43>",
    "Anthropic": "sk-ant-api03-<C93>AA",
    "Anthropic, OAuth": "sk-ant-oat01-<C93>AA",
    "Anthropic, admin": "sk-ant-admin01-<C93>AA",
    "OpenAI, admin": "sk-admin-<C74>T3BlbkFJ<C74>",
    "OpenRouter": "sk-or-v1-<h64>",
    "Helicone": "sk-helicone-<l7>-<l7>-<l7>-<l7>",
    "Windsurf": "sk-ws-01-<C60>",
    "Letta": "sk-let-<W64>",
    "Stability": "sk-<W48>",
    "You.com": "ydc-sk-<h16>-<W32>-<h8>",
    "Tavily": "tvly-prod-<W32>",
    "Together": "tgp_v1_<C43>",
    "LangSmith": "lsv2_sk_<h32>_<h10>",
    "Logfire": "pylf_v1_us_<W43>",
    "Pydantic gateway": "paig_<W40>",
    "LlamaCloud": "llx-<W48>",
    "Daytona": "dtn_<h64>",
    "E2B": "e2b_<h40>",
    "Browserbase": "bb_live_<C27>",
    "Mem0": "m0-<W40>",
    "Apify": "apify_api_<W36>",
    "Steel": "ste-<W67>",
    "Luma": "luma-<u>-<h8>",
    "Runway": "key_<h128>",
    "Cursor": "crsr_<h64>",
    "Brave Search": "BSA<C28>",
    "fal": "<u>:<h32>",
    "Chroma": "ck-<W44>",
    "Pinecone": "pcsk_<W6>_<W63>",
    "Cerebras": "csk-<l48>",
    "RunPod": "rpa_<U42>",
    "Vercel, gateway": "vck_<W56>",
    "Cartesia": "sk_car_<W22>",
    "Modal": "as-<W22>",
    "GitHub, fine": "github_pat_11<U20>_<W59>",
    "GitLab, routed": "glpat-<C27>.01.<l9>",
    "GitLab, CI job": "glcbt-64_<C20>",
    "Docker, organisation": "dckr_oat_<C32>",
    "crates.io": "cio<W32>",
    "JFrog, reference": "cmVmdGtu<W56>",
    "Cloudflare, user": "cfut_<W48>",
    "Fly": "fm2_lJPE<B80>",
    "Netlify": "nfp_<W36>",
    "Tailscale": "tskey-auth-k<W16>CNTRL-<W32>",
    "Sentry, user": "sntryu_<h64>",
    "Grafana": "glsa_<W32>_<h8>",
    "Honeycomb": "hcaik_<l58>",
    "Axiom": "xaat-<u>",
    "PostHog": "phx_<W43>",
    "Datadog": "ddapp_<W34>",
    "Discord": "<d1>.G<C5>.<C38>",
    "Slack, configuration": "xoxe.xoxp-1-<W146>",
    "Stripe, organisation": "sk_org_live_<W60>",
    "Razorpay, webhook": "whsec_<W32>",
    "Polar": "polar_oat_<W43>",
    "Trigger.dev": "tr_prod_<W20>",
    "Inngest": "signkey-prod-<h64>",
    "Stytch": "secret-live-<C36>=",
    "Asana": "2/<N16>/<N16>:<h32>",
    "Atlassian": "ATATT3xFfGF0<C170>=<U8>",
    "Azure DevOps": "<W52>JQQJ99<W10>ACAAAAA<W11>AZDO<W4>",
    "Databricks, OAuth": "dose<h32>",
    "dbt": "dbtc_<C42>",
    "CockroachDB": "CCDB1_<W22>_<W40>",
    "Bitwarden": "0.<u>.<W30>:<B22>==",
    "CircleCI": "CCIPAT_<W22>_<h40>",
    "Snyk": "snyk_uat.<h8>.<C64>",
    "Sanity": "sk<W160>",
    "Vault, recovery": "hvr.<C24>",
    "AWS, session": "IQoJb3JpZ2luX2Vj<B300>=",
    "AWS, Bedrock": "bedrock-api-key-<W120>",
    "Google, OAuth key": "AQ.Ab8RN6<C44>",
    "Convex": "prod:happy-otter-<N3>|eyJ2MiI6Ij<B60>=",
    "Supabase": "sb_secret_<C22>_<C8>",
    "Val Town": "vtwn_<W28>",
    "Retool": "retool_01<l30>",
    "RapidAPI": "<h10>msh<h15>p<h6>jsn<h12>",
    "EasyPost": "EZAK<W54>",
    "Adafruit": "aio_<W28>",
    "Rootly": "rootly_<h64>",
    "age": "AGE-SECRET-KEY-1<U58>",
    "JWE": "eyJ<W60>..<C16>.<C120>.<C22>",
    "JWE with a key": "eyJ<W60>.<C342>.<C16>.<C120>.<C22>",
}
"""The keys of providers and formats that show what they are wherever they stand."""
CONTEXTS = {
    "a token for a name in a URL": ("git clone https://{}@git.example/a/b.git", "<W40>"),
    "a token and x-oauth-basic": ("https://{}:x-oauth-basic@git.example/a/b", "<h40>"),
    "kind: Secret, data": ("apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\ndata:\n  url: {}\n", "<B40>"),
    "kind: Secret, stringData": ("kind: Secret\nstringData:\n  dsn: {}\napiVersion: v1\n", "<W24>"),
    "kind: Secret in JSON": ('{{"apiVersion":"v1","data":{{"dsn":"{}"}},"kind":"Secret"}}', "<B40>"),
    ".pgpass": ("db.example:5432:shop:app:{}", "<W16>"),
    ".pgpass with stars": ("*:*:*:app:{}", "<W16>"),
    ".netrc": ("machine api.example login bot password {}", "<W20>"),
    ".npmrc": ("//registry.npmjs.org/:_authToken={}", "<u>"),
    ".dockerconfigjson": ('{{"auths": {{"r.example": {{"auth": "{}"}}}}}}', "<B32>"),
    "kubeconfig": ("users:\n- user:\n    client-key-data: {}\n", "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVkt<B200>"),
    "otpauth": ("otpauth://totp/Shop:ann?secret={}&issuer=Shop", "<U32>"),
    "PuTTY": ("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nPrivate-Lines: 1\n{}\nPrivate-MAC: 1", "<B64>"),
    "WireGuard": ("[Interface]\nPrivateKey = {}=\nAddress = 10.0.0.2", "<B43>"),
    "SecureString": ("ConvertTo-SecureString '{}' -AsPlainText -Force", "<W14>9!"),
    "Dockerfile": ("ENV API_KEY {}\nRUN make", "<W32>"),
    "from-literal": ("kubectl create secret generic db --from-literal=password={}", "<W16>"),
    "gh secret": ('gh secret set DEPLOY --body "{}"', "<W32>"),
    "echo to a login": ("echo {} | docker login -u bot --password-stdin", "<W24>"),
    "sudo": ("echo '{}' | sudo -S apt update", "<W11>7!"),
    "smbclient": ("smbclient //h/s -U ann%{}", "<W12>"),
    "passin": ("openssl rsa -in a.pem -passin pass:{}", "<W12>"),
    "PGPASSWORD": ("PGPASSWORD={} psql -h db", "<W14>"),
    "amqp": ("amqps://svc:{}@mq.example/vhost", "<W14>"),
    "ADO.NET": ("Server=db;User Id=sa;Password={};Encrypt=true", "<W13>9"),
    "redis-cli": ("redis-cli -h cache -a {} ping", "<W18>"),
    "a proxy": ("https_proxy=http://ann:{}@proxy.example:3128", "<W12>"),
    "a header in JSON": ('{{"headers": {{"x-api-key": "{}"}}}}', "<h32>"),
    "a query": ("GET https://a.example/v1/x?api_key={}&q=1", "<W32>"),
    "basic": ("Authorization: Basic {}=", "<B27>"),
}
"""Credentials that only the text around them shows: the text, and the form."""
PLAIN = {
    "a realm": 'WWW-Authenticate: Basic realm="shop"',
    "a manual": "redis-cli -a PASSWORD: authenticate with this password; redis-cli -h HOST -a <password>",
    "an ARN": "arn:aws:secretsmanager:eu-central-1:<N12>:secret:prod/db-<W6>",
    "an ARN of a key": "arn:aws:kms:eu-central-1:<N12>:key/<u>",
    "a commit": "commit <h40>",
    "a UUID": "request <u> took 3 s",
    "an image": "data:image/png;base64,iVBORw0KGgo<B400>=",
    "minified": "!function(e,t){var n=e.pa-t.sk,r=n.key||t.auth;return r?n(e):<W1>}(this,pa-1)",
    "a lock file": '"integrity": "sha512-<B86>=="',
    "a digest": "sha256:<h64>",
    "an e-mail address": "git clone https://ann@git.example/a/b.git",
    "a user in a URL": "ssh://deploy-user@host.example/srv and https://build-bot-of-the-team@git.example",
    "an at in a path": "https://medium.com/@someone/a-story and https://unpkg.com/react@18.2.0/index.js",
    "kind: Secret that refers": "kind: Secret\nmetadata:\n  name: db\n  namespace: shop\ntype: Opaque\n",
    "kind: ConfigMap": "kind: ConfigMap\ndata:\n  url: https://a.example\n  level: information-and-more\n",
    "a socket": "listening on db.example:5432:tcp and 10.0.0.1:80:8080:443:http",
    "a trace": "app.py:10:5:error:unused-import-of-something",
    "a class": "pa-sidebar-navigation-container m0-auto ck-editor__editable_inline tr_prod_table",
    "a Kubernetes pod": "api-7d4b9c6f5d-x2v8k and as-deployment-controller-manager",
    "a package": "cio-analytics-library-for-browsers llx-parser-of-documents-in-python dtn_protocol",
    "a bucket": "key_id key_name luma-dream-machine-video-generation-model ste-marie",
    "a fingerprint": "SHA256:<B43>",
    "an x5c": 'ETag: W/"<h32>"',
    "a trace id": "traceparent: 00-<h32>-<h16>-01",
    "a base64 text": "body: <B120>",
    "numbers": "2/1234567890/17: 55 of 0.8",
    "a model": "voyage-3.5-lite pa-instruct-embedding-model-large-2026",
    "a schedule": "dose-response curve of doseabcdef and key_metrics_dashboard",
    "a Windows path": r"C:\Users\ann\AppData\Local\Temp\<l12>\file.txt",
    "an S3 address": "s3://bucket-<l12>/<h32>/part-00000-<u>.snappy.parquet",
}
"""Texts in which nothing is secret, or that only name one."""


def drawn(form: str, chance: random.Random) -> str:
    """Return an example of a form."""

    def part(match: re.Match[str]) -> str:
        if match[1] == "d":  # the number of an account
            return base64.urlsafe_b64encode(b"%d" % chance.randrange(10**18, 14 * 10**17)).decode().rstrip("=")
        if match[1] == "u":
            digits = "".join(chance.choices(_ALPHABETS["h"], k=32))
            return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        return "".join(chance.choices(_ALPHABETS[match[1]], k=int(match[2])))

    found = re.sub("<([a-zA-Z])([0-9]*)>", part, form)
    if form.startswith("eyJ"):  # the header of a JWE is JSON
        header = b'{"alg":"dir","enc":"A256GCM","kid":"%d"}' % chance.randrange(10**9)
        found = f"{base64.urlsafe_b64encode(header).decode().rstrip('=')}.{found.partition('.')[2]}"
    return found


def secrets(chance: random.Random) -> Iterator[Case]:
    """Yield an example of each kind in each context."""
    for kind, form in KEYS.items():
        for context in PROSE:
            secret = drawn(form, chance)
            yield Case(kind, context.replace("{}", secret), secret)
    for kind, (context, form) in CONTEXTS.items():
        for _ in PROSE:
            secret = drawn(form, chance)
            yield Case(kind, context.format(secret), secret)


def harmless(chance: random.Random) -> Iterator[Case]:
    """Yield examples of each kind of text without a secret."""
    for kind, form in PLAIN.items():
        for _ in PROSE:
            yield Case(kind, drawn(form, chance))
