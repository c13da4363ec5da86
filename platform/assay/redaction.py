"""Takes secrets out of text: what looks like one, what this process knows to be one, and logins in addresses.

Known are the values of environment variables whose names say so, and passwords inside addresses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

REDACTED = "[redacted]"
SHORTEST = 8
"""Shorter values of variables are taken for words, not for secrets."""

_SHAPES = re.compile(
    r"""(?x)
    (?P<head>
        (?<!\w)AccountKey= (?=[\w+/=]{16})
      | hooks\.slack\.com/\w+/ (?=\w)
      | (?<!\w)(?i:bearer)[ \t]+ (?=[\w.~+/=-]{0,20}\d)(?=[\w.~+/=-]{8})
      | (?<!\w)(?i:bearer)[ \t]+ (?=[\w.~+/=-]{20})
      | (?<!\w) (?=
            gh[pousr]_[A-Za-z0-9]{20} | github_pat_\w{20} | glpat-[\w-]{20} | hf_[A-Za-z0-9]{20}
          | (?:AKIA|ASIA)[A-Z0-9]{16}(?!\w) | xox[abeoprs]-[\w-]{10} | AIza[\w-]{30}
          | sk-(?:[A-Za-z0-9]{20} | (?=[a-z_-]{0,40}[A-Z0-9])[\w-]{20}) | eyJ[\w-]{8,2000}\.[\w-]{8}
        )
    )
    [\w.~+/=-]+"""
)
"""Tokens that are known by how they begin, and what stands before a token."""

_NAME_OF_ONE = r"(?:password|passwd|passphrase|secret|token(?!i[sz])|(?:api|access)[_-]?key|(?:account|private)[_-]key)"
_NAMED = re.compile(
    rf"""(?xi)
    (?P<head>
        {_NAME_OF_ONE}[\w-]{{0,40}}\\*["']?\]?
        (?:[ \t]*:[ \t]*[\w.\[\]]+(?:[ \t]*\|[ \t]*[\w.\[\]]+)*(?=[ \t]*=))?    # a type
        [ \t]*(?:=>|:=|[:=])(?!=)[ \t]*
      | authorization\\*["']?\]?[ \t]*[:=][ \t]*(?:\\*["'])?(?:(?:basic|bearer|digest|token)[ \t]+)?(?!["'])
    )
    (?: (?P<open>[bfru]{{0,2}}(?P<quote>\\*(?:\"{{3}}|'{{3}}|["'])))(?P<quoted>(?:(?!(?P=quote))(?:\\.|[^\\\n])){{6,}})
      | (?P<bare>[^\s"']{{5,}}[^\s"',;)}}\]\\])
    )"""
)
"""A name, and what is assigned to it: up to the closing quote, or one word."""

_WORD = r"(?:[a-z_]+\d?|[A-Z_]+|(?:[A-Z][a-z]+)+)"
_CODE = re.compile(
    rf"""(?x)
      [A-Za-z_][\w.]*[\[()][\w.,:*()\[\]{{}}|=/+-]*    # a call, an index
    | [\[({{<][\w.,:*()\[\]{{}}<>|/+-]*               # a list, a place to fill
    | \$\{{?\w+(?::\?\w*)? | \$\(\w+ | %\(\w+\)s
    | {_WORD}(?:\.{_WORD})+ | _[a-z_]+
    | _?(?:[A-Z][a-z]+)*(?:Token|Secret)(?:[A-Z][a-z]+)*
    | Optional | Literal | Sequence | Iterable | Callable | string | boolean | number | undefined | return | continue"""
)
"""Words that are assigned, but are no secrets: what programs and templates are made of."""
_PLACEHOLDER = re.compile(
    r"<[^<>]*>|\[(?:[A-Z]+|redacted)\]|\$?\{[^{}]*\}|\$?\{\{[^{}]*\}\}|[A-Z_]*(?:PASSWORD|PASSPHRASE|SECRET|TOKEN|KEY)[A-Z_]*"
)
_COUNT = re.compile(r"[\d_.*e]+")

_KEY_GAP = r"(?:\\[nr]|[\s\"',]|(?<=\n)[+-])"
_KEY_HEADER = r"(?:Proc-Type|DEK-Info|Version|Comment|Hash):[^\n\\\"']*"
_PRIVATE_KEY = re.compile(
    rf"""(?x)(-----BEGIN\ [A-Z0-9 ]*PRIVATE\ KEY(?:\ BLOCK)?-----)
    ((?:{_KEY_GAP}*(?:
        {_KEY_HEADER}
      | [A-Za-z0-9+/=]{{16,}}(?![^\s"',\\])
      | [A-Za-z0-9+/=]{{1,15}}(?={_KEY_GAP}*(?:[A-Za-z0-9+/=]{{1,15}}{_KEY_GAP}*)?-----END)
    ))+)"""
)
_KEY_PART = re.compile(rf"(\\[nr]|(?<=\n)[+-])|{_KEY_HEADER}|[A-Za-z0-9+/=]+")

_PASSWORD = re.compile(r"(://[^\s:/@]*:)([^\s/@]+(?:@[^\s/@\"']+)*)@")
_WITH_LOGIN = re.compile(r"[^\s\"']+@[^\s\"']*")
_QUERY = re.compile(r"(?<=\S)\?\S+")
_NAME = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|_PASS(?:_|$)|._PWD$|_PW$|SECRET|TOKEN|KEY|AUTH_STRING|WEBHOOK|CREDENTIAL|_CREDS?$"
)
_NO_SECRET = ("_PATH", "_FILE", "_DIR", "_ID")  # places and names


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text without the secrets of `environment` (this process's own), and without what looks like one."""
    text = without(text, secrets_of(os.environ if environment is None else environment))
    text = _PRIVATE_KEY.sub(lambda key: key[1] + _KEY_PART.sub(lambda part: part[1] or REDACTED, key[2]), text)
    text = _NAMED.sub(_without_value, _SHAPES.sub(rf"\g<head>{REDACTED}", text))
    return _PASSWORD.sub(rf"\1{REDACTED}@", text)


def _without_value(found: re.Match[str]) -> str:
    """A name without the value that is assigned to it, unless the value is code."""
    if _is_code(found):
        return found[0]
    return f"{found['head']}{found['open'] or ''}{REDACTED}"


def _is_code(found: re.Match[str]) -> bool:
    if found["bare"]:
        return _is_expression(found["head"], found["bare"], found.string[found.end() : found.end() + 3])
    text, kind = found["quoted"], found["open"].lower()
    if _PLACEHOLDER.fullmatch(text) or ("f" in kind and "{" in text) or ("r" in kind and "\\" in text):
        return True
    if text[0] not in " +,.);:]}%&|":
        return False
    line = found.string[found.string.rfind("\n", 0, found.start()) + 1 : found.start("open")]
    return line.count(found["quote"]) % 2 == 1  # the quote is the end of a text, and no secret's begin


def _is_expression(head: str, word: str, after: str) -> bool:
    if _CODE.fullmatch(word) or ("tokens" in head.lower() and _COUNT.fullmatch(word)):
        return True
    if not re.fullmatch(_WORD, word):
        return False
    listed = after[:1] in (",", ")") and (head.endswith("=") or word[0].isupper())
    keyed = re.search(r"[\"']\]?[ \t]*:[ \t]*$", head)  # of a dict: JSON has no bare words
    named = head.endswith("= ") and re.search(rf"(?i)(?:^|_){_NAME_OF_ONE}(?:_|s?$)", word)
    return bool(listed or keyed or named or re.match(r"[ \t]*[=|/+*%][ \t]", after))


def hide_login(address: str) -> str:
    """One address without its user, its password and its options: for people, and for links."""
    scheme, mark, rest = address.partition("://") if "://" in address else ("", "", address)
    if rest.startswith("/"):  # a file's, where an @ is part of a name
        return address.partition("?")[0]
    return f"{scheme}{mark}{_place(rest)}"


def hide_logins(text: str) -> str:
    """A library's message without users, passwords and options, also of addresses that were cut at the wrong place."""
    return _QUERY.sub("", _WITH_LOGIN.sub(lambda found: f"…@{_place(found[0])}", text))


def _place(address: str) -> str:
    """The part between login and options; `…` if the two cannot be distinguished."""
    place, _, options = address.partition("?")
    return "…" if "@" in options else place.rpartition("@")[2]


def without(text: str, secrets: Iterable[str]) -> str:
    """The text without these values."""
    for value in secrets:
        text = text.replace(value, REDACTED)
    return text


def redact_known(data: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Plain data without the known secrets. What merely looks like a secret stays: it may be a setting."""
    known = secrets_of(os.environ if environment is None else environment)

    def clean(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {clean(key): clean(value) for key, value in node.items()}
        if isinstance(node, (list, tuple)):
            return [clean(value) for value in node]
        return without(node, known) if isinstance(node, str) else node

    return clean(data)


def secrets_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The secrets of an environment: the name of the variable by value, longest values first."""
    found: dict[str, str] = {}
    for name, value in environment.items():
        if _NAME.search(name.upper()) and not name.upper().endswith(_NO_SECRET):
            found[value] = name
            if ":" in value and "://" not in value:  # user:password
                found[value.split(":", 1)[1]] = name
        for _, password in _PASSWORD.findall(value):
            found |= {password: name, unquote(password): name}
    token = environment.get("RAY_AUTH_TOKEN_PATH")
    with suppress(OSError, UnicodeDecodeError):  # what cannot be read is known to nobody
        found |= {Path(token).read_text().strip(): "RAY_AUTH_TOKEN_PATH"} if token else {}
    kept = {value: name for value, name in found.items() if len(value) >= SHORTEST}
    return dict(sorted(kept.items(), key=lambda item: -len(item[0])))
