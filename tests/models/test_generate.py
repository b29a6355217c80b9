from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from ftcli.models.generate import (
    Generation,
    _close_ranks,
    _pick,
    _roomy_cache,
    _RoomyLayer,
    generate,
    row_seed,
    split_model,
)

PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16], [5, 6, 7], [20, 21]]
KEYS = ["a", "b", "c", "d", "e"]


def make_model() -> Any:
    """With large random weights, so that what it says depends on all that came before."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        initializer_range=0.3,
        pad_token_id=2,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


def run(model: Any, **changes: Any) -> list[Generation]:
    options: dict[str, Any] = {
        "stop_ids": frozenset(),
        "pad_id": 2,
        "max_new_tokens": 12,
        "temperature": 1.0,
        "seed": 3,
        **changes,
    }
    prompts, keys = options.pop("prompts", PROMPTS), options.pop("keys", KEYS)
    return generate(model, prompts, keys, **options)


def test_greedy_decoding_is_that_of_transformers(model: Any) -> None:
    found = run(model, temperature=0.0)
    assert len({tuple(item.ids) for item in found}) == 4, "rows 0 and 3 are the same prompt"
    assert len(set(found[0].ids)) > 4
    for prompt, generation in zip(PROMPTS, found, strict=True):
        expected = model.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=2
        )
        assert generation.ids == expected[0, len(prompt) :].tolist()
        assert generation.finish_reason == "length"


def test_greedy_decoding_stops_where_transformers_stops(model: Any) -> None:
    stop = run(model, temperature=0.0)[0].ids[4]
    found = run(model, temperature=0.0, stop_ids=frozenset({stop}))
    assert {item.finish_reason for item in found} == {"stop", "length"}
    for prompt, generation in zip(PROMPTS, found, strict=True):
        expected = model.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=stop, pad_token_id=2
        )
        assert generation.ids == expected[0, len(prompt) :].tolist()
        assert (generation.finish_reason == "stop") == (generation.ids[-1] == stop)


def test_samples_do_not_depend_on_the_batch_or_the_order_of_rows(model: Any) -> None:
    stop_ids = frozenset(range(0, 60, 9))
    whole = run(model, stop_ids=stop_ids)
    assert {item.finish_reason for item in run(model, stop_ids=stop_ids, max_new_tokens=120)} == {"stop"}
    for batch_size in (1, 2, 3):
        assert run(model, batch_size=batch_size, stop_ids=stop_ids) == whole
    backwards = run(model, prompts=PROMPTS[::-1], keys=KEYS[::-1], stop_ids=stop_ids)
    assert backwards[::-1] == whole


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("after", [0, 4], ids=["at once", "while decoding"])
def test_memory_that_runs_out_changes_no_answer(
    monkeypatch: pytest.MonkeyPatch, most: int, temperature: float, after: int
) -> None:
    """A batch of more than ``most`` rows fails at its first pass, or once ``after`` tokens of it are there."""
    model = make_model()
    stop_ids = frozenset(range(0, 60, 9))
    expected = run(model, stop_ids=stop_ids, temperature=temperature)
    backbone = model.base_model
    forward, failed = backbone.forward, []

    def small(*args: Any, **options: Any) -> Any:
        cached = options["past_key_values"].get_seq_length()
        if len(options["input_ids"]) > most and (cached > 6 + after or after == 0):
            failed.append(cached)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(*args, **options)

    monkeypatch.setattr(backbone, "forward", small)
    halved: list[int] = []
    told: list[int] = []
    found = run(
        model,
        stop_ids=stop_ids,
        temperature=temperature,
        on_halved=halved.append,
        on_rows=lambda rows, answers: told.extend(rows),
    )
    assert found == expected
    assert sorted(told) == [0, 1, 2, 3, 4]
    assert len(failed) == len(halved)
    assert after or halved == {1: [2, 1], 2: [2], 3: [2]}[most]


def test_one_row_too_many_for_the_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()

    def fail(*args: Any, **options: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(model.base_model, "forward", fail)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        run(model)


def test_rows_and_seeds_have_streams_of_their_own(model: Any) -> None:
    found = run(model)
    assert found[0].ids != found[3].ids, "equal prompts with different keys"
    assert run(model, seed=4)[0].ids != found[0].ids
    assert run(model) == found
    twins = run(model, prompts=[[5], [5]], keys=["same", "same"])
    assert twins[0] == twins[1]


def test_an_answer_ends_with_its_stop_token_or_is_cut(model: Any) -> None:
    stop_ids = frozenset(range(0, 60, 9))
    for item in run(model, stop_ids=stop_ids, max_new_tokens=6):
        assert not stop_ids & set(item.ids[:-1])
        assert (item.ids[-1] in stop_ids) == (item.finish_reason == "stop")
        assert len(item.ids) == 6 or item.finish_reason == "stop"


def test_samples_follow_the_softmax_at_their_temperature() -> None:
    """Chi-square test against probabilities worked out by hand: logits log(1), log(2), log(4) at temperature 1/2 are 1 : 4 : 16."""
    logits = torch.log(torch.tensor([1.0, 2.0, 4.0])).repeat(4000, 1)
    generators = [torch.Generator().manual_seed(row_seed(0, str(row))) for row in range(4000)]
    counts = Counter(_pick(logits, 0.5, generators))
    expected = [4000 * share / 21 for share in (1, 4, 16)]
    assert stats.chisquare([counts[token] for token in range(3)], expected).pvalue > 0.001


@pytest.mark.parametrize("vocabulary", [3, 256, 300, 1000])
def test_draws_are_those_of_the_inverse_cdf_over_the_whole_vocabulary(vocabulary: int) -> None:
    logits = 4 * torch.randn(200, vocabulary, generator=torch.Generator().manual_seed(vocabulary))
    logits[:, ::7] = float("-inf")
    found = _pick(logits, 1.0, [torch.Generator().manual_seed(row) for row in range(200)])
    draws = [
        float(torch.rand(1, generator=torch.Generator().manual_seed(row), dtype=torch.float64)) for row in range(200)
    ]
    cdf = np.cumsum(torch.softmax(logits, dim=1).double().numpy(), axis=1)
    expected = [int(np.searchsorted(row, draw * row[-1], side="right")) for row, draw in zip(cdf, draws, strict=True)]
    assert found == expected
    assert all(token % 7 for token in found)


def test_a_word_without_probability_is_never_drawn() -> None:
    logits = torch.full((2, 300), float("-inf"))
    logits[0, 299], logits[1, 0] = 0.0, 0.0
    for seed in range(50):
        assert _pick(logits, 1.0, [torch.Generator().manual_seed(seed + row) for row in range(2)]) == [299, 0]


def test_first_tokens_of_many_samples_follow_the_models_distribution(model: Any) -> None:
    with torch.inference_mode():
        logits = model(torch.tensor([[5, 6, 7]])).logits[0, -1].double()
    top = logits.topk(5).indices.tolist()
    shares = torch.softmax(logits, dim=0)
    found = run(
        model,
        prompts=[[5, 6, 7]] * 2000,
        keys=[str(n) for n in range(2000)],
        max_new_tokens=1,
        batch_size=500,
    )
    counts = Counter(item.ids[0] for item in found)
    observed = [*(counts[token] for token in top), 2000 - sum(counts[token] for token in top)]
    expected = [2000 * float(shares[token]) for token in top]
    assert stats.chisquare(observed, [*expected, 2000 - sum(expected)]).pvalue > 0.001


def test_progress_counts_finished_rows_and_the_mode_of_the_model_is_kept(model: Any) -> None:
    counted: list[int] = []
    model.train()
    run(model, batch_size=2, on_batch=counted.append)
    assert counted == [2, 4, 5]
    assert model.training
    model.eval()
    run(model)
    assert not model.training
    assert run(model, prompts=[], keys=[]) == []


def test_tokens_are_told_as_they_come_and_are_those_of_the_answers(model: Any) -> None:
    told: list[tuple[int, int]] = []
    options: dict[str, Any] = {"stop_ids": frozenset(range(0, 60, 9)), "batch_size": 2}
    found = run(model, on_token=lambda row, token: told.append((row, token)), **options)
    assert found == run(model, **options)
    assert [[token for place, token in told if place == row] for row in range(5)] == [item.ids for item in found]
    first_batch = [row for row, _ in told[:4]]
    assert first_batch == [2, 0, 2, 0], "one token of each row before the next"


def test_an_answer_that_is_broken_off_leaves_the_model_as_it_was() -> None:
    model = make_model().train()

    def stop(row: int, token: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, on_token=stop)
    assert model.training


def test_an_adapter_takes_part(model: Any) -> None:
    from peft import LoraConfig, get_peft_model

    base = make_model()
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)).eval()
    found = run(adapted, temperature=0.0)
    expected = adapted.generate(
        input_ids=torch.tensor([PROMPTS[0]]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=2
    )
    assert found[0].ids == expected[0, len(PROMPTS[0]) :].tolist()
    assert found != run(model, temperature=0.0)
    backbone, head = split_model(adapted)
    assert backbone is base.model
    assert head is base.lm_head


def test_row_seeds_differ_and_fit_a_generator() -> None:
    seeds = {row_seed(seed, key) for seed in range(50) for key in map(str, range(50))}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert row_seed(1, "2") == row_seed(1, "2")
    assert row_seed(1, "12") != row_seed(11, "2")


@pytest.mark.parametrize("pattern", ["11111", "01111", "11110", "01010", "00001", "10000", "0110101", "11000111"])
def test_rows_that_end_give_their_places_to_the_last_ones(pattern: str) -> None:
    is_open = [mark == "1" for mark in pattern]
    kept = _close_ranks(is_open)
    assert sorted(kept) == [place for place, mark in enumerate(pattern) if mark == "1"]
    stay = [place for place in range(len(kept)) if is_open[place]]
    assert [kept[place] for place in stay] == stay, "nothing moves that need not"


def test_the_roomy_cache_holds_what_that_of_transformers_holds(model: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    config = model.config
    ours, theirs = _roomy_cache(config, 21), DynamicCache(config=config)
    assert [type(layer) for layer in ours.layers] == [_RoomyLayer] * 2
    rows = 6
    for step, tokens in enumerate([5, *[1] * 16]):
        for layer in range(2):
            new = [torch.randn(rows, 2, tokens, 8, generator=generator) for _ in range(2)]
            for found, expected in zip(ours.update(*new, layer), theirs.update(*new, layer), strict=True):
                assert torch.equal(found, expected)
        if step in (1, 4, 9):
            kept = _close_ranks([place not in (step % rows, 0) for place in range(rows)])
            for cache in (ours, theirs):
                cache.batch_select_indices(torch.tensor(kept))
            rows = len(kept)
            assert torch.equal(ours.layers[1].values, theirs.layers[1].values)
    assert rows == 2
    assert ours.get_seq_length() == theirs.get_seq_length() == 21
    assert ours.layers[0].rooms[0].shape[2] == 21, "never more room than the limit"


def test_a_model_with_a_sliding_window_decodes_as_in_transformers() -> None:
    torch.manual_seed(5)
    config = MistralConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        sliding_window=4,
        pad_token_id=2,
        eos_token_id=None,
    )
    windowed = MistralForCausalLM(config).eval()
    found = run(windowed, temperature=0.0, prompts=[[5, 6, 7, 8, 9, 10]], keys=["a"])
    expected = windowed.generate(
        torch.tensor([[5, 6, 7, 8, 9, 10]]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=2
    )
    assert found[0].ids == expected[0, 6:].tolist()
