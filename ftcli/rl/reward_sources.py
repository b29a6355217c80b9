"""Who scores answers: Python functions of the user's, learned reward models, or a weighted sum of several.

A source is any callable from exchanges to one number each, or None where it has nothing to say, such as
`ftcli.rl.reward_model.RewardModel.score_exchanges`.

Functions are called as TRL's GRPOTrainer calls its own on conversational data (trl 1.16, trl/trainer/grpo_trainer.py,
``_calculate_rewards``), except that they run in a process of their own, with a time limit; that only arguments which a
function takes are passed, so it needs no ``**kwargs``; that those in `NOT_PASSED` never are; and that NaN is an error and not
another word for None.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ftcli.core.artifacts import digest_records, file_records
from ftcli.core.config import nearest
from ftcli.core.errors import StageFailed, UsageError
from ftcli.core.function_process import Ended, FunctionProcess, remedy
from ftcli.core.stage import Artifact
from ftcli.rl.rewards import Score, Scores
from ftcli.rl.sequences import Exchange

RewardSource = Callable[[Sequence[Exchange]], Sequence[float | None]]
Row = Mapping[str, Any]
Columns = Callable[[Any], Mapping[str, Any]]
"""From a row to its ``prompt`` (messages) and whatever else a function may ask for by name; JSON values all."""

START_S = 120.0
"""The least time for loading the file, which may import much."""
NOT_PASSED = {
    "trainer_state": "a reward that changes while training goes on would make its scores incomparable",
    "log_extra": "what a function prints goes to the log",
    "log_metric": "what a function prints goes to the log",
    "environments": "there are none here",
}
"""Arguments of TRL's that are left out, and why."""


class FunctionReward:
    """The source ``FILE.py:NAME``: ``fn(prompts, completions, completion_ids, **columns) -> list of float or None``.

    Each argument is a list with one item a row: ``prompts`` the messages, ``completions``
    ``[{"role": "assistant", "content": text}]`` as decoded, ``completion_ids`` the response's ids, and every column that any of
    ``rows`` has, with None where a row has it not. ``rows`` are all those whose prompts will be answered, so that what is
    passed does not depend on the batch.

    ``timeout_s`` is for one call, with as many rows as it is given. Raises `UsageError` where the file cannot be loaded or the
    function asks for what is not there. A function must depend on its arguments alone: its process goes on from call to call,
    and starts anew when training is resumed.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        rows: Iterable[Row],
        columns: Columns,
        decode: Callable[[list[int]], str],
        timeout_s: float = 60.0,
    ) -> None:
        self.name, self.timeout_s = name, timeout_s
        self._columns, self._decode = columns, decode
        self._known = sorted({column for row in rows for column in columns(row)} - {"prompt"})
        self._process = FunctionProcess(path, name)
        self.close = self._process.close
        """End the process, with all that it started."""
        told = self._first_reply(path)
        self._place = told["place"]
        self._takes = told["accepts"]
        self._check_arguments(told["needs"])

    def __call__(self, exchanges: Sequence[Exchange]) -> list[float | None]:
        """One score for each of ``exchanges``, or None. Raises `StageFailed` where the function fails, and ends its process."""
        if not exchanges:
            return []
        try:
            started = time.monotonic()
            reply = self._ask(exchanges, self.timeout_s)
            if "error" in reply:
                self._fail(reply, exchanges, self.timeout_s - (time.monotonic() - started))
        except TimeoutError:
            raise StageFailed(
                f"{self._place}: {self.name} took more than {self.timeout_s:g} s for {len(exchanges)} rows",
                "raise reward_timeout, or limit the time for each row in the function",
            ) from None
        except Ended as error:
            raise StageFailed(
                f"{self._place}: the process of {self.name} {error}, with {len(exchanges)} rows at hand",
                "what it said before is in the log",
            ) from None
        scores: list[float | None] = reply["scores"]
        return scores

    def _ask(self, exchanges: Sequence[Exchange], limit_s: float) -> dict[str, Any]:
        return self._process.ask({"rows": len(exchanges), "arguments": self._arguments(exchanges)}, limit_s)

    def _arguments(self, exchanges: Sequence[Exchange]) -> dict[str, list[Any]]:
        """The keyword arguments of one call: of those that there are, the ones that the function takes."""
        rows = [self._columns(exchange.row) for exchange in exchanges]
        every = {name: [row.get(name) for row in rows] for name in self._known if self._is_taken(name)}
        every["prompts"] = [row["prompt"] for row in rows]
        every["completions"] = [
            [{"role": "assistant", "content": self._decode(exchange.response)}] for exchange in exchanges
        ]
        every["completion_ids"] = [exchange.response for exchange in exchanges]
        return {name: values for name, values in every.items() if self._is_taken(name)}

    def _is_taken(self, name: str) -> bool:
        return self._takes is None or name in self._takes

    def _first_reply(self, path: Path) -> dict[str, Any]:
        limit_s = max(START_S, self.timeout_s)
        try:
            told = self._process.reply(limit_s)
        except TimeoutError:
            raise UsageError(
                f"{path}: not loaded within {limit_s:g} s", "a file of rewards defines functions only"
            ) from None
        except Ended as error:
            raise UsageError(
                f"{path}: the process that loads it {error}", "what it said before is in the log"
            ) from None
        if "error" in told:
            self.close()
            whose = "" if told.get("raised") else f"{self.name} "
            raise UsageError(f"{told['place']}: {whose}{told['error']}", remedy(path, told.get("missing")))
        return told

    def _check_arguments(self, needs: Sequence[str]) -> None:
        """Refuse a function that needs what no row has, or does not look at answers."""
        there = {*self._known, "prompts", "completions", "completion_ids"}
        problems, hints = [], []
        for name in needs:
            if name in NOT_PASSED:
                problems.append(f"{self.name} needs {name}, which is not passed: {NOT_PASSED[name]}")
                hints.append(f"give {name} a default")
            elif name not in there:
                problems.append(f"{self.name} needs a column {name}, the rows have {', '.join(self._known) or 'none'}")
                hints.append(nearest(name, there) or "keep that column in prep, or give the argument a default")
        if not self._is_taken("completions") and not self._is_taken("completion_ids"):
            problems.append(f"{self.name} takes neither completions nor completion_ids, so it sees no answer")
            hints.append(f"def {self.name}(completions, **kwargs)")
        if problems:
            self.close()
            raise UsageError(f"{self._place}: {'; '.join(problems)}", "; ".join(dict.fromkeys(hints)))

    def _fail(self, reply: Mapping[str, Any], exchanges: Sequence[Exchange], left_s: float) -> NoReturn:
        """Raise what ``reply`` says is wrong, with the row's id."""
        row = reply.get("row")
        if reply.get("raised"):
            row = self._culprit(exchanges, left_s)
        self.close()
        which = (
            f" (row {exchanges[row].row.get('id', row)})"
            if row is not None
            else f" (a call with {len(exchanges)} rows)"
        )
        raise StageFailed(
            f"{reply['place']}: {self.name} {reply['error']}{which}",
            "the log has its traceback" if reply.get("raised") else "",
        )

    def _culprit(self, exchanges: Sequence[Exchange], left_s: float) -> int | None:
        """The first row that the function fails for when called with it alone; None if there is none, or no time to look."""
        deadline = time.monotonic() + left_s
        try:
            for index, exchange in enumerate(exchanges):
                if "raised" in self._ask([exchange], deadline - time.monotonic()):
                    return index
        except (TimeoutError, Ended):
            return None
        return None


