"""A preference that has to be learnt, and what transformers and peft alone say of the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

NOUNS = ["user", "mat", "list", "file", "string", "path", "name", "module"]


def planted_row(index: int) -> dict[str, Any]:
    """The better answer names the cat first; both answers have the same words, so their length says nothing."""
    noun = NOUNS[index % len(NOUNS)]
    better, worse = f"the cat sat on the {noun}", f"the {noun} sat on the cat"
    return {
        "id": f"pair-{index}",
        "prompt": [{"role": "user", "content": f"What does {noun} {index} do?"}],
        "chosen": [{"role": "assistant", "content": better}],
        "rejected": [{"role": "assistant", "content": worse}],
        "meta": {},
    }


def load_plain(folder: Path, base: Path) -> Any:
    if (folder / "adapter_config.json").is_file():
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def answer_logprob(model: Any, tokenizer: Any, row: dict[str, Any], side: str) -> float:
    """Of one answer through its end-of-turn token, by transformers' own loss."""
    text = row["prompt"] + row[side]
    whole = tokenizer.apply_chat_template(text, return_dict=False)[:-1]  # not the line break after the end of turn
    prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
    ids = torch.tensor([whole])
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    with torch.no_grad():
        return -float(model(input_ids=ids, labels=labels).loss) * (len(whole) - len(prompt))


def margins(folder: Path, reference: Any, base: Path, rows: list[dict[str, Any]], beta: float) -> list[float]:
    """Implicit rewards of the better answers less those of the worse ones, of the model in ``folder`` (Rafailov et al., eq. 5)."""
    model, tokenizer = load_plain(folder, base), AutoTokenizer.from_pretrained(folder)

    def log_ratio(row: dict[str, Any], side: str) -> float:
        return answer_logprob(model, tokenizer, row, side) - answer_logprob(reference, tokenizer, row, side)

    return [beta * (log_ratio(row, "chosen") - log_ratio(row, "rejected")) for row in rows]
