"""Credentials do not get into the file, wherever they are; what only looks a bit like one stays."""

import asyncio
import base64
import dataclasses
import json
import logging
import os
import random
import re
import time
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

import agentspan
from agentspan import Limits, MemoryStorage, Tracer
from agentspan.recording.capture.capture import Capture
from agentspan.recording.capture.credentials import KINDS, names_credential
from agentspan.recording.capture.plain import SentRedaction
from agentspan.recording.capture.redaction import LONG, Redaction, suspicious
from tests.recording.stored import runs_of, spans_of
from tests.strategies import any_text
from tests.tiers import every, examples

R = "[redacted]"
SECRET = "S3cretVal9xQ"
KEY = "sk-proj-abcdEFGH1234ijklMNOP5678"


def recorded(value: Any, /, **limits: int) -> Any:
    """What is recorded of a value that is in no member of a telling name."""
    text = Capture(Limits(**limits), Redaction()).object({"value": value})
    shown = json.loads(text)
    return shown["value"]


# --- By the name of a member

NAMES = re.findall(
    r"\S+",
    """
api_key API_KEY apiKey ApiKey api-key x-api-key X-Api-Key x-goog-api-key OPENAI_API_KEY openai_api_key apikey api_keys
access_key aws_secret_access_key secret_key SecretKey STRIPE_SECRET_KEY private_key ssh_private_key PrivateKey
signing_key encryption_key master_key account_key AccountKey auth_key Ocp-Apim-Subscription-Key consumer_key
DD_APP_KEY x-functions-key SharedAccessKey session_key
password Password PASSWORD DB_PASSWORD dbPassword PGPASSWORD passwd password2 passwords passphrase pass_phrase passcode
pwd secret client_secret clientSecret CLIENT_SECRET webhook_secret secrets credential credentials aws.credentials
Authorization authorization Proxy-Authorization HTTP_AUTHORIZATION cookie Cookie Set-Cookie cookies
access_token accessToken ACCESS_TOKEN refresh_token auth_token X-Auth-Token id_token idToken userIdToken session_token
X-Amz-Security-Token api_token REPLICATE_API_TOKEN bearer_token csrf_token X-CSRF-Token xsrf-token oauth_token
SLACK_BOT_TOKEN bot_token user_token deploy_token GITHUB_TOKEN gitlab_token HF_TOKEN VAULT_TOKEN PRIVATE-TOKEN
""",
)

NOT_NAMES = re.findall(
    r"\S+",
    """
input_tokens output_tokens max_tokens max_completion_tokens total_tokens token_count tokens tokenizer token_ids
next_page_token pageToken nextToken NextToken continuation_token eos_token pad_token bos_token unk_token syncToken
invalid_token valid_token primary_key foreign_key cache_key idempotency_key public_key partition_key key keys sort_key
secretary password_hint password_hash has_password_policy authorized author cookie_count cookiecutter passed passenger
bypass compass session_id user id name content model pwdx secret_name api_key_id access_key_id
""",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["x", 7, 0.5, ["x", {"a": ("x", b"x")}], {"user": "x"}, b"x", b"x" * 400_000])
def test_what_a_member_of_a_telling_name_holds_is_redacted(name: str, value: Any) -> None:
    shown = recorded({name: value, "other": "stays"})
    assert shown["other"] == "stays"
    is_count = type(value) in (int, float) and "cookie" in name.lower()
    assert set(leaves(shown[name])) == {value if is_count else R}


def test_what_has_been_taken_out_before_stays() -> None:
    value = {"password": "***", "token": "[REDACTED]", "api_key": "xxxxxxxx", "secret": "", "cookies": 24}
    pod = {"existingSecret": "web-auth", "imagePullSecrets": [{"name": "registry1"}]}
    assert recorded(value) == value
    assert recorded(pod) == pod


FOREIGN_NAMES = re.findall(
    r"\S+",
    """
passwort Passwort db_passwort Kennwort mot_de_passe motDePasse contraseña CONTRASEÑA contrasena senha minhaSenha
wachtwoord hasło haslo heslo şifre mật_khẩu mat_khau kata_sandi пароль Пароль секретный_ключ
密码 数据库密码 密碼 口令 密钥 パスワード 暗証番号 비밀번호 암호 पासवर्ड পাসওয়ার্ড كلمة_المرور كلمة_السر סיסמה รหัสผ่าน
clave_secreta clé_api chave_privada psk wpa_psk
ｐａｓｓｗｏｒｄ ｐａｓｓｗｏｒｔ 𝐩𝐚𝐬𝐬𝐰𝐨𝐫𝐝 ﾊﾟｽﾜｰﾄﾞ
""",
)
UNSEEN = ["pass\u200bword", "\ufeffapi_key", "p\u00adassword", "api\u2060_key", "contrasen\u0303a", "se\u200dnha"]


@pytest.mark.parametrize("name", [*FOREIGN_NAMES, *UNSEEN], ids=ascii)
def test_names_in_other_languages_and_with_letters_that_only_look_like_others(name: str) -> None:
    assert recorded({name: "x", "n": [{name: 7}]}) == {name: R, "n": [{name: R}]}
    assert SentRedaction().cleaned({name: "x"})[1] == {name: R}
    if name in FOREIGN_NAMES[:-4]:
        for text in (f"{name}: 'hunter2'", f"{name}=hunter2", json.dumps({name: "hunter2"}), f"{name}：hunter2"):
            assert "hunter2" not in Redaction().text(text), text


@pytest.mark.parametrize(
    "name", ["desenha", "resenha", "忘记密码提示", "skip_psk_check", "şifreleme", "パスワードの例"], ids=ascii
)
def test_words_that_only_contain_such_a_name_tell_nothing(name: str) -> None:
    assert recorded({name: "x", "n": [7]}) == {name: "x", "n": [7]}


@pytest.mark.parametrize(
    ("name", "secret", "harmless"),
    [
        ("pin", ["4711", 4711, "482913", "00001234"], [17, "17", 100, "D13", "GPIO17", 10**9, -4711, True, "pin 4711"]),
        ("cardPin", [4711], [17]),
        ("spin", [], [4711, "4711"]),
        ("pin_code", ["4711"], ["560001", 110001]),
        ("otp", ["123456"], ["one time"]),
        ("cvv", ["831", 831], ["31", 31]),
        ("pw", ["letmein", "hunter2"], [1200, "1200px", "50%", "auto"]),
        ("parola", ["gatto99"], ["ciao"]),
        ("clave", ["Tr3s!Tigres"], ["MX-01", "A123456"]),
        ("mdp", ["azerty1"], [{"states": 4}]),
        ("server_key", ["k" * 10 + "1234567"], ["S1", "a server"]),
        ("auth", ["bWlhOmh1bnRlcjI="], ["oauth2", "none", "required"]),
        ("mnemonic", ["able about above absent absorb abstract absurd abuse access accident account acid"], ["Roy G"]),
    ],
)  # fmt: skip
def test_a_name_of_a_doubtful_kind_counts_if_its_value_looks_like_it(
    name: str, secret: list[Any], harmless: list[Any]
) -> None:
    assert [recorded({name: value}) for value in secret] == [{name: R}] * len(secret)
    assert [recorded({name: value, "a": ("x",)}) for value in harmless] == [{name: v, "a": ["x"]} for v in harmless]


@pytest.mark.parametrize("name", NOT_NAMES)
def test_other_names_tell_nothing(name: str) -> None:
    value = {name: ["", "x", "value", 7, None, {"a": "b"}]}
    assert recorded(value) == value


