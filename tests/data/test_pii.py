"""Personal data and secrets: planted ones are found where they stand, look-alikes are not, and nothing is shown in full."""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.data.personal_kinds import IBAN_LENGTHS, luhn
from ftcli.data.pii import KINDS, SECRET_NAMES, Policy, find, guard, mask
from ftcli.data.records import Reason, Refused, RowNotes
from ftcli.data.texts import texts_of

# Secrets are put together here, so that no scanner takes this file for a leak.
ALNUM = string.ascii_letters + string.digits


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


def values(text: str) -> list[tuple[str, str]]:
    return [(finding.kind, text[finding.start : finding.end]) for finding in find(text)]


def drawn(rng: random.Random, alphabet: str, count: int) -> str:
    """Random characters, among them a digit and letters of both cases if the alphabet has them."""
    while True:
        text = "".join(rng.choices(alphabet, k=count))
        if all(
            any(char in group for char in text)
            for group in (string.digits, string.ascii_uppercase)
            if set(group) & set(alphabet)
        ):
            return text


def with_check_digit(digits: str) -> str:
    return next(digits + last for last in string.digits if luhn(digits + last))


def card(rng: random.Random) -> str:
    start, length = rng.choice([("4", 16), ("52", 16), ("37", 15), ("6011", 16)])
    number = with_check_digit(start + drawn(rng, string.digits, length - 1 - len(start)))
    if length == 15:
        return rng.choice([number, f"{number[:4]} {number[4:10]} {number[10:]}"])
    return rng.choice(["", " ", "-"]).join(number[at : at + 4] for at in range(0, 16, 4))


def iban(rng: random.Random) -> str:
    country, length = rng.choice([("DE", 22), ("NL", 18), ("GB", 22), ("FR", 27), ("NO", 15), ("MT", 31)])
    account = ("ABNA" if country in ("NL", "GB", "MT") else "") + "0" * 31
    account = account[:4] + drawn(rng, string.digits, length - 8)
    numeric = "".join(str(int(char, 36)) for char in f"{account}{country}00")
    compact = f"{country}{98 - int(numeric) % 97:02}{account}"
    return rng.choice([compact, " ".join(compact[at : at + 4] for at in range(0, length, 4))])


PLANTS: dict[str, Callable[[random.Random], str]] = {
    "email": lambda rng: (
        f"{drawn(rng, string.ascii_lowercase, 5)}.{drawn(rng, ALNUM, 4)}@{rng.choice(['mail.gmx.net', 'gmail.com', 'corp.co.uk'])}"
    ),
    "phone": lambda rng: rng.choice(
        [
            f"+49 30 {rng.randrange(10**6, 10**7)}",
            f"+44 20 7{rng.randrange(100, 1000)} {rng.randrange(1000, 10000)}",
            f"({rng.choice([212, 415, 608])}) {rng.randrange(600, 999)}-{rng.randrange(1000, 9999)}",
            f"{rng.choice([212, 415, 608])}-{rng.randrange(600, 999)}-{rng.randrange(1000, 9999)}",
        ]
    ),
    "credit_card": card,
    "iban": iban,
    "ssn": lambda rng: f"{rng.randrange(200, 660)}-{rng.randrange(10, 99)}-{rng.randrange(1000, 9999)}",
    "ip": lambda rng: rng.choice(
        [
            f"{rng.randrange(64, 99)}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}",
            f"2a00:1450:4001:{rng.randrange(16**3, 16**4):x}::200e",
            "2c0f:fb50::abcd",  # few digits
        ]
    ),
    "aws_key": lambda rng: "AKIA" + drawn(rng, string.ascii_uppercase + "234567", 16),
    "github_token": lambda rng: rng.choice(["ghp_", "ghs_"]) + drawn(rng, ALNUM, 36),
    "openai_key": lambda rng: rng.choice(["sk-", "sk-proj-"]) + drawn(rng, ALNUM, 48),
    "huggingface_token": lambda rng: "hf_" + drawn(rng, ALNUM, 34),
    "slack_token": lambda rng: f"xoxb-{rng.randrange(10**11, 10**12)}-{drawn(rng, ALNUM, 24)}",
    "stripe_key": lambda rng: "sk_live_" + drawn(rng, ALNUM, 24),
    "google_key": lambda rng: "AIza" + drawn(rng, ALNUM + "_-", 34) + "x",
    "jwt": lambda rng: f"eyJ{drawn(rng, ALNUM, 17)}.eyJ{drawn(rng, ALNUM, 40)}.{drawn(rng, ALNUM + '_-', 42)}x",
    "private_key": lambda rng: (
        "-----BEGIN RSA PRIVATE"
        + f" KEY-----\n{drawn(rng, ALNUM, 64)}\n{drawn(rng, ALNUM, 40)}==\n-----END RSA PRIVATE KEY-----"
    ),
}
SENTENCES = ("Write to {} today.", "It was {}, I think", "{}", "key/number: {}\nThanks", "\u8bf7\u7528{}\u3002", "({})")


