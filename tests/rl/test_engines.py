"""Engines against a server on loopback that speaks vLLM's protocol and samples with transformers (`tests.rl.fake_vllm`)."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ftcli.core.errors import FtcliError, StageFailed, UsageError
from ftcli.models.generate import Generation, generate
from ftcli.rl.engines import HfEngine, VllmServerEngine, check_served, logprob_gap, rollout_weights
from ftcli.rl.rollout import Sampling
from ftcli.rl.vllm_client import VllmClient
from tests.rl.conftest import EOS, PAD, tiny_adapter, tiny_llama
from tests.rl.fake_vllm import FakeVllm, serving

pytestmark = pytest.mark.enable_socket  # loopback

PROMPTS = [[5, 6, 7], [9, 4], [11, 12, 13, 14], [5, 6, 7], [20, 21], [8, 8, 3]]
KEYS = ["a", "b", "c", "d", "e", "f"]
SAMPLING = Sampling(frozenset({EOS}), PAD, response_length=12)


def engine_of(fake: FakeVllm, folder: Path, **changes: Any) -> VllmServerEngine:
    return VllmServerEngine(fake.url, folder / "served", **{"wait_s": 0.01, **changes})


def padded(generations: list[Generation], values: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """``values`` of the tokens as [B, R], and the mask."""
    width = max(len(one.ids) for one in generations)
    rows = torch.zeros(len(generations), width, dtype=torch.float64)
    mask = torch.zeros(len(generations), width, dtype=torch.bool)
    for row, of_row in enumerate(values):
        rows[row, : len(of_row)] = torch.tensor(of_row, dtype=torch.float64)
        mask[row, : len(of_row)] = True
    return rows, mask


@torch.no_grad()
def recomputed(model: Any, generations: list[Generation], temperature: float = 1.0) -> list[list[float]]:
    found = []
    for prompt, one in zip(PROMPTS, generations, strict=True):
        logits = model(torch.tensor([prompt + one.ids])).logits[0, len(prompt) - 1 : -1]  # [R, V]
        scores = torch.log_softmax(logits / temperature, dim=1)
        found.append(scores.gather(1, torch.tensor(one.ids)[:, None])[:, 0].tolist())
    return found


def gap_of(model: Any, found: list[Generation], reference: Any = None, temperature: float = 1.0) -> dict[str, float]:
    served, mask = padded(found, [one.logprobs or [] for one in found])
    own, _ = padded(found, recomputed(model, found, temperature))
    start = None if reference is None else padded(found, recomputed(reference, found, temperature))[0]
    return logprob_gap(served, own, mask, start)


def test_the_engine_of_this_process_answers_as_generate_does() -> None:
    model = tiny_adapter()
    engine = HfEngine()
    with pytest.raises(ValueError, match="sync"):
        engine.generate(PROMPTS, KEYS, SAMPLING, 3)
    engine.sync(model, 0)
    expected = generate(
        model, PROMPTS, KEYS, stop_ids=frozenset({EOS}), pad_id=PAD, max_new_tokens=12, temperature=1.0, seed=3
    )
    assert engine.generate(PROMPTS, KEYS, SAMPLING, 3) == expected
    assert expected[0].logprobs is None


def test_the_engine_of_this_process_remembers_how_many_rows_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_adapter()
    backbone, tried, told = model.get_base_model().base_model, [], []
    forward = backbone.forward

    def small(*args: Any, **options: Any) -> Any:
        tried.append(len(options["input_ids"]))
        if tried[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(*args, **options)

    engine = HfEngine(told.append)
    engine.sync(model, 0)
    expected = engine.generate(PROMPTS, KEYS, SAMPLING, 3)
    monkeypatch.setattr(backbone, "forward", small)
    assert engine.generate(PROMPTS, KEYS, SAMPLING, 3) == expected
    assert told[-1] == 1
    tried.clear()
    assert engine.generate(PROMPTS, KEYS, SAMPLING, 3) == expected
    assert set(tried) == {1}


def test_served_answers_are_the_adapters_with_its_log_probs(tmp_path: Path) -> None:
    policy = tiny_adapter(seed=1)
    cold = Sampling(frozenset({EOS, 2, 3, 4}), PAD, 12, temperature=0.7)
    with serving(tiny_llama()) as fake:
        engine = engine_of(fake, tmp_path)
        engine.sync(policy, 0)
        found = engine.generate(PROMPTS, KEYS, cold, 3)
    for one, expected in zip(found, recomputed(policy, found, 0.7), strict=True):
        assert one.logprobs == pytest.approx(expected, abs=1e-4)
        assert (one.ids[-1] in cold.stop_ids) == (one.finish_reason == "stop")
    assert {one.finish_reason for one in found} == {"stop", "length"}
    gap = gap_of(policy, found, temperature=0.7)
    assert gap["rollout/logprob_diff_max"] < 1e-4
    check_served(gap, 0)


def test_greedy_answers_are_those_of_this_process(tmp_path: Path) -> None:
    policy = tiny_adapter(seed=1)
    greedy = Sampling(frozenset({EOS}), PAD, 10, temperature=0.0)
    own = HfEngine()
    own.sync(policy, 0)
    with serving(tiny_llama()) as fake:
        engine = engine_of(fake, tmp_path)
        engine.sync(policy, 0)
        found = engine.generate(PROMPTS, KEYS, greedy, 0)
    expected = own.generate(PROMPTS, KEYS, greedy, 0)
    assert [(one.ids, one.finish_reason) for one in found] == [(one.ids, one.finish_reason) for one in expected]


def test_keys_and_seeds_decide_the_draws_and_requests_run_at_once(tmp_path: Path) -> None:
    with serving(tiny_llama(), delay=0.2) as fake:
        engine = engine_of(fake, tmp_path)
        engine.sync(tiny_adapter(), 0)
        found = engine.generate(PROMPTS, KEYS, SAMPLING, 3)
        assert fake.most_at_once > 1
        assert engine.generate(PROMPTS[::-1], KEYS[::-1], SAMPLING, 3)[::-1] == found
        assert engine.generate(PROMPTS, KEYS, SAMPLING, 4) != found
        assert engine.generate([], [], SAMPLING, 3) == []
    assert found[0].ids != found[3].ids, "equal prompts with different keys"


def test_a_request_asks_for_the_whole_distribution_and_no_stop_but_ours(tmp_path: Path) -> None:
    """Each field by name: what is left out the server takes from the model's generation_config.json."""
    with serving(tiny_llama()) as fake:
        engine = engine_of(fake, tmp_path, api_key="secret")
        engine.sync(tiny_adapter(), 0)
        engine.generate(PROMPTS[:1], KEYS[:1], Sampling(frozenset({7, 3}), PAD, 5, temperature=0.5), 3)
        name = engine.name
    path, body = fake.requests[-1]
    assert path == "/v1/completions"
    assert 0 <= body.pop("seed") < 2**63
    assert body == {
        "model": name,
        "prompt": PROMPTS[0],
        "max_tokens": 5,
        "temperature": 0.5,
        "stop_token_ids": [3, 7],
        "ignore_eos": True,
        "logprobs": 0,
        "return_token_ids": True,
        "n": 1,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "min_tokens": 0,
        "stop": [],
    }
    assert set(fake.keys) == {"Bearer secret"}


