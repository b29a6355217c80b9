"""The run directory: immutable published outputs, work that survives a crash, and the one way from the second to the first.

    <run>/run.json                    index for people, rebuilt from the stage.json files
    <run>/stages/<id>/<fp12>/         published: declared outputs, metrics.jsonl, log.txt, sealed by stage.json
    <run>/stages/<id>/latest          link to the newest
    <run>/.work/<id>-<fp12>/          out/ being written, scratch/ with checkpoints; dropped once that is published
    <run>/human/desk.sqlite           questions to people and their answers, only appended to (`ftcli.human.store`)
    <run>/.work/<id>.lock             held with flock, so the kernel drops it when its holder dies

A reader sees a whole published output or none: the folder appears by one rename, after everything in it is on disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ftcli.core.artifacts import digest_records, file_records, fsync_path, fsync_tree, put_in_place, write_json
from ftcli.core.errors import Busy, Corrupt, UsageError, disk_errors

SCHEMA = 1
MANIFEST = "stage.json"
FP12 = re.compile(r"[0-9a-f]{12}")


def serve_command(desk: Path) -> str:
    """What opens the desk of a run to people: the hint of a stage that waits for them."""
    run, here = desk.parents[1], Path.cwd()
    return f"ftcli serve --run {shlex.quote(str(run.relative_to(here) if run.is_relative_to(here) else run))}"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Published:
    """A published output of a stage, as its stage.json tells it."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.manifest["id"])

    def output(self, name: str) -> Path:
        return self.path / name

    def damage(self, *, rehash: bool = False) -> list[str]:
        """What is not as recorded: files that are missing or of another size, and with ``rehash`` also files with other
        content, files that were added, and a stage.json that was edited."""
        recorded: dict[str, Any] = self.manifest["files"]
        found = []
        for name, record in recorded.items():
            path = self.path / name
            if not path.is_file():
                found.append(f"{name}: missing")
            elif path.stat().st_size != record["size"]:
                found.append(f"{name}: {path.stat().st_size} bytes, recorded {record['size']}")
        return found + (self._changed(recorded) if rehash else [])

    def _changed(self, recorded: dict[str, Any]) -> list[str]:
        found = []
        for name, record in file_records(self.path).items():
            if name not in recorded and name != MANIFEST:
                found.append(f"{name}: not recorded")
            elif name in recorded and record["size"] == recorded[name]["size"] and record != recorded[name]:
                found.append(f"{name}: content changed")
        return found if self.manifest.get("seal") == _seal(self.manifest) else [*found, f"{MANIFEST}: content changed"]


@dataclass(frozen=True)
class Work:
    """Where a stage works: ``out`` is empty at every start, ``scratch`` keeps what an earlier try left."""

    path: Path

    @property
    def out(self) -> Path:
        return self.path / "out"

    @property
    def scratch(self) -> Path:
        return self.path / "scratch"