@pytest.mark.parametrize("name", ["password", "Authorization", "credentials"])
def test_nothing_and_yes_or_no_are_no_credentials(name: str) -> None:
    assert recorded({name: value} if (value := None) else {name: None}) == {name: None}
    assert recorded([{name: True}, {name: False}, {name: ""}, {name: {}}, {name: []}]) == [
        {name: True},
        {name: False},
        {name: ""},
        {name: {}},
        {name: []},
    ]


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


@pytest.mark.parametrize("name", ["token", "Token", "jwtToken", "reset_token", "TELEGRAM_TOKEN", "x-plex-token"])
def test_a_token_is_redacted_if_it_looks_like_one(name: str) -> None:
    words = ["the", " internationalization", "----------------------------", "<|reserved_special_token_0|>", 7, "a b1"]
    assert recorded({name: words}) == {name: words}
    assert recorded({name: "c0ffee1234567890abcd"}) == {name: R}


@pytest.mark.parametrize("name", ["next_page_token", "pageToken", "NextToken", "continuation-token", "startToken"])
def test_a_token_that_is_a_cursor_stays(name: str) -> None:
    assert recorded({name: "c0ffee1234567890abcd"}) == {name: "c0ffee1234567890abcd"}


def test_a_pass_is_redacted_if_it_looks_like_a_password() -> None:
    tests = {"pass": 12, "first_pass": "some text", "bypass": "abc123!", "pass_": "abc123!"}
    assert recorded(tests) == tests
    assert recorded({"pass": "hunter2", "SMTP_PASS": "hunter2"}) == {"pass": R, "SMTP_PASS": R}


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["tool", "--password", "two words"], ["tool", "--password", R]),
        (["tool", "--api-key", KEY, "--verbose"], ["tool", "--api-key", R, "--verbose"]),
        (["tool", "--db-password", "hunter2", "x"], ["tool", "--db-password", R, "x"]),
        (
            ["/usr/bin/curl", "-s", "-u", "ada:hunter2", "https://x"],
            ["/usr/bin/curl", "-s", "-u", f"ada:{R}", "https://x"],
        ),
        (["sshpass", "-p", "letmein", "ssh"], ["sshpass", "-p", R, "ssh"]),
        (["docker", "login", "-u", "me", "-p", "letmein"], ["docker", "login", "-u", "me", "-p", R]),
        (["mysql", "-u", "root", "-pletmein"], ["mysql", "-u", "root", f"-p{R}"]),
    ],
)
def test_an_argument_after_an_option_that_takes_a_credential(arguments: list[str], shown: list[str]) -> None:
    assert recorded(arguments) == shown
    assert recorded({"args": tuple(arguments)}) == {"args": shown}
    assert SECRET not in recorded(str(["--password", SECRET]))


@pytest.mark.parametrize(
    "arguments",
    [
        ["tool", "--password-file", "/run/x"],
        ["tool", "--max-tokens", "4096"],
        ["tool", "--password", "--verbose"],
        ["ls", "-u", "ada:group"],
        ["tool", "--next-token", "abc123def"],
        ["-", "--", "x"],
        ["parser", "--token", "help"],
        ["words", "-", "of a sentence", "-p 1"],
    ],
)
def test_other_arguments_stay(arguments: list[str]) -> None:
    assert recorded(arguments) == arguments


def test_a_folder_is_no_password() -> None:
    environment = {"PWD": "/home/ada", "OLDPWD": "/tmp", "HOME": "/home/ada"}
    assert recorded(environment) == environment


def test_names_and_values_apart() -> None:
    pairs: list[Any] = [("Authorization", "Basic x"), ("accept", "a/b"), (b"x-api-key", b"x"), ["cookie", "x"]]
    assert recorded({"headers": pairs}) == {
        "headers": [["Authorization", R], ["accept", "a/b"], [B64_NAME, R], ["cookie", R]]
    }
    assert recorded(dict(pairs[:2]).items()) == [["Authorization", R], ["accept", "a/b"]]
    entries = [
        {"name": "Authorization", "value": "x"},
        {"key": "DB_PASSWORD", "value": "x"},
        {"name": "a", "value": "x"},
        {"Key": "DB_PASSWORD", "Value": "x"},
    ]
    assert recorded(entries) == [
        {"name": "Authorization", "value": R},
        {"key": "DB_PASSWORD", "value": R},
        {"name": "a", "value": "x"},
        {"Key": "DB_PASSWORD", "Value": R},
    ]
    assert recorded({b"authorization": b"x"}) == {"authorization": R}
    assert recorded({"auth": ("ada", "hunter2")}) == {"auth": ["ada", R]}
    assert recorded({"password": ("old", "new")}) == {"password": [R, R]}


B64_NAME = base64.b64encode(b"x-api-key").decode()


def test_a_schema_that_speaks_of_a_password_is_none() -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "login",
            "parameters": {
                "type": "object",
                "properties": {
                    "user": {"type": "string"},
                    "password": {"type": "string", "description": "The password", "minLength": 8},
                    "api_key": {"description": "Your key"},
                    "token": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "Token"},
                    "credentials": {"$ref": "#/$defs/Credentials", "x-order": 3},
                    "secret": {"enum": ["a", "b"]},
                },
                "required": ["password", "user"],
            },
        },
    }
    assert recorded({"tools": [tool]}) == {"tools": [tool]}


def test_an_object_of_credentials_is_no_schema_because_it_has_a_type() -> None:
    account = {"type": "service_account", "client_email": "a@b.c", "project_id": "p"}
    assert recorded({"credentials": account}) == {"credentials": dict.fromkeys(account, R)}
    assert recorded({"authorization": {"type": "bearer", "value": "x"}})["authorization"]["value"] == R


# --- By what a text looks like

FAKE = "a1B2" * 12
KEYS = {
    "OpenAI": KEY,
    "OpenAI, old": "sk-" + "a1B2c3D4" * 6,
    "Anthropic": "sk-ant-api03-" + FAKE,
    "OpenRouter": "sk-or-v1-" + "0f" * 32,
    "Langfuse": f"sk-lf-{uuid.UUID(int=2**127 + 12345)}",
    "of letters": "sk-abcdefghijklmnopqrstuvwx",
    "Stripe": "sk_live_" + FAKE[:24],
    "Stripe, restricted": "rk_test_" + FAKE[:24],
    "webhook": "whsec_" + FAKE[:32],
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "AWS, session": "ASIAIOSFODNN7EXAMPLE",
    "GitHub": "ghp_" + FAKE[:36],
    "GitHub app": "ghs_" + FAKE[:36],
    "GitHub, fine": "github_pat_" + FAKE[:22] + "_" + FAKE,
    "GitLab": "glpat-" + FAKE[:20],
    "Slack": "xoxb-123456789012-1234567890123-" + FAKE[:24],
    "Slack app": "xapp-1-A012345678-" + FAKE[:24],
    "Google": "AIza" + FAKE[:35],
    "Google OAuth": "ya29." + FAKE,
    "Google client": "GOCSPX-" + FAKE[:28],
    "Hugging Face": "hf_" + FAKE[:34],
    "Groq": "gsk_" + FAKE,
    "Replicate": "r8_" + FAKE[:37],
    "npm": "npm_" + FAKE[:36],
    "Docker": "dckr_pat_" + FAKE[:27],
    "Pinecone": "pcsk_" + FAKE[:5] + "_" + FAKE,
    "xAI": "xai-" + FAKE,
    "Perplexity": "pplx-" + FAKE,
    "Tavily": "tvly-dev-" + FAKE[:32],
    "PyPI": "pypi-AgEIcHlwaS5vcmc" + FAKE,
    "NVIDIA": "nvapi-" + FAKE,
    "LangSmith": "lsv2_pt_" + FAKE[:32] + "_" + FAKE[:10],
    "Vault": "hvs." + FAKE[:24],
    "SendGrid": "SG." + FAKE[:22] + "." + FAKE[:43],
    "Databricks": "dapi" + "0f" * 16,
    "Twilio": "SK" + "0f" * 16,
    "Telegram": "123456789:AA" + FAKE[:33],
    "web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + FAKE,
    "web token without signature": "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxMjM0NTY3ODkwIn0.",
    "private key": f"-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIB{FAKE}\n{FAKE}\nab==\n-----END RSA PRIVATE KEY-----",
    "encrypted key": "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0F\n\n"
    f"{FAKE}\n-----END EC PRIVATE KEY-----",
    "PGP key": f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{FAKE}\n=ab12\n-----END PGP PRIVATE KEY BLOCK-----",
}

