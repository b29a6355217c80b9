"""One LoRA job with `ftcli lora`, `trl sft` and `llamafactory-cli train`: tokens a second of the training loop, and memory.

    python benchmarks/sft.py --model MODEL_FOLDER --data alpaca.json --steps 20 --rounds 3

Each peer is installed into a virtual environment of its own under --venvs, with pinned versions, and run as its command line
does. Work is made equal, then checked: all sides get the same token ids and labels (ours from messages, the peers ready-made),
in the same order, so each optimizer step sees the same rows; base weights are bfloat16, adapters float32 (r 16, alpha 32, on
every linear layer but the head), the learning rate constant. A step whose rows differ, or a mean loss that differs by more than
1 %, ends the script. The packing sides put the same rows into fewer steps, so only rows and loss of the whole run can be compared.

The loop alone counts, without start-up, loading and the first step. CPU-seconds are user + system time of the training process,
which other work on the machine inflates less than wall time. Sides take turns, so each ratio is of two runs made one after another.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import resource
import runpy
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
SEED = 42
LOSS_TOLERANCE = 0.01
TORCH = "torch==2.13.0"
PEERS = {
    "trl": [["-c", str(HERE.parent / "constraints.txt"), "trl==1.16.0", "peft", "psutil"]],
    # Without its web interface, video and audio parts; the versions are the newest that it allows.
    "llamafactory": [["--no-deps", "-r", str(HERE / "constraints-llamafactory.txt")]],
}
"""What pip installs after torch."""


@dataclass(frozen=True)
class Job:
    """What all sides do. ``folder`` holds the rows: ``data`` for ours, ``trl`` and ``llamafactory`` for the peers."""

    model: Path
    folder: Path
    steps: int
    batch: int = 8
    max_length: int = 256
    learning_rate: float = 2e-4
    technique: str = "lora"
    """sft, lora or qlora; LLaMA-Factory is given lora alone."""
    gpu: bool = False


@dataclass(frozen=True)
class Side:
    """``peer`` is the virtual environment, "" for ours; ``module`` what its command line runs."""

    peer: str
    module: str
    arguments: Callable[[Job, Path, dict[str, Any]], list[str]]
    extra: dict[str, Any] = field(default_factory=dict)
    """Settings beside the job's."""
    same_steps: bool = True


def ftcli_arguments(job: Job, out: Path, extra: dict[str, Any]) -> list[str]:
    settings = {
        "run": out,
        "model": job.model,
        "data": job.folder / "data",
        "max_steps": job.steps,
        "global_batch_size": job.batch,
        "max_length": job.max_length,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "constant",
        "precision": "bf16",
        "eval_rows": 0,
        "seed": SEED,
        **({} if job.technique == "sft" else {"lora_r": 16, "lora_alpha": 32}),
        **extra,
    }
    flags = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    return [job.technique, "--in-process", *flags]


def _transformers_settings(job: Job, out: Path) -> dict[str, Any]:
    return {
        "model_name_or_path": str(job.model),
        "output_dir": str(out),
        "num_train_epochs": 1,
        "per_device_train_batch_size": job.batch,
        "gradient_accumulation_steps": 1,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "constant",
        "bf16": True,
        "use_cpu": not job.gpu,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "seed": SEED,
    }