class RunDir:
    """One run directory. Reading never writes; `lock`, `begin` and `publish` are for the controller alone."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        existing = next(path for path in (self.root, *self.root.parents) if path.exists())
        if not existing.is_dir():
            raise UsageError(f"{root}: a run directory is needed, {existing} is a file", "name another with --run")
        self._stages = self.root / "stages"
        self._work = self.root / ".work"
        self.desk = self.root / "human" / "desk.sqlite"

    # ---- reading

    def published(self, id: str, fp12: str) -> Published | None:
        """The output of stage ``id`` with that fingerprint, or None. Raises `Corrupt` if its stage.json cannot be read."""
        path = self._stages / id / fp12
        if not (path / MANIFEST).is_file():
            return None
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise Corrupt(
                f"{path / MANIFEST}: no valid JSON ({error})", f"move {path} away; the stage then runs again"
            ) from None
        schema = manifest.get("schema") if isinstance(manifest, dict) else None
        if schema != SCHEMA:
            raise Corrupt(
                f"{path / MANIFEST}: schema {schema}, this ftcli reads {SCHEMA}", "use the ftcli version that wrote it"
            )
        return Published(path, manifest)

    def latest(self, id: str) -> Published | None:
        """The output that ``latest`` points to; where a copy of the run lost that link, the one that ended last."""
        link = self._stages / id / "latest"
        if link.is_symlink() and (item := self.published(id, Path(os.readlink(link)).name)):
            return item
        found = [item for path in self._folders(id) if (item := self.published(id, path.name))]
        return max(found, key=lambda item: str(item.manifest["ended"]), default=None)

    def ids(self) -> list[str]:
        """Ids with a published output: in the order of run.json, then others by name."""
        found = {path.name for path in self._stages.iterdir() if path.is_dir()} if self._stages.is_dir() else set()
        order = [id for id in self.index().get("order", []) if id in found]
        return order + sorted(found - set(order))

    def all_latest(self) -> list[Published]:
        return [item for id in self.ids() if (item := self.latest(id))]

    def all_published(self) -> list[Published]:
        """Every published output, also those that a newer one replaced."""
        return [item for path in self.folders() if (item := self.published(path.parent.name, path.name))]

    def folders(self) -> list[Path]:
        """The folder of every published output, whether or not its stage.json can be read."""
        return [path for id in self.ids() for path in self._folders(id)]

    def _folders(self, id: str) -> list[Path]:
        parent = self._stages / id
        return sorted(path for path in parent.iterdir() if FP12.fullmatch(path.name)) if parent.is_dir() else []

    def index(self) -> dict[str, Any]:
        """run.json, or an empty index when it is lost or torn: it holds nothing that cannot be rebuilt."""
        try:
            loaded = json.loads((self.root / "run.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return {}
        return loaded if isinstance(loaded, dict) and isinstance(loaded.get("order"), list) else {}

    def pending(self) -> dict[str, Path]:
        """Work that began and was not published: ``{id-fp12: folder}``."""
        found = sorted(self._work.iterdir()) if self._work.is_dir() else []
        return {path.name: path for path in found if path.is_dir() and not path.name.startswith(".")}

    # ---- writing

    @contextmanager
    def lock(self, id: str, *, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold stage ``id`` of this run. If another process has it, raise `Busy` naming the holder; with ``waiting``, tell
        it the holder and wait."""
        self._work.mkdir(parents=True, exist_ok=True)
        path = self._work / f"{id}.lock"
        with path.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                if waiting is None:
                    raise Busy(
                        f"{self.root}: stage {id} is being worked on by {holder}",
                        "wait for it: the same command with --wait",
                    ) from None
                waiting(holder)
                fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {now()}")
            file.flush()
            yield

    def begin(self, id: str, fp12: str) -> Work:
        """The work folder of that fingerprint with an empty ``out`` and whatever ``scratch`` an earlier try left."""
        work = Work(self._work / f"{id}-{fp12}")
        if work.out.exists():
            shutil.rmtree(work.out)
        work.out.mkdir(parents=True)
        work.scratch.mkdir(exist_ok=True)
        return work

    def publish(
        self, work: Work, id: str, fp12: str, outputs: Mapping[str, str], manifest: Mapping[str, Any]
    ) -> Published:
        """Seal ``work.out`` and put it in place; ``outputs`` maps each declared output to its kind.

        Order matters: everything is on disk before stage.json says so, and stage.json is on disk before the rename. A
        damaged or superseded output of the same fingerprint changes places with the new one, and is dropped with the work.
        """
        fsync_tree(work.out)
        files = file_records(work.out)
        sealed = {
            "schema": SCHEMA,
            "id": id,
            **manifest,
            "outputs": {name: _output_record(name, kind, files) for name, kind in outputs.items()},
            "files": files,
        }
        sealed["seal"] = _seal(sealed)
        write_json(work.out / MANIFEST, sealed)
        target = self._stages / id / fp12
        target.parent.mkdir(parents=True, exist_ok=True)
        put_in_place(work.out, target)
        for folder in (target.parent, self._stages, self.root):
            fsync_path(folder)
        item = Published(target, sealed)
        self.settle(item)
        return item

    def is_settled(self, item: Published) -> bool:
        """Whether `settle` has nothing to do."""
        link = item.path.parent / "latest"
        points_here = link.is_symlink() and os.readlink(link) == item.path.name
        return points_here and not self._leftovers(item) and not (self._work / f"{item.id}-{item.path.name}").exists()

    def _leftovers(self, item: Published) -> list[Path]:
        return [*item.path.parent.glob(".latest.*"), *self._work.glob(f".dropped-{item.id}-{'?' * 12}-*")]

    def settle(self, item: Published) -> None:
        """Make ``item`` the latest of its stage and drop the work that led to it; work on other settings stays.

        Also run on a cache hit, since a crash may have come between the rename and this.
        """
        link = item.path.parent / "latest"
        if link.is_dir() and not link.is_symlink():  # a copy that followed links made a folder of it
            shutil.rmtree(link)
        if not link.is_symlink() or os.readlink(link) != item.path.name:
            temporary = link.with_name(f".latest.{os.getpid()}")
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(item.path.name)
            os.replace(temporary, link)
            fsync_path(link.parent)
        work = self._work / f"{item.id}-{item.path.name}"
        if work.exists():  # renamed first: half a checkpoint must never be found by a later start
            os.rename(work, self._work / f".dropped-{work.name}-{os.getpid()}")
        for left in self._leftovers(item):
            left.unlink() if left.is_symlink() else shutil.rmtree(left)

    def write_index(self, name: str, order: list[str]) -> None:
        """Record the run's name and the order of its stages."""
        if _merged(self.index(), name, order) == self.index():
            return
        with disk_errors(self.root), self.lock(".index", waiting=lambda holder: None):
            for left in self.root.glob(".run.json.*.tmp"):
                left.unlink()
            write_json(self.root / "run.json", _merged(self.index(), name, order))


def _merged(index: Mapping[str, Any], name: str, order: list[str]) -> dict[str, Any]:
    known = [id for id in index.get("order", []) if id not in order]
    return {"schema": SCHEMA, "name": name, "created": index.get("created") or now(), "order": [*order, *known]}


def _seal(manifest: Mapping[str, Any]) -> str:
    """A digest over the rest of stage.json, so that an edit of it is found."""
    rest = {key: value for key, value in manifest.items() if key != "seal"}
    return "sha256:" + hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _output_record(name: str, kind: str, files: Mapping[str, Any]) -> dict[str, Any]:
    prefix = f"{name}/"
    own = {path.removeprefix(prefix): record for path, record in files.items() if path.startswith(prefix)}
    if not own:
        raise RuntimeError(f"the stage wrote nothing to its output {name!r}")
    return {"kind": kind, "digest": digest_records(own), "bytes": sum(record["size"] for record in own.values())}
