"""Metrics of the user's own: a Python function, given as ``--metric my.py:brevity``.

    def brevity(predictions, references, **kwargs):
        return [min(1.0, len(b) / max(1, len(a))) for a, b in zip(predictions, references)]

    brevity.higher_is_better = True     # None, the default: no direction is good
    brevity.decimals = 3
    brevity.title = "Brevity"
    brevity.margin = 0.01               # a change that makes no practical difference; None: not known

It is called once a model with all rows and returns one number a row, or None for a row that does not count; the metric is their
mean. It runs in a process of its own (`ftcli.core.function_worker`), with a time limit; what it prints goes to the log.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ftcli.core.artifacts import digest_records, file_records
from ftcli.core.config import nearest
from ftcli.core.errors import UsageError
from ftcli.core.function_process import Ended, FunctionProcess, remedy
from ftcli.core.stage import Artifact
from ftcli.metrics.names import Metric
from ftcli.metrics.text import TextScore, mean_score

START_S = 120.0
"""For loading the file, which may import much."""
ARGUMENTS = ("predictions", "references", "prompts", "ids")
"""What every function may ask for: texts, texts, messages, and the rows' ids."""
_ATTRIBUTES = {
    "higher_is_better": "True, False or None",
    "decimals": "a number of digits from 0 to 10",
    "title": "a text",
    "margin": "a number above 0, or None",
}


