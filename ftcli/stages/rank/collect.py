"""Ask people to order answers and make data of what they say, top to bottom: samples -> questions -> desk -> judgements -> rows and
report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ftcli.core.artifacts import write_json
from ftcli.core.errors import NeedsHuman, UsageError
from ftcli.core.rundir import serve_command
from ftcli.core.stage import Context
from ftcli.data.rows import SPLITS, Row, write_jsonl
from ftcli.human.preference import wilson
from ftcli.human.tasks import Item, Judgement, Task
from ftcli.stages.rank.config import RankConfig
from ftcli.stages.rank.preferences import LEFT_OUT, Preferences, preferences
from ftcli.stages.rank.questions import Questions, held_out_prompts, read_questions, task_of
from ftcli.stages.rank.report import results_of, write_report
from ftcli.stages.rank.votes import publish, standing

HELD_OUT = "held_out_prompts.json"


def collect(ctx: Context[RankConfig]) -> None:
    """Raises `NeedsHuman` as long as judgements are missing; the questions are on the desk then."""
    config, votes = ctx.config, ctx.maybe("votes")
    questions = read_questions(ctx)
    task = task_of(config, questions.items)
    if config.min_judgements is not None and config.min_judgements > task.wanted:
        raise UsageError(
            f"min_judgements {config.min_judgements}: {len(questions.shown)} prompts, each judged {config.overlap} times, "
            f"give {task.wanted}",
            "lower it, raise overlap, or sample answers to more prompts",
        )
    if votes is not None and not votes.path.is_file():
        raise UsageError(f"input votes: {votes.ref} is no file", "name one JSONL file of judgements")
    judgements = standing(task, questions.items, votes.path if votes else None, ctx.desk)
    if not is_enough(config, questions.shown, judgements):
        if ctx.desk is not None:
            publish(ctx.desk, task, questions.items)
        raise NeedsHuman(missing(config, task, questions.shown, judgements), _how(ctx.desk))
    _say(ctx, questions)

    found = preferences(config, questions, judgements)
    for name, rows in (("pairs", found.rows), ("rankings", found.rankings)):
        _write(ctx.output(name), rows, questions)
    results = results_of(questions, task, judgements, found, seed=config.seed)
    write_report(ctx.output("report"), results, questions, judgements)
    _summarize(ctx, questions, judgements, found)


def is_enough(config: RankConfig, shown: Sequence[Item], judgements: Sequence[Judgement]) -> bool:
    """Whether there are ``min_judgements``, or each item was before ``overlap`` graders; one who skips it has had it too."""
    given = Counter(one.item for one in judgements if not one.is_repeat)
    if all(given[item.id] >= config.overlap for item in shown):
        return True
    return config.min_judgements is not None and counted(config, judgements) >= config.min_judgements


def counted(config: RankConfig, judgements: Sequence[Judgement]) -> int:
    """Judgements that count towards what is wanted: of one item no more than ``overlap``."""
    by_item = Counter(one.item for one in judgements if one.counts)
    return sum(min(count, config.overlap) for count in by_item.values())


def missing(config: RankConfig, task: Task, shown: Sequence[Item], judgements: Sequence[Judgement]) -> str:
    """How many judgements of how many there are, and how sure a win rate is with these and with all."""
    wanted = config.min_judgements or task.wanted
    items = len({one.item for one in judgements if one.counts})
    graders = len({one.grader for one in judgements})
    whose = f" of {graders} grader{'s' if graders > 1 else ''}" if graders else ""
    overlap = f" ({len(shown)} prompts, {config.overlap} graders each)" if config.overlap > 1 else ""
    now = f"with these a win rate has an interval of +-{_half_width(items):.2f}, " if items else ""
    return (
        f"rank: {counted(config, judgements)} of {wanted} judgements{whose}{overlap}; {now}"
        f"with all {len(shown)} prompts judged +-{_half_width(len(shown)):.2f}"
    )


def _half_width(n: int) -> float:
    """Half of the Wilson interval of a win rate of one half on n items, about the widest there is."""
    low, high = wilson(n // 2, n)
    return (high - low) / 2


def _how(desk: Path | None) -> str:
    if desk is None:
        return "give the judgements as a file: --votes FILE"
    return f"{serve_command(desk)} opens the desk; then run the same command again. Without people: the input votes"


def _say(ctx: Context[RankConfig], questions: Questions) -> None:
    counts = questions.counts()
    left = {
        "have one answer": counts["one_answer"],
        "are of other splits": counts["other_splits"],
        "were not drawn": counts["not_drawn"],
        "have only equal answers, a tie without being asked": counts["identical"],
    }
    told = ", ".join(f"{count} {what}" for what, count in left.items() if count)
    ctx.events.note(
        f"{len(questions.shown)} of {counts['prompts']} prompts asked about" + (f"; {told}" if told else "")
    )


def _write(folder: Path, rows: dict[str, list[Row]], questions: Questions) -> None:
    for split in SPLITS:
        write_jsonl(folder / f"{split}.jsonl", rows[split])
    write_json(folder / HELD_OUT, held_out_prompts(questions.items))


def _summarize(
    ctx: Context[RankConfig], questions: Questions, judgements: Sequence[Judgement], found: Preferences
) -> None:
    counts = found.counts()
    left = ", ".join(f"{counts[name]} {what}" for name, what in LEFT_OUT.items() if counts[name])
    per_split = ", ".join(f"{len(found.rows[split])} {split}" for split in SPLITS)
    ctx.events.note(f"{counts['pairs']} pairs ({per_split})" + (f"; without a winner: {left}" if left else ""))
    held_out = sum(map(len, held_out_prompts(questions.items).values()))
    if held_out:
        ctx.events.note(f"{held_out} of the prompts are held out: their pairs stay in validation and test")
    ctx.events.summarize(
        {
            **{f"rank/{name}": count for name, count in questions.counts().items()},
            **{f"rank/{name}": count for name, count in counts.items()},
            "rank/judgements": sum(one.counts for one in judgements),
            "rank/repeats": sum(one.is_repeat for one in judgements),
            "rank/skipped": sum(one.verdict == "skip" and not one.is_repeat for one in judgements),
            "rank/graders": len({one.grader for one in judgements}),
            "rank/held_out_prompts": held_out,
        }
    )
