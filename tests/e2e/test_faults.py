"""What is left after a crash, a full disk, a second controller: always the old or the new output, and a second run completes."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import Busy, DiskError
from ftcli.core.rundir import RunDir
from ftcli.launch.inline import run_inline
from ftcli.pipeline.plan import run_recipe
from ftcli.pipeline.recipe import Recipe, read_recipe
from ftcli.pipeline.runner import execute
from tests.cli.in_process import ftcli
from tests.pipeline.conftest import toy_stages as toy_stages
from tests.pipeline.toy import ROOT, make_task

OF_SYSTEM = {
    *("mkdir", "rename", "replace", "fsync", "symlink", "unlink", "rmdir", "chmod", "link", "truncate", "ftruncate"),
    *("sendfile", "flock"),
}
OF_FILES = {"flush", "truncate", "__exit__"}
MOUNT = shutil.which("mount") or ""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def ignore(event: dict[str, Any]) -> None:
    """Nobody watches."""


def kill_at(count: int, action: Callable[[], object]) -> bool:
    """Run ``action`` in a fork that kills itself before its ``count``-th change of the file system; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        seen = 0

        def step() -> None:
            nonlocal seen
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

        def audit(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and arguments[2] & WRITING:
                step()

        def trace(frame: Any, kind: str, function: Any) -> None:
            if kind != "c_call":
                return
            of_file = isinstance(getattr(function, "__self__", None), io.IOBase)
            of_system = getattr(function, "__module__", None) in ("posix", "fcntl")
            if function.__name__ in (OF_FILES if of_file else OF_SYSTEM if of_system else ()):
                step()

        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        code = 1
        try:
            sys.addaudithook(audit)
            sys.setprofile(trace)
            action()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "without a kill, it completes"
    return False


def assert_whole(run: RunDir) -> None:
    """Every published folder is as its stage.json says."""
    for folder in run.folders():
        item = run.published(folder.parent.name, folder.name)
        assert item is not None, f"{folder} has no stage.json"
        assert item.damage(rehash=True) == []


def assert_tidy(run: RunDir) -> None:
    """Nothing is left but published folders, links, the index and (empty of work) lock files."""
    files = {path.relative_to(run.root).as_posix() for path in run.root.rglob("*") if not path.is_dir()}
    published = {path.relative_to(run.root).as_posix() for folder in run.folders() for path in folder.rglob("*")}
    links = {f"stages/{id}/latest" for id in run.ids()}
    assert all((run.root / link).is_symlink() for link in links)
    locks = {path for path in files if path.startswith(".work/") and path.endswith(".lock")}
    assert files - published - links - locks <= {"run.json"}
    assert run.pending() == {}
    assert list(run.root.rglob(".dropped-*")) == []


@pytest.fixture
def recipe(tmp_path: Path, toy_stages: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")  # no git: it would be started some hundred times
    path = tmp_path / "two.yaml"
    path.write_text("stages:\n  - use: make\n    with: {steps: 1}\n  - use: join\n    inputs: {data: make.data}\n")
    return path


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder where fsync costs nothing, if there is one: it is called some ten thousand times."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


def run_quietly(plan: Recipe, run: RunDir, said: list[str] | None = None, **options: Any) -> None:
    run_recipe(plan, run, run_inline, ignore, (said if said is not None else []).append, **options)


def test_a_controller_killed_anywhere_leaves_nothing_or_a_whole_output_and_a_second_run_completes(
    memory: Path, recipe: Path
) -> None:
    plan = read_recipe(recipe)
    count, killed = 0, True
    while killed:
        count += 1
        run = RunDir(memory / f"run-{count}")
        killed = kill_at(count, lambda run=run: run_quietly(plan, run))
        assert_whole(run)
        half = [path for path in run.pending().values() if not (path / "scratch" / "job.json").exists()]
        assert [path for path in half if path.name[:-13] in run.ids() and run.latest(path.name[:-13])] == [], (
            "work is dropped whole, so that no later start finds half a checkpoint"
        )
        run_quietly(plan, run)
        assert_whole(run)
        assert_tidy(run)
        said: list[str] = []
        run_quietly(plan, run, said)
        assert said == ["make: cached", "join: cached"]
        shutil.rmtree(run.root)
    assert count > 60, "every step of the protocol was tried"


def test_a_controller_killed_while_it_replaces_an_output_leaves_the_old_or_the_new_one(
    memory: Path, recipe: Path
) -> None:
    plan = read_recipe(recipe)
    run_quietly(plan, RunDir(memory / "finished"))
    count, killed = 0, True
    started = set()
    while killed:
        count += 1
        run = RunDir(shutil.copytree(memory / "finished", memory / f"run-{count}", symlinks=True))
        old = run.latest("make")
        assert old is not None
        killed = kill_at(count, lambda run=run: run_quietly(plan, run, until="make", force=["make"]))
        found = run.latest("make")
        assert found is not None
        assert found.path == old.path
        started.add(found.manifest["facts"]["perf/worker_seconds"] == old.manifest["facts"]["perf/worker_seconds"])
        assert_whole(run)
        said: list[str] = []
        run_quietly(plan, run, said)
        assert said == ["make: cached", "join: cached"]
        assert_whole(run)
        assert_tidy(run)
        shutil.rmtree(run.root)
    assert started == {True, False}, "some kills came before the replacement and some after"
    assert count > 40


# ---- real processes


def toy_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(ROOT / "tests/pipeline/toy_ftcli.py"), *map(str, arguments)]


def toy(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        toy_command(*arguments), capture_output=True, text=True, check=False, timeout=60, env=environment(), **options
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def start(run: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        toy_command("make", "--run", run, *arguments),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A controller whose worker is in the middle of a long stage, and its run directory."""
    run = tmp_path / "run"
    process = start(run, "--steps", "40", "--step-seconds", "0.1")
    wait_for(lambda: any(path.read_text() for path in run.glob(".work/*/scratch/done")))
    yield process, run
    process.kill()
    process.communicate()


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def worker_pid(run: Path) -> int:
    return int(next(run.glob(".work/*/scratch/pid")).read_text())


def test_a_killed_worker_fails_with_a_hint_publishes_nothing_and_the_next_run_goes_on(tmp_path: Path) -> None:
    command = ("make", "--run", tmp_path / "run", "--fail", "kill")
    first = toy(*command)
    assert first.returncode == 1
    assert "make failed: the worker was killed by SIGKILL" in first.stderr
    assert "hint: SIGKILL usually means that memory ran out" in first.stderr
    assert first.stdout == ""
    assert RunDir(tmp_path / "run").folders() == []
    second = toy(*command)
    assert second.returncode == 0
    assert "make: run (interrupted earlier: goes on)" in second.stderr
    stage = json.loads((Path(second.stdout.strip()).parent / "stage.json").read_text())
    assert stage["facts"]["toy/first_step"] == 2
    steps = [json.loads(line)["step"] for line in (Path(second.stdout.strip()).parent / "metrics.jsonl").open()]
    assert steps == [1, 2, 3]


def test_a_worker_ends_when_its_controller_is_killed_and_the_lock_is_free(tmp_path: Path) -> None:
    """Also a worker that has nothing to say for a long time."""
    run = tmp_path / "run"
    process = start(run, "--step-seconds", "60")
    wait_for(lambda: any(path.read_text() for path in run.glob(".work/*/scratch/pid")))
    worker = worker_pid(run)
    with pytest.raises(Busy, match=f"process {process.pid} on"), RunDir(run).lock("make"):
        pytest.fail("the lock was free")
    process.kill()
    process.communicate()
    with RunDir(run).lock("make"):
        wait_for(lambda: not is_alive(worker), 5.0)
    assert RunDir(run).folders() == []


def test_a_second_controller_says_who_works_on_the_stage_or_waits_and_finds_it_done(
    slow: tuple[subprocess.Popen[str], Path],
) -> None:
    process, run = slow
    command = ("make", "--run", run, "--steps", "40", "--step-seconds", "0.1")
    second = toy(*command)
    assert second.returncode == 5
    assert f"stage make is being worked on by process {process.pid} on" in second.stderr
    assert "--wait" in second.stderr
    third = toy(*command, "--wait")
    assert third.returncode == 0
    assert f"make: waits for process {process.pid} on" in third.stderr
    assert third.stderr.splitlines()[-1] == "make: cached"
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert third.stdout == output


def test_another_stage_of_a_busy_run_is_not_kept_waiting(slow: tuple[subprocess.Popen[str], Path]) -> None:
    process, run = slow
    assert toy("make", "--id", "other", "--run", run).returncode == 0
    assert process.poll() is None


@pytest.mark.parametrize("whole_group", [False, True])
def test_an_interrupt_ends_the_worker_and_exits_130(
    slow: tuple[subprocess.Popen[str], Path], whole_group: bool
) -> None:
    process, run = slow
    worker = worker_pid(run)
    if whole_group:  # what Ctrl-C in a terminal does
        os.kill(worker, signal.SIGINT)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted; the same command goes on from the last checkpoint" in errors
    assert "Traceback" not in errors
    assert output == ""
    wait_for(lambda: not is_alive(worker), 5.0)
    assert RunDir(run).folders() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_stage_that_can_stop_exits_75_and_the_same_command_goes_on(number: signal.Signals, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ("long", "--run", run, "--steps", "40")
    process = subprocess.Popen(
        toy_command(*command, "--step-seconds", "0.1"),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    wait_for(lambda: any(path.read_text() for path in run.glob(".work/*/scratch/done")))
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 75
    assert "\nstopped by SIGTERM after step" in errors
    assert "hint: the same command goes on from there" in errors
    assert output == ""
    assert RunDir(run).folders() == []
    assert toy(*command).returncode == 0


def test_twenty_stages_at_once_in_one_run_directory(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")

    def one(number: int) -> None:
        execute(make_task(f"make{number}", text=str(number)), run, run_inline, ignore, ignore)
        run.write_index("many", [f"make{number}"])

    children = []
    for number in range(20):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115
                one(number)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 20
    assert sorted(run.index()["order"]) == sorted(f"make{number}" for number in range(20))
    assert len(run.all_latest()) == 20
    assert_whole(run)
    assert_tidy(run)


# ---- disks


def small_files_only() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def test_a_file_that_cannot_be_written_exits_74_publishes_nothing_and_a_later_run_works(tmp_path: Path) -> None:
    command = ("make", "--run", tmp_path / "run", "--size-bytes", "1000000")
    limited = toy(*command, preexec_fn=small_files_only)
    assert limited.returncode == 74
    assert "error: writing failed: " in limited.stderr
    assert "File too large" in limited.stderr
    assert "hint: free some space" in limited.stderr
    assert RunDir(tmp_path / "run").folders() == []
    assert toy(*command).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = [MOUNT, "-t", "tmpfs", "-o", "size=400k", "none", str(folder)]
    if os.geteuid() != 0 or not MOUNT or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a disk can be mounted by root only")
    yield folder
    subprocess.run([MOUNT.replace("mount", "umount"), str(folder)], check=True)


def fill(disk: Path, free_pages: int) -> Path:
    """A file that leaves so many pages of 4 KiB free on ``disk``."""
    ballast = disk / "ballast"
    left = os.statvfs(disk)
    ballast.write_bytes(b"x" * (left.f_bavail * left.f_bsize - free_pages * 4096))
    return ballast


def test_a_full_disk_exits_74_publishes_nothing_and_a_run_after_cleaning_works(small_disk: Path) -> None:
    command = ("make", "--run", small_disk / "run", "--size-bytes", "60000")
    ballast = fill(small_disk, 6)
    full = toy(*command)
    assert full.returncode == 74, full.stderr
    assert "Traceback" not in full.stderr
    assert "the worker could not write, not even its result" in full.stderr
    assert RunDir(small_disk / "run").folders() == []
    ballast.unlink()
    assert toy(*command).returncode == 0
    assert_whole(RunDir(small_disk / "run"))


def test_wherever_the_disk_fills_up_it_is_a_disk_error_and_nothing_is_published(small_disk: Path) -> None:
    """The worker's files, its result, the copy of its log, stage.json: with each page more, it comes further."""
    ends = []
    for free_pages in range(24):
        run = RunDir(small_disk / "run")
        ballast = fill(small_disk, free_pages)
        try:
            execute(make_task(steps=30), run, run_inline, ignore, ignore)
            ends.append("done")
        except DiskError as error:
            ends.append("full" if "No space left on device" in error.message and not run.folders() else "wrong")
        ballast.unlink()
        assert execute(make_task(steps=30), run, run_inline, ignore, ignore).damage(rehash=True) == []
        assert_tidy(run)
        shutil.rmtree(run.root)
    assert ends == ["full"] * ends.index("done") + ["done"] * (24 - ends.index("done"))
    assert ends.index("done") > 5


def test_a_read_only_disk_exits_74_but_finished_work_is_still_found(small_disk: Path, recipe: Path) -> None:
    run = small_disk / "run"
    assert ftcli("run", recipe, "--run", run, "--in-process").code == 0
    subprocess.run([MOUNT, "-o", "remount,ro", str(small_disk)], check=True)
    again = ftcli("run", recipe, "--run", run)
    assert (again.code, again.err) == (0, "make: cached\njoin: cached\n")
    assert ftcli("make", "--run", run, "--steps", "1").err == "make: cached\n"
    assert ftcli("verify", "--run", run).code == 0
    for command in (
        ["make", "--run", run, "--text", "new"],
        ["run", recipe, "--run", run, "--set", "make.text=new"],
        ["run", recipe, "--run", small_disk / "other"],
    ):
        refused = ftcli(*command)
        assert refused.code == 74
        assert "Read-only file system" in refused.err


# ---- where a run directory lies


@pytest.mark.usefixtures("toy_stages")
@pytest.mark.parametrize("name", ["with spaces", "ünïcode-数据", "colon:and:lock:"])
def test_a_run_directory_may_be_moved_between_stages(tmp_path: Path, name: str) -> None:
    assert ftcli("make", "--run", tmp_path / "first", "--in-process").code == 0
    moved = tmp_path / name
    (tmp_path / "first").rename(moved)
    joined = toy("join", "--run", moved, "--data", "make.data")
    assert joined.returncode == 0, joined.stderr
    assert Path(joined.stdout.strip()).is_relative_to(moved)
    assert ftcli("verify", "--run", moved).code == 0
    assert ftcli("make", "--run", moved).err == "make: cached\n"


@pytest.mark.usefixtures("toy_stages")
def test_a_linked_run_directory_works_like_the_folder_itself(tmp_path: Path) -> None:
    (tmp_path / "disk2").mkdir()
    (tmp_path / "run").symlink_to("disk2")
    assert ftcli("make", "--run", tmp_path / "run", "--in-process").code == 0
    assert ftcli("make", "--run", tmp_path / "disk2").err == "make: cached\n"
    assert ftcli("join", "--run", tmp_path / "run", "--in-process").code == 0
    assert ftcli("verify", "--run", tmp_path / "run").code == 0


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o077, 0o600, 0o700), (0o022, 0o644, 0o755)])
def test_published_modes_follow_the_umask_whatever_the_stage_did(
    tmp_path: Path, umask: int, file_mode: int, folder_mode: int
) -> None:
    before = os.umask(umask)
    try:
        item = execute(make_task(), RunDir(tmp_path / "run"), run_inline, ignore, ignore)
    finally:
        os.umask(before)
    files = {path.name: path.stat().st_mode & 0o777 for path in item.path.rglob("*") if path.is_file()}
    assert set(files.values()) == {file_mode}
    assert "private" in files
    assert "stage.json" in files
    assert {path.stat().st_mode & 0o777 for path in (item.path, item.output("data"))} == {folder_mode}


