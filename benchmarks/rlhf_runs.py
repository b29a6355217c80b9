"""The runs and pictures of docs/rlhf.md: two that go well, through the command line, and some that go wrong.

    python -m benchmarks.rlhf_runs --folder /tmp/rlhf                  # all of it; a second call does only what is missing
    python -m benchmarks.rlhf_runs --folder /tmp/rlhf --only wrong     # first, learned, wrong or pictures

``first`` is SmolLM2-135M-Instruct against a Python function, ``learned`` the same model against a reward that was learned from
rankings made by a rule, both driven as a user would with `ftcli`. ``wrong`` is a random two-layer model, small enough that a
broken run takes a minute; two of its runs switch off what ftcli does not let a user switch off. ``pictures`` draws docs/rlhf/.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).resolve().parent.parent / "docs" / "rlhf"
MODEL = "demo:smollm2"
Metrics = dict[str, Any]

REWARDS = '''\
"""What the runs of docs/rlhf.md reward."""

VERBS = set(
    "add append apply build call change check clear close compare compute convert copy create decode define delete "
    "determine encode execute find format generate get give handle import initialize insert iterate join list load look "
    "make map match move open parse perform print process produce provide put raise read register remove replace "
    "represent retrieve return run save search send set split start stop store test update use wait write".split()
)


def text_of(completion):
    return completion[-1]["content"].strip()


def begins(completions):
    """1 for an answer that begins with "The Python"."""
    return [float(text_of(one).startswith("The Python")) for one in completions]


def style(completions):
    """The style of docstrings: one half for a verb as the first word, one half for a full stop at the end."""
    return [0.5 * _is_verb(text_of(one)) + 0.5 * text_of(one).endswith(".") for one in completions]


def _is_verb(text):
    first = (text.split() or [""])[0].lower()
    return first in VERBS or first.removesuffix("s") in VERBS or first.removesuffix("es") in VERBS
'''


# Through the command line


def ftcli(stage: str, run: Path, **settings: Any) -> Path:
    """Run a stage with the flags ``settings``; return the folder of its first output."""
    flags = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    print(f"ftcli {stage} --run {run} {' '.join(flags)}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "ftcli", stage, "--run", str(run), *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return Path(done.stdout.strip().splitlines()[-1])


def first(folder: Path) -> None:
    """A whole model, a new adapter on it, and a function that looks at the first two words."""
    run = prepared(folder)
    ftcli(
        "ppo",
        run,
        id="first",
        model=MODEL,
        data="prep.data",
        reward_func=folder / "rewards.py:begins",
        total_episodes=448,
        rollout_batch_size=32,
        num_mini_batches=1,
        micro_batch_size=32,
        response_length=4,
        learning_rate=3e-4,
        critic_learning_rate=1e-4,
        lr_scheduler_type="constant",
        kl_coef=0.02,
        value_init="head_only",
        missing_eos_penalty=0,
    )


def learned(folder: Path) -> None:
    """Samples of an adapter, ranked by a rule; a reward from the rankings; PPO against it, judged by the rule."""
    run = prepared(folder)
    ftcli(
        "lora",
        run,
        model=MODEL,
        data="prep.data",
        max_steps=15,
        global_batch_size=8,
        learning_rate=1e-3,
        max_length=128,
        eval_rows=16,
    )
    samples = ftcli(
        "sample",
        run,
        model="lora.model",
        data="prep.data",
        train_prompts=150,
        validation_prompts=1,
        samples_per_prompt=4,
        max_new_tokens=24,
        batch_size=80,
    )
    write_rankings(folder, samples / "samples.jsonl")
    ftcli("prep", run, id="rankings", source=folder / "rankings.jsonl", model=MODEL, validation_share=0.3, test_share=0)
    ftcli(
        "reward",
        run,
        model="lora.model",
        data="rankings.data",
        global_batch_size=4,
        learning_rate=5e-4,
        max_length=192,
    )
    ftcli(
        "ppo",
        run,
        model="lora.model",
        reward="reward.reward",
        data="prep.data",
        eval_func=folder / "rewards.py:style",
        total_episodes=320,
        rollout_batch_size=32,
        micro_batch_size=16,
        response_length=24,
        learning_rate=3e-4,
        lr_scheduler_type="constant",
        eval_steps=5,
        value_init="head_only",
        lam=1.0,
        missing_eos_penalty=0,
    )


def prepared(folder: Path) -> Path:
    (folder / "rewards.py").write_text(REWARDS, encoding="utf-8")
    run = folder / "run"
    ftcli("prep", run, source="pydoc:stdlib", model=MODEL, limit=900)
    return run


def write_rankings(folder: Path, samples: Path) -> None:
    """One ranking for each train prompt whose answers the rule tells apart; equal scores are ties."""
    rule: dict[str, Any] = {}
    exec(REWARDS, rule)
    lines, left_out = [], 0
    for line in samples.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        texts = list(dict.fromkeys(answer["text"] for answer in record["answers"]))
        scores = rule["style"]([[{"role": "assistant", "content": text}] for text in texts])
        if record["split"] != "train" or len(set(scores)) < 2:
            left_out += 1
            continue
        lines.append(json.dumps({"prompt": record["prompt"], "responses": texts, "scores": scores}))
    (folder / "rankings.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} rankings; {left_out} prompts left out, most with answers of one score", file=sys.stderr)


# A random model, to see what breaks

PAD, EOS = 0, 1
Rule = Callable[[Sequence[Any]], list[float]]


class Broken(NamedTuple):
    """A run of the small model: what it changes of `USUAL`, and what it rewards."""

    changed: Mapping[str, Any]
    rule: str = "share"
    rollouts: int = 30
    response_length: int = 16
    head_rate: float | None = None
    """Learning rate of the critic's head, past ftcli's limit."""
    has_k3: bool = False
    """The KL in the reward is estimated by k3, which ftcli refuses."""


USUAL = {
    "rollout_batch_size": 64,
    "micro_batch_size": 32,
    "learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "kl_coef": 0.05,
    "missing_eos_penalty": 0.0,
    "early_stop_approxkl": None,
}
RUNS: dict[str, Broken] = {
    "healthy": Broken({}),
    "no_kl": Broken({"kl_coef": 0.0}, rollouts=45),
    "fast": Broken({"learning_rate": 1e-1}),
    "fast_stopped": Broken({"learning_rate": 1e-1, "early_stop_approxkl": 0.1}),
    "critic": Broken({"critic_learning_rate": 1e-2}, head_rate=0.1),
    "count": Broken({}, "count", response_length=56),
    "count_mended": Broken({}, response_length=56),
    "shuffled": Broken({}, "shuffled"),
    "shuffled_penalty": Broken({"missing_eos_penalty": 1.0}, "shuffled"),
    "k1": Broken({"kl_coef": 0.2}),
    "k3": Broken({"kl_coef": 0.2}, has_k3=True),
}


def share_of_even(exchange: Any) -> float:
    content = [token for token in exchange.response if token > EOS]
    return sum(token % 2 == 0 for token in content) / max(len(content), 1)


def rules(seed: int) -> dict[str, Rule]:
    order = random.Random(seed)

    def share(exchanges: Sequence[Any]) -> list[float]:
        return [share_of_even(one) for one in exchanges]

    def count(exchanges: Sequence[Any]) -> list[float]:
        return [share_of_even(one) * len(one.response) / 16 for one in exchanges]

    def shuffled(exchanges: Sequence[Any]) -> list[float]:
        return order.sample(share(exchanges), len(exchanges))

    return {"share": share, "count": count, "shuffled": shuffled}


def metrics_of(folder: Path, name: str, seed: int) -> Path:
    return folder / f"wrong-{seed}" / f"{name}.jsonl"


def wrong(folder: Path, seed: int) -> None:
    for name, broken in RUNS.items():
        path = metrics_of(folder, name, seed)
        if path.is_file():
            continue
        started = time.monotonic()
        found = train(broken, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in found), encoding="utf-8")
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def train(broken: Broken, seed: int) -> list[Metrics]:
    """The metrics of each rollout, with the true share of even tokens and what the guards said."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ftcli.core.errors import Diverged
    from ftcli.models.heads import ScalarHead
    from ftcli.rl.guards import Guards
    from ftcli.rl.ppo import PpoSettings, PpoTrainer
    from ftcli.rl.rewards import Scores
    from ftcli.rl.roles import FullRoles
    from ftcli.rl.rollout import Sampling
    from ftcli.rl.sequences import Prompt

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    shape = {"vocab_size": 32, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 64}
    tokens = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None, "tie_word_embeddings": False}
    policy = LlamaForCausalLM(LlamaConfig(**shape, **heads, **tokens)).eval()
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 7, (256,), generator=generator).tolist()
    prompts = [Prompt(torch.randint(2, 32, (length,), generator=generator).tolist()) for length in lengths]
    rule = rules(seed)[broken.rule]

    def score(exchanges: Sequence[Any]) -> Scores:
        values = rule(exchanges)
        return Scores(values, {"rule": list(values)})

    settings = PpoSettings(total_rollouts=broken.rollouts, seed=seed, **(USUAL | dict(broken.changed)))
    roles = FullRoles(policy, copy.deepcopy(policy), copy.deepcopy(policy), ScalarHead(64))
    guards, found = Guards(score_std=1.0), []
    with k3_in_the_reward(broken.has_k3):
        trainer = PpoTrainer(roles, score, prompts, settings, Sampling(frozenset({EOS}), PAD, broken.response_length))
        if broken.head_rate:
            trainer.optimizer.param_groups[-1]["peak_lr"] = broken.head_rate
        while not trainer.is_done:
            try:
                metrics = dict(trainer.step())
            except Diverged as error:
                found.append({"ended": str(error)})
                break
            assert trainer.last is not None
            exchanges = trainer.last.exchanges
            true = sum(map(share_of_even, exchanges)) / len(exchanges)
            alarms = [f"{alarm.name}: {alarm.text}" for alarm in guards.look(metrics)]
            found.append({**metrics, "true": true, "alarms": alarms})
    return found


