"""TRL's DPO losses as they are used here, against the papers' formulas; log-probabilities against transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from ftcli.core.errors import StageFailed
from ftcli.core.events import Events
from ftcli.core.stage import Kind
from ftcli.training.pair_trainer import PairLogprobs, PairTrainer, loss_terms, loss_without_margin
from ftcli.training.start import load_start
from ftcli.training.tally import Tally
from tests.conftest import artifact

CPU = torch.device("cpu")
PAIRS = {
    "prompt_ids": [[1, 7, 8], [1, 9], [1, 10, 11, 12]],
    "chosen_ids": [[20, 21, 22, 2], [23, 2], [24, 25, 2]],
    "rejected_ids": [[30, 2], [31, 32, 33, 34, 2], [35, 2]],
}


def make(
    tiny_model: Path,
    folder: Path,
    method: Any = "auto",
    micro: int = 3,
    dtype: torch.dtype = torch.float32,
    **given: Any,
) -> PairTrainer:
    terms = loss_terms(given.pop("loss_type", "sigmoid"), given.pop("label_smoothing", 0.0))
    arguments = DPOConfig(
        output_dir=str(folder / "staging"),
        **terms,
        **given,
        max_length=None,
        precompute_ref_log_probs=True,
        per_device_train_batch_size=micro,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )
    start = load_start(artifact(Kind.MODEL, tiny_model), method, dtype, CPU, r=4, alpha=8)
    return PairTrainer(
        model=start.model,
        args=arguments,
        pairs=Dataset.from_dict(PAIRS),
        tokenizer=AutoTokenizer.from_pretrained(tiny_model),
        tally=Tally(),
        events=Events(folder),
        scratch=folder,
        callbacks=[],
    )


def trl_loss(
    trainer: PairTrainer, chosen: Any, rejected: Any, ref_chosen: Any, ref_rejected: Any, tokens: Any
) -> float:
    """What TRL makes of summed log-probabilities (float64 [pairs]), each spread over its ``tokens`` (pairs of numbers)."""
    width = 1 + max(max(pair) for pair in tokens)
    counts = [one for one, _ in tokens] + [other for _, other in tokens]
    sums = torch.cat([torch.as_tensor(chosen), torch.as_tensor(rejected)]).double()
    mask = torch.tensor([[0] + [1] * count + [0] * (width - 1 - count) for count in counts])
    spread = (sums / torch.tensor(counts))[:, None] * mask[:, 1:]

    def model(**kwargs: Any) -> SimpleNamespace:
        unused = torch.zeros_like(spread)
        return SimpleNamespace(log_probs=spread, entropy=unused, mean_logits=unused, is_top1=unused.bool())

    inputs = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": torch.as_tensor(ref_chosen).double(),
        "ref_rejected_logps": torch.as_tensor(ref_rejected).double(),
    }
    return float(DPOTrainer.compute_loss(trainer, model, inputs))


@pytest.mark.parametrize(
    ("loss_type", "label_smoothing", "expected"),
    [
        # Log-ratios +2 (4 tokens) and -1 (2 tokens), beta 0.1.
        ("sigmoid", 0.0, 0.5543552444685272),  # log(1 + exp(-0.3))
        ("sigmoid", 0.1, 0.9 * 0.5543552444685272 + 0.1 * 0.8543552444685272),  # log(1 + exp(0.3))
        ("hinge", 0.0, 0.7),
        ("ipo", 0.0, 16.0),  # (2/4 + 1/2 - 1 / 0.2)^2
    ],
)
def test_losses_are_those_of_the_papers(
    loss_type: str, label_smoothing: float, expected: float, tiny_model: Path, tmp_path: Path
) -> None:
    trainer = make(tiny_model, tmp_path, loss_type=loss_type, label_smoothing=label_smoothing, beta=0.1)
    found = trl_loss(trainer, [-10.0], [-20.0], [-12.0], [-19.0], [(4, 2)])
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.05, 0.3])
def test_the_sigmoid_loss_is_cross_entropy_with_smoothed_labels(
    label_smoothing: float, tiny_model: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    sums = torch.randn(4, 6, dtype=torch.float64) * 20
    chosen, rejected, ref_chosen, ref_rejected = sums
    trainer = make(tiny_model, tmp_path, label_smoothing=label_smoothing, beta=0.3)
    margins = 0.3 * ((chosen - ref_chosen) - (rejected - ref_rejected))
    labels = torch.full_like(margins, 1 - label_smoothing)
    expected = float(binary_cross_entropy_with_logits(margins, labels))
    assert trl_loss(trainer, *sums, tokens=[(2, 3)] * 6) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo", "hinge"])
def test_the_loss_without_a_margin(loss_type: str, tiny_model: Path, tmp_path: Path) -> None:
    trainer = make(tiny_model, tmp_path, loss_type=loss_type, beta=0.25)
    found = trl_loss(trainer, [-3.0], [-5.0], [-3.0], [-5.0], [(3, 2)])
    assert found == pytest.approx(loss_without_margin(loss_type, 0.25), abs=1e-12)


def expected_logprobs(model: Any, side: str) -> list[float]:
    """By transformers' own loss, one row at a time without padding."""
    found = []
    for prompt, answer in zip(PAIRS["prompt_ids"], PAIRS[side], strict=True):
        ids = torch.tensor([prompt + answer])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        with torch.no_grad():
            found.append(-float(model(input_ids=ids, labels=labels).loss) * len(answer))
    return found