@pytest.mark.parametrize("kind", PLANTS)
def test_planted_values_are_found_where_they_stand(kind: str) -> None:
    rng = random.Random(kind)
    for sentence in SENTENCES * 20:
        planted = PLANTS[kind](rng)
        assert values(sentence.format(planted)) == [(kind, planted)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("password: Tr0ub4dor&3", "password", "Tr0ub4dor&3"),
        ("The password is hunt3r2go.", "password", "hunt3r2go"),
        ('DB_PASSWORD="correct8horse"', "password", "correct8horse"),
        ("api_key = 'a1b2c3d4e5f6'", "password", "a1b2c3d4e5f6"),
        ('{"client_secret": "9f8e7d6c5b4a"}', "password", "9f8e7d6c5b4a"),
        ("log: secret=abc12345x", "password", "abc12345x"),
        ("Authorization: Bearer abc123def456ghi", "password", "abc123def456ghi"),
        ("password: abc\u0661defgh", "password", "abc\u0661defgh"),
        ("clone git://ann:hunterxyzw@host.org", "url_password", "ann:hunterxyzw"),
        ("AKIA" + "BCDEFGHJKLMNOPQR", "aws_key", "AKIA" + "BCDEFGHJKLMNOPQR"),
        ("hf_" + string.ascii_letters[:36], "huggingface_token", "hf_" + string.ascii_letters[:36]),
        (
            "eyJ" + "abcdefgh.eyJabcdefgh." + "abcdefghijklmnop",
            "jwt",
            "eyJ" + "abcdefgh.eyJabcdefgh." + "abcdefghijklmnop",
        ),
        ("curl https://bob:pa55w0Rt@host.org/x", "url_password", "bob:pa55w0Rt"),
        ("postgres://app:s3cr7tpw@db:5432/x", "url_password", "app:s3cr7tpw"),
        ("Tel: 030 1234 9876", "phone", "030 1234 9876"),
        ("call me at 02 9374 4000", "phone", "02 9374 4000"),
        ("1-780-800-7092", "phone", "1-780-800-7092"),
        ("+44 20 7555 6220", "phone", "+44 20 7555 6220"),
        ("780-800-7092x5761", "phone", "780-800-7092x5761"),
        ("+1-780-800-7092 ext. 57", "phone", "+1-780-800-7092 ext. 57"),
        ("03 87 23 51 03", "phone", "03 87 23 51 03"),
        ("(03564) 36730", "phone", "(03564) 36730"),
        ("0131 4960137", "phone", "0131 4960137"),
        (
            "https://hooks.slack.com/services/" + "T0123ABCD/B0123ABCD/abcdefgh12345678",
            "slack_token",
            "T0123ABCD/B0123ABCD/abcdefgh12345678",
        ),
    ],
)
def test_values_that_their_surroundings_tell_are_found(text: str, kind: str, value: str) -> None:
    assert values(text) == [(kind, value)]


@pytest.mark.parametrize(
    "iban",  # examples of the registry
    [
        "GB82 WEST 1234 5698 7654 32",
        "DE89370400440532013000",
        "FR1420041010050500013M02606",
        "NL91ABNA0417164300",
        "CH9300762011623852957",
        "NO9386011117947",
        "MT84MALT011000012345MTLCAST001S",
        "BR1800360305000010009795493C1",
    ],
)
def test_ibans_of_the_registry_are_found_and_wrong_digits_are_not(iban: str) -> None:
    assert ("iban", iban) in values(f"Pay to {iban} IN EURO")
    wrong = iban[:2] + f"{(int(iban[2:4]) + 1) % 98:02}" + iban[4:]
    assert "iban" not in [kind for kind, _ in values(f"Pay to {wrong} today")]


def test_country_codes_are_listed_once_and_by_length() -> None:
    listed = IBAN_LENGTHS.split()
    assert len({item[:2] for item in listed}) == len(listed)
    assert [int(item[2:]) for item in listed] == sorted(int(item[2:]) for item in listed)


@pytest.mark.parametrize(
    ("number", "is_valid"),
    [("79927398713", True), ("79927398710", False), ("4111111111111111", True), ("378282246310005", True)],
)
def test_luhn_agrees_with_published_numbers(number: str, is_valid: bool) -> None:
    assert luhn(number) is is_valid


