"""PPO here and with TRL 1.12.0, the last release that has it: samples a second and memory; with --learn, what is learnt.

    python -m benchmarks.ppo --model smollm2 --rounds 3
    python -m benchmarks.ppo --learn --seeds 3

TRL is installed into a virtual environment of its own under --venvs, with our versions of everything else. Each run is a process
of its own, and sides take turns, so that a ratio is of two runs made one after another. Both get the same prompts in token ids,
sample the same number of tokens (no token ends a response), and take the same number of optimizer steps on the same number of
responses; the script stops where prompts, tokens or steps differ. Start-up and the first update do not count.

Sides:
  ftcli            LoRA adapters for policy, critic and reward on one frozen base, the critic started from the reward
  ftcli-head-only  the critic is a head on the policy's hidden states: what a small machine should take; less work, said so
  trl              LoRA for the policy; critic and reward are models of their own, the critic trained whole, as in TRL's example
  trl-lora-critic  the same, but of the critic only an adapter and the head are trained: as many trained weights as ours

All weights are bfloat16 where the processor multiplies it, what is trained with LoRA is float32 (rank 16 on every linear layer).
TRL's critic that is trained whole is bfloat16 too, which flatters its memory. Memory is the peak of the process, loading included.
Ours runs with the environment that `ftcli` gives its workers, TRL with none.

--learn trains all weights of a tiny Llama on three rules, in float32 and with the same settings on both sides. TRL takes no
reward function, so the rule is given to it in the shape of a reward model.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pydoc_data.topics import topics
from statistics import mean, median
from typing import Any

from benchmarks.ppo_job import EOS, RULES, Job, Meter, digests

ROOT = Path(__file__).resolve().parent.parent
SEED = 42
TORCH = "torch==2.13.0"
TRL = "trl==1.12.0"
SIDES = {
    "ftcli": "reward",
    "ftcli-head-only": "head_only",
    "trl": "lora",
    "trl-lora-critic": "lora-critic",
}
"""The mode of each side's job."""
PHASES = {"gen": "perf/time_gen", "reward": "perf/time_reward", "score": "perf/time_score", "train": "perf/time_train"}
TASKS = {"even": (25, 16), "ctx": (60, 8), "len": (40, 16)}
"""Updates and response length of the learning tasks; an update learns from 64 responses."""


# Our side, in a process of its own ---------------------------------------------------------------------------------------