@contextmanager
def k3_in_the_reward(is_on: bool) -> Iterator[None]:
    from ftcli.rl import kl, ppo

    before = ppo.k1
    try:
        if is_on:
            ppo.k1 = kl.k3
        yield
    finally:
        ppo.k1 = before


# Pictures

Points = list[tuple[float, float | None]]
COLOURS = {
    "ink": "#1b1d20",
    "muted": "#63686f",
    "line": "#e2e4e6",
    "accent": "#2a5db0",
    "base": "#8a9099",
    "series1": "#c2631a",
    "series2": "#1d7a46",
    "series3": "#8646a6",
    "series4": "#b5382a",
}
"""Of the reports' light page; a file has its own ground, so it needs no dark one."""
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif"
COLUMNS, CELL, EDGE = 3, (316.8, 151.2), 14.0
SCORE = ("Score", "objective/scores")
KL = ("KL to the start, nats a response", "objective/kl")
ENTROPY = ("Entropy, nats a token", "policy/entropy_avg")
LENGTH = ("Length, tokens", "rollout/length_mean")
EXPLAINED = ("Explained variance", "val/explained_variance")
ENDED = ("Share that ended by themselves", "rollout/eos_rate")
CLIPPED = ("Share of clipped ratios", "policy/clipfrac_avg")
UPDATE = ("KL of an update, nats a token", "policy/approxkl_avg")
LOSS = ("Critic's loss, power of ten", "loss/value_avg")
TRUE = ("True score: share of even tokens", "true")
SHAPED = ("What is optimised: score, penalty, KL", "objective/rlhf_reward")
DISTINCT = ("Different token pairs, share", "rollout/distinct2")
FOLLOWS = ("Correlation of score and length", "rollout/score_length_corr")
SMALL: dict[str, tuple[dict[str, str], tuple[tuple[str, str], ...]]] = {
    "no-kl": ({"kl_coef 0.05": "healthy", "0": "no_kl"}, (SCORE, KL, ENTROPY, DISTINCT, LENGTH, EXPLAINED)),
    "fast-policy": (
        {"1e-3": "healthy", "1e-1": "fast", "1e-1, stopped early": "fast_stopped"},
        (SCORE, KL, ENTROPY, CLIPPED, UPDATE, LENGTH),
    ),
    "fast-critic": ({"held": "healthy", "too fast": "critic"}, (SCORE, KL, ENTROPY, LOSS, EXPLAINED, LENGTH)),
    "length": (
        {"a share": "count_mended", "a count": "count"},
        (SCORE, TRUE, LENGTH, FOLLOWS, ENDED, KL),
    ),
    "shuffled": (
        {"true": "healthy", "shuffled": "shuffled", "with penalty": "shuffled_penalty"},
        (SHAPED, TRUE, ENDED, LENGTH, KL, ENTROPY),
    ),
    "k3": ({"k1": "k1", "k3": "k3"}, (KL, SCORE, ENTROPY)),
}
"""Pictures of the small model: runs by their labels, and panels of title and metric."""


