"""Full fine-tuning, LoRA and QLoRA of a 1B Llama on one GPU: ours beside TRL's, under ten minutes.

    python -m benchmarks.gpu                        # on a machine with CUDA, PyTorch and this package
    python -m benchmarks.gpu --device cpu --tiny    # the same with a model of no size

The model has the shape of Llama-3.2-1B and random weights, the rows are made of the words of Python's manual; both are made here,
so nothing is fetched. Each case is a process of its own that runs `ftcli` or TRL's command as they are, with the clock of
`benchmarks/sft.py`, whose checks hold here too: same rows in each step, mean loss within 1 %. TRL runs with its defaults (rows
padded, activations recomputed), with activations kept, and where they are installed with Liger's kernels and with packing on
flash-attn, which puts the same rows into fewer steps.

Tokens are those without padding. MFU is model FLOPs over the data sheet's dense bfloat16 FLOPs. Model FLOPs of a row of n tokens:
a product with a weight costs 2 a weight and token, the head's weights counted at labels alone, and attention 4 * hidden for
each of the n (n + 1) / 2 pairs of a layer. Full fine-tuning does all of it three times (forward, gradients of inputs, of weights).
LoRA and QLoRA save the gradients of frozen weights, a third of those products, and add 6 an adapter weight and token. What
recomputing, dequantising and padding cost is no model FLOPs, so it lowers MFU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from benchmarks.sft import (
    SEED,
    SIDES,
    Failed,
    Job,
    Side,
    difference,
    made_pairs,
    run_side,
    summary,
    trl_arguments,
    write_rows,
)

LLAMA_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 2048,
}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_model(folder: Path, shape: dict[str, int], device: str) -> None:
    """A Llama of ``shape`` with random bfloat16 weights, and a tokenizer of 2048 words, fewer than the model may have."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(topics.values(), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(SEED)
    config = LlamaConfig(
        **shape,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device(device):
        model = LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)


def sides() -> dict[str, Side]:
    """Those that this machine can run."""
    found = {name: SIDES[name] for name in ("ftcli", "trl", "trl-keep-activations")}
    if importlib.util.find_spec("flash_attn"):
        settings = {"packing": True, "attn_implementation": "flash_attention_2"}
        found["trl-packing"] = Side("trl", "trl.scripts.sft", trl_arguments, settings, same_steps=False)
    if importlib.util.find_spec("liger_kernel"):
        found["trl-liger"] = Side("trl", "trl.scripts.sft", trl_arguments, {"use_liger_kernel": True})
    return found


def model_flops(steps: list[dict[str, Any]], shape: dict[str, int], technique: str, trainable: int) -> float:
    """Those of ``steps`` (`benchmarks.sft.described`), as the top of this file counts them."""
    hidden, layers = shape["hidden_size"], shape["num_hidden_layers"]
    keys = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    weights = layers * (2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * shape["intermediate_size"])
    tokens, labels, pairs = (sum(step[name] for step in steps) for name in ("tokens", "labels", "pairs"))
    products = 2.0 * (weights * tokens + hidden * shape["vocab_size"] * labels)
    attention = 4.0 * layers * hidden * pairs
    if technique == "sft":
        return 3 * products + 3 * attention
    return 2 * products + 3 * attention + 6.0 * trainable * tokens


