"""Generate answers: one decode loop for sampling, PPO rollouts and evaluation.

Sampling is exact (softmax of logits / temperature over the whole vocabulary) and does not depend on how rows are batched: each
row has its own generator, seeded by ``(seed, row key)``, and one uniform draw a token, turned into a token by the inverse
CDF. (Gumbel noise would do the same with a draw for every word of the vocabulary: 34 of 220 ms a step for 32 rows.)
The loop calls the backbone and applies the LM head to the last position only. Keys and values are written into room that is kept
for them, and a row that ends gives its place to the last row, so that little of the cache is ever copied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ftcli.core.errors import UsageError
from ftcli.core.memory import in_batches

SLICE = 256
"""Words of the vocabulary that a draw looks at one by one, having found their slice."""

LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
"""Config keys of models that do more between hidden states and logits than the head's matrix product."""


@dataclass(frozen=True)
class Generation:
    """``ids`` are the answer's tokens, with the end-of-turn token as the last one when ``finish_reason`` is ``stop``.

    ``logprobs`` are the tokens' at the temperature they were drawn with, where a server says them (`ftcli.rl.engines`).
    """

    ids: list[int]
    finish_reason: Literal["stop", "length"]
    logprobs: list[float] | None = None


def row_seed(seed: int, key: str) -> int:
    """A 63-bit seed for the row named ``key``."""
    digest = hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def changes_logits(model: Any) -> list[str]:
    """The config keys by which ``model`` does more between hidden states and logits than the head's matrix product."""
    config = model.config.get_text_config()
    return [name for name in LOGIT_CHANGES if getattr(config, name, None) not in (None, 1.0)]


