"""The run directory: immutable published outputs, work that survives a crash, and the one way from the second to the first.

    <run>/run.json                    index for people, rebuilt from the stage.json files
    <run>/stages/<id>/<fp12>/         published: declared outputs, metrics.jsonl, log.txt, sealed by stage.json
    <run>/stages/<id>/latest          link to the newest
    <run>/.work/<id>-<fp12>/          out/ being written, scratch/ with checkpoints; dropped after publishing
    <run>/.work/<id>.lock             held with flock, so the kernel drops it when its holder dies

A reader sees a whole published output or none: the folder appears by one rename, after everything in it is on disk.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ftcli.core.artifacts import digest_records, file_records, fsync_path, fsync_tree, write_json
from ftcli.core.errors import Busy, Corrupt, UsageError

SCHEMA = 1
MANIFEST = "stage.json"


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
        """What is not as recorded: ``missing``, ``size`` or (with ``rehash``) ``content``, and files that were added."""
        recorded: dict[str, Any] = self.manifest["files"]
        found = []
        for name, record in recorded.items():
            path = self.path / name
            if not path.is_file():
                found.append(f"{name}: missing")
            elif path.stat().st_size != record["size"]:
                found.append(f"{name}: {path.stat().st_size} bytes, recorded {record['size']}")
        if rehash and not found:
            actual = file_records(self.path)
            found = [
                f"{name}: content changed" for name in recorded if actual[name]["sha256"] != recorded[name]["sha256"]
            ]
            found += [f"{name}: not recorded" for name in actual if name not in recorded and name != MANIFEST]
        return found


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
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"{root}: a run directory is needed, this is a file", "name another folder with --run")
        self._stages = self.root / "stages"
        self._work = self.root / ".work"

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
        if manifest.get("schema") != SCHEMA:
            raise Corrupt(
                f"{path / MANIFEST}: schema {manifest.get('schema')}, this ftcli reads {SCHEMA}",
                "use the ftcli version that wrote it",
            )
        return Published(path, manifest)

    def latest(self, id: str) -> Published | None:
        link = self._stages / id / "latest"
        return self.published(id, os.readlink(link)) if link.is_symlink() else None

    def ids(self) -> list[str]:
        """Ids with a published output: in the order of run.json, then others by name."""
        found = {path.name for path in self._stages.iterdir()} if self._stages.is_dir() else set()
        order = [id for id in self.index().get("order", []) if id in found]
        return order + sorted(found - set(order))

    def all_latest(self) -> list[Published]:
        return [item for id in self.ids() if (item := self.latest(id))]

    def all_published(self) -> list[Published]:
        """Every published output, also those that a newer one replaced."""
        found = []
        for id in self.ids():
            for path in sorted((self._stages / id).iterdir()):
                if not path.is_symlink() and (item := self.published(id, path.name)):
                    found.append(item)
        return found

    def index(self) -> dict[str, Any]:
        """run.json, or an empty index when it is lost or torn: it holds nothing that cannot be rebuilt."""
        try:
            loaded = json.loads((self.root / "run.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return loaded if isinstance(loaded, dict) else {}

    def pending(self) -> dict[str, Path]:
        """Work that began and was not published: ``{id-fp12: folder}``."""
        found = sorted(self._work.glob("*-*/")) if self._work.is_dir() else []
        return {path.name: path for path in found if path.is_dir()}

    # ---- writing

    @contextmanager
    def lock(self, id: str, *, wait: bool = False) -> Iterator[None]:
        """Hold stage ``id`` of this run. Raises `Busy` naming the holder, unless ``wait``."""
        self._work.mkdir(parents=True, exist_ok=True)
        path = self._work / f"{id}.lock"
        with path.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise Busy(
                    f"{self.root}: stage {id} is being worked on by {holder}",
                    "wait for it: the same command with --wait",
                ) from None
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

    def set_aside(self, item: Published) -> None:
        """Take a damaged or superseded output out of the way of a new one with the same fingerprint."""
        trash = self._work / f"old-{item.id}-{item.path.name}-{os.getpid()}"
        self._work.mkdir(parents=True, exist_ok=True)
        os.rename(item.path, trash)
        shutil.rmtree(trash)

    def publish(
        self, work: Work, id: str, fp12: str, outputs: Mapping[str, str], manifest: Mapping[str, Any]
    ) -> Published:
        """Seal ``work.out`` and put it in place; ``outputs`` maps each declared output to its kind.

        Order matters: everything is on disk before stage.json says so, and stage.json is on disk before the rename.
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
        write_json(work.out / MANIFEST, sealed)
        target = self._stages / id / fp12
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(work.out, target)
        fsync_path(target.parent)
        item = Published(target, sealed)
        self.settle(item)
        return item

    def settle(self, item: Published) -> None:
        """Make ``item`` the latest of its stage and drop what is left of work on that stage.

        Also run on a cache hit, since a crash may have come between the rename and this.
        """
        link = item.path.parent / "latest"
        if not link.is_symlink() or os.readlink(link) != item.path.name:
            temporary = link.with_name(f".latest.{os.getpid()}")
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(item.path.name)
            os.replace(temporary, link)
            fsync_path(link.parent)
        for left in [*self._work.glob(f"{item.id}-????????????"), *self._work.glob(f"old-{item.id}-????????????-*")]:
            shutil.rmtree(left)

    def write_index(self, name: str, order: list[str]) -> None:
        """Record the run's name and the order of its stages."""
        index = self.index()
        merged = [*order, *(id for id in index.get("order", []) if id not in order)]
        fresh = {"schema": SCHEMA, "name": name, "created": index.get("created", now()), "order": merged}
        if fresh != index:
            self.root.mkdir(parents=True, exist_ok=True)
            write_json(self.root / "run.json", fresh)


def _output_record(name: str, kind: str, files: Mapping[str, Any]) -> dict[str, Any]:
    prefix = f"{name}/"
    own = {path.removeprefix(prefix): record for path, record in files.items() if path.startswith(prefix)}
    if not own:
        raise RuntimeError(f"the stage wrote nothing to its output {name!r}")
    return {"kind": kind, "digest": digest_records(own), "bytes": sum(record["size"] for record in own.values())}
