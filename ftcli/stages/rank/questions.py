"""From samples.jsonl to what people are asked: the answers of each prompt, and the task that holds them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ftcli.core.errors import BadData, UsageError
from ftcli.core.stage import Artifact, Context
from ftcli.data.pairs import prompt_key
from ftcli.data.rows import SPLITS, Message, Row, read_jsonl
from ftcli.human.tasks import Candidate, Item, Task, to_json
from ftcli.stages.rank.config import RankConfig


@dataclass
class Questions:
    """``items`` in the order in which they were drawn; ``rows`` gives the id of each one's first row.

    ``prompts = items + one_answer + other_splits + not_drawn``, and ``answers`` of the items' prompts are their candidates,
    ``repeated`` ones of the same model, and those ``not_shown`` since a prompt has more than are ordered at once.
    """

    items: list[Item] = field(default_factory=list)
    rows: dict[str, str] = field(default_factory=dict)
    prompts: int = 0
    one_answer: int = 0
    other_splits: int = 0
    not_drawn: int = 0
    repeated: int = 0
    not_shown: int = 0

    @property
    def shown(self) -> list[Item]:
        """Those that people are asked about: of the others all answers are the same text."""
        return [item for item in self.items if item.shown]

    def counts(self) -> dict[str, int]:
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        return {**numbers, "items": len(self.items), "identical": len(self.items) - len(self.shown)}


@dataclass
class _Prompt:
    """One prompt of all files: where it is held out in one of them it is held out."""

    row: str
    messages: list[Message]
    split: str
    answers: list[Candidate] = field(default_factory=list)


def read_questions(ctx: Context[RankConfig]) -> Questions:
    """Raises `BadData` where nothing can be asked, `UsageError` where two files have answers of models of one name."""
    config, found = ctx.config, Questions()
    prompts = list(_prompts(ctx.many("samples")).values())
    found.prompts = len(prompts)
    asked = [prompt for prompt in prompts if prompt.split in config.splits]
    found.other_splits = len(prompts) - len(asked)
    random.Random(f"{config.seed}/prompts").shuffle(asked)
    for prompt in asked:
        unlike = list({(one.source, one.id): one for one in reversed(prompt.answers)}.values())[::-1]
        item = _item(config, prompt, unlike)
        if len(unlike) < 2:
            found.one_answer += 1
        elif config.prompts is not None and len(found.items) == config.prompts:
            found.not_drawn += 1
        else:
            found.items.append(item)
            found.rows[item.id] = prompt.row
            found.repeated += len(prompt.answers) - len(unlike)
            found.not_shown += len(unlike) - len(item.candidates)
    if not found.items:
        raise BadData(
            f"no prompt with two answers to compare, of {found.prompts} prompts: {found.other_splits} are of other splits than "
            f"{', '.join(config.splits)}, {found.one_answer} have one answer or the same one again",
            "sample more answers with samples_per_prompt, or of several models with its input others",
        )
    return found


def task_of(config: RankConfig, items: Sequence[Item]) -> Task:
    """The task with these ``items``. Its id is a digest of all that graders are asked, so that the same questions are one task."""
    task = Task(
        id="",
        kind="rank",
        title="Which answer is better?" if max(len(item.distinct) for item in items) < 3 else "Order the answers",
        guidelines=config.guidelines,
        criteria=config.criteria,
        overlap=config.overlap,
        repeat_share=config.repeat_share,
        seed=config.seed,
        wanted=config.overlap * sum(item.shown for item in items),
    )
    content = "\n".join([to_json(task), *(to_json(item) for item in items)])
    return replace(task, id=f"rank-{_digest(content)[:12]}")


def held_out_prompts(items: Sequence[Item]) -> dict[str, list[str]]:
    """SHA-256 of the prompts (`ftcli.data.pairs.prompt_key`) of each held-out split."""
    return {
        split: sorted(_digest(prompt_key({"prompt": item.prompt})) for item in items if item.split == split)
        for split in SPLITS
        if split != "train"
    }


def _prompts(files: Sequence[Artifact]) -> dict[str, _Prompt]:
    found: dict[str, _Prompt] = {}
    told: dict[str, str] = {}
    for file in files:
        for row in _read(file):
            prompt = found.setdefault(prompt_key(row), _Prompt(row["id"], row["prompt"], row["split"]))
            prompt.split = max(prompt.split, row["split"], key=SPLITS.index)
            for answer in row["answers"]:
                source = answer.get("model", file.label)
                if told.setdefault(source, file.label) != file.label:
                    raise UsageError(
                        f"input samples: {told[source]} and {file.label} both have answers of {source}",
                        "give the models labels that differ where they are sampled, or join them in one sample stage",
                    )
                prompt.answers.append(Candidate.of(answer["text"], source))
    return found


def _read(file: Artifact) -> Iterator[Row]:
    path = file.path / "samples.jsonl"
    if not path.is_file():
        raise BadData(f"{file.path}: no samples.jsonl", "samples come from `ftcli sample`")
    for number, row in enumerate(read_jsonl(path), start=1):
        if not _is_sample(row):
            raise BadData(
                f"{path}:{number}: an object with id, split, prompt and answers, each with its text, is needed",
                "samples come from `ftcli sample`",
            )
        yield row


def _is_sample(row: Row) -> bool:
    try:
        texts = [row["id"], *(answer["text"] for answer in row["answers"])]
        texts += [text for message in row["prompt"] for text in (message["role"], message["content"])]
        texts += [answer["model"] for answer in row["answers"] if "model" in answer]
        return row["split"] in SPLITS and all(isinstance(text, str) for text in texts)
    except (KeyError, TypeError):
        return False


def _item(config: RankConfig, prompt: _Prompt, unlike: Sequence[Candidate]) -> Item:
    key = prompt_key({"prompt": prompt.messages})
    candidates = _drawn(unlike, config.answers_per_prompt, random.Random(f"{config.seed}/{key}"))
    id = _digest("\n".join([key, *sorted({candidate.id for candidate in candidates})]))[:16]
    return Item(id, prompt.messages, tuple(candidates), split=prompt.split)


def _drawn(answers: Sequence[Candidate], count: int, rng: random.Random) -> list[Candidate]:
    """``count`` of the answers, drawn so that no model has two more than another that has some left; in their first order."""
    places = rng.sample(range(len(answers)), len(answers))
    turn: dict[str, int] = {}
    order = []
    for place in places:
        source = answers[place].source
        turn[source] = turn.get(source, -1) + 1
        order.append((turn[source], place))
    order.sort(key=lambda item: item[0])  # stable: within a turn the models come at random
    return [answers[place] for place in sorted(place for _, place in order[:count])]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
