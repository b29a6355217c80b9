"""The command compare: two earlier results of eval against each other, from their figures alone. No model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ftcli.cli.flags import refused
from ftcli.core.config import parse
from ftcli.core.errors import BY_EXIT_CODE, UsageError
from ftcli.core.rundir import RunDir
from ftcli.metrics.rules import Rule
from ftcli.pipeline.yaml_lines import value_for
from ftcli.stages.eval.config import EvalConfig

FIGURES = "examples.json"


def compare(
    a: Annotated[
        Path,
        typer.Argument(
            help="The earlier result: a run directory, a stage's folder, a report folder, or its examples.json."
        ),
    ],
    b: Annotated[Path, typer.Argument(help="The later result.")],
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="LABEL|A=B",
            help="This model of both, or model A of the earlier with B of the later. Repeatable. [default: all in both]",
        ),
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option("--gate", metavar="RULE", help="A rule, such as '{metric: rougeL, max_drop: 0.01}'. Repeatable."),
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option("--fail-if", metavar="EXPRESSION", help='Such as "rougeL.delta < -0.01". Repeatable.'),
    ] = None,
    gate_mode: Annotated[
        str, typer.Option("--gate-mode", metavar="proven|non-inferior|point", help="How rules decide.")
    ] = "proven",
    strict: Annotated[
        bool, typer.Option("--strict", help="What cannot be decided is not evaluable (exit code 7).")
    ] = False,
    confidence: Annotated[float, typer.Option("--confidence", help="Of intervals.")] = 0.95,
    resamples: Annotated[int, typer.Option("--resamples", help="Bootstrap and permutation draws.")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", help="Of those draws.")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two results of eval, on the rows that both have: changes with intervals, what is proven, and gates.

    Rows are told apart by id. Figures that were computed differently (another tokenizer, number format, answer length) are
    named, not compared.

    Example:

      ftcli compare runs/monday runs/friday --model lora --fail-if "perplexity.ratio > 1.05"
    """
    from ftcli.stages.eval.compare import compare_results, comparison_text

    given: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed, "strict": strict}
    given |= {"gate_mode": gate_mode, "fail_if": fail_if or [], "gate": [value_for(Rule, text) for text in gate or []]}
    config, problems = parse(EvalConfig, given)
    if config is None:
        raise refused(problems)
    result, verdict = compare_results(figures_file(a), figures_file(b), models or [], config)
    print(json.dumps(result, indent=2) if as_json else comparison_text(result))
    if verdict is not None and verdict.exit_code:
        raise BY_EXIT_CODE[verdict.exit_code](verdict.fact()["message"])  # its hint is about eval's report


def figures_file(path: Path) -> Path:
    """The examples.json that ``path`` stands for. Raises `UsageError` if there is none or more than one."""
    if path.is_file():
        return path
    if (path / "stages").is_dir():
        found = [file for item in RunDir(path).all_latest() if (file := _of_stage(item.path)) is not None]
        if len(found) > 1:
            names = ", ".join(str(file.parent) for file in found)
            raise UsageError(f"{path}: it has several results of eval", f"name one of {names}")
        place = found[0] if found else None
    else:
        place = _of_stage((path / "latest").resolve() if (path / "latest").is_dir() else path)
    if place is None:
        raise UsageError(
            f"{path}: no result of eval", f"name a run directory with one, or a folder with {FIGURES} in it"
        )
    return place


def _of_stage(folder: Path) -> Path | None:
    return next((file for file in (folder / FIGURES, folder / "report" / FIGURES) if file.is_file()), None)
