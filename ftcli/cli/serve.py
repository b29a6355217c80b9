"""The command serve: the desk of one run, for a list of graders, until it is stopped."""

from __future__ import annotations

import fcntl
import getpass
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftcli.core.errors import Busy, UsageError
from ftcli.core.rundir import RunDir, now

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from ftcli.human.desk import Desk
    from ftcli.human.server import Graders

DESK = Path("human", "desk.sqlite")
PORT = 8321
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANY = ("0.0.0.0", "::")
STOP_S = 2


def serve(
    run: Annotated[Path, typer.Option("--run", help="Run directory.", envvar="FTCLI_RUN")] = Path("runs/default"),
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help=f"Port; 0 takes any free one.  [default: {PORT}, or a free one]"),
    ] = None,
    graders: Annotated[
        str | None,
        typer.Option(
            help="Who judges, with commas between: ann,bob. Each gets a link.  [default: your login name]",
            metavar="NAMES",
        ),
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(min=1, help="Graders who judge each item.  [default: what the stage asks for]")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.", metavar="ADDRESS")] = LOOPBACK[0],
    public: Annotated[
        bool, typer.Option("--i-know-this-is-public", help="Allow a --host that others on the network can reach.")
    ] = False,
) -> None:
    """Open the desk: a page where people rank answers and review rows for the stages of a run that wait for them.

    Votes are saved as they are given. Stop it with Ctrl-C; the same command goes on where everybody was.

    Example:

      ftcli serve --run runs/rlhf --graders ann,bob --overlap 2
    """
    if host not in LOOPBACK and not public:
        raise UsageError(
            f"--host {host}: others could reach the desk there, and what they send is not encrypted",
            "leave --host out and use a tunnel (ssh -L), or add --i-know-this-is-public",
        )
    from ftcli.human.desk import Desk
    from ftcli.human.server import Graders, build_app
    from ftcli.human.store import Store

    directory = RunDir(run)
    names = grader_names(graders)
    path = desk_file(directory)
    with _only_desk(directory), _listen(host, port) as listening:
        store = Store(path)
        desk = Desk(store, names, overlap)
        admitted = Graders(names)
        number = listening.getsockname()[1]
        app = build_app(desk, admitted, _host_names(host), cookie=f"ftcli_desk_{number}")
        _announce(desk, admitted, host, number)
        _serve(app, listening)
        _farewell(desk)
        store.close()


def desk_file(run: RunDir) -> Path:
    """Where the run keeps what people are asked. Raises `UsageError` if they are asked nothing."""
    path = run.root / DESK
    if not path.is_file():
        raise UsageError(
            f"{run.root}: no stage of this run asks people anything yet", "run a recipe with rank or review first"
        )
    return path


def grader_names(graders: str | None) -> list[str]:
    """The graders, each once. Raises `UsageError` for a name that no grader can have."""
    from ftcli.human.tasks import GRADER

    if graders is None:
        login = ""
        with suppress(OSError, KeyError):  # a user id without a name
            login = re.sub(r"[^\w.-]", "-", getpass.getuser())[:64]
        return [login or "grader"]
    names = [name.strip() for name in graders.split(",")]
    for name in names:
        if not GRADER.fullmatch(name):
            raise UsageError(
                f"--graders: {name!r}: 1 to 64 letters, digits, points, dashes and inner spaces are needed"
            )
    if len(set(names)) < len(names):
        raise UsageError("--graders: one name twice", "give each grader a name of their own")
    return names


@contextmanager
def _only_desk(run: RunDir) -> Iterator[None]:
    """Hold the run's desk. Raises `Busy`, which names the holder, if another process has it."""
    with (run.root / DESK.parent / "desk.lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise Busy(
                f"{run.root}: its desk is open already, in {holder}", "use the links that it printed, or stop it"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now()}")
        file.flush()
        yield


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket on that port; where none was asked for and the usual one is taken, on any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, PORT if port is None else port), family=family, backlog=128)
    except OSError as error:
        if port is None:
            with suppress(OSError):
                return socket.create_server((host, 0), family=family, backlog=128)
        raise UsageError(
            f"--host {host} --port {port}: {error.strerror}", "name another with --port, or 0 for any"
        ) from None


def _host_names(host: str) -> list[str]:
    """What a browser may call this server beside the names of loopback."""
    if host in LOOPBACK:
        return []
    return [_in_url(host), socket.gethostname(), socket.getfqdn()]


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _announce(desk: Desk, graders: Graders, host: str, port: int) -> None:
    name = socket.gethostname() if host in ANY else _in_url(host)
    width = max(len(grader) for grader in graders.tokens)
    for grader, token in graders.tokens.items():
        about = desk.tasks(grader)
        left = sum(one["total"] - one["done"] for one in about)
        print(f"{grader.ljust(width)}  {left} to judge  http://{name}:{port}/login?t={token}", flush=True)
    if host not in LOOPBACK:
        print(
            "warning: others on the network can reach this desk, and nothing that is sent is encrypted", file=sys.stderr
        )
    elif "SSH_CONNECTION" in os.environ:
        print(f"from your own machine: ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}", file=sys.stderr)
    print("Each link is for one person. Stop with Ctrl-C; votes are saved as they are given.", file=sys.stderr)


def _serve(app: ASGIApp, listening: socket.socket) -> None:
    """Answer until a signal; requests that are under way are finished first."""
    import uvicorn

    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_S,
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it has stopped
        uvicorn.Server(config).run(sockets=[listening])


def _farewell(desk: Desk) -> None:
    for grader in desk.graders:
        for one in desk.tasks(grader):
            print(f"{grader}: {one['done']} of {one['total']} judged: {one['title']}", file=sys.stderr)
