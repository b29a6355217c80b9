"""The reward model's scores of answers, kept like everything else that a model said, and which models were trained against it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from ftcli.core.errors import UsageError
from ftcli.core.memory import in_batches
from ftcli.core.stage import Artifact
from ftcli.models.heads import load_head
from ftcli.models.load import load_tokenizer_of
from ftcli.rl.reward_model import RewardModel, load_reward_model
from ftcli.rl.sequences import Exchange
from ftcli.stages.eval.bench import Bench, base_of
from ftcli.stages.eval.outcome import Answer
from ftcli.stages.eval.subject import Save, Subject


class RewardScorer:
    """``reward`` in the number format of ``bench``, which is cleared when it is loaded: only for scores that are not known."""

    def __init__(self, reward: Artifact, bench: Bench, batch_size: int) -> None:
        self.reward, self._bench, self._batch_size = reward, bench, batch_size

    @cached_property
    def _model(self) -> RewardModel:
        self._bench.clear()
        pad_id = int(load_tokenizer_of(self.reward).pad_token_id)
        return load_reward_model(self.reward, self._bench.dtype, self._bench.device, pad_id)

    def scores(self, subject: Subject, prompts: Sequence[list[int]], answers: Sequence[Answer]) -> list[float]:
        """The score of each answer of ``subject`` to the prompt (token ids) in the same place."""
        exchanges = [Exchange(prompt, answer.ids) for prompt, answer in zip(prompts, answers, strict=True)]

        def compute(rows: list[int], save: Save) -> None:
            asked = [exchanges[row] for row in rows]
            in_batches(
                [len(one) for one in asked],
                self._batch_size,
                lambda places: self._model.score_exchanges([asked[place] for place in places], len(places)),
                on_rows=lambda places, found: save([rows[place] for place in places], found),
                on_halved=halved,
            )

        def halved(size: int) -> None:
            self._batch_size = size
            subject.halved(size)

        base = base_of(self.reward)
        own = [self.reward.digest, base.digest, base.quantization, base.double_quant]
        parts = [{"reward": own, "prompt": one.prompt, "answer": one.response} for one in exchanges]
        return [float(score) for score in subject.kept("reward", parts, compute, "reward model")]


def check_reward(reward: Artifact, models: Sequence[Artifact]) -> None:
    """Refuse a reward model that cannot score these models' answers."""
    load_head(reward.path)
    if reward.base is None and not (reward.path / "config.json").is_file():  # else it is a whole model
        raise UsageError(
            f"reward: {reward.ref} does not say which base model it is an adapter of",
            "give a reward model that `ftcli reward` made, or write the input with its base",
        )
    own = load_tokenizer_of(reward)
    for artifact in models:
        other = load_tokenizer_of(artifact)
        if other.get_vocab() != own.get_vocab() or other.chat_template != own.chat_template:
            raise UsageError(
                f"reward: {reward.ref} is built on another base than {artifact.label} ({artifact.ref}): it reads other tokens",
                "train the reward model on the same base model, or evaluate without it",
            )


def trained_against(model: Artifact, reward: Artifact) -> bool:
    """Whether ``model``, or a model that it was trained from, was made to please ``reward``: it is then no judge of it.

    By the contents that the stages before it have read, whatever they called the input; nothing is known of a model that was not
    made in a run directory.
    """
    records = [record for made in model.made.values() for records in made["inputs"].values() for record in records]
    return any(record["digest"] == reward.digest for record in records)
