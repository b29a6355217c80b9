"""What the general-ability suite says of damage: a model noised on purpose, one that is trained far too hard, and none at all.

    python -m benchmarks.forgetting --run runs/forgetting

Makes four models beside SmolLM2-135M-Instruct: the same once more, two with Gaussian noise of 2 % and 5 % of each matrix's standard
deviation, and an adapter trained on Python's docstrings with a learning rate about ten times too high. Then `ftcli eval` measures
them with a gate on general.nll, code and prose, which must end with exit code 6 and name damaged ones only.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

SEED = 7
NOISES = (0.02, 0.05)
OVERTRAINED = ("--learning-rate", "1e-2", "--max-steps", "40", "--global-batch-size", "8", "--max-length", "128")


def ftcli(run: Path, *words: str) -> int:
    command = [sys.executable, "-m", "ftcli", words[0], "--run", str(run), *words[1:]]
    print("$ ftcli", *words, file=sys.stderr, flush=True)
    return subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode


def noised(source: Path, folder: Path, share: float) -> None:
    """A copy of the model in ``source`` whose matrices have noise of ``share`` of their standard deviation."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    generator = torch.Generator().manual_seed(SEED)
    for file in source.glob("*.safetensors"):
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if tensor.dim() == 2:
                noise = torch.randn(tensor.shape, generator=generator) * tensor.float().std() * share
                tensors[name] = (tensor.float() + noise).to(tensor.dtype)
        save_file(tensors, folder / file.name, {"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/forgetting"))
    parser.add_argument("--items", type=int, default=None, help="of the suite, of each kind alike; all unless given")
    options = parser.parse_args()
    from ftcli.pipeline.fetch import demo_model

    base, models = demo_model("smollm2", fetch=True)[0], options.run / "models"
    for share in NOISES:
        noised(base, models / f"noise-{share:g}", share)
    same = models / "same"
    shutil.copytree(base, same, dirs_exist_ok=True)
    for words in (
        ("prep", "--source", "pydoc:stdlib", "--model", "demo:smollm2", "--limit", "1500"),
        ("lora", "--model", "demo:smollm2", "--data", "prep.data", *OVERTRAINED, "--id", "overtrained"),
    ):
        if code := ftcli(options.run, *words):
            raise SystemExit(code)
    labels = {"same": same, "noise_2": models / "noise-0.02", "noise_5": models / "noise-0.05"}
    labels |= {"overtrained": "overtrained.model"}
    given = [
        word for label, ref in {"base": "demo:smollm2", **labels}.items() for word in ("--models", f"{label}={ref}")
    ]
    limit = () if options.items is None else ("--suite-limit", str(options.items))
    rules = [word for name in ("nll", "code_bpb", "prose_bpb") for word in ("--gate", f"{{metric: general.{name}}}")]
    asked = ("--metrics", "perplexity", "--limit", "32", *rules, *limit)
    code = ftcli(options.run, "eval", *given, "--data", "prep.data", *asked)
    gate = json.loads((options.run / "stages" / "eval" / "latest" / "report" / "gate.json").read_text(encoding="utf-8"))
    print(f"exit code {code}")
    for one in gate["results"]:
        (low, high), p = one["ci"], one["p_holm"]
        change = f"{one['change']:+.4f} [{low:+.4f}, {high:+.4f}] p {p:.2g} n {one['n']}"
        print(f"{one['model']:12} {one['metric']:18} {one['status']:13} {change}")


if __name__ == "__main__":
    main()
