"""The commands serve and votes, as a user runs them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.request import urlopen

import pytest

from ftcli.human.store import Store
from tests.cli.in_process import ftcli
from tests.human.conftest import pair, rank_task, vote

ROOT = Path(__file__).parents[2]
PAIRS = [pair(number) for number in range(4)]
LINK = re.compile(r"^(\w+) +(\d+) to judge  (http://127\.0\.0\.1:(\d+)/login\?t=[\w-]{22})$")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    store = Store(tmp_path / "run" / "human" / "desk.sqlite")
    store.publish(rank_task(repeat_share=0.0), PAIRS)
    store.close()
    return tmp_path / "run"


def start(run: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "ftcli", "serve", "--run", str(run), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )


@pytest.mark.enable_socket
def test_serve_prints_a_link_for_each_grader_answers_and_stops_on_an_interrupt(run: Path) -> None:
    with start(run, "--port", "0", "--graders", "ann,bob", "--overlap", "2") as process:
        assert process.stdout is not None
        links = [LINK.match(process.stdout.readline().rstrip()) for _ in range(2)]
        assert [link and link[1] for link in links] == ["ann", "bob"]
        assert [link and link[2] for link in links] == ["4", "4"]
        assert links[0]
        assert links[1]
        assert links[0][3] != links[1][3]
        with urlopen(links[0][3], timeout=60) as answer:
            assert "HttpOnly" in answer.headers["Set-Cookie"]
            assert f"ftcli_desk_{links[0][4]}=" in answer.headers["Set-Cookie"]
        second = subprocess.run(
            [sys.executable, "-m", "ftcli", "serve", "--run", str(run), "--port", "0"],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert second.returncode == 5
        assert f"its desk is open already, in process {process.pid} on" in second.stderr
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "")
        assert "ann: 0 of 4 judged: Which answer is better?" in err
        assert "Traceback" not in err


@pytest.mark.enable_socket
def test_a_public_desk_warns_and_is_heard_under_the_names_of_this_machine_alone(run: Path) -> None:
    with start(run, "--port", "0", "--graders", "ann", "--host", "0.0.0.0", "--i-know-this-is-public") as process:
        assert process.stdout is not None
        link = process.stdout.readline().split()[-1]
        assert link.startswith(f"http://{socket.gethostname()}:")
        port = int(link.split(":")[2].partition("/")[0])
        seen = {}
        for host in (f"{socket.gethostname()}:{port}", "evil.example"):
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/", headers={"Host": host})
            seen[host.partition(":")[0]] = connection.getresponse().status
            connection.close()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert seen == {socket.gethostname(): 401, "evil.example": 421}
    assert "others on the network can reach this desk, and nothing that is sent is encrypted" in err


@pytest.mark.enable_socket
def test_a_killed_desk_leaves_the_run_free_for_the_next(run: Path) -> None:
    for _ in range(2):
        with start(run, "--port", "0", "--graders", "ann") as process:
            assert process.stdout is not None
            assert LINK.match(process.stdout.readline().rstrip())
            process.kill()


@pytest.mark.enable_socket
def test_a_taken_port_is_named(run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        called = ftcli("serve", "--run", run, "--port", str(port))
    assert called.code == 2
    assert f"--port {port}: Address already in use" in called.err
    assert "--port, or 0 for any" in called.err


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::"])
def test_an_address_that_others_can_reach_needs_a_second_flag(run: Path, host: str) -> None:
    called = ftcli("serve", "--run", run, "--host", host)
    assert called.code == 2
    assert "--i-know-this-is-public" in called.err


@pytest.mark.parametrize(
    ("graders", "message"),
    [("ann,", "''"), ("ann,<b>", "'<b>'"), ("=cmd", "'=cmd'"), ("a" * 65, "1 to 64"), ("ann,ann", "one name twice")],
)
def test_a_name_that_no_grader_can_have_is_refused(run: Path, graders: str, message: str) -> None:
    called = ftcli("serve", "--run", run, "--graders", graders)
    assert called.code == 2
    assert message in called.err


@pytest.mark.parametrize("command", [("serve",), ("votes", "--export", "x")])
def test_a_run_that_asks_nothing_is_said_to(tmp_path: Path, command: tuple[str, ...]) -> None:
    called = ftcli(*command, "--run", tmp_path / "empty")
    assert called.code == 2
    assert "no stage of this run asks people anything yet" in called.err
    assert not (tmp_path / "empty").exists()


def test_votes_go_out_of_one_run_and_into_another(run: Path, tmp_path: Path) -> None:
    store = Store(run / "human" / "desk.sqlite")
    store.judge(vote(PAIRS[0]))
    called = ftcli("votes", "--run", run, "--export", tmp_path / "v.jsonl")
    assert (called.code, called.out.strip()) == (0, str(tmp_path / "v.jsonl"))
    other = Store(tmp_path / "other" / "human" / "desk.sqlite")
    other.publish(rank_task(repeat_share=0.0), PAIRS)
    called = ftcli("votes", "--run", tmp_path / "other", "--import", tmp_path / "v.jsonl")
    assert (called.code, "1 new judgements, 0 that stood already" in called.err) == (0, True)
    assert other.judgements("rank-1") == store.judgements("rank-1")


def test_sheets_are_written_and_read(run: Path, tmp_path: Path) -> None:
    called = ftcli("votes", "--run", run, "--sheets", tmp_path / "out", "--graders", "ann,bob", "--overlap", "2")
    assert called.out.split() == [str(tmp_path / "out" / f"1-rank-{name}.csv") for name in ("ann", "bob")]
    path = tmp_path / "out" / "1-rank-ann.csv"
    text = path.read_text(encoding="utf-8-sig")
    path.write_text(text.replace(",,\n", ",A,\n", 1))
    called = ftcli("votes", "--run", run, "--import", path)
    assert (called.code, "1 new judgements, 0 that stood already, 3 left blank" in called.err) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "needs one of --export, --sheets and --import"),
        (("--export", "a", "--sheets", "b"), "needs one of"),
        (("--export", "a", "--graders", "ann"), "go with --sheets"),
        (("--import", "nope.csv"), "nope.csv: no such file"),
    ],
)
def test_votes_says_what_it_needs(run: Path, arguments: tuple[str, ...], message: str) -> None:
    called = ftcli("votes", "--run", run, *arguments)
    assert (called.code, message in called.err) == (2, True)