def load_function_reward(
    artifact: Artifact,
    *,
    rows: Iterable[Row],
    columns: Columns,
    decode: Callable[[list[int]], str],
    timeout_s: float,
) -> FunctionReward:
    """The source of a `Kind.FUNCTION` artifact. Raises `UsageError` where its file is not what it was when the run began."""
    name = artifact.ref.rpartition(":")[2]
    again = "run the same command again"
    if not artifact.path.is_file():
        raise UsageError(f"{artifact.path}: the file is gone since this run began", f"put it back and {again}")
    if digest_records(file_records(artifact.path)) != artifact.digest.removesuffix(f":{name}"):
        raise UsageError(f"{artifact.path}: the file was changed since this run began", again)
    return FunctionReward(artifact.path, name, rows=rows, columns=columns, decode=decode, timeout_s=timeout_s)


def compose(sources: Mapping[str, RewardSource], weights: Mapping[str, float]) -> Score:
    """The weighted sum of ``sources``; a weight that is not given is 1. Raises `UsageError` for a weight without its source.

    A source that says None for a row counts nothing there; the others are not scaled up for it. Where all say None, the total is
    0.0 and says nothing either: `Scores.unscored` finds these rows. PPO learns from them as if their normalised score were 0,
    which is a mean answer's, or a raw 0 where scores are not normalised; no statistic counts them.
    """
    if not sources:
        raise UsageError("nothing scores the answers", "give a reward model or a reward function")
    for name in weights:
        if name not in sources:
            hint = nearest(name, sources) or f"the sources are {', '.join(sources)}"
            raise UsageError(f"reward_weights: there is no source {name}", hint)

    def score(exchanges: Sequence[Exchange]) -> Scores:
        parts = {name: list(source(exchanges)) for name, source in sources.items()}
        scales = [weights.get(name, 1.0) for name in parts]
        rows = zip(*parts.values(), strict=True)
        return Scores([_weighted(scales, row) for row in rows], parts)

    return score


def _weighted(scales: Sequence[float], values: Sequence[float | None]) -> float:
    return sum((scale * value for scale, value in zip(scales, values, strict=True) if value is not None), 0.0)
