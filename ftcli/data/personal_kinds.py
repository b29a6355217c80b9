"""Personal data by its forms: addresses of mail and hosts, and numbers of telephones, cards, accounts, and insurance.

What is reserved for documentation passes: ``example.com``, 192.0.2.1, 555-0123. Names and postal addresses are out of
scope, as patterns cannot tell them. Check digits are those of ISO 7812 (Luhn, cards) and ISO 13616 (modulus 97, IBAN,
with the lengths of its registry).
"""

from __future__ import annotations

import ipaddress
import re
from itertools import groupby

from ftcli.data.sensitive import Kind, Match, ascii_pattern

RESERVED_DOMAIN = re.compile(
    r"(?:^|[@.])(?:example(?:\.(?:com|org|net|edu))?|test|invalid|localhost|local|internal|lan|localdomain|arpa)$",
    re.IGNORECASE,
)
FILE_ENDING = re.compile(
    r"\.(?:py|js|ts|md|txt|json|png|jpe?g|gif|svg|webp|css|html?|ya?ml|service|target|socket|timer|mount|whl|so)$",
    re.IGNORECASE,
)
IN_URL = re.compile(r"//[^\s/@]*$")
NOBODY = re.compile(
    r"(?:user(?:name)?|you|your\w*(?:[._-]\w+)?|e-?mail|name|someone|git|hg|no-?reply|donotreply)@", re.IGNORECASE
)


def _is_address(match: Match) -> bool:
    """Whether an e-mail address may be somebody's."""
    in_url = IN_URL.search(match.string, max(match.start() - 80, 0), match.start())
    return not (in_url or RESERVED_DOMAIN.search(match[0]) or FILE_ENDING.search(match[0]) or NOBODY.match(match[0]))


def luhn(number: str) -> bool:
    """Whether the digits of ``number`` pass the check of ISO 7812."""
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in number[-2::-2]]
    return (sum(doubled) + sum(map(int, number[-1::-2]))) % 10 == 0


CARD = re.compile(
    r"4(?:[0-9]{15}|[0-9]{18})|(?:5[1-5]|2[2-7])[0-9]{14}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}"
    r"|6(?:011|4[4-9][0-9]|5[0-9]{2})[0-9]{12}|35[0-9]{14}|62[0-9]{14,17}"
)


def _is_card(match: Match) -> bool:
    number = re.sub("[ -]", "", match[0])
    return CARD.fullmatch(number) is not None and luhn(number)


IBAN_LENGTHS = (
    "NO15 BE16 DK18 FI18 FK18 FO18 GL18 NL18 SD18 MK19 SI19 AT20 BA20 EE20 KZ20 LT20 LU20 MN20 XK20 CH21 HR21 LI21 LV21"
    " BG22 BH22 CR22 DE22 GB22 GE22 IE22 ME22 RS22 VA22 AE23 GI23 IL23 IQ23 OM23 SO23 TL23 AD24 CZ24 ES24 MD24 PK24 RO24"
    " SA24 SE24 SK24 TN24 VG24 LY25 PT25 ST25 IS26 TR26 BI27 DJ27 FR27 GR27 IT27 MC27 MR27 SM27 AL28 AZ28 BY28 CY28 DO28"
    " GT28 HU28 LB28 NI28 PL28 SV28 BR29 EG29 PS29 QA29 UA29 JO30 KW30 MU30 YE30 MT31 SC31 LC32 RU33"
)
"""Country codes, each with the length of its IBAN."""


def _iban_pattern() -> re.Pattern[str]:
    by_length = groupby(IBAN_LENGTHS.split(), key=lambda item: int(item[2:]))
    forms = [
        f"(?<={'|'.join(item[:2] for item in items)})[0-9]{{2}}(?: ?[A-Z0-9]){{{length - 4}}}"
        for length, items in by_length
    ]
    return ascii_pattern(rf"[A-Z](?<![\w-].)[A-Z](?=[0-9]{{2}})(?:{'|'.join(forms)})(?![\w-])")


def _is_iban(match: Match) -> bool:
    iban = match[0].replace(" ", "")
    return int("".join(str(int(char, 36)) for char in iban[4:] + iban[:4])) % 97 == 1


VERSION_BEFORE = re.compile(r"(?:version|ver\.?|release|build|[=~<>@v])[ \t]*$", re.IGNORECASE)


def _is_host(match: Match) -> bool:
    """Whether an IP address is one of the public internet's, and neither a version, nor a section, nor 8.8.8.8."""
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return False
    if not address.is_global or address.is_multicast:
        return False
    is_small = isinstance(address, ipaddress.IPv4Address) and max(address.packed) < 10
    return not is_small and not VERSION_BEFORE.search(match.string, max(match.start() - 12, 0), match.start())


CALLING_CODE = re.compile(
    r"1|7|2(?:[07]|[1-689][0-9])|3(?:[0-469]|[578][0-9])|4(?:[013-9]|2[013])|5(?:[1-8]|[09][0-9])|6(?:[0-6]|[7-9][0-9])"
    r"|8(?:[1246]|5[02356]|[08][0-9])|9(?:[0-58]|6[0-8]|7[0-79]|9[2-68])"
)
NO_SSN = ("123-45-6789", "078-05-1120", "219-09-9999")
"""In the form of social security numbers, but known from examples and advertisements, and never valid again."""
PHONE_WORD = re.compile(
    r"\b(?:phone|telephone|tel|mobile|cell|fax|whatsapp|call|text)(?: (?:number|no|us|me|him|her))?"
    r"[.:#]{0,2}(?: (?:at|on|is):?)?[ \t]*$",
    re.IGNORECASE,
)