def test_each_version_has_its_name_and_the_old_one_goes_first(tmp_path: Path) -> None:
    first, second = tiny_adapter(seed=1), tiny_adapter(seed=2)
    with serving(tiny_llama()) as fake:
        engine = engine_of(fake, tmp_path)
        engine.sync(first, 0)
        old = engine.name
        engine.sync(first, 0)
        assert engine.name == old, "nothing changed"
        engine.sync(second, 1)
        assert engine.name != old
        assert list(fake.roots) == [engine.name]
        asked = [(path.rsplit("/", 1)[1], body.get("lora_name")) for path, body in fake.requests]
        assert asked == [
            ("models", None),
            ("load_lora_adapter", old),
            ("unload_lora_adapter", old),
            ("load_lora_adapter", engine.name),
        ]
        assert [path.name for path in (tmp_path / "served").iterdir()] == ["policy-1"]
        check_served(gap_of(second, engine.generate(PROMPTS, KEYS, SAMPLING, 0), first), 1)
        engine.close()
        assert not fake.roots
    assert not (tmp_path / "served").exists()
    engine.close()  # of a server that is gone


def test_other_weights_of_the_same_version_get_another_name(tmp_path: Path) -> None:
    """vLLM's prefix cache goes by the adapter's name."""
    with serving(tiny_llama()) as fake:
        engine, other = engine_of(fake, tmp_path), engine_of(fake, tmp_path / "other")
        names = []
        for seed in (1, 2):
            engine.sync(tiny_adapter(seed=seed), 5)
            names.append(engine.name)
        other.sync(tiny_adapter(seed=2), 5)
        assert len({*names, other.name}) == 3


def test_what_an_earlier_engine_left_is_taken_off_the_server(tmp_path: Path) -> None:
    with serving(tiny_llama()) as fake:
        engine_of(fake, tmp_path).sync(tiny_adapter(seed=1), 3)
        again = engine_of(fake, tmp_path)
        again.sync(tiny_adapter(seed=2), 3)
        assert list(fake.roots) == [again.name]