@pytest.mark.parametrize(
    "text",
    [
        "asyncio.run(main()) and pdb.py and f.re",
        "version 3.1.1.3, release 2.0.0.61; v10.20.30.40, pkg==81.2.69.142",
        "see section 1.2.3.4 and use the resolvers 8.8.8.8, 1.1.1.1",
        "192.168.1.17, 10.0.0.1, 127.0.0.1, 192.0.2.55, 203.0.113.9, 2001:db8::1, ::1, 300.1.2.3",
        "std::vector<int> a::b dead::beef 12:34:56 00:1a:2b:3c:4d:5e",
        "me@example.com, x@mail.example.org, root@localhost, a@host.local, user@domain.com, your.name@corp.com",
        "git@github.com:me/project.git ssh://bob@server.org logo@2x.png dbus@session.service",
        "pi is 3.14159265358979 and 0.9868930123456789, 1e-12345678",
        "1,234,567,890 and 12345678901234567 rows; 4111 1111 1111 1112",
        "2024-01-15 10:30:00 and 15.01.2024, call 2024-01-15, ISBN 978-3-16-148410-0",
        "Call (555) 123-4567 or 212-555-0123 or +1 555 555 0100 or 123-456-7890",
        "SSN 123-45-6789, 000-12-3456, 666-12-3456, 912-34-5678, 234-00-5678",
        "8 + 1646615806005 + 96039791 = 40, +3.14159265, +999 12345678",
        "password: required, password=None, password = get_password1(), password = self.password1, pwd=password123",
        "password: <your-password1>, PASSWORD=$PASSWORD_1, token: {{token_1}}, api_key = os.environ1['X']",
        "secret = key2, api_key: YOUR_API_KEY_123, token=xxxxxxxx1, password is 12345678",
        "https://user:password@host.org http://{{user}}:{{pass1234}}@x ftp://bob:bob@x http://host:8080/a@b",
        "AKIA" + "IOSFODNN7EXAMPLE, sk-learn-contrib-package-name-here, hf_transfer, xoxb-your-token-here1",
        "-----BEGIN PRIVATE KEY----- stands at the top of such a file and -----END PRIVATE KEY----- at the end of it, always",
        "eyJhbGciOiJI is how such tokens start",
        "task-12345678901234567890abc and risk-abcdefghij1234567890",
    ],
)
def test_look_alikes_and_what_is_reserved_for_examples_pass(text: str) -> None:
    assert values(text) == []


def test_a_name_that_begins_like_a_placeholder_is_a_name() -> None:
    assert values("young.patrick@gmail.com") == [("email", "young.patrick@gmail.com")]


def test_a_secret_hides_the_address_it_looks_like() -> None:
    assert values("ftp://me:pa55w0Rt@corp.org and me@corp.org") == [
        ("url_password", "me:pa55w0Rt"),
        ("email", "me@corp.org"),
    ]


@given(st.lists(st.sampled_from([*PLANTS]), max_size=6), st.integers(0, 10**6))
def test_findings_are_in_order_and_never_overlap(kinds: list[str], seed: int) -> None:
    rng = random.Random(seed)
    text = " and ".join(PLANTS[kind](rng) for kind in kinds)
    found = find(text)
    assert sorted(finding.kind for finding in found) == sorted(kinds)
    assert all(one.end <= other.start for one, other in pairwise(found))


BITS = (
    *PLANTS,
    "x",
    "1",
    "\u00b2",
    "_",
    "@",
    "://",
    "key: ",
    "password=",
    "my pwd is ",
    "abcdefgh",
    "Ab1!Cd2?",
    " ",
    "\n",
)