class FunctionMetric:
    """The function ``name`` of the file ``path`` as a metric ``custom.<name>``. End its process with `close`.

    ``columns`` are the rows' other columns that a function may ask for by name. Raises `UsageError` where the file cannot be
    loaded, the function asks for what is not there, does not look at the answers, or describes itself wrongly.
    """

    def __init__(self, path: Path, name: str, *, columns: Sequence[str] = (), timeout_s: float = 600.0) -> None:
        self.name, self.timeout_s = f"custom.{name}", timeout_s
        self._function, self._path, self._columns = name, path, tuple(columns)
        self.signature = f"{path.name}:{name}|mean|{digest_records(file_records(path)).rpartition(':')[2][:12]}"
        self._process = FunctionProcess(path, name)
        self.close = self._process.close
        try:
            told = self._first_reply()
            self._place, self._takes = str(told["place"]), told["accepts"]
            self._check_arguments(told["needs"])
            self.metric = self._described(told["attributes"])
        except UsageError:
            self.close()
            raise

    def score(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        prompts: Sequence[Any],
        ids: Sequence[str],
        columns: Mapping[str, Sequence[Any]] | None = None,
    ) -> TextScore:
        """The mean of what the function says of the rows. Raises `UsageError` where it fails, with its line and the row."""
        given = {
            "predictions": predictions,
            "references": references,
            "prompts": prompts,
            "ids": ids,
            **(columns or {}),
        }
        arguments = {key: list(values) for key, values in given.items() if self._is_taken(key)}
        reply = self._ask(arguments, len(ids))
        if "error" in reply:
            self._fail(reply, arguments, ids)
        return mean_score(reply["scores"], self.signature)

    def _ask(self, arguments: Mapping[str, list[Any]], rows: int) -> dict[str, Any]:
        try:
            return self._process.ask({"rows": rows, "arguments": arguments}, self.timeout_s)
        except TimeoutError:
            raise UsageError(
                f"{self._place}: {self._function} took more than {self.timeout_s:g} s for {rows} rows",
                "make it faster, or evaluate fewer rows with generation_limit",
            ) from None
        except Ended as error:
            raise UsageError(
                f"{self._place}: the process of {self._function} {error}, with {rows} rows at hand",
                "what it said before is in the log",
            ) from None

    def _first_reply(self) -> dict[str, Any]:
        try:
            told = self._process.reply(START_S)
        except TimeoutError:
            raise UsageError(
                f"{self._path}: not loaded within {START_S:g} s", "a file of metrics defines functions only"
            ) from None
        except Ended as error:
            raise UsageError(
                f"{self._path}: the process that loads it {error}", "what it said before is in the log"
            ) from None
        if "error" in told:
            whose = "" if told.get("raised") else f"{self._function} "
            raise UsageError(f"{told['place']}: {whose}{told['error']}", remedy(self._path, told.get("missing")))
        return told

    def _is_taken(self, argument: str) -> bool:
        return self._takes is None or argument in self._takes

    def _check_arguments(self, needs: Sequence[str]) -> None:
        there = (*ARGUMENTS, *self._columns)
        for name in needs:
            if name not in there:
                raise UsageError(
                    f"{self._place}: {self._function} needs {name}; there are {', '.join(there)}",
                    nearest(name, there) or "give the argument a default",
                )
        if not self._is_taken("predictions"):
            raise UsageError(
                f"{self._place}: {self._function} does not take predictions, so it sees no answer",
                f"def {self._function}(predictions, references, **kwargs)",
            )

    def _described(self, attributes: Mapping[str, Any]) -> Metric:
        """The metric by the function's attributes. One that is spelt almost like a known one is an error, others are its own."""
        for name in attributes:
            meant = difflib.get_close_matches(name, _ATTRIBUTES, n=1, cutoff=0.8)
            if name not in _ATTRIBUTES and meant:
                raise UsageError(
                    f"{self._place}: {self._function}.{name} is no attribute of a metric", f"did you mean {meant[0]}?"
                )
        better = attributes.get("higher_is_better")
        decimals, title = attributes.get("decimals", 3), attributes.get("title", self._function)
        margin = attributes.get("margin")
        fit = {
            "higher_is_better": better is None or isinstance(better, bool),
            "decimals": isinstance(decimals, int) and not isinstance(decimals, bool) and 0 <= decimals <= 10,
            "title": isinstance(title, str) and bool(title.strip()),
            "margin": margin is None or _is_positive(margin),
        }
        for name, is_fit in fit.items():
            if not is_fit:
                raise UsageError(
                    f"{self._place}: {self._function}.{name} is {attributes[name]!r}; {_ATTRIBUTES[name]} is needed"
                )
        help = f"{self._path.name}:{self._function}, mean over rows"
        return Metric(title, "custom", better, decimals, help, margin=None if margin is None else float(margin))

    def _fail(self, reply: Mapping[str, Any], arguments: Mapping[str, list[Any]], ids: Sequence[str]) -> NoReturn:
        """Raise what ``reply`` says is wrong, with the row's id; an exception's row is found by calls with one row each."""
        row = reply.get("row")
        if reply.get("raised"):
            row = self._culprit(arguments, len(ids))
        self.close()
        where = f"row {ids[row]}" if row is not None else f"a call with {len(ids)} rows"
        raise UsageError(
            f"{reply['place']}: {self._function} {reply['error']} ({where})",
            "the log has its traceback" if reply.get("raised") else "return one number a row, or None to leave it out",
        )

    def _culprit(self, arguments: Mapping[str, list[Any]], rows: int) -> int | None:
        """The first row that the function fails for when called with it alone, if there is one."""
        try:
            for row in range(rows):
                if "raised" in self._ask({name: [values[row]] for name, values in arguments.items()}, 1):
                    return row
        except UsageError:
            return None
        return None


def load_metric(artifact: Artifact, *, columns: Sequence[str] = ()) -> FunctionMetric:
    """The metric of a `Kind.FUNCTION` artifact. Raises `UsageError` where its file is not what it was when the run began."""
    name = artifact.ref.rpartition(":")[2]
    again = "run the same command again"
    if not artifact.path.is_file():
        raise UsageError(f"{artifact.path}: the file is gone since this run began", f"put it back and {again}")
    if digest_records(file_records(artifact.path)) != artifact.digest.removesuffix(f":{name}"):
        raise UsageError(f"{artifact.path}: the file was changed since this run began", again)
    return FunctionMetric(artifact.path, name, columns=columns)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