@pytest.mark.parametrize(
    ("fault", "temperature"),
    [({"stale": True}, 1.0), ({"ignores_adapter": True}, 1.0), ({"raw_logprobs": True}, 0.5)],
    ids=["stale adapter", "no adapter", "log-probs without the temperature"],
)
def test_a_server_with_other_weights_is_found_out(fault: dict[str, Any], temperature: float, tmp_path: Path) -> None:
    first, second = tiny_adapter(seed=1), tiny_adapter(seed=2)
    sampling = Sampling(frozenset({EOS}), PAD, 12, temperature=temperature)
    with serving(tiny_llama(), **fault) as fake:
        engine = engine_of(fake, tmp_path)
        engine.sync(first, 0)
        engine.sync(second, 1)
        found = engine.generate(PROMPTS, KEYS, sampling, 0)
    gap = gap_of(second, found, temperature=temperature)
    assert gap["rollout/logprob_diff_max"] >= gap["rollout/logprob_diff_mean"] > 0.1
    with pytest.raises(StageFailed, match="does not sample from the current weights") as caught:
        check_served(gap, 1)
    assert "processed_logprobs" in caught.value.hint


def test_old_weights_are_found_out_below_the_noise() -> None:
    """Weights that moved by .01 under noise of .04, the measured one of bfloat16: the mean gap says nothing."""
    generator = torch.Generator().manual_seed(0)

    def noise(size: float) -> torch.Tensor:
        return size * torch.randn(64, 100, generator=generator)

    start, mask = noise(1.0) - 2, torch.ones(64, 100, dtype=torch.bool)
    policy = start + noise(0.01)
    for weights, is_old in ((policy, False), (start, True)):
        gap = logprob_gap(weights + noise(0.04), policy, mask, start)
        assert gap["rollout/logprob_diff_mean"] == pytest.approx(0.04 * math.sqrt(2 / math.pi), rel=0.05)
        assert (gap["rollout/stale_z"] > 5) == is_old
        if is_old:
            with pytest.raises(StageFailed, match="old weights"):
                check_served(gap, 3)
        else:
            check_served(gap, 3)


def test_before_the_first_update_both_policies_are_one() -> None:
    same = torch.tensor([[-1.0, -2.0]])
    gap = logprob_gap(same + 0.02, same, torch.tensor([[True, True]]), same)
    assert gap["rollout/stale_z"] == 0
    check_served(gap, 0)


def test_the_gap_counts_response_tokens_alone_and_is_no_number_where_one_is_not() -> None:
    served, own = torch.tensor([[-1.0, -2.0, 50.0]]), torch.tensor([[-1.25, -1.5, 0.0]])
    gap = logprob_gap(served, own, torch.tensor([[True, True, False]]))
    assert gap == {"rollout/logprob_diff_mean": 0.375, "rollout/logprob_diff_max": 0.5}
    with pytest.raises(StageFailed):
        check_served({"rollout/logprob_diff_mean": math.nan}, 0)


