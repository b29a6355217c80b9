from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ftcli.core.errors import UsageError
from ftcli.core.stage import Kind
from ftcli.metrics.custom import FunctionMetric, load_metric
from ftcli.metrics.names import Metric
from ftcli.metrics.text import TextScore
from tests.conftest import artifact

ANSWERS, REFERENCES, IDS = ["a", "bcd", ""], ["aa", "bc", "c"], ["r0", "r1", "r2"]
PROMPTS = [[{"role": "user", "content": f"say {id}"}] for id in IDS]
Make = Callable[..., FunctionMetric]


@pytest.fixture
def function(tmp_path: Path) -> Iterator[Make]:
    """Makes the metric of a file with the given text, whose function is ``f``."""
    made: list[FunctionMetric] = []

    def make(text: str, name: str = "f", **options: object) -> FunctionMetric:
        path = tmp_path / "own.py"
        path.write_text(text)
        made.append(FunctionMetric(path, name, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for metric in made:
        metric.close()


def scored(metric: FunctionMetric, **columns: list[object]) -> TextScore:
    return metric.score(ANSWERS, REFERENCES, PROMPTS, IDS, columns)


def refusal(function: Make, text: str, tmp_path: Path) -> tuple[str, str]:
    """What is said of a file that cannot be used, or of a call that fails, without the folder."""
    with pytest.raises(UsageError) as caught:
        scored(function(text))
    return caught.value.message.replace(f"{tmp_path}/", ""), caught.value.hint


def test_a_function_is_given_every_row_and_returns_a_number_for_each(function: Make) -> None:
    metric = function(
        "def f(predictions, references, prompts, **other):\n"
        "    assert sorted(other) == ['ids', 'topic'] and other['topic'] == ['x', 'y', 'z']\n"
        "    assert [p[-1]['content'] for p in prompts] == ['say r0', 'say r1', 'say r2']\n"
        "    return [len(a) / len(b) for a, b in zip(predictions, references)]\n",
        columns=["topic"],
    )
    score = scored(metric, topic=["x", "y", "z"])
    assert score.per_example == [0.5, 1.5, 0.0]
    assert score.value == pytest.approx(2 / 3)


def test_none_leaves_a_row_out(function: Make) -> None:
    score = scored(function("def f(predictions):\n    return [len(p) or None for p in predictions]\n"))
    assert (score.per_example, score.rows, score.value) == ([1.0, 3.0, None], [0, 1], 2.0)
    assert len(score.examples) == 2


def test_a_function_is_described_by_its_attributes(function: Make) -> None:
    plain = "def f(predictions): return [1] * len(predictions)\n"
    assert function(plain).metric == Metric("f", "custom", None, 3, "own.py:f, mean over rows")
    text = plain + "f.higher_is_better, f.decimals, f.title, f.margin, f.state = False, 1, 'Chars', 2, []\n"
    metric = function(text)
    assert metric.metric == Metric("Chars", "custom", False, 1, "own.py:f, mean over rows", margin=2.0)
    assert metric.name == "custom.f"


def test_an_edited_function_has_another_signature(function: Make) -> None:
    first = function("def f(predictions): return [1] * len(predictions)\n").signature
    second = function("def f(predictions): return [2] * len(predictions)\n").signature
    assert first.startswith("own.py:f|mean|")
    assert first != second


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "def f(predictions):\n    return [1]\n",
            "own.py:1: f returned 1 scores for 3 rows; one for each is needed (a call with 3 rows)",
            "return one number a row, or None to leave it out",
        ),
        (
            "def f(predictions):\n    return [0.5, float('nan'), 1]\n",
            "own.py:1: f returned nan; a finite number is needed, or None where it has nothing to say (row r1)",
            "return one number a row, or None to leave it out",
        ),
        (
            "def f(predictions):\n    return [1 / len(p) for p in predictions]\n",
            "own.py:2: f raised ZeroDivisionError: division by zero (row r2)",
            "the log has its traceback",
        ),
        (
            "def f(predictions):\n    assert len(predictions) < 3\n    return [1] * len(predictions)\n",
            "own.py:2: f raised AssertionError:  (a call with 3 rows)",
            "the log has its traceback",
        ),
        (
            "import os\ndef f(predictions):\n    os._exit(3)\n",
            "own.py:2: the process of f ended with exit code 3, with 3 rows at hand",
            "what it said before is in the log",
        ),
        ("x = 1\ndef f(predictions)\n", "own.py:2: raised SyntaxError: expected ':'", ""),
        (
            "import not_there\n",
            "own.py:1: raised ModuleNotFoundError: No module named 'not_there'",
            "install not_there",
        ),
        ("import os\nos._exit(5)\n", "own.py: the process that loads it ended with exit code 5", "what it said"),
        ("def g(predictions): return []\n", "own.py: f is not there once the file is loaded", ""),
        (
            "def f(predictions, reference): return []\n",
            "own.py:1: f needs reference; there are predictions, references, prompts, ids",
            "did you mean references?",
        ),
        (
            "def f(references): return []\n",
            "own.py:1: f does not take predictions, so it sees no answer",
            "def f(predictions, references, **kwargs)",
        ),
        (
            "def f(predictions): return []\nf.higher_is_beter = True\n",
            "own.py:1: f.higher_is_beter is no attribute of a metric",
            "did you mean higher_is_better?",
        ),
        (
            "def f(predictions): return []\nf.higher_is_better = 'yes'\n",
            "own.py:1: f.higher_is_better is 'yes'; True, False or None is needed",
            "",
        ),
        (
            "def f(predictions): return []\nf.decimals = 1.5\n",
            "own.py:1: f.decimals is 1.5; a number of digits from 0 to 10 is needed",
            "",
        ),
        ("def f(predictions): return []\nf.title = ''\n", "own.py:1: f.title is ''; a text is needed", ""),
        (
            "def f(predictions): return []\nf.margin = -1\n",
            "own.py:1: f.margin is -1; a number above 0, or None is needed",
            "",
        ),
    ],
)
def test_what_is_wrong_is_one_message_with_its_line(
    function: Make, tmp_path: Path, text: str, message: str, hint: str
) -> None:
    said, advice = refusal(function, text, tmp_path)
    assert said == message
    assert advice.startswith(hint)


def test_a_function_that_hangs_is_ended(function: Make, tmp_path: Path) -> None:
    metric = function("import time\ndef f(predictions):\n    time.sleep(600)\n", timeout_s=0.5)
    with pytest.raises(UsageError, match=r"own.py:2: f took more than 0.5 s for 3 rows"):
        scored(metric)


def test_an_artifact_is_its_metric_unless_the_file_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("def f(predictions): return [1, 2, 3]\n")
    item = artifact(Kind.FUNCTION, path, ref=f"{path}:f")
    metric = load_metric(item)
    assert (metric.name, scored(metric).value) == ("custom.f", 2.0)
    metric.close()
    path.write_text("def f(predictions): return [3, 3, 3]\n")
    with pytest.raises(UsageError, match=r"own.py: the file was changed since this run began"):
        load_metric(item)
    path.unlink()
    with pytest.raises(UsageError, match=r"own.py: the file is gone since this run began"):
        load_metric(item)
