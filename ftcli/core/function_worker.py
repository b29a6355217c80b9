"""The process that a function of the user's runs in, where it may be slow, hang, print or crash without harm to the stage.

    python -u -P -m ftcli.core.function_worker REPLIES_FD FILE.py NAME

Messages are JSON. The first reply tells of the function: ``place`` (file:line), ``accepts`` (names of its arguments, null for
any), ``needs`` (those without a default) and ``attributes`` (what is set on it: ``f.title = "..."``). Then each request, the
keyword arguments of one call, comes through standard input and is answered with ``scores``, or with ``error`` (what came, and what
was expected), its ``place``, and the ``row`` at fault where that is known. When standard input closes, because nobody needs it any
more, the process ends with all that it started.

Imports the standard library alone, so that it starts in no time.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import numbers
import os
import queue
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

MODULE = "_ftcli_function_file"
Function = Callable[..., Any]
Reply = dict[str, Any]


class _Unfit(Exception):
    """What was loaded or returned is not what is needed; ``row`` is the index of the row at fault."""

    def __init__(self, text: str, row: int | None = None) -> None:
        super().__init__(text)
        self.row = row


def main() -> None:
    replies = Connection(int(sys.argv[1]), readable=False)
    os.set_inheritable(replies.fileno(), False)  # what the function starts must not hold it open
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(_standard_input(), requests), daemon=True).start()
    path, name = Path(sys.argv[2]), sys.argv[3]
    function, reply = _load(path, name)
    replies.send_bytes(json.dumps(reply).encode())
    while function is not None:
        reply = _call(function, json.loads(requests.get()), path)
        replies.send_bytes(json.dumps(reply).encode())


def _standard_input() -> Connection:
    """The channel of requests; a function that reads standard input finds it empty."""
    channel = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return Connection(channel, writable=False)


def _listen(channel: Connection, requests: queue.SimpleQueue[bytes]) -> None:
    """Hear requests while the function works, and so also that nobody waits for it any more."""
    try:
        while True:
            requests.put(channel.recv_bytes())
    except (EOFError, OSError):
        os.killpg(0, signal.SIGKILL)


def _load(path: Path, name: str) -> tuple[Function | None, Reply]:
    """The function and the first reply; None and what is wrong where there is none.

    The file is compiled from what it says now: cached bytecode is told apart by whole seconds.
    """
    module = types.ModuleType(MODULE)
    module.__file__ = str(path)
    sys.modules[MODULE] = module  # dataclasses and pickle look it up there
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:  # SystemExit, too
        return None, _raised(error, path)
    try:
        if not hasattr(module, name):
            raise _Unfit("is not there once the file is loaded")
        function = getattr(module, name)
        return function, _arguments(function) | {"place": _place(function, path), "attributes": _attributes(function)}
    except _Unfit as error:
        return None, {"error": str(error), "place": str(path)}


def _place(function: Function, path: Path) -> str:
    """File and line of ``function``, below decorators and `functools.partial`; the file alone where there is no line."""
    inner = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    code = getattr(inner, "__code__", None) or getattr(type(inner).__call__, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else str(path)


def _arguments(function: Function) -> Reply:
    """Which arguments ``function`` takes by name, and which it cannot do without."""
    if not callable(function):
        raise _Unfit(f"is no function but {_short(function)}")
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        raise _Unfit("is an async def; a plain def is needed")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise _Unfit("does not tell its arguments, so it cannot be called by their names") from None
    kinds = inspect.Parameter
    needs = [
        one
        for one in parameters
        if one.default is kinds.empty and one.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
    ]
    if unnamed := [one.name for one in needs if one.kind is kinds.POSITIONAL_ONLY]:
        raise _Unfit(f"takes {', '.join(unnamed)} by position only; arguments are passed by name")
    takes_any = any(one.kind is kinds.VAR_KEYWORD for one in parameters)
    named = [one.name for one in parameters if one.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    return {"accepts": None if takes_any else named, "needs": [one.name for one in needs]}


def _attributes(function: Function) -> Reply:
    """What is set on ``function`` by name, such as ``f.title = "..."``; what is no plain value is shown in words."""
    found = getattr(function, "__dict__", {})
    plain = (str, int, float, type(None))
    return {
        name: value if isinstance(value, plain) else _short(value)
        for name, value in found.items()
        if not name.startswith("_") and not callable(value)
    }


def _call(function: Function, request: Reply, path: Path) -> Reply:
    try:
        values = function(**request["arguments"])
    except BaseException as error:
        return _raised(error, path)
    try:
        return {"scores": _scores(values, request["rows"])}
    except _Unfit as error:
        return {"error": f"returned {error}", "place": _place(function, path), "row": error.row}


def _raised(error: BaseException, path: Path) -> Reply:
    """What the user's code raised, with its own last line; its traceback, without our frames, goes to standard error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != str(path):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)
    lines = [frame.lineno for frame in traceback.extract_tb(trace) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines = [error.lineno]
    place = f"{path}:{lines[-1]}" if lines else str(path)
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    text = error.msg if isinstance(error, SyntaxError) else error  # else it names the place once more
    return {"error": f"raised {type(error).__name__}: {text}", "place": place, "missing": missing, "raised": True}


def _scores(values: Any, rows: int) -> list[float | None]:
    """``values`` as one number or None for each of ``rows``. Takes lists, tuples and 1-d arrays of numpy and torch."""
    wanted = f"a list of {rows} numbers or None is needed"
    if hasattr(values, "tolist") and hasattr(values, "ndim"):
        if values.ndim != 1:
            raise _Unfit(f"an array of shape {tuple(values.shape)}; {wanted}")
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise _Unfit(f"{_short(values)}; {wanted}")
    if len(values) != rows:
        raise _Unfit(f"{len(values)} scores for {rows} rows; one for each is needed")
    return [_score(value, row) for row, value in enumerate(values)]


def _score(value: Any, row: int) -> float | None:
    if value is None:
        return None
    number = value
    if getattr(value, "ndim", None) == 0:  # numpy's and torch's scalars
        number = value.item()
    if not isinstance(number, numbers.Real):
        raise _Unfit(f"{_short(value)}; a number or None is needed", row)
    try:
        found = float(number)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise _Unfit(f"{_short(value)}; a finite number is needed, or None where it has nothing to say", row)
    return found


def _short(value: Any, longest: int = 80) -> str:
    """``value`` in few words, with its type where that does not show."""
    text = repr(value)
    shown = text if len(text) <= longest else f"{text[:longest]}..."
    plain = value is None or isinstance(value, str | float | int | Sequence | dict)
    return shown if plain else f"{shown} ({type(value).__name__})"


if __name__ == "__main__":
    main()