@given(st.lists(st.sampled_from(BITS), max_size=8), st.integers(0, 10**6))
def test_no_kind_is_passed_over_where_its_pattern_finds_one(bits: list[str], seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(PLANTS[bit](rng) if bit in PLANTS else bit for bit in bits)
    there = {kind.name for kind in KINDS for match in kind.pattern.finditer(text) if kind.check(match)}
    found = {finding.kind for finding in find(text)}
    assert found <= there
    assert bool(found) == bool(there)


@given(st.text(alphabet="+0123456789 .:()-@aA=", max_size=80))
def test_no_text_upsets_the_search(text: str) -> None:
    assert all(text[finding.start : finding.end].strip() for finding in find(text))


def guarded(row: dict, **policy: str) -> tuple[dict, RowNotes]:
    notes = RowNotes()
    return guard(row, Policy(**policy), notes), notes  # type: ignore[arg-type]


ROW = {
    "messages": [
        user("I am ann@corp.org, my colleague is bob@corp.org. The password is hunt3r2go"),
        assistant("Dear ANN@corp.org, I have told bob@corp.org; your password is hunt3r2go"),
    ]
}


def test_by_default_personal_data_is_flagged_and_secrets_are_replaced() -> None:
    before = repr(ROW)
    row, notes = guarded(ROW)
    assert texts_of(row)[0] == "I am ann@corp.org, my colleague is bob@corp.org. The password is <PASSWORD_1>"
    assert notes.flags == [("pii:email", "a***@c***.org"), ("pii:email", "b***@c***.org"), ("secret:password", "***")]
    assert notes.changed == {"secret:password"}
    assert repr(ROW) == before


def test_placeholders_are_the_same_throughout_a_row() -> None:
    row, notes = guarded(ROW, pii="redact", secrets="off")
    assert texts_of(row) == [
        "I am <EMAIL_1>, my colleague is <EMAIL_2>. The password is hunt3r2go",
        "Dear <EMAIL_1>, I have told <EMAIL_2>; your password is hunt3r2go",
    ]
    assert notes.changed == {"pii:email"}


def test_a_number_in_two_ways_of_writing_is_the_same() -> None:
    row, _ = guarded({"text": "+49 30 1234987 or +49 (30) 1234-987"}, pii="redact")
    assert row["text"] == "<PHONE_1> or <PHONE_1>"


def test_placeholders_of_an_earlier_run_are_not_used_again() -> None:
    row, _ = guarded({"text": "<EMAIL_1> knows ann@corp.org"}, pii="redact")
    assert row["text"] == "<EMAIL_1> knows <EMAIL_2>"
    assert guarded(row, pii="redact") == (row, RowNotes())


@pytest.mark.parametrize(
    ("policy", "detail"), [({"pii": "drop"}, "email a***@c***.org"), ({"secrets": "drop"}, "password ***")]
)
def test_drop_refuses_the_row_and_says_why_with_a_mask(policy: dict, detail: str) -> None:
    with pytest.raises(Refused, match=f"^{re.escape(detail)}$") as refused:
        guarded(ROW, **policy)
    assert refused.value.reason is Reason.PII


def test_off_leaves_everything() -> None:
    assert guarded(ROW, pii="off", secrets="off") == (ROW, RowNotes())
    clean = {"text": "Nothing here."}
    row, notes = guarded(clean)
    assert row is clean
    assert notes == RowNotes()


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [user("{}")], "chosen": [assistant("a {}")], "rejected": [assistant("b {}")]},
        {"prompt": [user("{}")], "candidates": [{"content": "{}", "rank": 1}, {"content": "no {}", "rank": 2}]},
        {"prompt": [user("{}")], "completion": [assistant("{}")], "label": True},
        {
            "messages": [
                {"role": "system", "content": "{}"},
                user("{}"),
                {"role": "tool", "content": "{}"},
                assistant("{}"),
            ]
        },
    ],
)
def test_every_part_of_a_row_is_guarded(row: dict) -> None:
    filled = json.loads(json.dumps(row).replace("{}", "ann@corp.org"))
    assert guarded(filled, pii="redact")[0] == json.loads(json.dumps(row).replace("{}", "<EMAIL_1>"))


def called(arguments: object) -> dict:
    call = {"type": "function", "function": {"name": "send", "arguments": arguments}}
    return {"messages": [user("Send it"), {"role": "assistant", "content": "", "tool_calls": [call]}]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"to": ["ann@corp.org"], "n": 1}, {"to": ["<EMAIL_1>"], "n": 1}),
        ('{"to": "x\\nann@corp.org", "n": 1}', '{"to": "x\\n<EMAIL_1>", "n": 1}'),
        ("no JSON, ann@corp.org", "no JSON, <EMAIL_1>"),
    ],
)
def test_arguments_of_tool_calls_are_guarded_and_stay_valid(before: object, after: object) -> None:
    assert guarded(called(before), pii="redact") == (
        called(after),
        RowNotes({"pii:email"}, [("pii:email", "a***@c***.org")]),
    )


def test_arguments_without_anything_to_hide_keep_their_spelling() -> None:
    row = called('{ "a":1 }')
    assert guarded(row, pii="redact")[0] is row


@pytest.mark.parametrize("kind", [*PLANTS, "password", "url_password"])
def test_a_mask_shows_at_most_four_characters_of_a_value(kind: str) -> None:
    rng = random.Random(kind)
    value = PLANTS[kind](rng) if kind in PLANTS else drawn(rng, ALNUM, 12)
    shown = mask(kind, value).replace("***", " ")
    ending = "." + value.rpartition(".")[2] if kind == "email" else ""
    assert len(shown.removesuffix(ending).replace("@", "").replace(" ", "")) <= 2
    assert (mask(kind, value) == "***") == (kind in SECRET_NAMES)
