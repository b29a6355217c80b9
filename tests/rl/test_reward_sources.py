from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftcli.core.errors import StageFailed, UsageError
from ftcli.core.stage import Kind
from ftcli.data.reward_columns import reward_columns
from ftcli.rl.reward_sources import FunctionReward, RewardSource, compose, load_function_reward
from ftcli.rl.sequences import Exchange
from tests.conftest import artifact

EOS = 1


def decode(ids: list[int]) -> str:
    """2 is a, 3 is b, ...; the end of turn is no text."""
    return "".join(chr(95 + id) for id in ids if id != EOS)


def row(id: str, **meta: Any) -> dict[str, Any]:
    return {"id": id, "prompt": [{"role": "user", "content": f"say {id}"}], "meta": meta}


ROWS = [row("r0", answer="a"), row("r1", answer="bb", level=2), row("r2")]
EXCHANGES = [Exchange([9], ids, row=one) for ids, one in zip(([2, EOS], [3, 4], [5, 5, EOS]), ROWS, strict=True)]
"""Answers a, bc and dd."""

Make = Callable[..., FunctionReward]


@pytest.fixture
def function(tmp_path: Path) -> Iterator[Make]:
    """Makes the source of a file with the given text, whose function is ``f``."""
    made: list[FunctionReward] = []

    def make(
        text: str, name: str = "f", *, rows: list[dict[str, Any]] = ROWS, timeout_s: float = 60.0
    ) -> FunctionReward:
        path = tmp_path / "rewards.py"
        path.write_text(text)
        made.append(FunctionReward(path, name, rows=rows, columns=reward_columns, decode=decode, timeout_s=timeout_s))
        return made[-1]

    yield make
    for source in made:
        source.close()


def failure(source: FunctionReward, tmp_path: Path) -> str:
    """What a call says is wrong, without the folder."""
    with pytest.raises(StageFailed) as caught:
        source(EXCHANGES)
    return caught.value.message.replace(f"{tmp_path}/", "")


def refusal(function: Make, text: str, tmp_path: Path, **options: Any) -> tuple[str, str]:
    with pytest.raises(UsageError) as caught:
        function(text, **options)
    return caught.value.message.replace(f"{tmp_path}/", ""), caught.value.hint


# ---- what a function is given


def test_a_function_is_called_as_trl_calls_one(function: Make, tmp_path: Path) -> None:
    source = function(
        "import json\n"
        "def f(prompts, completions, completion_ids, **columns):\n"
        f"    json.dump([prompts, completions, completion_ids, columns], open({str(tmp_path / 'seen.json')!r}, 'w'))\n"
        "    return [0.5, None, 2]\n"
    )
    assert source(EXCHANGES) == [0.5, None, 2.0]
    import json

    prompts, completions, ids, columns = json.loads((tmp_path / "seen.json").read_text())
    assert prompts == [[{"role": "user", "content": f"say r{index}"}] for index in range(3)]
    assert completions == [[{"role": "assistant", "content": text}] for text in ("a", "bc", "dd")]
    assert ids == [[2, EOS], [3, 4], [5, 5, EOS]]
    assert columns == {
        "id": ["r0", "r1", "r2"],
        "answer": ["a", "bb", None],
        "level": [None, 2, None],
        "reference": [None] * 3,
    }


def test_a_function_gets_what_its_signature_names_and_no_more(function: Make) -> None:
    text = "def f(completions, answer, color='red', trainer_state=None):\n"
    text += "    assert (color, trainer_state) == ('red', None)\n"
    text += "    return [float(c[0]['content'] == a) for c, a in zip(completions, answer)]\n"
    assert function(text)(EXCHANGES) == [1.0, 0.0, 0.0]


def test_columns_do_not_depend_on_the_batch(function: Make) -> None:
    source = function("def f(completions, answer):\n    return [a is None for a in answer]\n")
    assert source(EXCHANGES[2:]) == [1.0], "no row of this batch has an answer"
    assert source(EXCHANGES[:1]) == [0.0]
    assert source([]) == []


def test_a_function_may_look_at_ids_alone(function: Make) -> None:
    assert function("def f(completion_ids):\n    return [-len(i) for i in completion_ids]")(EXCHANGES) == [-2, -2, -3]