def write_tiny(folder: Path, seed: int = SEED) -> None:
    """A Llama of two layers with random weights; it has no tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=EOS,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def write_reward(model: Path, folder: Path) -> None:
    """A reward model of random weights on ``model``."""
    import torch

    from ftcli.models.heads import random_head, save_head
    from ftcli.models.load import load_base, pick_dtype, save_adapter
    from ftcli.training.adapters import add_lora

    device = torch.device("cpu")
    adapted = add_lora(load_base(model, pick_dtype("auto", device), device), r=16, alpha=32)
    generator = torch.Generator().manual_seed(SEED)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.01
    folder.mkdir()
    save_adapter(adapted, folder)
    save_head(folder, random_head(adapted.config.hidden_size, SEED))


def load_roles(job: Job) -> Any:
    """As the ppo stage loads them: a fresh policy adapter, so that the bare base is the reference."""
    import torch

    from ftcli.models.heads import ScalarHead
    from ftcli.models.load import load_base
    from ftcli.rl.roles import FullRoles, lora_roles
    from ftcli.training.adapters import add_lora

    dtype, device = torch.bfloat16 if job.bf16 else torch.float32, torch.device("cpu")
    torch.manual_seed(job.seed)
    if job.mode == "full":
        policy, reference, value = (load_base(Path(job.model), dtype, device) for _ in range(3))
        return FullRoles(policy, reference, value, ScalarHead(policy.config.hidden_size))
    model = add_lora(load_base(Path(job.model), dtype, device, packing=True), r=16, alpha=32)
    return lora_roles(model, is_fresh=True, value_init=job.mode, reward=Path(job.reward))  # type: ignore[arg-type]


def load_trainer(job: Job) -> Any:
    from ftcli.rl.ppo import PpoSettings, PpoTrainer
    from ftcli.rl.rewards import Scores
    from ftcli.rl.rollout import Sampling
    from ftcli.rl.sequences import Exchange, Prompt

    roles = load_roles(job)

    def score(exchanges: Sequence[Exchange]) -> Scores:
        if job.rule:
            found = [RULES[job.rule](one.prompt, one.response) for one in exchanges]
        else:
            found = roles.reward_model(0).score_exchanges(exchanges, 32)
        return Scores(found, {"reward": list(found)})

    settings = PpoSettings(
        total_rollouts=job.updates,
        rollout_batch_size=job.rollouts,
        num_ppo_epochs=job.epochs,
        num_mini_batches=1,
        micro_batch_size=job.micro_batch,
        learning_rate=job.learning_rate,
        critic_learning_rate=job.learning_rate,
        lr_scheduler_type="constant",
        kl_coef=job.kl_coef,
        missing_eos_penalty=0.0,
        early_stop_approxkl=None,  # TRL has none, and it would save us steps
        seed=job.seed,
    )
    stops = frozenset() if job.stop_id is None else frozenset({job.stop_id})
    prompts = [Prompt(ids) for ids in job.prompts]
    return PpoTrainer(roles, score, prompts, settings, Sampling(stops, 0, job.response_length))


def work(job: Job, record: Path) -> None:
    meter = Meter()
    trainer = load_trainer(job)
    meter.lap()
    while not trainer.is_done:
        metrics = trainer.step()
        meter.lap()
        meter.seen += digests(one.prompt for one in trainer.last.exchanges)
        meter.tokens += int(trainer.last.measured.mask.sum())
        meter.scores.append(float(metrics["objective/scores"]))
        meter.phases.append({name: float(metrics[key]) for name, key in PHASES.items()})
    meter.write(record, trainer.optimizer)


# Runs --------------------------------------------------------------------------------------------------------------------


class Failed(Exception):
    """A side ended without a record; the message is the end of its log."""


def install(folder: Path) -> Path:
    """The Python of TRL's environment, made on the first call. Raises `Failed` where pip does."""
    python, mark = folder / "bin" / "python", folder / "installed.txt"
    ours = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    versions = "\n".join(line for line in ours if not line.startswith(("trl==", "torch=="))) + "\n"
    if mark.is_file() and mark.read_text(encoding="utf-8") == TRL + "\n" + versions:
        return python
    print(f"installing {TRL} into {folder} (a few minutes, about 2 GB)", file=sys.stderr)
    venv.create(folder, clear=True, with_pip=True)
    constraints = folder / "constraints.txt"
    constraints.write_text(versions, encoding="utf-8")
    for what in ([TORCH], ["-c", str(constraints), TRL, "peft"]):
        command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *what]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    mark.write_text(TRL + "\n" + versions, encoding="utf-8")
    return python


@dataclass(frozen=True)
class Bench:
    """Where runs are made: a scratch folder, TRL's Python (None: not asked for), and the threads of each."""

    folder: Path
    trl: Path | None
    threads: int

    def run(self, side: str, job: Job) -> dict[str, Any]:
        """The record of one run (`ppo_job.Meter.write`). Raises `Failed`."""
        from ftcli.launch.environment import DEFAULTS

        place = Path(tempfile.mkdtemp(dir=self.folder))
        job.write(place / "job.json")
        ours = side.startswith("ftcli")
        python, module = (sys.executable, "benchmarks.ppo") if ours else (str(self.trl), "benchmarks.ppo_trl")
        command = [python, "-P", "-m", module, *(["work"] if ours else []), "job.json", "record.json"]
        environment = {
            **(DEFAULTS if ours else {}),
            **os.environ,
            "OMP_NUM_THREADS": str(self.threads),
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "TRL_EXPERIMENTAL_SILENCE": "1",
            "PYTHONPATH": str(ROOT),
        }
        with (place / "log.txt").open("w") as log:
            code = subprocess.run(command, stdout=log, stderr=log, env=environment, cwd=place, check=False).returncode
        if code or not (place / "record.json").is_file():
            raise Failed(f"{' '.join(command)}\nended with {code}:\n{(place / 'log.txt').read_text()[-4000:]}")
        record: dict[str, Any] = json.loads((place / "record.json").read_text(encoding="utf-8"))
        if record["threads"] != self.threads:
            raise Failed(f"{side} computed with {record['threads']} threads, not {self.threads}")
        return record


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    """How two runs did not do the same work; None if they did."""
    if ours["prompts"] != theirs["prompts"]:
        return f"{len(theirs['prompts'])} prompts that are not our {len(ours['prompts'])}"
    for name in ("tokens", "optimizer_steps"):
        if ours[name] != theirs[name]:
            return f"{theirs[name]} {name.replace('_', ' ')}, ours {ours[name]}"
    return None