@pytest.mark.parametrize("micro", [1, 2, 3])
@pytest.mark.parametrize("method", ["auto", "full"])
def test_log_probabilities_are_sums_over_the_answers(method: str, micro: int, tiny_model: Path, tmp_path: Path) -> None:
    trainer = make(tiny_model, tmp_path, method)
    found = trainer.logprobs(Dataset.from_dict(PAIRS), micro)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert found.chosen.tolist() == pytest.approx(expected_logprobs(model, "chosen_ids"), rel=1e-5)
    assert found.rejected.tolist() == pytest.approx(expected_logprobs(model, "rejected_ids"), rel=1e-5)


def test_the_loss_through_our_forward_pass_is_that_through_trls_own(tiny_model: Path, tmp_path: Path) -> None:
    trainer = make(tiny_model, tmp_path, "full")
    found = PairLogprobs(torch.tensor([-20.0, -10.0, -15.0]), torch.tensor([-9.0, -30.0, -10.0]))
    trainer.use_reference(Dataset.from_dict(PAIRS), found, [2, 0, 1])
    batch = trainer.data_collator([trainer.train_dataset[place] for place in range(3)])
    ours = trainer.compute_loss(trainer.model, batch)
    theirs = DPOTrainer.compute_loss(trainer, trainer.model, batch)  # padded, TRL's fused head
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
    ours.backward()
    gradients = {name: weight.grad.clone() for name, weight in trainer.model.named_parameters()}
    trainer.model.zero_grad()
    theirs.backward()
    for name, weight in trainer.model.named_parameters():
        torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-4, atol=1e-6)


def test_no_second_adapter_is_kept_and_what_is_trained_stays_float32(tiny_model: Path, tmp_path: Path) -> None:
    trainer = make(tiny_model, tmp_path, "qlora")
    assert list(trainer.model.peft_config) == ["default"]
    trained = [(name, weight) for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert trained
    assert all(weight.dtype is torch.float32 and ".default." in name for name, weight in trained)


def test_nothing_is_dropped_in_training_mode_attention_included(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.5}))
    trainer = make(folder, tmp_path)
    trainer.model.train()
    first, second = (trainer.model(input_ids=torch.arange(3, 30)[None]).logits for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo", "hinge"])
def test_a_reference_that_is_another_model_is_found_out(loss_type: str, tiny_model: Path, tmp_path: Path) -> None:
    trainer = make(tiny_model, tmp_path, loss_type=loss_type)
    rows = Dataset.from_dict(PAIRS)
    right = trainer.logprobs(rows, 3)
    trainer.use_reference(rows, right, [0, 1, 2])
    trainer.require_reference(torch.float32)
    assert not trainer._metrics["train"]
    trainer.use_reference(
        rows, PairLogprobs(right.chosen - 0.1, right.rejected - 0.1), [0, 1, 2]
    )  # the margin is 0 still
    with pytest.raises(StageFailed, match=r"they are not the same model") as raised:
        trainer.require_reference(torch.float32)
    assert f"instead of {loss_without_margin(loss_type, 0.1):.4f}" in raised.value.message