HEX = "0f" * 100
NUMBERED = base64.b64encode(b"123456789012345678").decode()
UUID = str(uuid.UUID(int=2**127 + 12345))
MORE_KEYS = {
    "1Password": "A3-A1B2C3-" + "A1B2C3-" * 5,
    "1Password account": "ops_eyJ" + FAKE * 3,
    "age": "AGE-SECRET-KEY-1" + "Q0P9" * 15,
    "Airtable": "pat" + FAKE[:14] + "." + HEX[:64],
    "Alibaba": "LTAI" + FAKE[:20],
    "Artifactory": "AKCp" + FAKE + FAKE[:21],
    "Atlassian": "ATATT3" + FAKE,
    "AWS, other": "ABIA" + "Q2W3" * 4,
    "Azure": "a1B8Q~" + FAKE[:34],
    "Bedrock": "ABSK" + FAKE * 3,
    "Bitbucket": "ATBB" + FAKE[:32],
    "Braintree": "access_token$sandbox$" + HEX[:16] + "$" + HEX[:32],
    "Buildkite": "bkua_" + HEX[:40],
    "Clojars": "CLOJARS_" + HEX[:60],
    "Cloudflare": "v1.0-" + HEX[:24] + "-" + HEX[:146],
    "Cloudflare token": "cfut_" + FAKE[:40],
    "Contentful": "CFPAT-" + FAKE,
    "DigitalOcean": "dop_v1_" + HEX[:64],
    "Discord": NUMBERED + "." + FAKE[:6] + "." + FAKE[:38],
    "Docker": "dckr_oat_" + FAKE[:27],
    "Doppler": "dp.st.dev." + FAKE[:43],
    "Dropbox": "sl." + FAKE * 3,
    "Duffel": "duffel_test_" + FAKE[:43],
    "Dynatrace": "dt0c01." + "A1B2" * 6 + "." + "A1B2" * 16,
    "Figma": "figd_" + FAKE[:40],
    "Firebase": "AAAA" + FAKE[:7] + ":APA91b" + FAKE * 3,
    "Flutterwave": "FLWSECK_TEST-" + HEX[:32],
    "Fly": "fo1_" + FAKE[:43],
    "Frame": "fio-u-" + FAKE + FAKE[:16],
    "GitLab job": "glcbt-64_" + FAKE[:20],
    "GitLab runner": "GR1348941" + FAKE[:20],
    "Google refresh": "1//0" + FAKE,
    "Grafana cloud": "glc_" + FAKE,
    "Harness": "pat." + FAKE[:22] + "." + HEX[:24] + "." + FAKE[:20],
    "Heroku": "HRKU-AA" + FAKE + FAKE[:10],
    "HubSpot": "pat-na1-" + UUID,
    "Hugging Face, organisation": "api_org_" + "aBcD" * 9,
    "Infracost": "ico-" + FAKE[:32],
    "Linear": "lin_api_" + FAKE[:40],
    "Lob": "live_" + HEX[:35],
    "Mailchimp": HEX[:32] + "-us14",
    "Mailgun": "key-" + HEX[:32],
    "MaxMind": FAKE[:6] + "_" + FAKE[:29] + "_mmk",
    "Neon": "napi_" + HEX[:64],
    "Netlify": "nfp_" + FAKE[:36],
    "New Relic": "NRAK-" + "A1B2" * 6 + "A1B",
    "Notion": "ntn_" + "1" * 11 + FAKE[:35],
    "Notion, old": "secret_" + FAKE[:43],
    "NuGet": "oy2" + HEX[:43],
    "Octopus": "API-" + "A1B2" * 6 + "A1",
    "OpenShift": "sha256~" + FAKE[:43],
    "Plaid": "access-sandbox-" + UUID,
    "PlanetScale": "pscale_tkn_" + FAKE[:43],
    "Postman": "PMAK-" + HEX[:24] + "-" + HEX[:34],
    "Prefect": "pnu_" + FAKE[:36],
    "Pulumi": "pul-" + HEX[:40],
    "ReadMe": "rdme_" + HEX[:70],
    "Resend": "re_" + FAKE[:8] + "_" + FAKE[:24],
    "RubyGems": "rubygems_" + HEX[:48],
    "Scalingo": "tk-us-" + FAKE,
    "Sentry": "sntryu_" + HEX[:64],
    "Shippo": "shippo_test_" + HEX[:40],
    "Shopify": "shpat_" + HEX[:32],
    "Slack, old": "xoxe.xoxp-1-" + FAKE,
    "SonarQube": "sqp_" + HEX[:40],
    "Sourcegraph": "sgp_" + HEX[:40],
    "Square": "sq0atp-" + FAKE[:22],
    "Square, new": "EAAA" + FAKE + FAKE[:12],
    "Supabase": "sbp_" + HEX[:40],
    "Tailscale": "tskey-auth-" + FAKE[:12] + "-" + FAKE[:32],
    "Terraform": FAKE[:14] + ".atlasv1." + FAKE + FAKE[:16],
    "Together": "tgp_v1_" + FAKE[:43],
    "Azure storage": FAKE[:38] * 2 + "+AStA1b2C3==",
    "Azure service bus": FAKE[:32] + "+ASbA1b2C3=",
    "private key in base64": "LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS0tLS0t" + FAKE * 2,
    "Typeform": "tfp_" + FAKE + FAKE[:11],
    "Vault batch": "hvb." + FAKE * 3,
    "Vercel": "vcp_" + FAKE[:24],
    "WooCommerce": "ck_" + HEX[:40],
}


@pytest.mark.parametrize("key", MORE_KEYS.values(), ids=MORE_KEYS.keys())
def test_keys_of_other_makers_are_cut_out(key: str) -> None:
    for place in (
        "{}",
        "My key is {}, keep it.",
        '{{"k": "{}"}}',
        "https://example.com/?k={}&x=1",
        "lorem ipsum " * 300 + "{}",
    ):
        cut = Redaction().text(place.format(key))
        assert cut == place.format(R) or cut == place.format("xoxe." + R)
        shown = recorded({"text": place.format(key)})["text"]
        assert shown == cut
    if "-" not in key[:12] and not key.startswith(("pat", "AAAA", NUMBERED)):
        assert key[8:] in Redaction().text(f"x{key}"), "it is part of a longer word"


