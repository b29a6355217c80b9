"""School mathematics: PPO with a function as the reward, and the share of right answers on GSM8K's test split before and after.

    python -m benchmarks.gsm8k_ppo --run runs/gsm8k                # one GPU, hub access
    python -m benchmarks.gsm8k_ppo --run /tmp/gsm8k --device cpu --tiny   # a model of no size, to try the script

It drives `ftcli prep` and `ftcli ppo` as a user would, so a second call goes on where the first was stopped. Accuracy is of greedy
answers to all 1,319 test questions (--test-rows takes fewer), by the final number, as the reward judges
(recipes/rewards/gsm8k.py). The question is followed by the sentence that asks for #### before the result.

verl reports 36.4 before and 56.7 after PPO for Qwen2.5-0.5B-Instruct (docs/algo/baseline), all weights trained, 15 passes over the
7,473 train questions. Here an adapter is trained, on --episodes answers; the aim is 50 or more.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REWARD = ROOT / "recipes" / "rewards" / "gsm8k.py"
ASK = 'Let\'s think step by step and output the final answer after "####".'
AIM = 0.5


def write_questions(folder: Path, train: Path | None, test: Path | None) -> None:
    """``train.jsonl`` and ``test.jsonl`` with question and answer, from files (JSON or JSONL), else what ``folder`` has, else from
    the hub."""
    for split, path in (("train", train), ("test", test)):
        if path is None and (folder / f"{split}.jsonl").is_file():
            continue
        if path is None:
            from datasets import load_dataset

            rows: Iterable[dict[str, Any]] = load_dataset("openai/gsm8k", "main", split=split)
        else:
            text = path.read_text(encoding="utf-8")
            rows = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
        write_rows(folder / f"{split}.jsonl", ((row["question"], row["answer"]) for row in rows))


def write_rows(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    lines = [json.dumps({"question": f"{question}\n{ASK}", "answer": answer}) for question, answer in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_tiny(folder: Path) -> Path:
    """A model of no size and sums of two numbers; return the model."""
    from benchmarks.gpu import TINY, write_model

    generator = random.Random(0)
    numbers = [(generator.randrange(100), generator.randrange(100)) for _ in range(160)]
    pairs = [(f"What is {a} plus {b}? Row {row}.", f"#### {a + b}") for row, (a, b) in enumerate(numbers)]
    write_rows(folder / "train.jsonl", pairs[:128])
    write_rows(folder / "test.jsonl", pairs[128:])
    write_model(folder / "model", TINY, "cpu")
    return folder / "model"


def ftcli(stage: str, run: Path, settings: dict[str, Any]) -> str:
    """What `ftcli` prints: the folder of the stage's first output."""
    flags = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "ftcli", stage, "--run", str(run), *flags]
    print(f"ftcli {stage} {' '.join(command[4:])}", file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout.strip().splitlines()[-1]


def reward_module() -> ModuleType:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("gsm8k_reward", REWARD)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accuracy(model: str, test: Path, rows: int | None, max_new_tokens: int, batch: int) -> dict[str, Any]:
    """Share of right greedy answers of ``model`` (an input of `ftcli`), its standard error, and the share that ended."""
    import torch

    from ftcli.core.stage import Kind
    from ftcli.data.chat import render_prompt, stop_token_ids
    from ftcli.models.generate import generate
    from ftcli.models.load import load_model, load_tokenizer_of, pick_device, pick_dtype
    from ftcli.pipeline.resolve import from_outside

    artifact = from_outside(model, Kind.MODEL, "")
    tokenizer, device = load_tokenizer_of(artifact), pick_device()
    loaded = load_model(artifact, pick_dtype("auto", device), device).eval()
    questions = [json.loads(line) for line in test.read_text(encoding="utf-8").splitlines()][:rows]
    start = time.perf_counter()
    with torch.no_grad():
        found = generate(
            loaded,
            [render_prompt(tokenizer, [{"role": "user", "content": row["question"]}]) for row in questions],
            [str(number) for number in range(len(questions))],
            stop_ids=stop_token_ids(tokenizer, loaded.generation_config.eos_token_id),
            pad_id=int(tokenizer.pad_token_id),
            max_new_tokens=max_new_tokens,
            temperature=0.0,
            batch_size=batch,
        )
    texts = [tokenizer.decode(one.ids, skip_special_tokens=True) for one in found]
    scores = reward_module().accuracy(texts, answer=[row["answer"] for row in questions])
    share = sum(scores) / len(scores)
    return {
        "accuracy": share,
        "standard_error": math.sqrt(share * (1 - share) / len(scores)),
        "rows": len(scores),
        "ended": sum(one.finish_reason == "stop" for one in found) / len(found),
        "tokens": sum(len(one.ids) for one in found) / len(found),
        "seconds": time.perf_counter() - start,
        "sample": texts[0],
    }


def measured(model: str, questions: Path, options: argparse.Namespace) -> dict[str, Any]:
    """`accuracy` in a process of its own, so that the GPU is free again."""
    place = questions / "accuracy.json"
    command = [sys.executable, "-m", "benchmarks.gsm8k_ppo", "accuracy", model, str(questions / "test.jsonl")]
    command += [str(options.test_rows or 0), str(options.response_length), str(options.batch), str(place)]
    subprocess.run(command, check=True, cwd=ROOT)
    result: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    print({name: result[name] for name in result if name != "sample"}, file=sys.stderr, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run directory; a second call goes on in it")
    parser.add_argument("--model", default="hf:Qwen/Qwen2.5-0.5B-Instruct", help="hf:org/name or a folder")
    parser.add_argument("--train", type=Path, help="file of train questions, columns question and answer")
    parser.add_argument("--test", type=Path, help="file of test questions")
    parser.add_argument("--episodes", type=int, default=65536)
    parser.add_argument("--rollouts", type=int, default=512, help="answers an update learns from")
    parser.add_argument("--response-length", type=int, default=320)
    parser.add_argument("--batch", type=int, default=256, help="answers sampled at once")
    parser.add_argument("--micro-batch", type=int, default=32, help="answers trained on at once")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--kl-coef", type=float, default=0.005)
    parser.add_argument("--test-rows", type=int, help="of the test split (default: all)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a model of no size and sums, to try the script")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    options = parser.parse_args()
    run = options.run.resolve()
    questions = run / ("tiny" if options.tiny else "questions")
    questions.mkdir(parents=True, exist_ok=True)
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    else:
        import torch

        if not torch.cuda.is_available():
            parser.error("no CUDA device; --device cpu --tiny tries the script without one")
    if options.tiny:
        options.model = str(write_tiny(questions))
        options.episodes, options.rollouts, options.response_length, options.micro_batch = 32, 16, 12, 8
    else:
        write_questions(questions, options.train, options.test)

    before = measured(options.model, questions, options)
    ftcli("prep", run, {"source": questions / "train.jsonl", "validation_share": 0.05, "test_share": 0})
    start = time.perf_counter()
    settings = {
        "model": options.model,
        "data": "prep.data",
        "reward_func": f"{REWARD}:accuracy",
        "total_episodes": options.episodes,
        "rollout_batch_size": options.rollouts,
        "num_ppo_epochs": 1,
        "num_mini_batches": 4,
        "micro_batch_size": options.micro_batch,
        "rollout_micro_batch_size": options.batch,
        "response_length": options.response_length,
        "lora_r": 32,
        "learning_rate": options.learning_rate,
        "kl_coef": options.kl_coef,
        "lam": 1.0,
        "value_init": "zero",
        "eval_prompts": 16 if options.tiny else 256,
    }
    trained = ftcli("ppo", run, settings)
    seconds = time.perf_counter() - start
    after = measured(trained, questions, options)
    change = after["accuracy"] - before["accuracy"]
    print("| | accuracy | standard error | ended | tokens | questions |\n| --- " + "| ---: " * 5 + "|")
    for name, found in (("before", before), ("after", after)):
        print(
            f"| {name} | {found['accuracy']:.1%} | {found['standard_error']:.1%} | {found['ended']:.0%} "
            f"| {found['tokens']:.0f} | {found['rows']:,} |"
        )
    print(f"{options.episodes:,} episodes in {seconds:,.0f} s, change {change:+.1%}")
    if not options.tiny:
        print(f"aim {AIM:.0%} (verl: 36.4% -> 56.7%): {'met' if after['accuracy'] >= AIM else 'missed'}")
    if options.json:
        result = {"before": before, "after": after, "seconds": seconds, "settings": settings}
        options.json.write_text(json.dumps(result, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["accuracy"]:
        model, test, rows, length, batch, out = sys.argv[2:]
        result = accuracy(model, Path(test), int(rows) or None, int(length), int(batch))
        Path(out).write_text(json.dumps(result), encoding="utf-8")
    else:
        main()