def split_model(model: Any) -> tuple[Any, Any]:
    """``(backbone, LM head)`` of a causal language model, also under PEFT; active adapters stay active."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    changed = changes_logits(inner)
    if changed:
        raise UsageError(
            f"this model changes its logits after the head ({', '.join(changed)}), which ftcli does not follow yet",
            "sample, reward, ppo and eval work with models such as Llama, Qwen, Mistral and SmolLM",
        )
    return inner.base_model, inner.get_output_embeddings()


@contextmanager
def adapters_in(model: Any, dtype: torch.dtype) -> Iterator[None]:
    """Hold the LoRA weights in ``dtype`` meanwhile, and give the float32 originals back after.

    Adapters are float32 for the optimizer's sake; while decoding, casting every input to them takes a third of the time.
    """
    kept = [(weight, weight.data) for name, weight in model.named_parameters() if ".lora_" in name]
    for weight, data in kept:
        weight.data = data.to(dtype)
    try:
        yield
    finally:
        for weight, data in kept:
            weight.data = data


def generate(
    model: Any,
    prompts: Sequence[list[int]],
    keys: Sequence[str],
    *,
    stop_ids: frozenset[int],
    pad_id: int,
    max_new_tokens: int,
    temperature: float,
    seed: int = 0,
    batch_size: int = 32,
    on_batch: Callable[[int], None] = lambda done: None,
    on_rows: Callable[[Sequence[int], Sequence[Generation]], None] = lambda rows, answers: None,
    on_halved: Callable[[int], None] = lambda size: None,
    on_token: Callable[[int, int], None] = lambda row, token: None,
) -> list[Generation]:
    """Answers to ``prompts`` (token ids), in their order. ``temperature`` 0 is greedy.

    ``keys`` name the rows for the sampling seed and must be unique to give independent samples. Rows are batched by length; a
    batch for which memory does not suffice is begun anew with half its rows (`ftcli.core.memory.in_batches`), which ``on_halved``
    hears of. ``on_rows`` is called with the rows of each finished batch and their answers, ``on_batch`` with the number of rows
    finished so far, ``on_token`` with the row and each of its tokens, stop token included, as soon as it is chosen, and again in a
    batch begun anew. What they raise ends the decoding, and leaves the model as it was.
    """
    done = 0

    def answers(rows: list[int]) -> list[Generation]:
        with adapters_in(model, split_model(model)[0].dtype):
            return _decode(
                model,
                [prompts[row] for row in rows],
                [row_seed(seed, keys[row]) for row in rows],
                stop_ids,
                pad_id,
                max_new_tokens,
                temperature,
                lambda place, token: on_token(rows[place], token),
            )

    def finished(rows: list[int], found: Sequence[Generation]) -> None:
        nonlocal done
        done += len(rows)
        on_rows(rows, found)
        on_batch(done)

    with _evaluating(model):
        sizes = [len(prompt) for prompt in prompts]
        return in_batches(sizes, batch_size, answers, on_rows=finished, on_halved=on_halved)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.inference_mode()
def _decode(
    model: Any,
    prompts: list[list[int]],
    seeds: list[int],
    stop_ids: frozenset[int],
    pad_id: int,
    max_new_tokens: int,
    temperature: float,
    on_token: Callable[[int, int], None],
) -> list[Generation]:
    backbone, head = split_model(model)
    device = head.weight.device
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad_id] * (longest - len(p)) + p for p in prompts], device=device)  # [B, P], left-padded
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)  # [B, P]
    generators = [torch.Generator().manual_seed(value) for value in seeds]
    answers: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    cache = _roomy_cache(backbone.config, longest + max_new_tokens)
    positions = (mask.cumsum(1) - 1).clamp(min=0)  # [B, P]
    for _ in range(max_new_tokens):
        output = backbone(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        logits = head(output.last_hidden_state[:, -1]).float()  # [B, V]
        tokens = _pick(logits, temperature, [generators[row] for row in alive])
        for row, token in zip(alive, tokens, strict=True):
            answers[row].append(token)
            on_token(row, token)
        keep = _close_ranks([token not in stop_ids for token in tokens])
        if not keep:
            break
        if len(keep) < len(alive):
            index = torch.tensor(keep, device=device)
            cache.batch_select_indices(index)
            mask, positions = mask[index], positions[index]
            alive, tokens = [alive[place] for place in keep], [tokens[place] for place in keep]
        ids = torch.tensor(tokens, device=device)[:, None]  # [B, 1]
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        positions = positions[:, -1:] + 1
    return [Generation(answer, "stop" if answer[-1] in stop_ids else "length") for answer in answers]


def _close_ranks(is_open: list[bool]) -> list[int]:
    """The places of the rows that go on, in the order that moves the fewest: the last ones fill the holes."""
    count = sum(is_open)
    movers = [place for place in range(count, len(is_open)) if is_open[place]]
    return [place if is_open[place] else movers.pop() for place in range(count)]


class _RoomyLayer(DynamicLayer):
    """A layer of the cache that writes new keys and values [B, G, T, D] behind the old ones, where `DynamicLayer` copies all of
    them for each token. The room doubles when it is full, up to ``limit`` tokens; ``keys`` and ``values`` are views of it."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.rooms = [new.new_empty(*new.shape[:2], 0, new.shape[3]) for new in (key_states, value_states)]
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if end > self.rooms[0].shape[2]:
            self.rooms = [self._grown(room, start, end) for room in self.rooms]
        for room, new in zip(self.rooms, (key_states, value_states), strict=True):
            room[:, :, start:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self.rooms)
        return self.keys, self.values

    def _grown(self, room: torch.Tensor, start: int, end: int) -> torch.Tensor:
        grown = room.new_empty(*room.shape[:2], max(end, min(2 * end, self.limit)), room.shape[3])
        grown[:, :, :start] = room[:, :, :start]
        return grown

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows ``indices``, of which none stands before its new place (`_close_ranks`)."""
        count, device = len(indices), indices.device
        moved = (indices != torch.arange(count, device=device)).nonzero()[:, 0]
        length = self.get_seq_length()
        for room in self.rooms:
            room[moved, :, :length] = room[indices[moved], :, :length]
        self.rooms = [room[:count] for room in self.rooms]
        self.keys, self.values = (room[:, :, :length] for room in self.rooms)


def _roomy_cache(config: Any, limit: int) -> DynamicCache:
    """A cache for at most ``limit`` tokens a row. Layers that keep something else, such as a sliding window, stay transformers'."""
    cache = DynamicCache(config=config)
    cache.layers = [_RoomyLayer(limit) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _pick(logits: torch.Tensor, temperature: float, generators: list[torch.Generator]) -> list[int]:
    """One token a row from logits [B, V]: the largest, or with ``temperature`` a draw from the softmax by its inverse CDF."""
    if temperature == 0:
        return [int(token) for token in logits.argmax(dim=1)]
    weights = torch.softmax(logits if temperature == 1 else logits / temperature, dim=1)  # [B, V]
    draws = torch.cat([torch.rand(1, generator=one, dtype=torch.float64) for one in generators]).to(
        weights.device
    )  # [B]
    # Two short cumulative sums in float64, over slices of the vocabulary and then inside one, instead of one over all of it.
    if weights.shape[1] % SLICE:
        weights = pad(weights, (0, -weights.shape[1] % SLICE))
    slices = weights.view(len(weights), -1, SLICE)  # [B, V / SLICE, SLICE]
    mass = slices.sum(dim=2, dtype=torch.float64)  # [B, V / SLICE]
    places = draws[:, None] * mass.sum(dim=1, keepdim=True)  # the total differs from 1 by rounding
    chosen, below = _first_above(mass, places)
    inside = slices[torch.arange(len(slices), device=slices.device), chosen].double()  # [B, SLICE]
    offset, _ = _first_above(inside, places - below)
    return [int(token) for token in chosen * SLICE + offset]


def _first_above(weights: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first index [B] where the cumulative sum of ``weights`` [B, N] exceeds ``places`` [B, 1], and the sum before it [B, 1].

    Where rounding puts a place at or beyond the end, it is the last index that weighs anything.
    """
    cdf = weights.cumsum(dim=1)
    last = (weights > 0).cumsum(dim=1).argmax(dim=1)
    found = torch.minimum(torch.searchsorted(cdf, places, right=True)[:, 0], last)  # [B]
    return found, (cdf - weights).gather(1, found[:, None])
