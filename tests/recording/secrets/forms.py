"""The published forms of credentials, of which the tests draw examples: none is written down, so nothing looks live.

A form is a text with parts such as `<W32>`: 32 characters of an alphabet, or `<u>` for a UUID. `{}` in a context is the
place of the credential.
"""

import base64
import random
import re
import string
from collections.abc import Iterator, Mapping

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
    "Asana": "2/<N16>/12<N14>:<h32>",
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
    "Braintrust": "bt-st-<W48>",
    "Cal.com": "cal_live_<h32>",
    "Tigris": "tsec_<W64>",
    "Unkey": "unkey_<W24>",
    "OpenPipe": "opk_<h40>",
    "Prime Intellect": "pit_<h64>",
    "Brex": "bxt_<W36>",
    "Humanloop": "hl_sk_<h48>",
    "Kaggle": "KGAT_<h32>",
    "LaunchDarkly": "sdk-<u>",
    "Browser Use": "bu_<C43>",
    "Arcade": "arc_<W52>",
    "Statsig": "secret-<W43>",
    "Convex, old": "prod:shiny-otter-<N3>|<h90>==",
    "Vercel, personal": "vcp_<W56>",
    "Paddle": "pdl_live_apikey_01<l24>_<W22>_<W3>",
    "Amp": "sgamp_user_01K<U23>_<h64>",
    "Linear, webhook": "lin_wh_<W40>",
    "Tailscale, client": "tskey-client-<W12>CNTRL-<W32>",
    "Azure OpenAI": "<W32>JQQJ99<U10>AAAAACOG<W4>",
    "AWS, Bedrock, long": "ABSK<B128>==",
    "JWE": "eyJ<W60>..<C16>.<C120>.<C22>",
    "JWE with a key": "eyJ<W60>.<C342>.<C16>.<C120>.<C22>",
}
"""The keys of providers and formats that show what they are wherever they stand."""
OLD = {
    "AWS": "AKIA<U16>",
    "AWS, temporary": "ASIA<U16>",
    "GitHub": "ghp_<W36>",
    "GitHub, OAuth": "gho_<W36>",
    "GitHub, server": "ghs_<W36>",
    "GitHub, refresh": "ghr_<W76>",
    "GitLab": "glpat-<C20>",
    "GitLab, runner": "GR1348941<C20>",
    "GitLab, trigger": "glptt-<h40>",
    "Slack, bot": "xoxb-<N12>-<N12>-<W24>",
    "Slack, user": "xoxp-<N12>-<N12>-<N12>-<h32>",
    "Slack, app": "xapp-1-A<U10>-<N13>-<h64>",
    "Stripe": "sk_live_<W24>",
    "Stripe, test": "sk_test_<W99>",
    "Stripe, restricted": "rk_live_<W24>",
    "OpenAI": "sk-<W20>T3BlbkFJ<W20>",
    "OpenAI, project": "sk-proj-<C74>T3BlbkFJ<C74>",
    "Google": "AIza<C35>",
    "Google, OAuth": "ya29.<C120>",
    "Google, client": "GOCSPX-<C28>",
    "Google, refresh": "1//0<C80>",
    "Hugging Face": "hf_<W34>",
    "Replicate": "r8_<W37>",
    "Twilio": "SK<h32>",
    "SendGrid": "SG.<C22>.<C43>",
    "Mailgun": "key-<h32>",
    "Mailchimp": "<h32>-us14",
    "Brevo": "xkeysib-<h64>-<W16>",
    "npm": "npm_<W36>",
    "PyPI": "pypi-AgEIcHlwaS5vcmc<C120>",
    "NuGet": "oy2<l43>",
    "RubyGems": "rubygems_<h48>",
    "Docker": "dckr_pat_<C27>",
    "DigitalOcean": "dop_v1_<h64>",
    "Heroku": "HRKU-AA<C58>",
    "Vault": "hvs.<C95>",
    "Terraform": "<W14>.atlasv1.<C67>",
    "Telegram": "<N10>:AA<C33>",
    "Shopify": "shpat_<h32>",
    "Square": "EAAA<C60>",
    "Square, client": "sq0csp-<C43>",
    "Airtable": "pat<W14>.<h64>",
    "Notion": "secret_<W43>",
    "Linear": "lin_api_<W40>",
    "Figma": "figd_<C40>",
    "Databricks": "dapi<h32>",
    "Dropbox": "sl.<C135>",
    "Grafana, cloud": "glc_eyJ<W80>",
    "New Relic": "NRAK-<U27>",
    "Postman": "PMAK-<h24>-<h34>",
    "Sentry, organisation": "sntrys_eyJpYXQiOjE<W80>_<B43>",
    "Pulumi": "pul-<h40>",
    "Doppler": "dp.pt.<W43>",
    "PlanetScale": "pscale_tkn_<C43>",
    "Supabase, user": "sbp_<h40>",
    "Fly, old": "fo1_<C43>",
    "Groq": "gsk_<W52>",
    "Perplexity": "pplx-<W48>",
    "xAI": "xai-<W80>",
    "Dynatrace": "dt0c01.<U24>.<U64>",
    "Bitbucket": "ATBB<W32>",
    "HubSpot": "pat-na1-<u>",
    "Typeform": "tfp_<C44>_<C14>",
    "Plaid": "access-sandbox-<u>",
    "Braintree": "access_token$production$<l16>$<h32>",
    "Facebook": "EAACEdEose0cBA<W120>",
    "Azure, application": "<W3>8Q~<C34>",
    "Alibaba": "LTAI<W20>",
    "JFrog": "AKCp<W69>",
    "LangSmith, old": "ls__<h32>",
    "Contentful": "CFPAT-<C43>",
    "Flutterwave": "FLWSECK-<h32>-X",
    "Octopus": "API-<U26>",
    "MaxMind": "<W6>_<W29>_mmk",
    "JWT": "eyJ<W34>.<C90>.<C43>",
    "Cloudflare, origin": "v1.0-<h24>-<h146>",
    "SonarQube": "squ_<h40>",
    "Sourcegraph": "sgp_<h16>_<h40>",
    "Tailscale, API": "tskey-api-k<W16>-<W32>",
    "1Password": "ops_eyJ<B200>",
}
"""The keys of providers that are older than 2025."""
NAMED = {
    "aws_secret_access_key": "<B40>",
    "password": "<W14>",
    "client_secret": "<C32>",
    "api_key": "<h32>",
    "access_token": "<W64>",
    "refresh_token": "<C60>",
    "secret_key": "<W40>",
    "db_password": "<W12>7!",
    "account_key": "<B86>==",
    "signing_secret": "<h32>",
    "bot_token": "<W50>",
    "session_token": "<B120>",
}
"""Credentials that only their name shows."""
SETTINGS = (
    ('{"of": "team", "k": "{}"}', '{"of": "team", "NAME": "{}"}'),
    ("export X={}\nmake run", "export ENV_NAME={}\nmake run"),
    ("curl https://a.example/v1 -H 'X-K: {}'", "curl https://a.example/v1 -H 'X-DASHED: {}'"),
    ("GET https://a.example/v1?k={}&page=2 200", "GET https://a.example/v1?NAME={}&page=2 200"),
    ("2026-03-01 12:00:00 INFO client: {} answers 401", "2026-03-01 12:00:00 INFO client: NAME={} answers 401"),
    ("client:\n  k: {}\n  retries: 3\n", "client:\n  NAME: {}\n  retries: 3\n"),
)
"""JSON, an environment, a header, a URL, a log and YAML: for keys, and for credentials with a name."""
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
    "x-key": ("curl https://api.example/v1/flux -H 'x-key: {}'", "<u>"),
    "add-authtoken": ("ngrok config add-authtoken {}", "2<W26>_<W21>"),
    "the path of an MCP server": ("claude mcp add a https://mcp.shop.example/api/mcp/s/{}/mcp", "<W60>"),
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
    "a price": "USD 1,299.00 a month, 12 % off with code SPRING-<N4>; order 2026-<N10>",
    "prose": "Choose a password of 12 characters. A token is a piece of a word; the secret of soup is salt.",
    "a message's id": "msg_01<W22> toolu_01<W22> call_<W24> chatcmpl-<W29> resp_<h48> req_011<W21> file-<W22>",
    "a blob": "index <h7>..<h7> 100644 and tree <h40>",
    "a version": "agent-sdk-1.4.0-py3-none-any.whl pit_stop_count api-2026-03-01-preview",
    "a JWT's claim": "The claims are iss, sub, aud and exp; eyJ is how a token begins.",
    "a name of a variable": "os.environ['OPENAI_API_KEY'] and ${GITHUB_TOKEN} and %(password)s and secrets.STRIPE_KEY",
    "a table": "| total_tokens | 1,024 |\n| cache_read | <N6> |\n| tokens/s | 88.1 |",
    "a type": "password: string; token: str | None; apiKey?: string;",
    "a MAC address": "eth0 02:42:ac:11:00:02 inet6 fe80::42:acff:fe11:2/64",
    "a colour": "#<h6> rgba(0, 0, 0, .5) --color-key: #<h6>;",
    "a phone": "+49 30 <N8> or +1 (555) <N3>-<N4>",
    "a bitcoin address": "bc1q<l38>",
    "a Git remote": "origin git@git.example:shop/shop.git (fetch) <h9> main -> main",
    "an SVG": '<path d="M12.<N3> 2.<N3>c-<N2>.5 0-10 4.48-10 10s4.48 10 10 10 10-4.48 10-10"/>',
    "a font": "data:font/woff2;base64,d09GMgABAAAAA<B300>",
    "a source map": '{"version":3,"mappings":"AAAA;AACA,SAAS,<W40>"}',
    "a hash of npm": "registry.npmjs.org/a/-/a-1.0.0.tgz#<h40>",
    "a container": "<h12> shop:latest sha256:<h64> Up 3 hours",
    "a process": "root <N5> 0.3 1.2 <N7> python -m agentspan serve",
    "a Slack channel": "C0<U9> U0<U9> T0<U9>",
    "a DOI": "https://doi.org/10.<N4>/s<N5>-026-<N5>-x",
    "a stack": 'File "/app/auth/token.py", line <N3>, in refresh_token',
    "a test": "tests/test_auth.py::test_password_is_wrong[key-<N2>] PASSED",
    "a CSS class": "css-<l6> sk-toggleable__label-arrow sk-estimator-doc-link bt-sticky-header-container",
    "a cron": "0 3 * * 1-5 /usr/bin/backup --keep 7",
    "an encoded path": "/v1/files/%2Fhome%2Fann%2Fnotes%2F<l12>.md",
    "a ULID": "01<U24>",
    "a Jaeger header": "uber-trace-id: <h32>:<h16>:0:1",
    "a query": "SELECT key, value FROM settings WHERE token_count > <N4> AND pass = true",
    "a certificate": "-----BEGIN CERTIFICATE-----\nMII<B200>\n-----END CERTIFICATE-----",
    "a public key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI<B43> ann@laptop",
    "an MCP server": "https://mcp.linear.app/sse https://mcp.example.com/servers/list-of-all-servers-and-tools/mcp",
    "an axis": 'plot(x_key="day_of_week_2026", y_key="max_key=12") and {"x-key": "timestamp"}',
    "names like begins of keys": "arc_length bu_table secret-manager-access-for-production-x1 prod:api|round-robin",
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


def in_settings(forms: Mapping[str, str], chance: random.Random) -> Iterator[Case]:
    """Yield an example of each of these forms of KEYS, OLD or NAMED in each of SETTINGS."""
    for kind, form in forms.items():
        for of_key, with_name in SETTINGS:
            secret, text = drawn(form, chance), with_name if kind in NAMED else of_key
            for place, name in (("ENV_NAME", kind.upper()), ("DASHED", kind.replace("_", "-")), ("NAME", kind)):
                text = text.replace(place, name)
            yield Case(kind, text.replace("{}", secret), secret)


def harmless(chance: random.Random) -> Iterator[Case]:
    """Yield examples of each kind of text without a secret."""
    for kind, form in PLAIN.items():
        for _ in PROSE:
            yield Case(kind, drawn(form, chance))