def summary(record: dict[str, Any], rollouts: int) -> dict[str, Any]:
    """Rates and phases of all updates but the first."""
    count = len(record["wall"]) - 1
    return {
        "samples_per_s": rollouts * count / sum(record["wall"][1:]),
        "samples_per_cpu_s": rollouts * count / sum(record["cpu"][1:]),
        "phases": {name: mean(phases[name] for phases in record["phases"][1:]) for name in record["phases"][0]},
        **{name: record[name] for name in ("peak_gib", "tokens", "optimizer_steps", "trainable", "wall")},
        "prompts": len(record["prompts"]),
    }


# Speed and memory --------------------------------------------------------------------------------------------------------


def chat_prompts(model: Path, count: int) -> list[list[int]]:
    """Questions of 6 to 30 words of Python's manual under the model's chat template."""
    from ftcli.data.chat import render_prompt
    from ftcli.models.load import load_tokenizer

    tokenizer, generator = load_tokenizer(model), random.Random(SEED)
    words = re.findall(r"[A-Za-z']{1,20}", " ".join(topics.values()))
    texts = [" ".join(generator.choices(words, k=generator.randint(6, 30))) for _ in range(count)]
    return [render_prompt(tokenizer, [{"role": "user", "content": f"{text}?"}]) for text in texts]


def tiny_prompts(count: int, seed: int) -> list[list[int]]:
    """Two to six ids, neither padding nor end of turn."""
    generator = random.Random(seed)
    return [[generator.randrange(2, 32) for _ in range(generator.randint(2, 6))] for _ in range(count)]


def speed_job(options: argparse.Namespace, folder: Path) -> Job:
    from ftcli.models.load import pick_device, pick_dtype
    from ftcli.pipeline.fetch import demo_model

    count = options.updates * options.rollouts
    if options.model == "tiny":
        model, prompts = folder / "tiny", tiny_prompts(count, SEED)
        write_tiny(model)
    else:
        model = demo_model("smollm2", fetch=True)[0] if options.model == "smollm2" else Path(options.model).resolve()
        prompts = chat_prompts(model, count)
    write_reward(model, folder / "reward")
    return Job(
        mode="",
        model=str(model),
        prompts=prompts,
        updates=options.updates,
        rollouts=options.rollouts,
        response_length=options.response_length,
        epochs=2,
        micro_batch=options.micro_batch,
        learning_rate=1e-5,
        kl_coef=0.05,
        seed=SEED,
        bf16=pick_dtype("auto", pick_device()).itemsize == 2,
        reward=str(folder / "reward"),
    )


def compare_speed(bench: Bench, job: Job, sides: Sequence[str], rounds: int) -> dict[str, list[dict[str, Any]]]:
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(rounds * len(sides)):
        side = sides[number % len(sides)]
        record = bench.run(side, replace(job, mode=SIDES[side]))
        if side == sides[0]:
            ours = record
        wrong = difference(ours, record)
        if wrong:
            raise Failed(f"{side}: {wrong}")
        run = summary(record, job.rollouts)
        results[side].append(run)
        phases = ", ".join(f"{name} {seconds:.2f}" for name, seconds in run["phases"].items())
        print(
            f"{side}: {run['samples_per_s']:.2f} samples/s, {run['samples_per_cpu_s']:.3f} per CPU-s, "
            f"{run['peak_gib']:.2f} GiB, seconds an update: {phases}",
            file=sys.stderr,
            flush=True,
        )
    return results


def spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def speed_table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: medians, and how many times as fast and as large as the first side each run is, turn by turn."""
    first = next(iter(results.values()))
    heads = "| | samples/s | first side is faster: wall | CPU | peak GiB | its share of that "
    heads += "| gen | reward | score | train | trained weights | prompts | tokens | optimizer steps |"
    lines = [heads, "| --- " + "| ---: " * 13 + "|"]
    for side, runs in results.items():
        ratios = [
            spread([own[rate] / run[rate] for own, run in zip(first, runs, strict=True)])
            for rate in ("samples_per_s", "samples_per_cpu_s")
        ]
        share = spread([own["peak_gib"] / run["peak_gib"] for own, run in zip(first, runs, strict=True)])
        seconds = [
            f"{median(run['phases'][name] for run in runs):.2f}" if name in runs[0]["phases"] else "-"
            for name in PHASES
        ]
        rate, peak = (median(run[name] for run in runs) for name in ("samples_per_s", "peak_gib"))
        last = runs[-1]
        lines.append(
            f"| {side} | {rate:.2f} | {' | '.join(ratios)} | {peak:.2f} | {share} | {' | '.join(seconds)} "
            f"| {last['trainable']:,} | {last['prompts']} | {last['tokens']:,} | {last['optimizer_steps']} |"
        )
    return "\n".join(lines)


# Learning ----------------------------------------------------------------------------------------------------------------


def learning_job(rule: str, folder: Path, seed: int) -> Job:
    updates, response_length = TASKS[rule]
    model = folder / f"tiny-{seed}"
    if not model.is_dir():
        write_tiny(model, seed)
    return Job(
        mode="full",
        model=str(model),
        prompts=tiny_prompts(256, seed),
        updates=updates,
        rollouts=64,
        response_length=response_length,
        epochs=4,
        micro_batch=32,
        learning_rate=1e-3,
        kl_coef=0.01,
        seed=seed,
        bf16=False,
        rule=rule,
        stop_id=EOS,
    )


def compare_learning(bench: Bench, tasks: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    """Mean score of the first and of the last five updates, of each task, seed and side."""
    cases = []
    for rule in tasks:
        for seed in range(seeds):
            job = learning_job(rule, bench.folder, seed)
            for side in ("ftcli", "trl") if bench.trl else ("ftcli",):
                record = bench.run(side, job)
                if record["optimizer_steps"] != job.updates * job.epochs:
                    raise Failed(f"{side} took {record['optimizer_steps']} optimizer steps")
                scores = record["scores"]
                case = {"task": rule, "seed": seed, "side": side, "episodes": job.updates * job.rollouts}
                case |= {"before": scores[0], "after": mean(scores[-5:]), "seconds": sum(record["wall"])}
                cases.append(case | {"scores": scores})
                print({name: case[name] for name in case if name != "scores"}, file=sys.stderr, flush=True)
    return cases


def learning_table(cases: Sequence[dict[str, Any]]) -> str:
    lines = ["| task | episodes | side | first update | last five, by seed | mean | seconds |"]
    lines.append("| --- | ---: | --- | ---: | --- | ---: | ---: |")
    for task, side in dict.fromkeys((case["task"], case["side"]) for case in cases):
        runs = [case for case in cases if (case["task"], case["side"]) == (task, side)]
        each = " ".join(f"{run['after']:.3f}" for run in runs)
        before, after, seconds = (mean(run[name] for run in runs) for name in ("before", "after", "seconds"))
        lines.append(
            f"| {task} | {runs[0]['episodes']:,} | {side} | {before:.3f} | {each} | {after:.3f} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="tiny, smollm2 (the built-in model), or a model folder")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs; sides take turns")
    parser.add_argument("--updates", type=int, default=4, help="of each run; the first does not count")
    parser.add_argument("--rollouts", type=int, default=16, help="responses an update learns from")
    parser.add_argument("--response-length", type=int, default=24)
    parser.add_argument("--micro-batch", type=int, default=8, help="responses trained on at once, on both sides")
    parser.add_argument("--sides", nargs="+", choices=[*SIDES], default=[*SIDES], help="the first is compared with")
    parser.add_argument("--learn", action="store_true", help="compare what is learnt instead of speed")
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS], default=[*TASKS], help="of --learn")
    parser.add_argument("--seeds", type=int, default=3, help="of --learn")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--venvs", type=Path, default=Path.home() / ".cache" / "ftcli-bench")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    options = parser.parse_args()
    if options.updates < 2:
        parser.error("--updates: at least 2, since the first does not count")
    if options.rollouts % options.micro_batch:
        parser.error("--micro-batch must divide --rollouts: TRL has no other batches")
    with tempfile.TemporaryDirectory() as folder:
        try:
            needs_trl = options.learn or any(side.startswith("trl") for side in options.sides)
            trl = install(options.venvs / "trl-ppo") if needs_trl else None
            bench = Bench(Path(folder), trl, options.threads)
            results: Any
            if options.learn:
                results = compare_learning(bench, options.tasks, options.seeds)
                print(learning_table(results))
            else:
                job = speed_job(options, bench.folder)
                results = compare_speed(bench, job, options.sides, options.rounds)
                print(speed_table(results))
        except Failed as error:
            sys.exit(str(error))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(Job.read(Path(sys.argv[2])), Path(sys.argv[3]))
    else:
        main()
