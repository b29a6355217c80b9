"""RE2, which comes with Arrow, on many texts at once: it reads each only once, however many alternatives a pattern has.

That takes about 1 µs a text of 230 characters, where a search in Python for each alternative takes ten.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc


def column(texts: Sequence[str]) -> pa.LargeStringArray:
    """``texts``, all of which can be written in UTF-8, as `holding` wants them."""
    return pa.array(texts, pa.large_string())


def holding(pattern: str, texts: pa.LargeStringArray) -> list[bool]:
    """Whether each of ``texts`` holds a match of ``pattern``, in RE2's syntax and in any case."""
    found: list[bool] = (
        pc.match_substring_regex(texts, pattern, ignore_case=True).to_numpy(zero_copy_only=False).tolist()
    )
    return found