def _digits(match: Match) -> str:
    return re.sub("[^0-9]", "", match[0].partition("x")[0])  # without an extension


def _is_phone(match: Match) -> bool:
    """Whether digits can be a telephone number, and are neither a date, nor counted up, nor one digit over and over."""
    digits = _digits(match)
    is_date = re.fullmatch(r"[0-9]{4}([-./])[0-9]{2}\1[0-9]{2}", match[0]) is not None
    return 7 <= len(digits) <= 15 and digits not in "12345678901234567890" and len(set(digits)) > 2 and not is_date


def _is_for_films(digits: str) -> bool:
    """Whether a North American number has 555 as its area or exchange."""
    local = digits[-10:]
    return "555" in ((local[:3], local[3:6]) if len(local) == 10 else (local[:3],))


def _is_national(match: Match) -> bool:
    """Whether digits that say nothing of themselves follow a word such as ``phone``."""
    before = match.string[max(match.start() - 30, 0) : match.start()]
    digits = _digits(match)
    is_film = not digits.startswith("0") and _is_for_films(digits)
    return PHONE_WORD.search(before) is not None and _is_phone(match) and not is_film


def _is_international(match: Match) -> bool:
    digits = _digits(match)
    if not 8 <= len(digits) <= 13 or re.fullmatch(r".[0-9]+\.[0-9]+", match[0]):
        return False
    is_film = digits.startswith("1") and _is_for_films(digits)
    return CALLING_CODE.match(digits) is not None and _is_phone(match) and not is_film


def _is_north_american(match: Match) -> bool:
    before = match.string[max(match.start() - 1, 0) : match.start()]
    return re.match(r"[\w.+-]", before, re.ASCII) is None and _is_phone(match) and not _is_for_films(_digits(match))


PERSONAL = (
    Kind(
        "email",
        ascii_pattern(
            r"[A-Za-z0-9](?<![\w.+%-].)(?:[\w.%+-]{0,62}[\w%+-])?@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+"
            r"[A-Za-z]{2,24}(?![\w-])"
        ),
        _is_address,
        ("@",),
        digits=0,
    ),
    Kind("iban", _iban_pattern(), _is_iban),
    Kind(
        "credit_card",
        ascii_pattern(
            r"[2-6](?<![\w.+-].)(?:[0-9]{13,18}|[0-9]{3}([ -])[0-9]{4}(?:\1[0-9]{4}){2}|[0-9]{3}([ -])[0-9]{6}\2[0-9]{4,5})"
            r"(?![\w-]|\.[0-9])"
        ),
        _is_card,
    ),
    Kind(
        "ssn",
        ascii_pattern(r"[0-8](?<![\w.-].)[0-9]{2}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![\w-])"),
        lambda match: match[0] not in NO_SSN and match[0][:3] not in ("000", "666"),
        ("-",),
    ),
    Kind(
        "ip",
        ascii_pattern(r"[0-9](?<![\w.-].)[0-9]{0,2}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?![\w-]|\.[0-9])"),
        _is_host,
        (".",),
    ),
    Kind(
        "ip",
        ascii_pattern(r"[23](?<![\w:.].)[0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:])"),
        _is_host,
        (":",),
        digits=1,
    ),
    Kind(
        "phone",
        ascii_pattern(r"\+(?<![\w.)+-].)[1-9](?:[ .()/-]{0,2}[0-9]){7,14}(?: ?(?:x|ext\.?) ?[0-9]{1,6})?(?![\w-])"),
        _is_international,
        ("+",),
    ),
    Kind(
        "phone",
        ascii_pattern(
            r"(?:1[-. ](?:\([2-9][0-8][0-9]\) ?|[2-9][0-8][0-9][-.])|\([2-9][0-8][0-9]\) ?|[2-9][0-8][0-9][-.])"
            r"[2-9][0-9]{2}[-.][0-9]{4}(?: ?(?:x|ext\.?) ?[0-9]{1,6})?(?![\w-]|\.[0-9])"
        ),
        _is_north_american,
        ("-", "."),
    ),
    Kind(
        "phone",  # with the 0 of calls within a country, as in much of Europe
        ascii_pattern(
            r"0(?<![\w.+-].)[1-9](?:([ .-])[0-9]{2}(?:\1[0-9]{2}){3}|[0-9]{1,4}[ /-][0-9]{2,4}[ -]?[0-9]{3,5})(?![\w-]|\.[0-9])"
            r"|\((?<![\w.+-].)0[1-9][0-9]{1,4}\)[ /-]?[0-9]{2,4}[ -]?[0-9]{3,5}(?![\w-]|\.[0-9])"
        ),
        _is_phone,
    ),
    Kind("phone", ascii_pattern(r"[(0-9](?<![\w.+-].)(?:[ .()/-]{0,2}[0-9]){6,13}(?![\w-])"), _is_national),
)