def test_a_function_of_trls_own_works_unchanged(function: Make) -> None:
    source = function("from trl.rewards import get_soft_overlong_punishment\nf = get_soft_overlong_punishment(3, 2)\n")
    assert source(EXCHANGES) == [-0.5, -0.5, -1.0], "linear between 1 and 3 tokens, DAPO (2503.14476) eq. 13"


def test_its_process_goes_on_between_calls_and_its_arguments_are_its_own(function: Make) -> None:
    source = function(
        "seen = []\ndef f(completions):\n    seen.append(1)\n    completions.clear()\n    return [len(seen)] * 3\n"
    )
    assert [source(EXCHANGES) for _ in range(3)] == [[1.0] * 3, [2.0] * 3, [3.0] * 3]


@pytest.mark.parametrize(
    "text",
    [
        "from functools import partial\ndef g(completions, score): return [score] * 3\nf = partial(g, score=4)\n",
        "class Judge:\n    def __call__(self, completions): return [4] * 3\nf = Judge()\n",
        "f = lambda **all: [4] * len(all['completions'])\n",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int' = 4\ndef f(completions): return [A().x] * 3\n",
        "import functools\ndef twice(g):\n    @functools.wraps(g)\n    def h(*a, **k): return [2 * x for x in g(*a, **k)]\n"
        "    return h\n@twice\ndef f(completions): return [2] * 3\n",
    ],
    ids=["partial", "callable object", "lambda", "dataclass", "decorated"],
)
def test_whatever_can_be_called_may_be_the_function(function: Make, text: str) -> None:
    assert function(text)(EXCHANGES) == [4.0] * 3


def test_an_edited_file_is_never_taken_from_old_bytecode(function: Make, tmp_path: Path) -> None:
    assert function("def f(completions): return [1] * 3")(EXCHANGES) == [1.0] * 3
    times = (tmp_path / "rewards.py").stat()
    source = function("def f(completions): return [2] * 3")
    os.utime(tmp_path / "rewards.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert source(EXCHANGES) == [2.0] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rewards.py"]


# ---- what it returns


@pytest.mark.parametrize(
    ("value", "scores"),
    [
        ("[True, False, None]", [1.0, 0.0, None]),
        ("(1, 2, 3)", [1.0, 2.0, 3.0]),
        ("__import__('numpy').array([1, 2.5, 3])", [1.0, 2.5, 3.0]),
        ("list(__import__('numpy').array([1, 2.5, 3], dtype='float32'))", [1.0, 2.5, 3.0]),
        ("__import__('numpy').array([True, False, True])", [1.0, 0.0, 1.0]),
        ("list(__import__('numpy').array([True, False, True]))", [1.0, 0.0, 1.0]),
        ("[__import__('fractions').Fraction(1, 2)] * 3", [0.5] * 3),
    ],
)
def test_numbers_of_any_library_are_scores(function: Make, value: str, scores: list[float | None]) -> None:
    assert function(f"def f(completions):\n    return {value}\n")(EXCHANGES) == scores


def test_tensors_are_scores(function: Make) -> None:
    source = function(
        "import torch\n"
        "values = [torch.tensor([1, 2.5, 3], requires_grad=True), [torch.tensor(1.5), None, torch.tensor(2)]]\n"
        "def f(completions):\n    return values.pop(0)\n"
    )
    assert source(EXCHANGES) == [1.0, 2.5, 3.0]
    assert source(EXCHANGES) == [1.5, None, 2.0]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("None", "None; a list of 3 numbers or None is needed"),
        ("0.5", "0.5; a list of 3 numbers or None is needed"),
        ("'abc'", "'abc'; a list of 3 numbers or None is needed"),
        ("{1, 2}", "{1, 2} (set); a list of 3 numbers or None is needed"),
        ("[1, 2]", "2 scores for 3 rows; one for each is needed"),
        ("[1, 'x' * 100, 2]", "'" + "x" * 79 + "...; a number or None is needed (row r1)"),
        ("[1, 2, [3]]", "[3]; a number or None is needed (row r2)"),
        ("[1, 2j, 3]", "2j (complex); a number or None is needed (row r1)"),
        ("[float('nan'), 1, 2]", "nan; a finite number is needed, or None where it has nothing to say (row r0)"),
        ("[1, 2, float('-inf')]", "-inf; a finite number is needed, or None where it has nothing to say (row r2)"),
        ("__import__('numpy').zeros((3, 1))", "an array of shape (3, 1); a list of 3 numbers or None is needed"),
        ("__import__('numpy').float32(2)", "an array of shape (); a list of 3 numbers or None is needed"),
        ("[__import__('numpy').zeros(2)] * 3", "array([0., 0.]) (ndarray); a number or None is needed (row r0)"),
    ],
)
def test_what_is_no_list_of_scores_is_named_with_the_functions_line(
    function: Make, tmp_path: Path, value: str, said: str
) -> None:
    source = function(f"import math\n\ndef f(completions):\n    return {value}\n")
    row = "" if said.endswith(")") and "(row" in said else " (a call with 3 rows)"
    assert failure(source, tmp_path) == f"rewards.py:3: f returned {said}{row}"