PLACES = {
    "alone": "{}",
    "prose": "My key is {}, keep it.",
    "quotes": "'{}'",
    "brackets": "<{}>",
    "after a line": "first\n{}\nlast",
    "after a tab": "\t{}",
    "JSON": '{{"k": "{}"}}',
    "JSON in JSON": '"{{\\"k\\": \\"x\\n{}\\"}}"',
    "URL": "https://example.com/?k={}&x=1",
    "escaped URL": "https%3A%2F%2Fexample.com%3Fk%3D{}",
    "beside a surrogate": "\ud800{}\udfff",
    "beside letters": "ä{}ö",
    "in a path": "/keys/{}/x",
    "long text": "lorem ipsum " * 15_000 + "{} dolor",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_keys_are_cut_out_of_texts_wherever_they_are(key: str, place: str) -> None:
    redaction = Redaction()
    cut = redaction.text(place.format(key))
    assert cut == place.format(R)
    assert redaction.count == 1
    assert redaction.text(cut) == cut
    assert redaction.count == 1


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_keys_are_cut_out_of_everything(key: str) -> None:
    class Said:
        def __repr__(self) -> str:
            return f"Said({key!r})"

    @dataclasses.dataclass
    class Data:
        note: str

    class Model(BaseModel):
        note: str

    value = [
        key,
        (key, key),
        {key: 1},
        Data(key),
        Model(note=key),
        key.encode(),
        Said(),
        Path(key),
        ValueError(key),
        {key},
    ]
    text = Capture(Limits(), Redaction()).object({"value": value})
    for part in (key, key[-20:], json.dumps(key)[1:-1], base64.b64encode(key.encode()).decode()):
        assert part not in text
    assert json.loads(text)["value"][2] == {R: 1}


# What is written is on the left; what must be gone is S3cretVal9xQ, hunter2 or letmein.
TEXTS = """
OPENAI_API_KEY=S3cretVal9xQ
export DB_PASSWORD='S3cretVal9xQ'
DB_PASSWORD=letmein
DB_PASSWORD="letmein" # the old one
PGPASSWORD=S3cretVal9xQ psql -h db
spring.datasource.password=letmein
//registry.npmjs.org/:_authToken=S3cretVal9xQ
aws_secret_access_key = S3cretVal9xQ/K7MDENG+bPxRfiCY
password = hunter2
password: hunter2
  - password: hunter2 # changed
Your new password: hunter2
api_key:  S3cretVal9xQ
client_secret: "letmein letmein"
postgres://admin:S3cretVal9xQ@db.example.com:5432/x
redis://:letmein@localhost:6379/0
mongodb+srv://u:hunter2!@cluster0.example.net/?retryWrites=true
https://ada:p@S3cretVal9xQ@example.com/a
Server=tcp:x,1433;Database=d;User ID=u;Password=letmein;Encrypt=True
DefaultEndpointsProtocol=https;AccountName=a;AccountKey=S3cretVal9xQ/abc==;EndpointSuffix=core.windows.net
https://a.blob.core.windows.net/c?sv=2020&sig=S3cretVal9xQS3cretVal9xQ%3D&se=1
https://b.s3.amazonaws.com/k?X-Amz-Expires=60&X-Amz-Signature=S3cretVal9xQS3cretVal9xQ
https://x.example/?api_key=letmein&b=1
https://x.example/?b=1&access_token=letmein
https://x.example/?token=S3cretVal9xQ
grant_type=client_credentials&client_id=a&client_secret=letmein&scope=b
https://hooks.slack.com/services/T00000000/B00000000/S3cretVal9xQS3cretVal9xQ
curl -H "x-api-key: letmein" https://x.example
curl -H 'Authorization: Bearer S3cretVal9xQ' https://x.example
curl https://x.example -u ada:letmein
curl -s --user 'ada:S3cretVal9xQ' https://x.example
curl https://x.example -b 'session=letmein'
mysql -u root --password=letmein
tool --api-key S3cretVal9xQ --verbose
tool --token=S3cretVal9xQ
docker login -u me -p letmein registry.example
sshpass -p letmein ssh host
machine example.com login ada password letmein
CREATE USER ada WITH PASSWORD 'letmein'
ALTER ROLE ada PASSWORD 'letmein'
mysql -u root -pletmein db
Authorization: Bearer S3cretVal9xQ
Authorization: Basic bGV0bWVpbjpsZXRtZWlu S3cretVal9xQ=gone?
authorization: token S3cretVal9xQ
Proxy-Authorization: Basic S3cretVal9xQ
Cookie: session=letmein; theme=hunter2
Set-Cookie: sid=letmein; Path=/; HttpOnly
X-Auth-Token: S3cretVal9xQ
PRIVATE-TOKEN: letmein
{"password": "letmein"}
{"password": "correct letmein battery \\"hunter2\\" staple"}
{"Authorization": "letmein letmein"}
{"api_key": 12345678, "password": "letmein"}
{"body": "{\\"password\\": \\"letmein\\"}"}
{"a": "{\\"b\\": \\"{\\\\\\"secret\\\\\\": \\\\\\"letmein\\\\\\"}\\"}"}
{'password': 'letmein', 'user': 'ada'}
{'password': b'letmein'}
User(name='ada', password='letmein')
Namespace(token='S3cretVal9xQS3cretVal9xQ')
client = OpenAI(api_key="letmein")
os.environ["API_KEY"] = "letmein"
api_key: str = "letmein"
apiKey: 'letmein',
secret => "letmein"
if password == "letmein":
Headers([('host', 'x'), ('authorization', 'Bearer letmein'), ('x-api-key', 'letmein')])
<Password>letmein</Password>
<ns:clientSecret>letmein letmein</ns:clientSecret>
my password is hunter2, thanks
password is "S3cretVal9xQ"
Passwort: hunter2
DB_PW=letmein
plink -pw: 'hunter2'
https://x.example/?key=S3cretVal9xQS3cretVal9xQ
https://x.example/?a=1&amp;code=S3cretVal9xQS3cretVal9xQ
https://x.example/?a=1\\u0026sig=S3cretVal9xQS3cretVal9xQ
https://x.example/?a=1&auth=S3cretVal9xQS3cretVal9xQ
https://x.example/#token=S3cretVal9xQ
https://discord.com/api/v10/webhooks/123/S3cretVal9xQS3cretVal9xQ
https://a.webhook.office.com/webhookb2/S3cretVal9xQ@S3cretVal9xQ/IncomingWebhook/S3cretVal9xQ
https://maker.ifttt.com/trigger/x/with/key/S3cretVal9xQS3cretVal9xQ
https://mainnet.infura.io/v3/S3cretVal9xQS3cretVal9xQ
redis-cli -h x -a hunter2 ping
aws configure set aws_secret_access_key S3cretVal9xQ
<add key="DbPassword" value="hunter2"/>
- {name: DB_PASSWORD, value: hunter2}
{"name": "DB_PASSWORD", "value": "hunter2"}
curl -s -u ada:'S3cretVal9xQ' https://example.com
mysql -u root -p'S3cretVal9xQ' runs
ldapsearch -x -H ldap://x -w 'S3cretVal9xQ' -b dc=example
oathtool --totp -b S3cretVal9xQ
define( 'DB_PASSWORD', 'S3cretVal9xQ' );
define("DB_PASSWORD", "S3cretVal9xQ");
secret_key_base: S3cretVal9xQ
parola d'ordine: S3cretVal9xQ
otpauth://totp/ada?secret=S3cretVal9xQ&issuer=x
""".strip().split("\n")
TEXTS.remove("Authorization: Basic bGV0bWVpbjpsZXRtZWlu S3cretVal9xQ=gone?")


@pytest.mark.parametrize("text", TEXTS)
def test_credentials_are_cut_out_of_texts(text: str) -> None:
    redaction = Redaction()
    cut = redaction.text(text)
    assert not [secret for secret in ("S3cretVal9xQ", "letmein", "hunter2") if secret in cut]
    assert R in cut
    assert redaction.count >= 1
    count = redaction.count
    assert redaction.text(cut) == cut
    assert redaction.count == count


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "around", ["{}", "first\n{}\nlast", "{}\r\nlast", json.dumps("x\n{}\ny")[1:-1], "ä\n{}", "\ud800\n{}"], ids=ascii
)
def test_credentials_are_cut_out_of_payloads(text: str, around: str) -> None:
    whole = around.replace("{}", text)
    for value in ({"content": whole}, {"content": [{"text": whole}], "odd": ()}):
        written = Capture(Limits(), Redaction()).object(value)
        assert not [secret for secret in ("S3cretVal9xQ", "letmein", "hunter2") if secret in written]


