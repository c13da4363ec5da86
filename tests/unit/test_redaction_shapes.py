"""What looks like a secret is taken out of a diff whole, and ordinary source stays as it is."""

from __future__ import annotations

import time

import pytest

from assay.redaction import redact

RANDOM = "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5"

KNOWN = [
    f"https://hooks.slack.com/services/T00000000/B00000000/{RANDOM[:24]}",
    *(f"gh{kind}_{RANDOM}" for kind in "pousr"),
    f"github_pat_11ABCDE0_{RANDOM}",
    f"glpat-{RANDOM[:20]}",
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    *(f"xox{kind}-123456789012-{RANDOM}" for kind in "abeoprs"),
    f"hf_{RANDOM}",
    f"sk-{RANDOM}",
    f"sk-proj-{RANDOM[:10]}_{RANDOM[:20]}",
    "sk-abcdefghijklmnopqrstuvwxyz",
    f"AIzaSy{RANDOM[:33]}",
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.{RANDOM}",
]


@pytest.mark.parametrize("secret", KNOWN)
@pytest.mark.parametrize("line", ["+name: {}", '-x = ["{}"]', " # see {}, and more", "curl -H 'x: {}'"])
def test_well_known_shapes_are_taken_out(secret: str, line: str) -> None:
    clean = redact(line.format(secret), {})
    assert clean == line.format(clean.removeprefix(line.partition("{}")[0]).removesuffix(line.partition("{}")[2]))
    assert "[redacted]" in clean
    assert secret.rpartition("/")[2][-12:] not in clean


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('password: "correct horse battery staple"  # x', 'password: "[redacted]"  # x'),
        ("password: 'correct horse \"b\" staple'", "password: '[redacted]'"),
        (r'password = "correct \"horse\" staple", 1', 'password = "[redacted]", 1'),
        (r'body = "{\"password\": \"correct horse\", \"n\": 1}"', r'body = "{\"password\": \"[redacted]\", \"n\": 1}"'),
        ('password: str = "correct horse"', 'password: str = "[redacted]"'),
        ('token = b"correct horse"', 'token = b"[redacted]"'),
        ('token = """correct horse"""', 'token = """[redacted]"""'),
        ('os.environ["HF_TOKEN"] = "correct horse"', 'os.environ["HF_TOKEN"] = "[redacted]"'),
        ("  'password' => 'correct horse',", "  'password' => '[redacted]',"),
        ("api-key: correct1horse", "api-key: [redacted]"),
        ("don't set password: 'correct horse'", "don't set password: '[redacted]'"),
        ('password: "correct horse', 'password: "[redacted]'),
        ("POSTGRES_PASSWORD: mysecretpassword", "POSTGRES_PASSWORD: [redacted]"),
        ("passphrase: swordfish", "passphrase: [redacted]"),
        ("{password: swordfish, user: me}", "{password: [redacted], user: me}"),
        ("headers: {Authorization: Bearer eyJhbGciOi.x}", "headers: {Authorization: Bearer [redacted]}"),
        ("headers: {Authorization: Bearer swordfish}", "headers: {Authorization: Bearer [redacted]}"),
        ("'Authorization': 'Basic bWU6aHVudGVyMg=='", "'Authorization': 'Basic [redacted]'"),
        ("curl -H 'Authorization: token abcdef0123'", "curl -H 'Authorization: token [redacted]'"),
        ("the header is Bearer abc123def456", "the header is Bearer [redacted]"),
        (
            "AccountName=me;AccountKey=bWU6aHVudGVyMg/bWU6aHVudGVyMg+bWU==;EndpointSuffix=x",
            "AccountName=me;AccountKey=[redacted];EndpointSuffix=x",
        ),
    ],
)
def test_named_values_are_taken_out_whole(text: str, expected: str) -> None:
    assert redact(text, {}) == expected
    assert redact(f"before\n+{text}\nafter\n", {}) == f"before\n+{expected}\nafter\n"
    assert redact(expected, {}) == expected


BODY = [f"{RANDOM}{RANDOM[:26]}+/", f"{RANDOM[::-1]}{RANDOM[:28]}", "aGk="]


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
@pytest.mark.parametrize("mark", ["", "+", "-", " ", "+    ", '+    "'])
def test_private_keys_are_taken_out_and_the_diff_keeps_its_lines(kind: str, mark: str) -> None:
    lines = [
        "x: 1",
        f"-----BEGIN {kind}PRIVATE KEY-----",
        *BODY,
        f"-----END {kind}PRIVATE KEY-----",
        "y = abcdefgh1234",
    ]
    clean = redact("\n".join(mark + line for line in lines), {}).split("\n")
    assert clean == [mark + line for line in [*lines[:2], *["[redacted]"] * 3, *lines[5:]]]


