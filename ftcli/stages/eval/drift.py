"""How far a tuned model has moved from its base on general prompts: the token KL along the base's own answers.

It needs no right answers and sees every change of the distribution. The two models need not fit into memory together: the base's
log-probs, a few hundred MB, are written to a file and read back for each tuned model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ftcli.data.chat import render_prompt
from ftcli.metrics.figures import Figure
from ftcli.metrics.names import Metric
from ftcli.metrics.perplexity import Pair
from ftcli.metrics.statistics import Examples
from ftcli.metrics.token_kl import answer_logprobs, kl
from ftcli.models.generate import adapters_in, split_model
from ftcli.stages.eval.cache import key_of
from ftcli.stages.eval.suite import CHAT_KINDS, FAMILY, Item, Suite

if TYPE_CHECKING:
    from ftcli.stages.eval.subject import Save, Subject

PROMPTS = 40
ANSWER_TOKENS = 32
BATCH_SIZE = 8
"""The same for both models, and all of their logits are in memory at once: the same model has then exactly the same log-probs."""

KL_NAME = "general.kl"
KL = Metric(
    "Token KL from the base",
    FAMILY,
    None,  # training moves a model: how far is a fact and not a fault
    4,
    "KL(base || tuned) of the next token in nats, mean over the tokens of the base's own greedy answers",
)


class Unlike(Exception):
    """The token KL of two models cannot be measured; the text says why."""


def _check_alike(base: Subject, tuned: Subject) -> None:
    if not base.tokenizer.chat_template:
        raise Unlike(f"{base.label} has no chat template to ask it with")
    if base.tokenizer.get_vocab() != tuned.tokenizer.get_vocab():
        raise Unlike(f"{base.label} and {tuned.label} have different vocabularies")


def suite_kl(base: Subject, tuned: Subject, suite: Suite, scratch: Path) -> Figure:
    """``general.kl`` of ``tuned``: for each prompt the sum over the base's answer, and its tokens; their quotient is nats a token.

    ``scratch`` keeps the base's log-probs for the next tuned model. Exactly 0 for a model against itself. Raises `Unlike` for a
    base without a chat template, and for models whose vocabularies or heads are not the same.
    """
    _check_alike(base, tuned)
    items = kl_items(suite)
    prompts = [render_prompt(base.tokenizer, item.messages) for item in items]
    answers = base.answers(prompts, [item.id for item in items], max_new_tokens=ANSWER_TOKENS)
    pairs = [(prompt, answer.ids) for prompt, answer in zip(prompts, answers, strict=True)]

    def compute(rows: list[int], save: Save) -> None:
        stored = _base_logprobs(base, pairs, scratch)
        start = 0
        for row, logprobs in enumerate(_logprobs(tuned, pairs)):  # all rows, in the batches that the base had
            expected = torch.from_numpy(np.array(stored[start : start + len(logprobs)]))  # [answer tokens, V]
            start += len(logprobs)
            if expected.shape != logprobs.shape:
                raise Unlike(f"{base.label} predicts {expected.shape[1]} words and {tuned.label} {logprobs.shape[1]}")
            if row in rows:
                save([row], [[float(kl(expected, logprobs).sum()), len(logprobs)]])

    parts = [{"prompt": prompt, "answer": answer, "base": base.identity} for prompt, answer in pairs]
    sums = tuned.kept("kl", parts, compute, "KL from the base")
    comparable = f"base:{key_of(base.identity)[:12]}"
    how = suite.signature(f"greedy answers of the base|{ANSWER_TOKENS} tokens")
    return Figure(
        KL_NAME, KL, Examples(np.asarray(sums, dtype=np.float64)), tuple(one.id for one in items), how, comparable
    )


def kl_items(suite: Suite) -> list[Item]:
    """`PROMPTS` of the suite's questions, evenly spread over it; all of a suite that has fewer."""
    items = suite.of(*CHAT_KINDS)
    chosen = min(PROMPTS, len(items))
    return [items[index * len(items) // chosen] for index in range(chosen)]


def _base_logprobs(base: Subject, pairs: Sequence[Pair], scratch: Path) -> Any:
    """The base's log-probs of all answers, [all answer tokens, V], in a file that is computed once."""
    path = scratch / f"kl-{key_of({'base': base.identity, 'pairs': pairs})[:16]}.npy"
    if not path.exists():
        unfinished = path.with_suffix(".part")
        tokens, start, stored = sum(len(answer) for _, answer in pairs), 0, None
        for logprobs in _logprobs(base, pairs):
            found = logprobs.numpy()
            if stored is None:
                shape = (tokens, found.shape[1])
                stored = np.lib.format.open_memmap(unfinished, mode="w+", dtype=found.dtype, shape=shape)
            stored[start : start + len(found)] = found
            start += len(found)
        del stored  # flushes it
        unfinished.rename(path)
    return np.load(path, mmap_mode="r")


def _logprobs(subject: Subject, pairs: Sequence[Pair]) -> Iterator[torch.Tensor]:
    model = subject.model()
    backbone, head = split_model(model)
    with adapters_in(model, backbone.dtype):
        yield from answer_logprobs(
            backbone, head, pairs, pad_id=int(subject.tokenizer.pad_token_id), batch_size=BATCH_SIZE
        )