def test_a_number_too_large_for_a_float_is_not_finite(function: Make, tmp_path: Path) -> None:
    said = failure(function("def f(completions):\n    return [1, 10 ** 400, 2]\n"), tmp_path)
    assert said.startswith("rewards.py:1: f returned 1000")
    assert said.endswith("...; a finite number is needed, or None where it has nothing to say (row r1)")


# ---- how it fails


def test_an_exception_is_said_with_its_line_and_row_and_logged_without_our_frames(
    function: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = function(
        "import json\n"
        "def inner(text):\n"
        "    return json.loads(text)\n"
        "def f(completions, answer):\n"
        "    return [0.0 if a is None else len(a) + inner('1' if a == 'a' else a) for a in answer]\n"
    )
    with pytest.raises(StageFailed) as caught:
        source(EXCHANGES)
    assert caught.value.message.replace(f"{tmp_path}/", "") == (
        "rewards.py:3: f raised JSONDecodeError: Expecting value: line 1 column 1 (char 0) (row r1)"
    )
    assert caught.value.hint == "the log has its traceback"
    logged = capfd.readouterr().err
    assert f'File "{tmp_path}/rewards.py", line 5, in f' in logged
    assert "function_worker" not in logged


def test_an_exception_that_no_single_row_brings_about_is_said_without_one(function: Make, tmp_path: Path) -> None:
    source = function("def f(completions):\n    return [1 / (3 - len(completions))] * len(completions)\n")
    assert (
        failure(source, tmp_path) == "rewards.py:2: f raised ZeroDivisionError: division by zero (a call with 3 rows)"
    )


def test_an_exit_is_an_exception(function: Make, tmp_path: Path) -> None:
    source = function("import sys\ndef f(completions):\n    sys.exit(3)\n")
    assert failure(source, tmp_path) == "rewards.py:3: f raised SystemExit: 3 (row r0)"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("os.abort()", "was killed by SIGABRT"),
        ("os._exit(0)", "ended with exit code 0"),
    ],
)
def test_a_function_that_ends_its_process_is_named(function: Make, tmp_path: Path, statement: str, said: str) -> None:
    source = function(f"import os\n\ndef f(completions):\n    {statement}\n")
    assert failure(source, tmp_path) == f"rewards.py:3: the process of f {said}, with 3 rows at hand"
    with pytest.raises(ValueError, match="this process has ended"):
        source(EXCHANGES)