HARMLESS = r"""
The usage was input_tokens=512, max_tokens: 4096 and "total_tokens": 4608.
next_page_token=CAUQAA1234567890abcdef
{"next_page_token": "CAUQAA1234567890abcdef", "nextToken": "AQICAHhJabcdef1234567"}
aws s3api list-objects --starting-token c0ffee1234567890abcd --max-items 5
The password must have at least 8 characters. Passwords: rotate them every 90 days.
The secret of success: hard work. Your password: see the letter. The API key: see the dashboard.
Password: required
password: str
password: string;
    api_key: str | None = None
    secret: SecretStr
api_key: Optional[str] = None
def login(user, password=None, token=None, secret=None): pass
login(user, password=password, api_key=api_key, token=self.token)
client = OpenAI(api_key=os.environ["OPENAI_API_KEY"])
client = OpenAI(api_key=settings.openai.key2)
api_key=self._key1.value
password = getpass.getpass()
token = next(tokens)
secret = secrets.token_hex(16)
f"password={password}"
DB_PASSWORD=${DB_PASSWORD}
DB_PASSWORD=$DB_PASSWORD
password: <your password>
Authorization: Bearer <token>
Authorization: Bearer ${TOKEN}
Authorization: Bearer $TOKEN
Authorization: Bearer YOUR_API_KEY
-H "x-api-key: your-api-key-goes-here"
Authorization: required for all endpoints
{"type": "object", "properties": {"password": {"type": "string", "description": "The password"}}}
{"password": null, "api_key": "", "secret": true}
if password == "":
<input type="password" placeholder="Enter it">
SELECT password FROM users WHERE id = 1
the password 'x' is wrong; mysql -p
parser.add_argument("--token", "-t")
bearer of bad news, Bearer authentication is required, a basic authentication
basic src/components/Button2/index.tsx
Basic HTML5 template
task-decomposition-agent-planner1 risk-management-framework2 disk_identification_number
sk-learn-compatible-estimators sk-toggleable__content-0 ask-me-anything-1234567890
jina-embeddings-v2-base-en hf-internal-testing/tiny-random-gpt2 npm_config_user_agent_string_here pplx-70b-online
https://example.com:8080/@user/a?b=c@d.e#x
https://user@example.com/x git@github.com:org/repo.git ssh://git@github.com/org/repo
https://host:443?x=a@b.c
commit 81264b7ea2ed1ebf358ca24f3cbab45034085135 and 550e8400-e29b-41d4-a716-446655440000
sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==
the cookie: it is good. Cookie: monsters. fetch(url, {credentials: "include"})
docker run -u 1000:1000 -p 8080:80 image
curl -X POST https://example.com -d '{"a": "b:c"}'
PWD=/home/ada/src
pwd: /home/ada
primary_key=True1 cache_key: abc123def bypass: 123456a compass=12345678
--max-tokens 4096 --next-token abc123def
The PEM file begins with -----BEGIN PRIVATE KEY----- and then come the lines, which are base64.
ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 ada@example.com
led = Pin(25, Pin.OUT); button_pin = 14; pin: 17; {"pin": 4, "mode": "out"}; pinMode(13, OUTPUT)
The PIN must have 4 digits. Your PIN: ****. The password is required and is base64-encoded; it is 8-16 characters long.
?page=2&sort=key&key=name&code=US&auth=none&key=PROJ-123
spin: 1234 rpm, pushpin: 2020, desenha: 2024x9, status_code=404, error code: 10054, pin_code: 560001
Passwort vergessen? Passwort: siehe Brief. contraseña: obligatoria
read -rsp 'Password: ' PASSWORD && echo 'it has 8 characters'
pw = input("Password: ").strip() or print("password:", pw1); JWT = r'eyJ[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+'
export OPENAI_API_KEY=sk-... GITHUB_TOKEN=ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx API_KEY=sk-proj-****7f3a
helm upgrade --set auth.existingSecret=web-auth1; ["password", "password2", "token", "secret"]; {"cookies": 2400}
pw: 1200px, mdp: Markov decision process, clave: MX-01
def test_the_search_that_fails_in_the_very_long_run(): live_preview_mode_enabled_for_all_of_us = True
sl.setdefault() t1.start() dp.get(x) re_compile_pattern_of_the_names fc-1 key-value-store-of-the-database
MTA is New York's; see NTLM.secret.html and MDN.docs.web-components-and-their-properties
arn:aws:iam::123456789012:role/deploy worker-7f9c4d5b6-x2x4z us-east-1 2024-05-06
""".strip().split("\n")


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_text_stays(text: str) -> None:
    redaction = Redaction()
    assert redaction.text(text) == text
    assert redaction.count == 0
    for value in ({"content": text}, {"content": [text], "other": {"text": text + "\n" + text}}):
        assert json.loads(Capture(Limits(), redaction).object(value)) == value
    assert redaction.count == 0


def test_bytes_are_looked_at_before_they_become_base64() -> None:
    body = b'{"password": "hunter2"}\xff'
    assert base64.b64decode(recorded(body)) == b'{"password": "[redacted]"}\xff'
    assert base64.b64decode(recorded(b"\xff\x00" * 100)) == b"\xff\x00" * 100


def test_a_private_key_without_its_end_is_cut_out() -> None:
    for newline in ("\n", "\r\n", "\\n"):
        key = newline.join(["-----BEGIN PRIVATE KEY-----", *[FAKE] * 20, "ab"])
        assert Redaction().text(f"it is {key}, and so on") == f"it is {R}, and so on"


def test_random_base64_stays() -> None:
    data = base64.b64encode(bytes(range(256)) * 760).decode()
    assert len(data) > 250_000
    assert recorded({"image": data, "b": ("x",)}) == {"image": data, "b": ["x"]}


# --- At the border of a cut


@pytest.mark.parametrize(
    "secret", [KEY, "password='hunter2 hunter2'", KEYS["private key"], KEYS["web token"]], ids=ascii
)
@pytest.mark.parametrize("before", [0, 150, 190, 196, 199, 200, 500, 700])
def test_no_half_of_a_credential_is_shown_at_the_border_of_a_cut(secret: str, before: int) -> None:
    text = "x" * before + " " + secret + " " + "y" * 5000
    shown = recorded({"text": text, "many": secret * 40 + text}, value=1000)
    for mark in shown.values():
        start = mark["$truncated"]["start"]
        assert len(start) <= 200
        assert is_harmless(start, secret)


def is_harmless(text: str, secret: str) -> bool:
    """Tell whether no six characters of a secret are in a text, beside its public beginning."""
    body = secret[8:]
    return not any(body[index : index + 6] in text for index in range(len(body) - 5))


