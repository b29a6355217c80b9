"""``ftcli chat``: talk to a model in the terminal, or to two of them side by side."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftcli.cli.inputs import find, newest, stage_of
from ftcli.core.errors import Corrupt, UsageError
from ftcli.core.rundir import RunDir
from ftcli.core.stage import Artifact, Kind
from ftcli.launch.environment import DEFAULTS, ENVIRONMENT, OFFLINE
from ftcli.pipeline.references import default_label, external
from ftcli.pipeline.resolve import from_outside, from_published

if TYPE_CHECKING:
    from ftcli.models.chat import Speaker

BASE = "base"


def chat(
    run: Annotated[Path, typer.Option("--run", help="Run directory.", envvar="FTCLI_RUN")] = Path("runs/default"),
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="A stage of the run (lora), one of its outputs (lora.model), demo:name, hf:org/name or a model folder."
            "  [default: the newest model in the run]",
            metavar="REF",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare",
            help="A second model that answers too; base: the adapter's base, or the model that a whole model was trained from.",
            metavar="REF|base",
        ),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="System message.", metavar="TEXT")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    seed: Annotated[
        int, typer.Option(help="Seed of the samples: the same seed and messages give the same answers.")
    ] = 42,
    messages: Annotated[
        list[str] | None,
        typer.Option(
            "--message", help="Send this, print the answer and leave. Repeatable: one conversation.", metavar="TEXT"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --message: print JSON.")] = False,
) -> None:
    """Talk to a model, with the chat template and stop tokens that it was trained with.

    Answers go to stdout while they are written, everything else to stderr. Lines may also come from a pipe.

    Example:

      ftcli chat --run runs/quickstart --model lora --compare base
    """
    if not math.isfinite(temperature):
        raise UsageError(f"--temperature {temperature}: a number of 0 or more is needed")
    if as_json and not messages:
        raise UsageError("--json prints a conversation when it is over", "say what to send: --message TEXT")
    directory = RunDir(run)
    chosen = _newest(directory) if model is None else _find(directory, "--model", model)
    artifacts = [chosen]
    if compare is not None:
        artifacts = [
            _trained_from(directory, chosen) if compare == BASE else _find(directory, "--compare", compare),
            chosen,
        ]
    print("\n".join(f"{item.label}: {item.ref}" for item in artifacts), file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries say to their own callers
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        speakers = _load(artifacts)
    from ftcli.cli.conversation import Conversation, Sampling, answer_lines, talk
    from ftcli.cli.screen import Screen

    conversation = Conversation(speakers, Sampling(temperature, max_new_tokens, seed), system)
    screen = Screen([item.name for item in speakers], silent=as_json)
    if not messages:
        (talk if sys.stdin.isatty() and sys.stdout.isatty() else answer_lines)(conversation, screen)
        return
    turns = [
        {"message": text, "answers": [vars(answer) for answer in conversation.ask(text, screen)]} for text in messages
    ]
    if as_json:
        models = [{"name": item.label, "ref": item.ref} for item in artifacts]
        print(json.dumps({"models": models, "system": system, "turns": turns}, indent=2))


def _newest(run: RunDir) -> Artifact:
    found = newest(run, Kind.MODEL)
    if found is None:
        raise UsageError(f"{run.root} holds no model", "train one, or name one: --model demo:smollm2")
    return from_published(*found, Kind.MODEL, found[0].id)


def _find(run: RunDir, option: str, text: str) -> Artifact:
    item = stage_of(run, text)
    return find(run, option, text, Kind.MODEL, item.id if item else default_label(text))


def _trained_from(run: RunDir, tuned: Artifact) -> Artifact:
    """The base of an adapter; for a whole model that a stage of this run made, the model that the stage began with."""
    if tuned.base is not None:
        return replace(tuned.base, label=BASE)
    record = _input_model(run, tuned)
    ref = str(record["ref"])
    try:
        if ref.startswith("stages/"):
            _, id, fp12, output = ref.split("/")
            item = run.published(id, fp12)
            if item is None:
                raise UsageError(f"{run.root / ref} is gone")
            found = from_published(item, output, Kind.MODEL, BASE)
        else:
            found = from_outside(external(Path.cwd(), Kind.MODEL, ref).ref, Kind.MODEL, BASE)
    except UsageError as error:
        raise UsageError(f"--compare base: {error.message}", "name a model: --compare REF") from None
    if found.digest != record["digest"]:
        raise Corrupt(f"{ref} is not what {tuned.ref} was trained from: it has changed since", "name it: --compare REF")
    return found


def _input_model(run: RunDir, tuned: Artifact) -> dict[str, Any]:
    """What stage.json keeps of the model that ``tuned`` was trained from."""
    if tuned.ref.startswith("stages/"):
        _, id, fp12, _ = tuned.ref.split("/")
        item = run.published(id, fp12)
        inputs = item.manifest["inputs"] if item else {}
        records = [record for records in inputs.values() for record in records if record["kind"] == Kind.MODEL]
        if len(records) == 1:
            return dict(records[0])
    raise UsageError(
        f"--compare base: nothing says which model {tuned.ref} was trained from", "name a model: --compare REF"
    )


def _load(artifacts: list[Artifact]) -> list[Speaker]:
    """The models, ready to answer; an adapter and its base share their weights."""
    os.environ.update({**DEFAULTS, **os.environ, **ENVIRONMENT, **OFFLINE})  # before a library reads them
    from ftcli.data.chat import stop_token_ids
    from ftcli.models.chat import Speaker
    from ftcli.models.load import load_model, load_tokenizer_of, pick_device, pick_dtype

    device = pick_device()
    dtype = pick_dtype("auto", device)
    tuned = artifacts[-1]
    speakers: list[Speaker] = []
    for item in reversed(artifacts):
        shared = tuned.base is not None and item.digest == tuned.base.digest
        model = speakers[0].model if shared else load_model(item, dtype, device)
        tokenizer = load_tokenizer_of(item)
        stop_ids = stop_token_ids(tokenizer, model.generation_config.eos_token_id)
        speakers.append(Speaker(item.label, model, tokenizer, stop_ids, adapter_off=shared))
    return speakers[::-1]