def trl_arguments(job: Job, out: Path, extra: dict[str, Any]) -> list[str]:
    settings = {
        **_transformers_settings(job, out),
        "dataset_name": str(job.folder / "trl"),
        "max_length": job.max_length,
        "dtype": "float32" if job.technique == "sft" else "bfloat16",
        "train_sampling_strategy": "sequential",
        **extra,
    }
    if job.technique != "sft":
        lora = {"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0, "lora_target_modules": "all-linear"}
        settings |= {"use_peft": True, **lora}
    if job.technique == "qlora":
        settings |= {"load_in_4bit": True, "use_bnb_nested_quant": True}
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


def llamafactory_arguments(job: Job, out: Path, extra: dict[str, Any]) -> list[str]:
    settings = {
        **_transformers_settings(job, out),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_target": "all",
        "lora_rank": 16,
        "lora_alpha": 32,
        "lora_dropout": 0,
        "template": "chatml",
        "dataset": "ready",  # asked for, but not read where tokenized_path is
        "tokenized_path": str(job.folder / "llamafactory"),
        "cutoff_len": job.max_length,
        "disable_shuffling": True,
        **extra,
    }
    path = out.with_suffix(".yaml")
    path.write_text(json.dumps(settings, indent=1), encoding="utf-8")  # JSON is YAML
    return ["train", str(path)]


SIDES = {
    "ftcli": Side("", "ftcli", ftcli_arguments),
    "trl": Side("trl", "trl.scripts.sft", trl_arguments),
    "trl-keep-activations": Side("trl", "trl.scripts.sft", trl_arguments, {"gradient_checkpointing": False}),
    "trl-packing": Side(
        "trl",
        "trl.scripts.sft",
        trl_arguments,
        {"gradient_checkpointing": False, "packing": True},
        same_steps=False,
    ),
    "llamafactory": Side("llamafactory", "llamafactory.cli", llamafactory_arguments),
    "llamafactory-keep-activations": Side(
        "llamafactory", "llamafactory.cli", llamafactory_arguments, {"disable_gradient_checkpointing": True}
    ),
}
"""Both peers recompute activations by default, which is slower and takes less memory."""


# In the training process -------------------------------------------------------------------------------------------------


def clocked(record: Path, module: str, arguments: list[str]) -> None:
    """Run ``module`` as a command with one more callback in its `transformers.Trainer`.

    The callback reads all batches before the loop begins, and after the loop writes ``record`` and ends the process: saving
    is not measured. Memory is the peak of the whole process, on a GPU that of its tensors.
    """
    import torch
    from transformers import TrainerCallback, trainer

    on_gpu = torch.cuda.is_available()

    class Clock(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            batches = [described(batch) for batch in kwargs["train_dataloader"]]
            size = args.gradient_accumulation_steps
            groups = [batches[first : first + size] for first in range(0, len(batches), size)]
            self.steps = [
                {name: sum((b[name] for b in group[1:]), group[0][name]) for name in group[0]} for group in groups
            ]
            self.losses: list[float] = []
            self.ends = [self.now()]

        def now(self) -> tuple[float, float]:
            if on_gpu:
                torch.cuda.synchronize()
            return time.perf_counter(), time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.ends.append(self.now())

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if "loss" in kwargs["logs"]:
                self.losses.append(float(kwargs["logs"]["loss"]))

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
            result = {
                "steps": self.steps,
                "wall": [after[0] - before[0] for before, after in zip(self.ends, self.ends[1:], strict=False)],
                "cpu": [after[1] - before[1] for before, after in zip(self.ends, self.ends[1:], strict=False)],
                "losses": self.losses,
                "peak_gib": (torch.cuda.max_memory_allocated() if on_gpu else resident) / 2**30,
                "threads": torch.get_num_threads(),
                "trainable": sum(weight.numel() for weight in kwargs["model"].parameters() if weight.requires_grad),
            }
            record.write_text(json.dumps(result), encoding="utf-8")
            os._exit(0)

    trainer.DEFAULT_CALLBACKS.append(Clock())
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def described(batch: dict[str, Any]) -> dict[str, Any]:
    """Digests of the rows of ``batch`` (ids and labels without padding), and its numbers of tokens, of labels, of
    pairs of tokens that attend to each other, and of positions that are computed.
    """
    ids, labels = batch["input_ids"], batch["labels"]
    if "attention_mask" in batch:
        rows = [
            (row[mask].tolist(), label[mask].tolist())
            for row, label, mask in zip(ids, labels, batch["attention_mask"].bool(), strict=True)
        ]
    else:  # rows end to end, each from position 0 on
        sizes = batch["cu_seq_lens_q"].diff().tolist()
        parts = zip(ids[0].split(sizes), labels[0].split(sizes), strict=True)
        rows = [(row.tolist(), label.tolist()) for row, label in parts]
    return {
        "rows": [hashlib.sha256(json.dumps([row, label[1:]]).encode()).hexdigest()[:16] for row, label in rows],
        "tokens": sum(len(row) for row, _ in rows),
        "labels": sum(value != -100 for _, label in rows for value in label[1:]),
        "pairs": sum(len(row) * (len(row) + 1) // 2 for row, _ in rows),
        "computed": ids.numel(),
    }


# Rows --------------------------------------------------------------------------------------------------------------------


def read_pairs(path: Path) -> list[tuple[str, str]]:
    text = path.read_text(encoding="utf-8")
    items = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    return [(f"{item['instruction']}\n{item.get('input') or ''}".strip(), item["output"]) for item in items]


def made_pairs(count: int, words_of_answer: int) -> list[tuple[str, str]]:
    """Questions and answers of words as often as in English text; answers as unlike in length as those of instructions, with
    ``words_of_answer`` for a median.
    """
    generator = random.Random(SEED)
    words = re.findall(r"[A-Za-z']{1,20}", " ".join(topics.values()))
    pairs = []
    for _ in range(count):
        question = generator.choices(words, k=generator.randint(6, 30))
        answer = generator.choices(words, k=int(words_of_answer * generator.lognormvariate(0, 0.9)) + 2)
        pairs.append((" ".join(question).capitalize() + "?", " ".join(answer) + "."))
    return pairs


def write_rows(job: Job, pairs: list[tuple[str, str]]) -> None:
    """The first rows that keep a part of their answer: for ours as messages, for the peers as ids in the order of our steps."""
    from datasets import Dataset, DatasetDict, disable_progress_bars

    from ftcli.data.chat import stop_token_ids
    from ftcli.data.rows import write_jsonl
    from ftcli.models.load import load_tokenizer
    from ftcli.stages.sft.encode import encode
    from ftcli.training.batches import row_order

    disable_progress_bars()
    tokenizer = load_tokenizer(job.model)
    rows, ids, labels = [], [], []
    for number, (question, answer) in enumerate(pairs):
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        row = {"id": f"row-{number}", "messages": messages, "meta": {}}
        encoded = encode(tokenizer, [row], stop_token_ids(tokenizer), job.max_length)
        if encoded.input_ids and len(rows) < job.steps * job.batch:
            rows.append(row)
            ids += encoded.input_ids
            labels += encoded.labels
    if len(rows) < job.steps * job.batch:
        sys.exit(f"{len(rows)} rows are too few for {job.steps} steps of {job.batch}; lower --steps")
    (job.folder / "data").mkdir()
    for split, part in (("train", rows), ("validation", []), ("test", [])):
        write_jsonl(job.folder / "data" / f"{split}.jsonl", part)
    order = row_order([len(row) for row in ids], job.batch, job.steps, SEED)
    columns = {"input_ids": [ids[row] for row in order], "labels": [labels[row] for row in order]}
    (job.folder / "trl").mkdir()
    lines = (json.dumps({"input_ids": row, "labels": kept}) for row, kept in zip(*columns.values(), strict=True))
    (job.folder / "trl" / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    masks = [[1] * len(row) for row in columns["input_ids"]]
    DatasetDict(train=Dataset.from_dict({**columns, "attention_mask": masks})).save_to_disk(job.folder / "llamafactory")


# Peers and runs ----------------------------------------------------------------------------------------------------------


def install(peer: str, folder: Path) -> Path | None:
    """The Python of ``peer``'s environment, made on the first call; None, with the reason printed, if that fails."""
    python, mark = folder / peer / "bin" / "python", folder / peer / "installed.json"
    wanted = json.dumps(
        [TORCH, PEERS[peer], [Path(part).read_text() for part in PEERS[peer][0] if part.endswith(".txt")]]
    )
    if mark.is_file() and mark.read_text(encoding="utf-8") == wanted:
        return python
    print(f"installing {peer} into {folder / peer} (a few minutes, about 2 GB)", file=sys.stderr)
    venv.create(folder / peer, clear=True, with_pip=True)
    for what in [[TORCH], *PEERS[peer]]:
        command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *what]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip gave no reason"]
            print(f"{peer} is left out, it cannot be installed: {reason[-1]}", file=sys.stderr)
            return None
    if peer == "llamafactory":  # imported at its start, used for audio alone; PyPI's build needs CUDA's libraries
        found = subprocess.run(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        )
        (Path(found.stdout.strip()) / "torchaudio.py").touch()
    mark.write_text(wanted, encoding="utf-8")
    return python


class Failed(Exception):
    """A side ended without a record; the message is the end of its log."""


def run_side(side: Side, python: Path, job: Job, threads: int, limit_s: float | None = None) -> dict[str, Any]:
    """What `clocked` records of one run. Raises `Failed`."""
    out = Path(tempfile.mkdtemp(dir=job.folder)) / "out"
    record, log = out.with_suffix(".json"), out.with_suffix(".log")
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    here = {**os.environ, **quiet, "OMP_NUM_THREADS": str(threads)} | ({} if job.gpu else {"CUDA_VISIBLE_DEVICES": ""})
    command = [str(python), "-P", str(HERE / "sft.py"), "clocked", str(record), side.module]
    command += side.arguments(job, out, side.extra)
    with log.open("w") as file:
        try:
            code = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, env=here, cwd=out.parent, timeout=limit_s, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            raise Failed(f"over {limit_s:.0f} s") from None
    if code or not record.is_file():
        raise Failed(f"{' '.join(command)}\nended with {code}:\n{log.read_text()[-4000:]}")
    result: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    if not len(result["steps"]) == len(result["wall"]) == len(result["losses"]):
        raise Failed(f"{len(result['steps'])} batches, {len(result['wall'])} steps, {len(result['losses'])} losses")
    if not job.gpu and result["threads"] != threads:
        raise Failed(f"{side.module} computed with {result['threads']} threads, not {threads}")
    return result


def summary(result: dict[str, Any], skip: int = 1) -> dict[str, Any]:
    """Rates of all steps but the first ``skip``; loss is the mean over all labels of the run."""
    steps = result["steps"]
    counted = sum(step["tokens"] for step in steps[skip:])
    labels = sum(step["labels"] for step in steps)
    return {
        "tokens_per_s": counted / sum(result["wall"][skip:]),
        "tokens_per_cpu_s": counted / sum(result["cpu"][skip:]),
        "first_step_s": result["wall"][0],
        "steps": len(steps),
        "tokens": sum(step["tokens"] for step in steps),
        "labels": labels,
        "padding": 1 - sum(step["tokens"] for step in steps) / sum(step["computed"] for step in steps),
        "rows": [sorted(step["rows"]) for step in steps],
        "loss": sum(loss * step["labels"] for loss, step in zip(result["losses"], steps, strict=True)) / labels,
        "peak_gib": result["peak_gib"],
        "trainable": result["trainable"],
    }


def difference(ours: dict[str, Any], theirs: dict[str, Any], *, same_steps: bool) -> str | None:
    """How two runs (`summary`) did not do the same work; None if they did."""
    if same_steps and ours["rows"] != theirs["rows"]:
        equal = [mine == other for mine, other in zip(ours["rows"], theirs["rows"], strict=False)]
        return f"other rows than ours at step {(*equal, False).index(False) + 1}"
    if Counter(row for step in ours["rows"] for row in step) != Counter(row for step in theirs["rows"] for row in step):
        return "other rows than ours"
    if ours["trainable"] != theirs["trainable"]:
        return f"trains {theirs['trainable']} parameters, ours {ours['trainable']}"
    if same_steps and abs(theirs["loss"] / ours["loss"] - 1) > LOSS_TOLERANCE:
        return f"mean loss {theirs['loss']:.4f} is more than {LOSS_TOLERANCE:.0%} from ours, {ours['loss']:.4f}"
    return None


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def print_table(results: dict[str, list[dict[str, Any]]]) -> None:
    print(
        "| | tokens/s | tokens/CPU-s | ours is faster: wall | CPU | peak GiB | mean loss | tokens | padding | steps |"
    )
    print("| --- " + "| ---: " * 9 + "|")
    for name, runs in results.items():
        ratios = [
            spread([ours[rate] / theirs[rate] for ours, theirs in zip(results["ftcli"], runs, strict=True)])
            for rate in ("tokens_per_s", "tokens_per_cpu_s")
        ]
        wall, cpu, peak = (median(run[key] for run in runs) for key in ("tokens_per_s", "tokens_per_cpu_s", "peak_gib"))
        last = runs[-1]
        print(
            f"| {name} | {wall:.0f} | {cpu:.0f} | {' | '.join(ratios)} | {peak:.2f} | {last['loss']:.4f} | {last['tokens']:,} "
            f"| {last['padding']:.0%} | {last['steps']} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model folder, e.g. of SmolLM2-135M-Instruct")
    parser.add_argument(
        "--data", type=Path, help="JSON or JSONL with instruction, input, output; else rows are made up"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs; sides take turns")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--sides", nargs="+", choices=[*SIDES], default=[*SIDES])
    parser.add_argument("--venvs", type=Path, default=Path.home() / ".cache" / "ftcli-bench")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("--steps: at least 2, since the first step does not count")
    if not (options.model / "config.json").is_file():
        parser.error(f"--model: {options.model} is no model folder; it has no config.json")
    if options.data and not options.data.is_file():
        parser.error(f"--data: there is no file {options.data}")
    pythons = {
        peer: install(peer, options.venvs) for peer in PEERS if any(SIDES[s].peer == peer for s in options.sides)
    }
    pythons[""] = Path(sys.executable)
    names = ["ftcli", *(name for name in options.sides if name != "ftcli" and pythons[SIDES[name].peer])]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        job = Job(options.model.resolve(), Path(folder), options.steps)
        write_rows(job, read_pairs(options.data) if options.data else made_pairs(2 * job.steps * job.batch, 70))
        for number in range(options.rounds * len(names)):
            name = names[number % len(names)]
            try:
                run = summary(run_side(SIDES[name], pythons[SIDES[name].peer], job, options.threads))
            except Failed as error:
                sys.exit(f"{name}: {error}")
            results[name].append(run)
            wrong = difference(results["ftcli"][-1], run, same_steps=SIDES[name].same_steps)
            if wrong:
                sys.exit(f"{name}: {wrong}")
            print(
                f"{name}: {run['tokens_per_s']:.0f} tokens/s, {run['tokens_per_cpu_s']:.0f} per CPU-s, "
                f"{run['peak_gib']:.2f} GiB, loss {run['loss']:.4f}, first step {run['first_step_s']:.1f} s",
                file=sys.stderr,
                flush=True,
            )
    print_table(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["clocked"]:
        clocked(Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
    else:
        main()
