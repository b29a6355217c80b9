"""Scoring and generating here and with lm-evaluation-harness's Hugging Face backend, on the same tokens in the same batches.

    pip install -c constraints.txt -e ".[lm-eval]"
    python -m benchmarks.eval --model smollm2 --rounds 3

Each run is a process of its own and sides take turns, so that a ratio is of two runs made one after another. Both sides load the
same folder in the same number format. ``nll`` scores a continuation after a prompt, both given as token ids; ``generate`` answers
chat prompts greedily. The script stops where the two score other tokens or their sums differ by more than a hundredth, and tells
how many answers are the same. What is timed begins after loading and one batch of warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SIDES = ("ftcli", "lm-eval")
SEED = 42


def make_job(options: argparse.Namespace, path: Path) -> None:
    """Prompts of 20 to 200 words of Python's manual under the chat template, and 10 to 80 words that go on."""
    from ftcli.data.chat import render_prompt
    from ftcli.models.load import load_tokenizer
    from ftcli.pipeline.fetch import demo_model

    folder = demo_model("smollm2", fetch=True)[0] if options.model == "smollm2" else Path(options.model).resolve()
    tokenizer, generator = load_tokenizer(folder), random.Random(SEED)
    words = re.findall(r"[A-Za-z']{1,20}", " ".join(topics.values()))

    def passage(least: int, most: int) -> str:
        first = generator.randrange(len(words) - most)
        return " ".join(words[first : first + generator.randint(least, most)])

    prompts = [render_prompt(tokenizer, [{"role": "user", "content": passage(20, 200)}]) for _ in range(options.rows)]
    answers = [tokenizer(passage(10, 80), add_special_tokens=False).input_ids for _ in range(options.rows)]
    job = {
        "model": str(folder),
        "prompts": prompts,
        "answers": answers,
        "batch": options.batch,
        "tokens": options.tokens,
        "dtype": options.dtype,
        "threads": options.threads,
    }
    path.write_text(json.dumps(job), encoding="utf-8")


Work = tuple[Callable[[int], list[float]], Callable[[int], list[str]]]
"""Two functions of the number of rows: the log-likelihood of each continuation, and each answer."""


def ours(job: dict[str, Any]) -> Work:
    import torch

    from ftcli.data.chat import stop_token_ids
    from ftcli.metrics.perplexity import score_answers
    from ftcli.models.generate import generate, split_model
    from ftcli.models.load import load_base, load_tokenizer

    tokenizer = load_tokenizer(Path(job["model"]))
    model = load_base(Path(job["model"]), getattr(torch, job["dtype"]), torch.device("cpu"))
    pad_id, stop_ids = int(tokenizer.pad_token_id), stop_token_ids(tokenizer)

    def score(rows: int) -> list[float]:
        pairs = list(zip(job["prompts"][:rows], job["answers"][:rows], strict=True))
        return [-one.nll for one in score_answers(*split_model(model), pairs, pad_id=pad_id, batch_size=job["batch"])]

    def answer(rows: int) -> list[str]:
        found = generate(
            model,
            job["prompts"][:rows],
            [str(row) for row in range(rows)],
            stop_ids=stop_ids,
            pad_id=pad_id,
            max_new_tokens=job["tokens"],
            temperature=0.0,
            batch_size=job["batch"],
        )
        return [tokenizer.decode(one.ids, skip_special_tokens=True) for one in found]

    return score, answer


def theirs(job: dict[str, Any]) -> Work:
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"])).eval()
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=job["batch"], device="cpu")
    texts = [tokenizer.decode(prompt) for prompt in job["prompts"]]

    def score(rows: int) -> list[float]:
        requests = [
            ((str(row), ""), job["prompts"][row], job["answers"][row]) for row in range(rows)
        ]  # the name keeps its cache from taking two rows for one
        return [float(found) for found, _ in harness._loglikelihood_tokens(requests, disable_tqdm=True)]

    def answer(rows: int) -> list[str]:
        settings = {"until": [tokenizer.eos_token], "max_gen_toks": job["tokens"], "do_sample": False}
        requests = [
            Instance("generate_until", {}, (text, dict(settings)), row) for row, text in enumerate(texts[:rows])
        ]
        return [str(found) for found in harness.generate_until(requests, disable_tqdm=True)]

    return score, answer


def work(side: str, job_file: Path, record: Path) -> None:
    job = json.loads(job_file.read_text(encoding="utf-8"))
    import torch

    torch.set_num_threads(job["threads"])
    score, answer = (ours if side == "ftcli" else theirs)(job)
    rows, found = len(job["prompts"]), {}
    for name, function in (("nll", score), ("generate", answer)):
        function(min(job["batch"], rows))
        wall, cpu = time.perf_counter(), time.process_time()
        values = function(rows)
        found[name] = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "values": values}
    found["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    record.write_text(json.dumps(found), encoding="utf-8")


def run(side: str, job_file: Path, folder: Path) -> dict[str, Any]:
    record, log = folder / "record.json", folder / "log.txt"
    record.unlink(missing_ok=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-P", "-m", "benchmarks.eval", "work", side, str(job_file), str(record)]
    with log.open("w") as out:
        code = subprocess.run(command, stdout=out, stderr=out, env=environment, cwd=folder, check=False).returncode
    if code:
        raise SystemExit(f"{side} ended with {code}:\n{log.read_text()[-4000:]}")
    found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    return found


def difference(first: Sequence[float], second: Sequence[float]) -> float:
    return abs(sum(first) - sum(second)) / abs(sum(first))


def main() -> None:
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="smollm2 (the built-in model), or a model folder")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32, help="longest answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ftcli-eval-") as name:
        folder = Path(name)
        make_job(options, folder / "job.json")
        rounds = [{side: run(side, folder / "job.json", folder) for side in SIDES} for _ in range(options.rounds)]
    report(rounds, options)


def report(rounds: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    """A Markdown table; the harness over us, round by round, so above 1 we are faster."""
    for one in rounds:
        apart = difference(one["ftcli"]["nll"]["values"], one["lm-eval"]["nll"]["values"])
        if apart > 0.01:
            raise SystemExit(f"the sums of log-likelihoods differ by {apart:.2%}: not the same work")
    last = rounds[-1]
    answers = zip(last["ftcli"]["generate"]["values"], last["lm-eval"]["generate"]["values"], strict=True)
    same = sum(first.strip() == second.strip() for first, second in answers)
    sums = [sum(last[side]["nll"]["values"]) for side in SIDES]
    print(
        f"{options.rows} rows, batch {options.batch}, {options.tokens} new tokens, {options.dtype}, {options.threads} threads"
    )
    print(f"log-likelihood {sums[0]:.2f} and {sums[1]:.2f}; {same} of {options.rows} answers are the same\n")
    print("| | seconds | CPU-s | lm-eval: seconds | CPU-s | as fast: wall | CPU |\n| --- " + "| ---: " * 6 + "|")
    for name in ("nll", "generate"):
        cells = [
            f"{median(one[side][name][clock] for one in rounds):.1f}" for side in SIDES for clock in ("wall", "cpu")
        ]
        for clock in ("wall", "cpu"):
            ratios = [one["lm-eval"][name][clock] / one["ftcli"][name][clock] for one in rounds]
            cells.append(f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
        print(f"| {name} | {' | '.join(cells)} |")
    peaks = [max(one[side]["peak_gib"] for one in rounds) for side in SIDES]
    print(f"\npeak memory {peaks[0]:.2f} GiB and {peaks[1]:.2f} GiB")


if __name__ == "__main__":
    main()
