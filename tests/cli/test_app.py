from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ftcli as package
from ftcli.cli import app
from ftcli.core.errors import Diverged
from ftcli.stages import STAGES
from tests.cli.in_process import ftcli
from tests.pipeline.toy import ROOT

HEAVY = {"torch", "transformers", "trl", "datasets", "peft", "pydantic", "yaml"}
TOY = [sys.executable, str(ROOT / "tests/pipeline/toy_ftcli.py")]


def python(program: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, env=environment
    )


def modules_after(*arguments: str) -> set[str]:
    """Names of all modules that are loaded when the command has ended."""
    program = (
        f"import sys; sys.argv = ['ftcli', *{arguments!r}]\n"
        "from ftcli.cli.app import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = python(program)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_list_of_commands_imports_nothing_heavy(option: str) -> None:
    loaded = modules_after(option)
    assert "ftcli.stages" in loaded
    assert HEAVY & loaded == set()


@pytest.mark.parametrize("command", ["lora", "run"])
def test_the_help_of_a_command_imports_no_torch(command: str) -> None:
    loaded = modules_after(command, "--help")
    assert loaded & (HEAVY - {"pydantic", "yaml"}) == set()


def test_help_lists_every_command_with_its_line() -> None:
    called = ftcli("--help")
    assert called.code == 0
    for name, (_, text) in {**STAGES, **app.PIPELINE}.items():
        assert f"  {name} " in called.out
        assert text.split()[0] in called.out


@pytest.mark.parametrize("name", [*STAGES, *app.PIPELINE])
def test_every_command_has_help_with_an_example(name: str) -> None:
    called = ftcli(name, "--help")
    assert called.code == 0
    assert f"ftcli {name} " in called.out.partition("Example")[2]


def test_the_version_is_printed() -> None:
    called = ftcli("--version")
    assert (called.code, called.out, called.err) == (0, f"{package.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lroa"], "no such command lroa; did you mean lora?"),
        (["xyzzy"], "no such command xyzzy"),
        (["--nonsense"], "No such option"),
        (["run"], "Missing argument"),
        (["run", "--run"], "requires an argument"),
    ],
)
def test_a_wrong_command_line_exits_2(arguments: list[str], message: str) -> None:
    called = ftcli(*arguments)
    assert called.code == 2
    assert message in called.err
    assert called.out == ""


def test_a_bug_keeps_its_traceback_and_a_mistake_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(app.PIPELINE, "status", ("tests.cli.test_app:diverge", "x"))
    called = ftcli("status")
    assert (called.code, called.err) == (72, "error: loss is nan\nhint: lower learning_rate\n")
    monkeypatch.setitem(app.PIPELINE, "status", ("tests.cli.test_app:bug", "x"))
    with pytest.raises(ZeroDivisionError):
        ftcli("status")


def diverge() -> None:
    """A command."""
    raise Diverged("loss is nan", "lower learning_rate")


def bug() -> None:
    """A command."""
    raise ZeroDivisionError


@pytest.mark.parametrize("count", [1, 100_000])
def test_a_broken_pipe_is_quiet(count: int) -> None:
    program = (
        "import sys; sys.argv = ['ftcli', 'status']\nfrom ftcli.cli import app\n"
        f"def status():\n    '''x'''\n    [print(n) for n in range({count})]\n"
        "sys.modules['ftcli.fake'] = type(sys)('fake'); sys.modules['ftcli.fake'].status = status\n"
        "app.PIPELINE['status'] = ('ftcli.fake:status', 'x')\n"
        "app.main()"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


def test_a_result_that_cannot_be_written_exits_74() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ftcli.cli.app"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 0, "the module alone does nothing"
        program = "import sys; sys.argv = ['ftcli', '--version']; from ftcli.cli.app import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    assert done.returncode == 74
    assert done.stderr == "error: the result could not be written: [Errno 28] No space left on device\n"


def test_the_installed_command_is_this_program(tmp_path: Path) -> None:
    """One real process: the result alone on stdout, everything else on stderr."""
    command = Path(sys.executable).with_name("ftcli")
    if not command.exists():
        pytest.skip("the package is not installed")
    done = subprocess.run([command, "status", "--run", tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {tmp_path}: no run directory\nhint: name one with --run; `ftcli run RECIPE` makes one\n"
    )


# ---- each command of the controller as a process of its own


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*TOY, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False, env=environment
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """A recipe, its run directory, and how ``ftcli run`` ended."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = folder / "two.yaml"
    recipe.write_text("stages:\n  - use: make\n    with: {steps: 2}\n  - use: join\n    inputs: {data: make.data}\n")
    return recipe, folder / "run", call("run", recipe, "--run", folder / "run")


def test_run_prints_a_table_and_the_report(finished: tuple[Path, Path, subprocess.CompletedProcess[str]]) -> None:
    _, run, done = finished
    assert done.returncode == 0
    make, join = (os.readlink(run / "stages" / id / "latest") for id in ("make", "join"))
    table, _, report = done.stdout.partition("\n\n")
    assert [line.split()[0] for line in table.splitlines()] == ["stage", "make", "join"]
    assert table.splitlines()[1].endswith(f"stages/make/{make}")
    assert report == f"1 inputs: make\n\nreport: {run}/stages/join/{join}/report/report.html\n"
    assert [line for line in done.stderr.splitlines() if not line.startswith("  ")] == [
        "make: run (first time)",
        "join: run (first time)",
    ]


@pytest.mark.parametrize("command", ["plan", "status", "lineage", "verify"])
def test_a_command_as_a_process_prints_its_result_alone_on_stdout(
    finished: tuple[Path, Path, subprocess.CompletedProcess[str]], command: str
) -> None:
    recipe, run, _ = finished
    done = call(command, *([recipe] if command == "plan" else []), "--run", run)
    assert (done.returncode, done.stderr) == (0, "")
    assert {
        "plan": "make: cached (cached)",
        "status": "stage",
        "lineage": "join  ",
        "verify": "2 published outputs, all as recorded",
    }[command] in done.stdout.splitlines()[0]


def test_a_stage_as_a_process_prints_its_output_alone_on_stdout(
    finished: tuple[Path, Path, subprocess.CompletedProcess[str]],
) -> None:
    _, run, _ = finished
    done = call("make", "--run", run, "--steps", "2")
    assert (done.returncode, done.stderr) == (0, "make: cached\n")
    assert (Path(done.stdout.strip()) / "train.jsonl").is_file()


def test_an_interrupt_while_nothing_runs_exits_130(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; sys.argv = ['ftcli', 'status']\nfrom ftcli.cli import app\n"
        "def status():\n    '''x'''\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.modules['ftcli.fake'] = type(sys)('fake'); sys.modules['ftcli.fake'].status = status\n"
        "app.PIPELINE['status'] = ('ftcli.fake:status', 'x')\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\napp.main()"
    )
    done = python(program)
    assert done.returncode == 130
    assert done.stderr == "interrupted; the same command goes on from the last checkpoint\n"