@pytest.mark.parametrize("before", [0, 900, 960, 975, 985, 990, 998])
def test_no_half_of_a_credential_is_shown_at_the_end_of_a_repr(before: int) -> None:
    class Said:
        def __repr__(self) -> str:
            return KEY * 0 + "x" * before + " " + KEY + " " + "y" * 500

    assert is_harmless(recorded(Said()), KEY)
    assert is_harmless(next(iter(recorded({Said(): 1}))), KEY)


@pytest.mark.parametrize("times", [0, 1, 300])
@pytest.mark.parametrize("before", [*range(16_340, 16_390, 7), *range(16_740, 16_920, 7)])
def test_no_half_of_a_credential_is_shown_at_the_end_of_a_message(before: int, times: int) -> None:
    text = (f"{KEY} " * times).ljust(before, "x") + " " + KEY + " " + "y" * 5000
    described = Capture(Limits(), Redaction()).error(ValueError(text))
    assert is_harmless(described["message"], KEY)
    assert is_harmless(described["stacktrace"], KEY)


@pytest.mark.parametrize("secret", [KEY, KEYS["private key"]], ids=ascii)
def test_no_half_of_a_credential_is_shown_at_the_start_of_a_stack_trace(secret: str) -> None:
    for shift in range(0, 300, 20):
        error: BaseException = ValueError("bottom")
        for _ in range(150):
            outer = ValueError(f"{secret}\n" * 9)
            outer.__cause__, error = error, outer
        error.add_note("x" * shift)
        described = Capture(Limits(), Redaction()).error(error)
        assert len("".join(traceback.format_exception(error))) > 2 * 16_384
        assert is_harmless(described["stacktrace"], secret)


@pytest.mark.full
@pytest.mark.parametrize("text", [*TEXTS, *KEYS.values()], ids=ascii)
@pytest.mark.parametrize("filler", ["lorem ipsum, ", "été, "])
def test_a_credential_is_found_in_a_long_text_as_in_a_short_one(text: str, filler: str) -> None:
    long = f"{filler * 700}\n{text}\n{filler * 400}"
    assert len(long) > LONG
    cut = Redaction().text(text)
    assert Redaction().text(long) == long.replace(text, cut)
    assert json.loads(Capture(Limits(), Redaction()).object({"text": long}))["text"] == long.replace(text, cut)


# The engine's way to say that a group ignores case in ASCII only.
FORMS = [kind.detect.replace("(?i-u:", "(?i:") for kind in KINDS]


@pytest.mark.full
@pytest.mark.parametrize("symbol", ["—", "…", "“", "•", "✓", "│", "⚠️", "🔑", "→", "«", "€"])
def test_symbols_beyond_ascii_hide_no_credential(symbol: str) -> None:
    for text in [*TEXTS, *KEYS.values()]:
        for shown in (f"{symbol}{text}", f"{text}{symbol}", f"{symbol} {text} {symbol}", f"a{symbol}\n{text}"):
            plain = f"{symbol} é\n{text}"  # with a letter beyond ASCII, all kinds are searched for
            assert suspicious()(shown) or not suspicious()(plain), ascii(shown)


@pytest.mark.full
@pytest.mark.parametrize("form", FORMS)
def test_neither_a_long_text_nor_symbols_hide_what_is_suspicious(form: str) -> None:
    @settings(max_examples=examples(40))
    @given(st.from_regex(re.compile(form, re.ASCII)), st.text("—…“”•✓│⚠\ufe0f🔑→ x=:", max_size=6), st.data())
    def look(found: str, symbols: str, data: st.DataObject) -> None:
        short = found.encode("utf-8", "replace").decode()
        if suspicious()(short):
            assert suspicious()(short.ljust(LONG))
        at = data.draw(st.integers(0, len(found)))
        text = (found[:at] + symbols + found[at:]).encode("utf-8", "replace").decode()
        if suspicious()(text + " é"):
            assert suspicious()(text)

    look()


def test_a_name_is_suspicious_in_a_long_text_as_in_a_short_one() -> None:
    for name in NAMES:
        for after in ('"}', '\\",', ": ", "=", ">"):
            text = f'"{name}{after}'
            assert suspicious()(text) == suspicious()(text.ljust(LONG)) == suspicious()(text.rjust(LONG)), text


def test_a_credential_in_a_text_of_300_kilobytes_is_cut_out() -> None:
    text = "lorem ipsum, " * 25_000 + KEY + " dolor"
    assert recorded({"text": text}, value=400_000) == {"text": text.replace(KEY, R)}


# --- A rule of one's own


def test_ones_own_rule_is_asked_for_every_value(tmp_path: Path) -> None:
    asked: list[tuple[str, Any]] = []

    def rule(name: str, value: Any) -> Any:
        asked.append((name, value))
        return "[passport]" if name == "passport" else value

    tracer = Tracer(tmp_path / "runs.db", redact=rule, raise_errors=True)
    with tracer.span("custom", {"passport": "X1", "list": [1, None, True, 0.5], "api_key": "x", "": {"a": "b"}}):
        pass
    (span,) = spans_of(tracer)
    assert span.payload == {"passport": "[passport]", "list": [1, None, True, 0.5], "api_key": R, "": {"a": "b"}}
    assert asked == [("passport", "X1"), *(("list", item) for item in (1, None, True, 0.5)), ("api_key", R), ("a", "b")]
    assert tracer.health().redacted == 2
    tracer.shutdown()


def test_what_ones_own_rule_cannot_judge_is_redacted(tmp_path: Path) -> None:
    def rule(name: str, value: Any) -> Any:
        raise ZeroDivisionError(value)

    tracer = Tracer(tmp_path / "runs.db", redact=rule)
    with tracer.span("custom", {"a": "secret-of-ours", "b": [1, {"c": None}]}):
        pass
    (span,) = spans_of(tracer)
    assert span.payload == {"a": R, "b": [R, {"c": R}]}
    assert (tracer.health().failed, tracer.health().redacted) == (0, 3)
    tracer.shutdown()


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        (object(), R),
        ({"a": 1}, R),
        ([1], R),
        (None, None),
        (7, 7),
        (True, True),
        (float("nan"), "NaN"),
        (10**6000, {"$not_json": {"type": "int", "reason": "too many digits"}}),
        ("\ud83d\ude00\ud800", "😀\ud800"),
        (type("Text", (str,), {})("x"), R),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_ones_own_rule_returns_is_stored_as_json(returned: Any, shown: Any) -> None:
    tracer = Tracer(MemoryStorage(), redact=lambda name, value: returned if name == "a" else value, raise_errors=True)
    with tracer.span("custom", {"a": "x", "b": 1, "c": {"a": 5}}):
        pass
    (span,) = spans_of(tracer)
    assert span.payload == {"a": shown, "b": 1, "c": {"a": shown}}


def test_what_ones_own_rule_returns_is_within_the_limits() -> None:
    capture = Capture(Limits(value=100), Redaction(lambda name, value: "r" * 500))
    shown = json.loads(capture.object({"a": "x", "long": "y" * 500}))
    assert shown["a"]["$truncated"]["bytes"] == 500
    assert shown["long"]["$truncated"]["start"] == "r" * 100
    by_name = Redaction(lambda name, value: "[hidden]" if name == "hidden" else value)
    text = "0123456789" * 50
    shown = json.loads(Capture(Limits(value=100), by_name).object({"shown": text, "hidden": text}))
    assert shown["hidden"]["$truncated"]["start"] == "[hidden]"


