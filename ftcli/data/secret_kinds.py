"""Secrets by their forms: keys and tokens of well-known services, and what is assigned to a word such as ``password``.

A placeholder where a secret would stand passes, and so does a variable or a word that describes one.
"""

from __future__ import annotations

import re

from ftcli.data.sensitive import Kind, Match, ascii_pattern, value_of

PLACEHOLDER = re.compile(
    r"example|placeholder|passw|secret|change_?me|redacted|your|dummy|sample|fake|test_?key|my_?key|xxxx|\*\*\*|\.\.\."
    r"|^(?:user|username|name|login|admin|root|pass|pwd|token|key|none|null|true|false)$|^(.)\1+$|^0?123456789?0?$",
    re.IGNORECASE,
)
DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")


def _is_no_placeholder(match: Match) -> bool:
    return not PLACEHOLDER.search(value_of(match))


def _is_varied(match: Match) -> bool:
    """Whether a token of letters alone is no word repeated."""
    return len(set(value_of(match))) > 12


def _is_random(match: Match) -> bool:
    """Whether a token has a digit and a letter and is no placeholder."""
    value = value_of(match)
    return any(map(str.isdigit, value)) and any(map(str.isalpha, value)) and _is_no_placeholder(match)


KEY_WORD = re.compile(
    r"(?:passw(?:or)?d|passphrase|pwd|secret(?:[_-]?key)?|(?:api|access|private|account|encryption)[_-]?key"
    r"|(?:auth|access|api|bearer|refresh)[_-]?token|credential|authorization)s?[\"'`]?[ \t]*$",
    re.IGNORECASE,
)


def _is_password(match: Match) -> bool:
    """Whether a value is assigned to a word such as ``api_key``, and is neither a variable nor a description.

    Unquoted names such as ``password1`` are variables, unless there are digits within or capitals and others.
    """
    value, before = value_of(match), match.string[max(match.start() - 40, 0) : match.start()]
    if not KEY_WORD.search(before) or not _is_random(match) or DOTTED.fullmatch(value):
        return False
    if match["quote"] or not value.isidentifier():
        return True
    name = value.rstrip("0123456789")
    return not name.replace("_", "").isalpha() or not (name.islower() or name.isupper())


def _is_login(match: Match) -> bool:
    user, _, password = value_of(match).partition(":")
    return not PLACEHOLDER.search(password) and password.lower() != user.lower() and not password.isupper()


def _is_key(match: Match) -> bool:
    return re.search(r"[A-Za-z0-9+/=]{40}", match[0]) is not None


SECRETS = (
    Kind(
        "private_key",
        ascii_pattern(
            r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----[\w+/=:,.()\s\\-]{64,}?"
            r"(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|\Z|(?=[^\w+/=:,.()\s\\-]))"
        ),
        _is_key,
        ("-----begin",),
        digits=0,
    ),
    Kind(
        "url_password",
        ascii_pattern(r"://(?P<value>[^\s:/@{}<>$\"'\[\]]{1,64}:[^\s:/@{}<>$\"'\[\]*]{3,128})@[A-Za-z0-9\[]"),
        _is_login,
        ("@",),
        digits=0,
    ),
    Kind(
        "aws_key",
        ascii_pattern(r"A(?<!\w.)(?:KIA|SIA)[A-Z2-7]{16}\b"),
        _is_no_placeholder,
        ("akia", "asia"),
        digits=0,
    ),
    Kind(
        "github_token",
        ascii_pattern(r"gh[pousr]_(?<!\w.{4})[A-Za-z0-9]{36,251}\b"),
        _is_random,
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
        digits=1,
    ),
    Kind(
        "github_token",
        ascii_pattern(r"github_pat_(?<!\w.{11})[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b"),
        _is_random,
        ("github_pat_",),
        digits=1,
    ),
    Kind(
        "openai_key", ascii_pattern(r"sk-(?<![\w-].{3})[A-Za-z0-9_-]{20,200}(?![\w-])"), _is_random, ("sk-",), digits=1
    ),
    Kind(
        "huggingface_token",
        ascii_pattern(r"hf_(?<!\w.{3})[A-Za-z0-9]{34,40}\b"),
        _is_varied,
        ("hf_",),
        digits=0,
    ),
    Kind("slack_token", ascii_pattern(r"xox[abeoprs]-(?<!\w.{5})[A-Za-z0-9-]{10,250}"), _is_random, ("xox",), digits=1),
    Kind(
        "slack_token",
        ascii_pattern(r"hooks\.slack\.com/services/(?P<value>T\w{6,12}/B\w{6,12}/[A-Za-z0-9]{16,32})"),
        _is_random,
        ("hooks.slack",),
        digits=1,
    ),
    Kind(
        "stripe_key",
        ascii_pattern(r"[rs]k_(?<!\w.{3})(?:live|test)_[A-Za-z0-9]{16,247}\b"),
        _is_random,
        ("sk_live_", "sk_test_", "rk_live_", "rk_test_"),
        digits=1,
    ),
    Kind("google_key", ascii_pattern(r"AIza(?<!\w.{4})[\w-]{35}(?![\w-])"), _is_random, ("aiza",), digits=1),
    Kind(
        "jwt",
        ascii_pattern(r"eyJ(?<!\w.{3})[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}"),
        _is_no_placeholder,
        ("eyj",),
        digits=0,
    ),
    Kind(
        "password",
        ascii_pattern(
            r"(?:[:=]|is\b)(?=[:=>]?[ \t]*(?P<quote>[\"'`]?)(?:(?:Bearer|Basic) )?"  # ahead, so that values may hold a :
            r"(?P<value>[^\s\"'`<>{}()\[\]$,;|]{7,199}[^\s\"'`<>{}()\[\]$,;|.:?])(?![(\[{]))"
        ),
        _is_password,
        ("passw", "passphr", "pwd", "secret", "key", "token", "credential", "authorization"),
        digits=1,
    ),
)