HELD_OUT = {"Score": "eval/score", "KL to the start, nats a response": "eval/kl"}
RULE = ("The rule, which is not optimised", "eval_reward/style")
LARGE: dict[str, tuple[tuple[str, str], ...]] = {
    "first": (SCORE, KL, ENTROPY, CLIPPED, UPDATE, LOSS),
    "ppo": (SCORE, RULE, KL, ENTROPY, LENGTH, EXPLAINED),
}
"""Stages of SmolLM2 and their panels; beside the rollouts stand the held-out prompts, where they were asked the same."""


def pictures(folder: Path, seed: int) -> None:
    DOCS.mkdir(exist_ok=True)
    for name, (runs, panels) in SMALL.items():
        series = {label: read(metrics_of(folder, run, seed)) for label, run in runs.items()}
        draw(DOCS / f"{name}.svg", [(title, curves(series, metric)) for title, metric in panels])
    for stage, panels in LARGE.items():
        lines = read(folder / "run" / "stages" / stage / "latest" / "metrics.jsonl")
        cells = []
        for title, metric in panels:
            found = curves({"held-out prompts" if metric == RULE[1] else "rollouts": lines}, metric)
            if title in HELD_OUT:
                found |= curves({"held-out prompts": lines}, HELD_OUT[title])
            cells.append((title, found))
        draw(DOCS / f"{'learned' if stage == 'ppo' else stage}.svg", cells)