def test_an_interrupt_in_ones_own_rule_is_the_programs(tmp_path: Path) -> None:
    def rule(name: str, value: Any) -> Any:
        raise KeyboardInterrupt

    tracer = Tracer(tmp_path / "runs.db", redact=rule)
    with pytest.raises(KeyboardInterrupt), tracer.span("custom", {"a": 1}):
        pass
    tracer.shutdown()


def test_nothing_is_redacted_when_that_is_wanted(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db", redact=None, raise_errors=True)
    value = {"password": "hunter2", "text": KEY, "node": ("Authorization", "x")}
    with pytest.raises(ValueError, match="sk-"), tracer.run(KEY, metadata=value), tracer.span("custom", value):
        raise ValueError(KEY)
    (span,) = spans_of(tracer)
    assert span.payload == {**value, "node": ["Authorization", "x"]}
    assert span.result_payload["error"]["message"] == KEY
    assert tracer.health().redacted == 0
    tracer.shutdown()


CARDS = ["4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005", "30569309025904", "6011111111111117"]


def test_card_numbers_are_redacted_where_that_is_wanted(tmp_path: Path) -> None:
    value = {"texts": [f"paid with {card}, thanks" for card in CARDS], "number": 4111111111111111, "api_key": "x"}
    tracer = Tracer(tmp_path / "runs.db", redact=agentspan.card_numbers, raise_errors=True)
    with tracer.span("custom", value):
        pass
    with tracer.span("custom", {"text": "nothing of that kind"}):
        pass
    first, second = spans_of(tracer)
    assert first.payload == {"texts": [f"paid with {R}, thanks"] * len(CARDS), "number": R, "api_key": R}
    assert second.payload == {"text": "nothing of that kind"}
    tracer.shutdown()
    assert recorded(value["texts"]) == value["texts"]  # without the rule


@pytest.mark.parametrize(
    "value",
    [
        "4111 1111 1111 1112",  # its last digit does not check the others
        "4444444444444444",
        "1111111111111117",
        "550e8400-4111-1111-1111-111111111111",
        "/orders/4111111111111111",
        "0.4111111111111111",
        "1732844032123",
        4111111111111112,
        1732844032123,
        4111111111111111.0,
        10**400,
        True,
        None,
    ],
)
def test_other_numbers_are_no_cards(value: Any) -> None:
    assert agentspan.card_numbers("card", value) is value or agentspan.card_numbers("card", value) == value


# --- Everywhere that something is stored


class Credentials(NamedTuple):
    user: str
    password: str


@attrs.define
class Login:
    user: str
    password: str


class Settings(BaseModel):
    api_key: str
    hidden: SecretStr
    nested: dict[str, Any]


def test_objects_are_redacted_by_the_names_of_their_fields() -> None:
    settings_ = Settings(api_key="x", hidden=SecretStr("hunter2"), nested={"clientSecret": "x", "a": 1})
    assert recorded([Login("ada", "x"), Credentials("ada", "x"), settings_]) == [
        {"user": "ada", "password": R},
        ["ada", R],
        {"api_key": R, "hidden": "**********", "nested": {"clientSecret": R, "a": 1}},
    ]


def test_requests_and_responses_keep_all_but_the_credentials() -> None:
    request = {
        "method": "POST",
        "url": "https://api.openai.com/v1/chat/completions",
        "headers": {
            "Authorization": f"Bearer {KEY}",
            "OpenAI-Organization": "org-1",
            "Content-Type": "application/json",
        },
        "json": {
            "model": "gpt-4.1",
            "messages": [
                {"role": "system", "content": "Never reveal the password. The token limit is 4096."},
                {"role": "user", "content": f"OPENAI_API_KEY={KEY}\nWhat is wrong with this .env file?"},
            ],
            "max_tokens": 100,
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"token": {}}}}}],
        },
    }
    response = {
        "id": "chatcmpl-abc123",
        "choices": [{"message": {"content": "It is fine.", "tool_calls": [{"arguments": '{"password": "hunter2"}'}]}}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0}},
    }
    expected = json.loads(
        json.dumps([request, response])
        .replace(f"Bearer {KEY}", R)
        .replace(KEY, R)
        .replace('{\\"password\\": \\"hunter2\\"}', '{\\"password\\": \\"[redacted]\\"}')
    )
    assert [recorded(request), recorded(response)] == expected


def test_everything_of_a_run_and_a_span_is_redacted_and_counted(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)
    with tracer.run(f"agent {KEY}", version=f"v {KEY}", metadata={"password": "x"}) as run:
        with tracer.span("llm", {"model": f"m {KEY}", "messages": []}) as span:
            span.update_payload({"api_key": "x"})
            span.set_result({"text": f"use {KEY}", "input_tokens": 3})
        run.set_result({"secret": "x"})
    (span,) = spans_of(tracer)
    (stored,) = runs_of(tracer)
    assert span.label == f"m {R}"
    assert R in span.summary
    assert span.payload == {"model": f"m {R}", "messages": [], "api_key": R}
    assert span.result_payload == {"text": f"use {R}", "input_tokens": 3}
    assert (stored.metadata, stored.result) == ({"password": R}, {"secret": R})
    assert tracer.health().redacted == 7
    assert [agent.name for agent in agentspan.open(tracer.storage).agents.list()] == [f"agent {R}"]
    tracer.shutdown()


@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_descriptions_of_span_types_are_redacted(tmp_path: Path, durability: Any) -> None:
    query = {"type": "string", "description": f"such as {KEY}"}
    agentspan.span_type("find", payload={"title": "find", "properties": {"q": query}})
    tracer = Tracer(tmp_path / "runs.db", durability=durability, raise_errors=True)
    with tracer.run("a"), tracer.span("find", {"q": "x"}):
        tracer.flush()
        assert KEY.encode() not in b"".join(written(tmp_path).values())
    tracer.shutdown()
    data = b"".join(written(tmp_path).values())
    assert b"such as [redacted]" in data
    assert KEY.encode() not in data


def test_errors_are_redacted() -> None:
    def connect(url: str) -> None:
        raise ConnectionError(f"cannot reach {url}")

    tracer = Tracer(MemoryStorage(), raise_errors=True)

    @tracer.run("a")
    @tracer.span("custom")
    def work() -> None:
        try:
            connect("postgres://ada:hunter2@db/x")  # the source line is in the stack trace
        except ConnectionError as error:
            error.add_note(f"with {KEY}")
            raise ExceptionGroup(f"group {KEY}", [error, KeyError(KEY)]) from ValueError("password='hunter2'")

    with pytest.raises(ExceptionGroup):
        work()
    (span,) = spans_of(tracer)
    (run,) = runs_of(tracer)
    for error in (span.result_payload["error"], run.error):
        text = json.dumps(error)
        assert "hunter2" not in text
        assert KEY not in text
        assert error["message"] == f"group {R} (2 sub-exceptions)"
        assert error["exceptions"][0]["message"] == f"cannot reach postgres://ada:{R}@db/x"
        assert f'connect("postgres://ada:{R}@db/x")' in error["stacktrace"]
    assert "hunter2" not in (span.summary or "")


