"""Numbers and foreign text as they are shown: on the page, in Markdown, in a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from ftcli.metrics.pages import visible

SEPARATOR = " · "


def one_line(text: str, characters: int) -> str:
    """`visible` text on one line, cut to a number of characters."""
    return shorten(" ".join(visible(text[: 4 * characters]).split()), characters)


def shorten(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def count(value: float | None) -> str:
    """``52,002``; a number that is not whole with two places; ``-`` for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def share(value: float | None) -> str:
    """``12.3 %``; two places under 1 %, and never 0 or 100 for what is not."""
    if value is None:
        return "-"
    if 0 < value < 0.0001:
        return "< 0.01 %"
    if 0.9995 <= value < 1:
        return "> 99.9 %"
    return f"{value:.2%}".replace("%", " %") if 0 < value < 0.01 else f"{value:.1%}".replace("%", " %")


def decimals(value: float | None, places: int = 2) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def chance(value: float) -> str:
    """A p value: three places, ``< 0.001`` below."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def counted(amount: int, noun: str) -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{count(amount)} {noun}{'' if amount == 1 else 's'}"


def ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The largest count first, equal ones by name; zeros are left out."""
    return sorted(((name, value) for name, value in counts.items() if value), key=lambda item: (-item[1], item[0]))


def tally(counts: Mapping[str, int], shown: int | None = None) -> str:
    """``parse_json 3 · too_long 2``, the largest first; what is beyond ``shown`` is summed up."""
    items = ranked(counts)
    if shown is None or len(items) <= shown:
        return SEPARATOR.join(f"{name} {count(value)}" for name, value in items)
    rest = items[shown:]
    return tally(dict(items[:shown])) + f"{SEPARATOR}{len(rest)} more {count(sum(value for _, value in rest))}"