def test_importance_weights_by_hand() -> None:
    old = torch.tensor([math.log(0.5), math.log(0.5), -1.0], requires_grad=True)
    weights = rollout_weights(old, torch.tensor([math.log(0.25), math.log(0.125), -500.0]), cap=3.0)
    assert weights.tolist() == pytest.approx([2.0, 3.0, 3.0])
    assert not weights.requires_grad


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"no_updating": True}, "loads no adapters while it runs"),
        ({"no_lora": True}, "LoRA is not enabled"),
    ],
)
def test_a_server_that_takes_no_adapter_says_how_to_start_it(
    faults: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with serving(tiny_llama(), **faults) as fake, pytest.raises(StageFailed, match=message) as caught:
        engine_of(fake, tmp_path).sync(tiny_adapter(), 0)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve BASE --enable-lora" in caught.value.hint


def test_a_server_of_another_base_is_refused_by_name(tmp_path: Path) -> None:
    with serving(tiny_llama()) as fake:
        with pytest.raises(UsageError, match="serves tiny, not the policy's base other"):
            engine_of(fake, tmp_path, base="other").sync(tiny_adapter(), 0)
        engine_of(fake, tmp_path, base="tiny").sync(tiny_adapter(), 0)


def test_a_whole_model_is_refused(tmp_path: Path) -> None:
    engine = VllmServerEngine("http://localhost:1", tmp_path)
    with pytest.raises(UsageError, match="as an adapter") as caught:
        engine.sync(tiny_llama(), 0)
    assert "rollout_engine" in caught.value.hint
    with pytest.raises(ValueError, match="sync"):
        engine.generate(PROMPTS, KEYS, SAMPLING, 0)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://host:port", "8000"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        VllmClient(url)


def test_an_address_may_end_with_the_path_of_the_api() -> None:
    assert VllmClient("https://host/proxy/v1/").url == "https://host/proxy"


def test_a_server_that_is_not_there_is_tried_again_and_then_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        engine = VllmServerEngine(url, tmp_path, wait_s=0.01)
        with pytest.raises(StageFailed, match=f"{url}: the vLLM server does not answer: .*refused") as caught:
            engine.sync(tiny_adapter(), 0)
    assert "vllm serve" in caught.value.hint


def test_a_busy_server_is_tried_again(tmp_path: Path) -> None:
    with serving(tiny_llama(), busy=3) as fake:
        assert [card["id"] for card in VllmClient(fake.url, wait_s=0.01).models()] == ["tiny"]
        assert len(fake.requests) == 4
    with serving(tiny_llama(), busy=99) as fake, pytest.raises(StageFailed, match="status 503"):
        VllmClient(fake.url, wait_s=0.01).models()


def test_an_answer_that_does_not_come_is_an_error(tmp_path: Path) -> None:
    with serving(tiny_llama(), delay=3) as fake:
        engine = engine_of(fake, tmp_path)
        engine.sync(tiny_adapter(), 0)
        with pytest.raises(StageFailed, match=r"no answer within 0\.2 s"):
            VllmClient(fake.url, timeout_s=0.2).complete(str(engine.name), PROMPTS[0], SAMPLING, 0)


def test_one_refused_prompt_breaks_off_the_others_with_the_servers_words(tmp_path: Path) -> None:
    words = "This model's maximum context length is 64 tokens."
    with serving(tiny_llama(), delay=1, refuse=words) as fake:
        engine = engine_of(fake, tmp_path)
        engine.sync(tiny_adapter(), 0)
        with pytest.raises(StageFailed, match=f"the server answers 400: {words}"):
            engine.generate([*PROMPTS, [31]], [*KEYS, "g"], SAMPLING, 0)
        assert len(engine.generate(PROMPTS[:2], KEYS[:2], SAMPLING, 0)) == 2, "it goes on after that"


def test_a_server_that_lost_the_adapter_is_no_sampler(tmp_path: Path) -> None:
    with serving(tiny_llama()) as fake:
        engine = engine_of(fake, tmp_path)
        engine.sync(tiny_adapter(), 0)
        fake.roots.clear()  # it was started anew
        with pytest.raises(StageFailed, match=r"404: The model `ftcli-.*` does not exist"):
            engine.generate(PROMPTS, KEYS, SAMPLING, 0)


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"choice": {"token_ids": None}}, "no token ids"),
        ({"choice": {"logprobs": None}}, "no log-probs"),
        ({"choice": {"logprobs": {"token_logprobs": [-1.0]}}}, "no log-probs"),
        ({"choice": {"token_ids": [5], "logprobs": {"token_logprobs": [None]}}}, "no log-probs"),
        ({"choice": {"prompt_token_ids": [1, 2]}}, "another prompt"),
        ({"choice": {"finish_reason": "abort"}}, "ended an answer for 'abort'"),
        (
            {"choice": {"token_ids": [9], "logprobs": {"token_logprobs": [-1.0]}, "finish_reason": "stop"}},
            "end-of-turn",
        ),
        (
            {
                "choice": {
                    "token_ids": [EOS, 9],
                    "logprobs": {"token_logprobs": [-1.0, -1.0]},
                    "finish_reason": "length",
                }
            },
            "end-of-turn",
        ),
        ({"max_model_len": 6}, "cut an answer at 3 of 12 tokens"),
    ],
)
def test_an_answer_that_cannot_be_learnt_from_is_refused(faults: dict[str, Any], message: str, tmp_path: Path) -> None:
    with serving(tiny_llama(), **faults) as fake:
        engine = engine_of(fake, tmp_path)
        engine.sync(tiny_adapter(), 0)
        with pytest.raises(StageFailed, match=message):
            engine.generate(PROMPTS[:1], KEYS[:1], Sampling(frozenset({EOS}), PAD, 12), 1)


@pytest.mark.parametrize("status", [200, 401])
def test_a_reply_that_is_no_completion_or_wants_a_key_is_an_error(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reply: Callable[..., tuple[int, Any]] = lambda *_: (status, {"choices": []})  # noqa: E731
    with serving(tiny_llama()) as fake:
        monkeypatch.setattr(fake, "answer", reply)
        with pytest.raises(FtcliError, match="no completion" if status == 200 else "API key"):
            VllmClient(fake.url).complete("x", [1], SAMPLING, 0)