def test_private_keys_in_other_dress_are_taken_out() -> None:
    one = r'"private_key": "-----BEGIN PRIVATE KEY-----\n' + r"\n".join(BODY) + r'\n-----END PRIVATE KEY-----\n",'
    headed = ["-----BEGIN RSA PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,0A", "", *BODY]
    cut = ["@@ -1,3 +1,4 @@", " -----BEGIN PRIVATE KEY-----", f"-{BODY[0]}", f"+{BODY[1]}", "@@ -9,3 +9,3 @@", " x"]
    pgp = ["-----BEGIN PGP PRIVATE KEY BLOCK-----", "Version: 1", "", *BODY]
    for text in (one, "\n".join(headed), "\n".join(cut), "\n".join(pgp), "\r\n".join(headed)):
        clean = redact(text, {})
        assert not any(line in clean for line in BODY[:2])
        assert clean.count("\n") == text.count("\n")
    assert redact("\n".join(cut), {}).endswith("\n@@ -9,3 +9,3 @@\n x")


SOURCE = r"""
def read_token(path): return path.read_text()
def login(user: str, password: str, token: str | None = None) -> None:
def login(password: SecretStr, token: HfToken, *, secret: bytes) -> Session:
    password: str
    token: Optional[str] = None
    secret: string;
token = tokens[0]
token = self._token
token = os.environ["HF_TOKEN"]
token = get_token(path)
token := next(tokens)
token = f"{prefix}-{suffix}"
self.password = password
self.api_key = api_key
client = Client(token=token, password=settings.password, api_key=API_KEY)
client = Client(token=previous, other=1)
payload = {"token": new_value, "password": password}
tokens = [101, 2023, 102]
max_tokens = 1000000
max_tokens: 1000000
tokens_per_batch = 65536 * 1024
tokenizer: bert-base-uncased
tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased")
tokenizer_name: "bert-base-uncased"
tokenize(text)
pad_token = "[PAD]"
eos_token="<|endoftext|>"
if token == expected_value and token != other_value:
if token: return value
for token in tokens:
    process_all_of(token)
print("token: " + value + "; secret: " + other)
print("token:", token, "and more")
logger.info("token=%s", value)
message = f"token={token}"
password: ${DB_PASSWORD}
token: ${{ secrets.GITHUB_TOKEN }}
token: {{ token_from_vault }}
class Token: ...
from sk_learn import sk_learn
<div class="sk-toggleable__label-arrow sk-estimator">
path = hf_hub_download("acme/model", "model.safetensors")
hf_transfer_is_available_and_enabled = True
model = "risk-adjusted-returns-over-the-last-year"
sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
index 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b..0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 100644
"image/png": "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHw=="
background: url(data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4)
the Bearer scheme, Bearer authentication, Bearer {token}, a bearer of news
if "-----BEGIN PRIVATE KEY-----" in text: raise InputError("a key")
AKIA = re.compile("AKIA[A-Z0-9]{16}")
token: TokenOpt = None,
secret = folder / "password"
name = whoami(token=token)["name"]
POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:?set it}
token_pattern = r"(?u)\b\w\w+\b"
self.token_pattern = token_pattern
TOKEN_VARIABLE = "HF_HUB_TOKEN"
<label>Password:</label>
cache: dict[str, Secret]; secret: _OidcTokenCache
url = "https://example.org:8080/a@b"
"""


@pytest.mark.parametrize("line", SOURCE.strip().splitlines())
def test_ordinary_source_stays(line: str) -> None:
    for mark in ("", "+", "-    "):
        assert redact(f"{mark}{line}\n", {}) == f"{mark}{line}\n"


def test_names_do_not_reach_into_the_next_line() -> None:
    text = "secrets:\n  database: postgres\nfor token in tokens:\n    process(token)\n"
    assert redact(text, {}) == text


def test_long_texts_take_no_long_time() -> None:
    began = time.monotonic()
    for part in (
        "token ",
        "token: ",
        'token: "',
        "A" * 64 + "\n",
        "+",
        "eyJ",
        "sk-",
        "password\\\\",
        "Bearer ",
        "a." * 9,
    ):
        redact("-----BEGIN PRIVATE KEY-----\n" + part * (400_000 // len(part)), {})
    assert time.monotonic() - began < 20