# ---- damage


@pytest.mark.usefixtures("toy_stages")
def test_a_truncated_stage_json_exits_76_and_names_it(tmp_path: Path) -> None:
    assert ftcli("make", "--run", tmp_path, "--in-process").code == 0
    (manifest,) = tmp_path.glob("stages/make/*[0-9a-f]/stage.json")
    manifest.write_bytes(manifest.read_bytes()[:100])
    for command in ("make", "status", "lineage", "verify"):
        found = ftcli(command, "--run", tmp_path)
        assert found.code == 76, command
        assert str(manifest if command != "verify" else manifest.relative_to(tmp_path)) in found.err
        assert "no valid JSON" in found.err
    shutil.move(manifest.parent, tmp_path / "away")  # what the hint says
    assert ftcli("make", "--run", tmp_path, "--in-process").code == 0


def test_an_output_without_its_stage_json_is_named_by_verify_and_made_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    item = execute(make_task(), run, run_inline, ignore, ignore)
    (item.path / "stage.json").unlink()
    assert ftcli("verify", "--run", tmp_path).code == 76
    assert execute(make_task(), run, run_inline, ignore, ignore).damage(rehash=True) == []
    assert_tidy(run)


@pytest.mark.usefixtures("toy_stages")
def test_an_output_whose_files_were_deleted_is_made_again_and_the_reason_said(tmp_path: Path) -> None:
    assert ftcli("make", "--run", tmp_path, "--in-process").code == 0
    (tmp_path / "stages/make/latest/data/train.jsonl").unlink()
    refused = ftcli("join", "--run", tmp_path, "--data", "make.data")
    assert refused.code == 76
    assert "data/train.jsonl: missing" in refused.err
    again = ftcli("make", "--run", tmp_path, "--in-process")
    assert again.code == 0
    assert "make: run (its output is damaged: data/train.jsonl: missing)" in again.err
    assert_whole(RunDir(tmp_path))
    assert_tidy(RunDir(tmp_path))