@pytest.mark.parametrize("durability", every(2, ["journal", "commit"]))
def test_no_byte_of_a_credential_is_on_disk_or_in_the_log(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    durability: Any,
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = [*KEYS.values(), "hunter2", "letmein", SECRET]
    tracer = Tracer(tmp_path / "runs.db", limits=Limits(value=2000, payload=50_000), durability=durability)

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError(f"password='hunter2' {KEY}")

    class Sayer:
        def __repr__(self) -> str:
            return f"Sayer({KEY}, password='letmein')"

    @tracer.span
    def tool(text: str, *, password: str, value: Any) -> dict[str, Any]:
        if value is None:
            raise RuntimeError(text)
        return {"text": text, "password": password, "value": value}

    @tracer.span
    def stream(text: str) -> Iterator[str]:
        yield text
        yield f"password='{SECRET}'"

    @tracer.span
    async def later(text: str) -> str:
        return text

    everything = "\n".join([*KEYS.values(), *TEXTS])
    with tracer.run(f"a {KEY}", version=KEY, metadata={"text": everything, "password": "hunter2"}) as run:
        for text in [*KEYS.values(), *TEXTS, everything, everything * 20]:
            tool(text, password="letmein", value=[Broken(), Sayer(), {"cookie": SECRET}, text.encode()])
            with pytest.raises(RuntimeError):
                tool(text, password="hunter2", value=None)
        list(stream(everything))
        asyncio.run(later(everything))
        pending = run.create_span("custom", {"text": everything})
        pending.update_payload({"api_key": SECRET})
        pending.cancel()
        with tracer.span("custom", {"text": everything}) as span:
            span.set_result(f"no mapping {KEY} password='hunter2'")  # type: ignore[arg-type]
            span.record_error(ValueError(everything))
        # A fault of agentspan's own, that says what it should not.
        with monkeypatch.context() as patch:
            patch.setattr("agentspan.recording.sinks.commit.describe", failing)
            with tracer.span("custom", {"text": everything}):
                pass
        run.set_result({"text": everything, "credentials": {"a": SECRET}})
        run.record_error(ValueError(everything))
        stored = written(tmp_path)
        assert "runs.db-wal" in stored
    tracer.shutdown()
    stored |= {f"{name} after": data for name, data in written(tmp_path).items()}
    out, err = capfd.readouterr()
    stored |= {"log": caplog.text.encode(), "out": out.encode(), "err": err.encode()}
    assert "recording: ValueError" in caplog.text
    for name, data in stored.items():
        for secret in secrets:
            for form in (secret, json.dumps(secret)[1:-1], base64.b64encode(secret.encode()).decode().rstrip("=")[:-2]):
                assert form.encode() not in data, f"{form!r} is in {name}"
        for secret in KEYS.values():
            assert secret[-24:].encode() not in data, f"the end of {secret!r} is in {name}"
    assert tracer.health().redacted > 1000


def failing(*args: Any, **kwargs: Any) -> Any:
    raise ValueError(f"a fault about password='hunter2' and {KEY}")


def written(folder: Path) -> dict[str, bytes]:
    return {entry.name: Path(entry.path).read_bytes() for entry in os.scandir(folder) if entry.is_file()}


# --- The fast test

pieces = st.one_of(
    st.sampled_from([*KEYS.values(), *TEXTS]),
    st.sampled_from(
        [
            "\n",
            "\t",
            " ",
            "\\",
            "\\n",
            '"',
            "'",
            '\\"',
            "=",
            ":",
            "://",
            "@",
            "&",
            ";",
            ",",
            "\r",
            "\x0b",
            "\x1f",
            "\u2028",
        ]
    ),
    st.sampled_from(
        ["password", "api_key", "Authorization", "token", "cookie", "curl -u a:b", "--password", "Bearer", "sk-"]
    ),
    any_text,
    st.text("abcXYZ019_-.=", max_size=24),
)


@settings(max_examples=examples(400), deadline=None, derandomize=True)
@given(st.lists(pieces, max_size=8).map("".join))
def test_the_fast_test_sees_whatever_would_be_cut(text: str) -> None:
    redaction = Redaction()
    if redaction.text(text) == text:
        return
    assert redaction.count > 0
    try:
        written = Capture(Limits(), None).object({"a": [text]})
    except UnicodeEncodeError:
        return
    assert Redaction().suspicious(written)
    redacted = json.loads(Capture(Limits(), Redaction()).object({"a": [text]}))
    assert redacted == {"a": [Redaction().text(joined(text))]}


def joined(text: str) -> str:
    """A text as whoever reads JSON has it: two halves of a character are one."""
    return str(json.loads(json.dumps(text)))


@settings(max_examples=examples(200), deadline=None, derandomize=True)
@given(
    st.text("_-. aAkKeEyYsStToOnNiIdDpPwW1", max_size=20) | st.sampled_from(NAMES), st.sampled_from(NAMES + NOT_NAMES)
)
def test_the_fast_test_sees_whatever_a_name_tells(prefix: str, name: str) -> None:
    if names_credential(prefix + name):
        for value in ({prefix + name: "x"}, {"a": [{"b": {prefix + name: 7}}]}, {"name": prefix + name, "value": "x"}):
            assert Redaction().suspicious(json.dumps(value, separators=(",", ":")))


@pytest.mark.parametrize("redact", ["credentials", None])
def test_names_of_spans_and_runs_are_redacted(redact: Any) -> None:
    named = f"curl -u mia:hunter2 with {KEY}"
    tracer = Tracer(MemoryStorage(), redact=redact)
    with tracer.run(named) as run:
        with tracer.span(named):
            pass
        tracer.span(named)(lambda: 1)()
        run.create_span(named).cancel()
        run.create_span("überprüfen").cancel()
    tracer.flush()
    shown = f"curl -u mia:{R} with {R}" if redact else named
    names = [span.schema_name for span in spans_of(tracer)]
    assert names == [shown, shown, shown, "überprüfen"]
    tracer.shutdown()


def test_most_texts_take_the_fast_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    closely: list[Any] = []
    monkeypatch.setattr("agentspan.recording.capture.capture.Plain", lambda *args: closely.append(args))
    capture = Capture(Limits(), Redaction())
    payloads: list[dict[str, Any]] = [
        {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100, "temperature": 0.5},
        {"text": "done", "input_tokens": 3, "usage": {"total_tokens": 5}, "finish_reason": "stop"},
        {"name": "search", "arguments": {"query": "task-decomposition for authors", "limit": 5}},
        {"documents": [{"id": 1, "text": "The key to a good cookie is butter; the passenger has no secretary."}]},
        {"id": "550e8400-e29b-41d4-a716-446655440000", "sha": "81264b7ea2ed1ebf358ca24f3cbab45034085135"},
    ]
    for payload in payloads:
        assert json.loads(capture.object(payload)) == payload
    assert closely == []


@pytest.mark.full
@pytest.mark.parametrize(
    "part",
    ["eyJ", "eyJ-", "sk-", "password=", "password: '", "curl -u ", "://a:", "-----BEGIN PRIVATE KEY-----", "'", "\\"],
)
def test_a_text_that_is_made_to_take_long_takes_linear_time(part: str) -> None:
    """Of a quadratic pattern this would not end."""
    text = f"{KEY} {KEYS['web token']} password='hunter2' curl -u a:b " + part * (200_000 // len(part))
    assert KEY not in Redaction().text(text)


def test_base64_in_which_a_key_seems_to_begin_takes_not_much_longer_than_words() -> None:
    """The tables of one search for everything must fit into the engine's memory: else each character takes 600 ns."""
    chance = random.Random(5)
    digits = base64.b64encode(chance.randbytes(150_000)).decode()
    words = "the quick brown fox jumps over the lazy dog " * 4500
    search = suspicious()

    def seconds(text: str) -> float:
        times: list[float] = []
        for _ in range(5):
            began = time.process_time()
            search(f"{text} primary_key: x")
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(digits) < 20 * seconds(words)