def is_running(pid: int) -> bool:
    """Whether process ``pid`` is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_a_function_that_hangs_is_ended_with_all_that_it_started(function: Make, tmp_path: Path) -> None:
    source = function(
        "import os, subprocess, pathlib, time\n"
        "def f(completions):\n"
        "    child = subprocess.Popen(['sleep', '600'])\n"
        f"    pathlib.Path({str(tmp_path / 'pids')!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "    time.sleep(600)\n",
        timeout_s=1,
    )
    with pytest.raises(StageFailed) as caught:
        source(EXCHANGES)
    assert caught.value.message.replace(f"{tmp_path}/", "") == "rewards.py:2: f took more than 1 s for 3 rows"
    assert "raise reward_timeout," in caught.value.hint
    for pid in (tmp_path / "pids").read_text().split():
        assert wait_until(lambda pid=pid: not is_running(int(pid)))  # type: ignore[misc]


def test_a_process_that_died_is_noticed_though_a_child_of_it_holds_the_pipe(function: Make, tmp_path: Path) -> None:
    source = function(
        "import os, time\ndef f(completions):\n    if os.fork() == 0:\n        time.sleep(600)\n    os._exit(7)\n"
    )
    assert failure(source, tmp_path) == "rewards.py:2: the process of f ended with exit code 7, with 3 rows at hand"


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text("import os\ndef f(completions): return [os.getpid()]\n")
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom ftcli.core.function_process import FunctionProcess\n"
        f"process = FunctionProcess(Path({str(tmp_path / 'rewards.py')!r}), 'f')\n"
        "process.reply(60)\n"
        "print(int(process.ask({'rows': 1, 'arguments': {'completions': []}}, 60)['scores'][0]), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert wait_until(lambda: not is_running(int(done.stdout)))


def test_what_a_function_prints_is_no_output_of_ours_and_its_input_is_empty(
    function: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    source = function(
        "import sys, subprocess\nprint('loaded')\ndef f(completions):\n    print('called', repr(sys.stdin.read()))\n"
        "    subprocess.run(['echo', 'child'])\n    return [1] * 3\n"
    )
    source(EXCHANGES)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == ["loaded", "called ''", "child"]


def test_the_order_of_a_set_is_the_same_in_every_process(function: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    text = "def f(completions):\n    return [hash(x) % 1000003 for x in ('a', 'b', 'c')]\n"
    assert function(text)(EXCHANGES) == function(text)(EXCHANGES)


# ---- what cannot be loaded


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("x = 1\ndef f(completions)\n    return []\n", "rewards.py:2: raised SyntaxError: expected ':'", ""),
        ("x = 1\ny = x / 0\ndef f(completions): ...\n", "rewards.py:2: raised ZeroDivisionError: division by zero", ""),
        (
            "import no_such_package.part\n",
            "rewards.py:1: raised ModuleNotFoundError: No module named 'no_such_package'",
            "install no_such_package where ftcli is installed",
        ),
        (
            "import beside\n",
            "rewards.py:1: raised ModuleNotFoundError: No module named 'beside'",
            "rewards.py must stand alone, or a change of beside would go unseen: put the code into it, or install beside as a "
            "package",
        ),
        ("import sys\nsys.exit('no')\n", "rewards.py:2: raised SystemExit: no", ""),
        (
            "import os\nos._exit(4)\n",
            "rewards.py: the process that loads it ended with exit code 4",
            "what it said before is in the log",
        ),
        ("g = 1\n", "rewards.py: f is not there once the file is loaded", ""),
        ("f = 3\n", "rewards.py: f is no function but 3", ""),
        ("async def f(completions): ...\n", "rewards.py: f is an async def; a plain def is needed", ""),
        (
            "class A:\n    async def __call__(self, completions): ...\nf = A()\n",
            "rewards.py: f is an async def; a plain def is needed",
            "",
        ),
        (
            "def f(completions, /): ...\n",
            "rewards.py: f takes completions by position only; arguments are passed by name",
            "",
        ),
        ("f = dict\n", "rewards.py: f does not tell its arguments, so it cannot be called by their names", ""),
        (
            "\ndef f(completions, anwser): ...\n",
            "rewards.py:2: f needs a column anwser, the rows have answer, id, level, reference",
            "did you mean answer?",
        ),
        (
            "def f(completions, qqq, *, zzz): ...\n",
            "rewards.py:1: f needs a column qqq, the rows have answer, id, level, reference; "
            "f needs a column zzz, the rows have answer, id, level, reference",
            "keep that column in prep, or give the argument a default",
        ),
        (
            "def f(completions, trainer_state): ...\n",
            "rewards.py:1: f needs trainer_state, which is not passed: a reward that changes while training goes on would make "
            "its scores incomparable",
            "give trainer_state a default",
        ),
        (
            "def f(prompts, answer): ...\n",
            "rewards.py:1: f takes neither completions nor completion_ids, so it sees no answer",
            "def f(completions, **kwargs)",
        ),
    ],
)
def test_what_cannot_be_a_reward_function_is_refused_at_once(
    function: Make, tmp_path: Path, text: str, message: str, hint: str
) -> None:
    (tmp_path / "beside.py").write_text("")
    assert refusal(function, text, tmp_path) == (message, hint)


def test_rows_without_columns_are_said(function: Make, tmp_path: Path) -> None:
    message, _ = refusal(function, "def f(completions, answer): ...\n", tmp_path, rows=[])
    assert message == "rewards.py:1: f needs a column answer, the rows have none"


def test_a_file_that_never_finishes_loading_is_given_up(
    function: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftcli.rl.reward_sources.START_S", 0.5)
    text = "import time\ntime.sleep(600)\n"
    assert refusal(function, text, tmp_path, timeout_s=0.1) == (
        "rewards.py: not loaded within 0.5 s",
        "a file of rewards defines functions only",
    )


# ---- as an artifact


def load(path: Path, digest_of: str | None = None) -> FunctionReward:
    text = path.read_text()
    path.write_text(digest_of if digest_of is not None else text)
    item = artifact(Kind.FUNCTION, path, ref=f"{path}:f")
    path.write_text(text)
    return load_function_reward(item, rows=ROWS, columns=reward_columns, decode=decode, timeout_s=60)


def test_an_artifact_is_its_function(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text("def f(completions): return [1, 2, 3]\n")
    source = load(tmp_path / "rewards.py")
    assert source(EXCHANGES) == [1.0, 2.0, 3.0]
    source.close()


def test_a_file_that_changed_since_the_run_began_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rewards.py"
    path.write_text("def f(completions): return [1, 2, 3]\n")
    with pytest.raises(UsageError, match=r"rewards.py: the file was changed since this run began") as caught:
        load(path, digest_of="def f(completions): return [3, 2, 1]\n")
    assert caught.value.hint == "run the same command again"
    item = artifact(Kind.FUNCTION, path, ref=f"{path}:f")
    path.unlink()
    with pytest.raises(UsageError, match=r"rewards.py: the file is gone since this run began"):
        load_function_reward(item, rows=ROWS, columns=reward_columns, decode=decode, timeout_s=60)


def test_the_digest_that_a_reference_resolves_to_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftcli.pipeline.resolve import from_outside

    monkeypatch.setenv("FTCLI_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rewards.py").write_text("def f(completions): return [1, 2, 3]\n")
    item = from_outside(f"{tmp_path}/rewards.py:f", Kind.FUNCTION, "f")
    source = load_function_reward(item, rows=ROWS, columns=reward_columns, decode=decode, timeout_s=60)
    source.close()


# ---- sums


def says(*values: float | None) -> RewardSource:
    return lambda exchanges: list(values)


def test_scores_are_weighted_sums_and_none_counts_nothing() -> None:
    score = compose({"right": says(1.0, None, None), "short": says(0.5, -2.0, None)}, {"short": 0.5})
    scores = score(EXCHANGES)
    assert scores.total == [1.25, -1.0, 0.0]
    assert scores.parts == {"right": [1.0, None, None], "short": [0.5, -2.0, None]}
    assert scores.unscored == [False, False, True]


def test_a_source_with_weight_0_is_reported_and_does_not_count() -> None:
    scores = compose({"a": says(1.0), "b": says(5.0)}, {"b": 0.0})(EXCHANGES[:1])
    assert (scores.total, scores.parts) == ([1.0], {"a": [1.0], "b": [5.0]})


@settings(deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda sources: st.lists(
            st.lists(st.none() | st.floats(-1e6, 1e6), min_size=sources, max_size=sources), min_size=1, max_size=6
        )
    ),
    st.dictionaries(st.sampled_from("wxyz"), st.floats(-10, 10), max_size=4),
)
def test_a_total_is_the_plain_weighted_sum_of_its_parts(
    table: list[list[float | None]], weights: dict[str, float]
) -> None:
    names = "wxyz"[: len(table[0])]
    given = {name: weight for name, weight in weights.items() if name in names}
    columns = {name: [line[index] for line in table] for index, name in enumerate(names)}
    scores = compose({name: says(*column) for name, column in columns.items()}, given)(EXCHANGES)
    assert scores.parts == columns
    for line, total, nothing in zip(table, scores.total, scores.unscored, strict=True):
        terms = []
        for name, value in zip(names, line, strict=True):
            weight = given.get(name, 1.0)
            if value is not None:
                terms.append(weight * value)
        assert math.isclose(total, math.fsum(terms), rel_tol=1e-12, abs_tol=1e-6)
        assert nothing == (not terms)


@pytest.mark.parametrize(
    ("weights", "message", "hint"),
    [
        ({"acuracy": 1.0}, "reward_weights: there is no source acuracy", "did you mean accuracy?"),
        ({"zz": 1.0}, "reward_weights: there is no source zz", "the sources are accuracy, reward"),
    ],
)
def test_a_weight_needs_its_source(weights: Mapping[str, float], message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        compose({"accuracy": says(1.0), "reward": says(1.0)}, weights)
    assert caught.value.hint == hint


def test_without_a_source_there_is_no_score() -> None:
    with pytest.raises(UsageError, match="nothing scores the answers"):
        compose({}, {})