def run_case(side: Side, job: Job, shape: dict[str, int], limit_s: float, peak: float | None) -> dict[str, Any]:
    """Figures of one run; ``remark`` alone where it did not end well."""
    try:
        result = run_side(side, Path(sys.executable), job, 16 if job.gpu else 1, limit_s)
    except Failed as error:
        if "out of memory" in str(error).lower():
            return {"remark": "out of memory"}
        print(error, file=sys.stderr)
        return {"remark": str(error).strip().splitlines()[-1][:60]}
    skip = min(3, job.steps // 2)  # kernels are chosen and compiled in the first steps
    if len(result["steps"]) <= skip:
        return {"remark": "too few steps"}
    flops = model_flops(result["steps"][skip:], shape, job.technique, result["trainable"])
    return {
        **summary(result, skip),
        "tflops": flops / sum(result["wall"][skip:]) / 1e12,
        "mfu": flops / sum(result["wall"][skip:]) / peak if peak else None,
        "remark": "",
    }


def row_of(case: dict[str, Any], ours: dict[str, Any]) -> str:
    head = f"| {case['technique']} | {case['length']} | {case['side']} "
    if "tokens_per_s" not in case:
        return head + "| - " * 7 + f"| {case['remark']} |"
    ratio = f"{ours['tokens_per_s'] / case['tokens_per_s']:.2f}" if "tokens_per_s" in ours else "-"
    mfu = "-" if case["mfu"] is None else f"{case['mfu']:.1%}"
    return (
        f"{head}| {case['tokens_per_s']:,.0f} | {ratio} | {case['tflops']:.1f} | {mfu} | {case['peak_gib']:.2f} "
        f"| {case['loss']:.4f} | {case['padding']:.0%} | {case['remark']} |"
    )


def print_table(cases: list[dict[str, Any]]) -> None:
    print(
        "| technique | length | side | tokens/s | ours is faster | TFLOP/s | MFU | peak GiB | mean loss | padding | remark |"
    )
    print("| --- | ---: | --- " + "| ---: " * 7 + "| --- |")
    ours = {(case["technique"], case["length"]): case for case in cases if case["side"] == "ftcli"}
    for case in cases:
        print(row_of(case, ours[case["technique"], case["length"]]))


def run_cases(
    options: argparse.Namespace,
    folder: Path,
    shape: dict[str, int],
    step_tokens: int,
    lengths: list[int],
    peak: float | None,
) -> list[dict[str, Any]]:
    """All cases in turn, ours first in each; a case's remark says how its work differed from ours."""
    end = time.monotonic() + 60 * options.minutes
    write_model(folder / "model", shape, options.device)
    jobs = {
        length: Job(
            folder / "model",
            folder / str(length),
            options.steps,
            batch=max(step_tokens // length, 1),
            max_length=length,
            gpu=options.device == "cuda",
        )
        for length in lengths
    }
    for length, job in jobs.items():
        job.folder.mkdir()
        write_rows(job, made_pairs(2 * job.steps * job.batch, length // 4))
    cases: list[dict[str, Any]] = []
    for technique, length in product(options.techniques, lengths):
        job = replace(jobs[length], technique=technique, learning_rate=2e-5 if technique == "sft" else 2e-4)
        ours: dict[str, Any] = {}
        for name in ["ftcli", *(name for name in options.sides if name != "ftcli")]:
            case: dict[str, Any] = {"technique": technique, "length": length, "side": name, "remark": "no time left"}
            if time.monotonic() < end:
                case |= run_case(sides()[name], job, shape, options.limit, peak)
            ours = ours or case
            if "rows" in case and "rows" in ours:
                case["remark"] = difference(ours, case, same_steps=sides()[name].same_steps) or ""
            cases.append(case)
            print(row_of(case, ours), file=sys.stderr, flush=True)
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a model of no size, to try the script")
    parser.add_argument("--techniques", nargs="+", choices=["sft", "lora", "qlora"], default=["sft", "lora", "qlora"])
    parser.add_argument("--lengths", nargs="+", type=int, help="tokens of the longest rows (default: 512 4096)")
    parser.add_argument("--sides", nargs="+", choices=[*sides()], default=[*sides()], help="ftcli always runs")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--vocab", type=int, help="words of the model (default: 128256)")
    parser.add_argument("--step-tokens", type=int, help="places in a step, padding included (default: 16384)")
    parser.add_argument("--limit", type=float, default=60, help="seconds of one case, start included")
    parser.add_argument("--minutes", type=float, default=9.5, help="no case begins after that")
    parser.add_argument("--peak-tflops", type=float, help="of this device, for MFU; known for common GPUs")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("--steps: at least 2, since the first do not count")

    import torch

    from ftcli.training.hardware import peak_flops

    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device; --device cpu --tiny tries the script without one")
    device = torch.device(options.device)
    peak = options.peak_tflops * 1e12 if options.peak_tflops else peak_flops(device)
    shape = {**(TINY if options.tiny else LLAMA_1B), **({"vocab_size": options.vocab} if options.vocab else {})}
    lengths = options.lengths or ([64, 128] if options.tiny else [512, 4096])
    step_tokens = options.step_tokens or (512 if options.tiny else 16384)
    with tempfile.TemporaryDirectory() as folder:
        cases = run_cases(options, Path(folder), shape, step_tokens, lengths, peak)
    where = torch.cuda.get_device_name(device) if options.device == "cuda" else "CPU"
    print(f"{where}, torch {torch.__version__}, {options.steps} steps of {step_tokens:,} places")
    print_table(cases)
    if options.json:
        options.json.write_text(
            json.dumps({"device": where, "shape": shape, "cases": cases}, indent=1) + "\n", encoding="utf-8"
        )
    if any(" ours" in case["remark"] for case in cases):
        sys.exit("the sides did not do the same work: see the remarks")


if __name__ == "__main__":
    main()
