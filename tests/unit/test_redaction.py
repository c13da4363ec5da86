"""Logins in addresses: hidden for people, hidden in a library's words, known as secrets of the environment."""

from __future__ import annotations

import pytest

from assay.redaction import hide_login, hide_logins, redact, secrets_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("to postgres://me:hunter22@host/db", "to postgres://me:[redacted]@host/db"),
        ("postgres://me:hunt@er22@host/db and x@y", "postgres://me:[redacted]@host/db and x@y"),
        ('{"a": "s3://me:hunter22@host", "b": "x@y"}', '{"a": "s3://me:[redacted]@host", "b": "x@y"}'),
        ("git+https://host/project@v1 train@digits", "git+https://host/project@v1 train@digits"),
    ],
)
def test_a_password_in_an_address_is_taken_out(text: str, expected: str) -> None:
    assert redact(text, {}) == expected


def test_a_password_in_an_address_of_the_environment_is_a_secret() -> None:
    assert set(secrets_of({"STORE": "postgres://me:hunter22%40x@host/db"})) == {"hunter22%40x", "hunter22@x"}


@pytest.mark.parametrize(
    "name", ["DB_PASSWORD", "DB_PASS", "SMTP_PASS_2", "MY_PWD", "db_pw", "KEY_PASSPHRASE", "SMTP_CRED", "HUB_CREDS"]
)
def test_a_variable_that_is_named_like_a_secret_is_one(name: str) -> None:
    assert redact("it said s3cret-word", {name: "s3cret-word"}) == "it said [redacted]"


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "BYPASS", "PASSENGERS", "SSH_AUTH_SOCK", "API_KEY_FILE"])
def test_a_variable_with_a_harmless_name_is_none(name: str) -> None:
    assert secrets_of({name: "/home/me/project"}) == {}


def test_no_part_of_a_login_is_shown() -> None:
    for password in ("s3cret", "s3@cret", "s3/cret", "s3?cret", "s3:cret", "s3#cret", "cret@cret?cret"):
        for address in (f"https://me:{password}@host/db?password={password}", f"https://host/db?password={password}"):
            assert hide_login(address) in ("https://host/db", "https://…")
        told = hide_logins(f"cannot reach https://me:{password}@host/db?password={password} now")
        assert "cret" not in told
        assert told in ("cannot reach …@host/db now", "cannot reach …@… now")
