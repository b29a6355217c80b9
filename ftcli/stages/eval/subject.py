"""A model under test: what it says and what texts cost it, computed once and kept by content (`ftcli.stages.eval.cache`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib import metadata
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ftcli.core.stage import Artifact
from ftcli.data.chat import generation_eos, stop_token_ids
from ftcli.metrics.perplexity import AnswerScore, Pair, of_texts, score_answers, windows
from ftcli.models.generate import adapters_in, generate, split_model
from ftcli.models.load import load_tokenizer_of
from ftcli.stages.eval.bench import Base, Bench, base_of
from ftcli.stages.eval.cache import Cache, key_of
from ftcli.stages.eval.outcome import Answer

ENGINE = "ftcli-1"
"""Raise when decoding or scoring would now give other results: kept ones are then computed again."""

Save = Callable[[Sequence[int], Sequence[Any]], None]
"""Takes rows, by index, and the JSON value of each."""
Progress = Callable[[str, int, int], None]
"""Takes what is being done, how many rows are done and of how many."""


class Subject:
    """The model ``artifact``, loaded on ``bench`` only where ``cache`` does not know the answer.

    ``seed`` is that of sampled answers. ``computed`` and ``cached`` count pieces of work: an answer, a scored pair, a window.
    """

    def __init__(
        self,
        artifact: Artifact,
        bench: Bench,
        cache: Cache,
        *,
        batch_size: int = 32,
        seed: int = 0,
        progress: Progress = lambda task, done, total: None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.artifact, self.bench, self.cache = artifact, bench, cache
        self.batch_size, self.seed = batch_size, seed
        self.computed = self.cached = 0
        self._progress, self._note = progress, note

    @property
    def label(self) -> str:
        return self.artifact.label

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer_of(self.artifact)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an answer."""
        return stop_token_ids(self.tokenizer, generation_eos((self.artifact.base or self.artifact).path))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All but the prompt that decides what this model computes, by content."""
        base, device = base_of(self.artifact), self.bench.device
        return {
            "model": self.artifact.digest,
            "base": [base.digest, base.quantization, base.double_quant],
            "tokenizer": tokenizer_digest(self.tokenizer),
            "dtype": str(self.bench.dtype),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "engine": [ENGINE, *(f"{name} {metadata.version(name)}" for name in _engine(base))],
        }

    def model(self) -> Any:
        """The model, loaded now if it is not (`Bench.model`)."""
        return self.bench.model(self.artifact)

    def answer_nll(self, pairs: Sequence[Pair], task: str = "perplexity") -> list[AnswerScore]:
        """What the answer of each ``(prompt ids, answer ids)`` pair costs the model, prompt given."""

        def compute(rows: list[int], save: Save) -> None:
            model = self.model()
            backbone, head = split_model(model)
            with adapters_in(model, backbone.dtype):
                score_answers(
                    backbone,
                    head,
                    [pairs[row] for row in rows],
                    pad_id=int(self.tokenizer.pad_token_id),
                    batch_size=self.batch_size,
                    on_rows=lambda done, scores: save(
                        [rows[place] for place in done], [[score.nll, score.tokens] for score in scores]
                    ),
                    on_halved=self.halved,
                )

        parts = [{"prompt": prompt, "answer": answer} for prompt, answer in pairs]
        return [AnswerScore(nll, tokens) for nll, tokens in self.kept("nll", parts, compute, task)]

    def text_nll(
        self, texts: Sequence[Sequence[int]], *, context: int = 1024, stride: int = 512, prefix: int | None = None
    ) -> list[AnswerScore]:
        """What whole texts cost the model, in sliding windows (`ftcli.metrics.perplexity.windows`)."""
        parts = [windows(text, context, stride, prefix) for text in texts]
        return of_texts(parts, self.answer_nll([pair for own in parts for pair in own], "text perplexity"))

    def answers(
        self, prompts: Sequence[list[int]], keys: Sequence[str], *, max_new_tokens: int, temperature: float = 0.0
    ) -> list[Answer]:
        """An answer to each prompt (token ids), greedy at ``temperature`` 0; otherwise ``keys`` name the rows' random streams."""

        def compute(rows: list[int], save: Save) -> None:
            generate(
                self.model(),
                [prompts[row] for row in rows],
                [keys[row] for row in rows],
                stop_ids=self.stop_ids,
                pad_id=int(self.tokenizer.pad_token_id),
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=self.seed,
                batch_size=self.batch_size,
                on_rows=lambda done, found: save(
                    [rows[place] for place in done], [[one.ids, one.finish_reason] for one in found]
                ),
                on_halved=self.halved,
            )

        settings = {"stop_ids": sorted(self.stop_ids), "max_new_tokens": max_new_tokens, "temperature": temperature}
        parts: list[dict[str, Any]] = [{"prompt": prompt, **settings} for prompt in prompts]
        if temperature > 0:
            parts = [{**part, "seed": self.seed, "row": key} for part, key in zip(parts, keys, strict=True)]
        task = "sampled answers" if temperature > 0 else "greedy answers"
        found = self.kept("answer", parts, compute, task)
        return [Answer(str(self.tokenizer.decode(ids, skip_special_tokens=True)), ids, why) for ids, why in found]

    def kept(
        self,
        kind: str,
        parts: Sequence[Mapping[str, Any]],
        compute: Callable[[list[int], Save], None],
        task: str = "",
    ) -> list[Any]:
        """A JSON value for each of ``parts``, which with ``kind`` and this model decide it; the same part has the same value.

        ``compute`` is called only if some are not known, with their indices, and gives each one's value to its second argument
        as it has them, so that work that is interrupted is not lost.
        """
        keys = [key_of({"kind": kind, **self.identity, **part}) for part in parts]
        known = self.cache.find(list(dict.fromkeys(keys)))
        first = {key: row for row, key in reversed(list(enumerate(keys)))}
        missing = sorted(row for key, row in first.items() if key not in known)
        self.cached += len(first) - len(missing)

        def save(rows: Sequence[int], values: Sequence[Any]) -> None:
            new = {keys[row]: value for row, value in zip(rows, values, strict=True)}
            self.cache.put(new)
            known.update(new)
            self.computed += len(new)
            self._progress(f"{self.label}: {task or kind}", len(known), len(first))

        if missing:
            compute(missing, save)
        return [known[key] for key in keys]

    def halved(self, size: int) -> None:
        """Memory ran out: go on with ``size`` rows at a time."""
        self.batch_size = size
        self._note(f"{self.label}: out of memory; {size} rows at a time from here on")


def _engine(base: Base) -> tuple[str, ...]:
    """The packages that compute."""
    return ("torch", "transformers", "peft", *(("bitsandbytes",) if base.quantization else ()))


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of what turns messages into ids and back: vocabulary, rules and chat template."""
    rules = getattr(tokenizer, "backend_tokenizer", None)
    parts = {
        "rules": rules.to_str() if rules is not None else sorted(tokenizer.get_vocab().items()),
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "template": tokenizer.chat_template,
    }
    return key_of(parts)