def read(path: Path) -> list[Metrics]:
    """The lines of a metrics file, each with its ``step``."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{"step": number, **line} for number, line in enumerate(lines, start=1)]


def curves(series: Mapping[str, list[Metrics]], metric: str) -> dict[str, Points]:
    found: dict[str, Points] = {}
    for label, lines in series.items():
        points: Points = [(line["step"], line[metric]) for line in lines if metric in line]
        if metric == LOSS[1]:
            points = [(step, math.log10(value) if value else None) for step, value in points]
        found[label] = points
    return found


def draw(path: Path, panels: Sequence[tuple[str, Mapping[str, Points]]]) -> None:
    """Panels side by side in one file: colours written out, a ground of its own."""
    from ftcli.metrics.plots import Line, track

    width, height = CELL[0] + EDGE, CELL[1] + 40
    columns, rows = min(COLUMNS, len(panels)), -(-len(panels) // COLUMNS)
    parts = []
    for place, (title, found) in enumerate(panels):
        x, y = EDGE + place % columns * width, EDGE + place // columns * height
        lines = [Line(label, points, is_marked=label == "held-out prompts") for label, points in found.items()]
        svg = track(lines, x_label="rollout")
        for name, colour in COLOURS.items():
            svg = svg.replace(f"var(--{name})", colour)
        place_and_size = f'<svg x="{x:.1f}" y="{y + 20:.1f}" width="{CELL[0]}" height="{CELL[1]}" '
        parts.append(f'<text x="{x:.1f}" y="{y + 10:.1f}" font-size="11" font-weight="600">{title}</text>')
        parts.append(svg.replace("<svg ", place_and_size, 1))
    whole = f"{columns * width + EDGE:.0f}", f"{rows * height + EDGE:.0f}"
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole[0]}" height="{whole[1]}" '
        f'viewBox="0 0 {" ".join(whole)}" font-family="{FONT}" fill="{COLOURS["ink"]}">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{"".join(parts)}</svg>\n',
        encoding="utf-8",
    )


PARTS = ("first", "learned", "wrong", "pictures")


def main() -> None:
    parser = argparse.ArgumentParser(description="The runs and pictures of docs/rlhf.md.")
    parser.add_argument("--folder", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="of the small model's runs")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for part in given.only or PARTS:
        if part in ("wrong", "pictures"):
            {"wrong": wrong, "pictures": pictures}[part](given.folder, given.seed)
        else:
            {"first": first, "learned": learned}[part](given.folder)


if __name__ == "__main__":
    main()
