"""The oracle is the loss that transformers' own models compute from full logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from ftcli.models.packing import enable_packing
from ftcli.training.loss import IGNORED, has_plain_head, nll_sum

Batch = dict[str, torch.Tensor]


@pytest.fixture
def model(tiny_model: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


@pytest.fixture
def batch() -> Batch:
    """Rows of 12, 9 and 5 tokens, padded right with an id that is a label elsewhere; labels at scattered places."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 300, (3, 12), generator=generator)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.ones_like(ids)
    for row, (length, starts) in enumerate([(12, (4, 5, 6, 11)), (9, (3, 7, 8)), (5, (4,))]):
        ids[row, length:] = 2
        mask[row, length:] = 0
        labels[row, list(starts)] = ids[row, list(starts)]
    ids[0, 11] = labels[0, 11] = 2  # the padding id is a label too: it ends a turn
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def compare_with_transformers(model: torch.nn.Module, batch: Batch) -> None:
    reference = model(**batch).loss
    reference.backward()
    expected = gradients(model)
    nll, labels = nll_sum(model, model.get_output_embeddings(), batch)
    (nll / labels).backward()
    assert int(labels) == 8
    torch.testing.assert_close(nll / labels, reference, rtol=1e-5, atol=1e-6)
    assert expected.keys() == {name for name, weight in model.named_parameters() if weight.grad is not None}
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6, msg=name)


def test_loss_and_gradients_are_those_of_transformers(model: torch.nn.Module, batch: Batch) -> None:
    compare_with_transformers(model, batch)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_rows_have_the_same_loss_and_gradients(
    model: torch.nn.Module, batch: Batch, checkpointing: bool
) -> None:
    reference = model(**batch).loss
    reference.backward()
    expected = gradients(model)
    assert enable_packing(model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    nll, labels = nll_sum(model, model.get_output_embeddings(), batch, packed=True)
    (nll / labels).backward()
    assert int(labels) == 8
    torch.testing.assert_close(nll / labels, reference, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_what_a_model_does_after_its_head_is_kept(batch: Batch) -> None:
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=0.5,
        pad_token_id=0,
    )
    compare_with_transformers(Gemma2ForCausalLM(config).eval(), batch)


def test_the_head_sees_label_positions_only(model: torch.nn.Module, batch: Batch) -> None:
    seen: list[torch.Size] = []
    head = model.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    nll_sum(model, head, batch)
    hook.remove()
    assert seen == [(8, model.config.vocab_size)]


def test_the_head_is_itself_again_afterwards(model: torch.nn.Module, batch: Batch) -> None:
    head = model.get_output_embeddings()
    nll_sum(model, head, batch)
    with pytest.raises(IndexError):
        nll_sum(model, head, {**batch, "input_ids": torch.full_like(batch["input_ids"], 10**6)})
    assert model(input_ids=batch["input_ids"]).logits.shape == (3, 12, model.config.vocab_size)


@pytest.mark.parametrize("micro", [1, 2])
def test_micro_batches_sum_to_the_whole_batch(model: torch.nn.Module, batch: Batch, micro: int) -> None:
    head = model.get_output_embeddings()
    whole, labels = nll_sum(model, head, batch)
    (whole / labels).backward()
    expected = gradients(model)
    total = 0.0
    for first in range(0, 3, micro):
        nll, _ = nll_sum(model, head, {name: values[first : first + micro] for name, values in batch.items()})
        (nll / labels).backward()
        total += float(nll)
    assert total == pytest.approx(float(whole), rel=1e-5)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6, msg=name)


def frozen(model: torch.nn.Module) -> torch.nn.Module:
    """``model`` with its layers trained and its head (and the embeddings tied to it) frozen."""
    model.get_output_embeddings().requires_grad_(False)
    return model


@pytest.mark.parametrize("chunk_bytes", [2**24, 4 * 397 * 3], ids=["one chunk", "chunks of three"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_frozen_plain_head_gives_the_same_loss_and_gradients(
    packed: bool, chunk_bytes: int, model: torch.nn.Module, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen(model)
    assert has_plain_head(model)
    reference = model(**batch).loss
    (3 * reference).backward()
    expected = gradients(model)
    if packed:
        assert enable_packing(model)
    monkeypatch.setattr("ftcli.models.logprobs._chunk", lambda head: chunk_bytes // (4 * head.weight.shape[0]))
    nll, labels = nll_sum(model, model.get_output_embeddings(), batch, packed=packed, plain_head=True)
    (3 * nll / labels).backward()
    assert int(labels) == 8
    torch.testing.assert_close(nll / labels, reference, rtol=1e-5, atol=1e-6)
    found = gradients(model)
    assert expected.keys() == found.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=name)
    with torch.no_grad():
        again, _ = nll_sum(model, model.get_output_embeddings(), batch, packed=packed, plain_head=True)
    torch.testing.assert_close(again, nll)


def test_without_labels_the_loss_of_a_frozen_plain_head_is_0(model: torch.nn.Module, batch: Batch) -> None:
    unlabelled = {**batch, "labels": torch.full_like(batch["labels"], IGNORED)}
    nll, labels = nll_sum(frozen(model), model.get_output_embeddings(), unlabelled, plain_head=True)
    nll.backward()
    assert (float(nll), int(labels)) == (0.0, 0)
    assert all(not gradient.any() for gradient in gradients(model).values())


def test_a_head_that_is_trained_or_followed_by_more_is_not_plain(model: torch.nn.Module) -> None:
    assert not has_plain_head(model)  # trained
    frozen(model)
    assert has_plain_head(model)
    model.config.final_logit_softcapping = 30.0
    assert not has_plain_head(model)
