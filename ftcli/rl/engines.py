"""Who samples rollouts: this process (`HfEngine`), or a vLLM server that gets the policy's adapter (`VllmServerEngine`).

PPO never uses a sampler's log-probs as those of the old policy: they are recomputed in the training layout
(`ftcli.rl.rollout.measure`). A server's are compared with these, which shows whether it samples from the current weights,
and may weigh the loss (`rollout_weights`).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from peft import PeftModel
from torch import Tensor

from ftcli.core.errors import FtcliError, StageFailed, UsageError
from ftcli.models.generate import Generation, generate, row_seed
from ftcli.models.load import ADAPTER_WEIGHTS, save_adapter
from ftcli.rl.rollout import Sampling
from ftcli.rl.vllm_client import SERVE, VllmClient

MEAN_GAP = 0.1
"""Nats by which a server's log-probs may differ from the trainer's in the mean over tokens. In bfloat16 two ways of computing the
same weights differ by about 0.04 (SmolLM2, key-value cache against one pass); a wrong base or temperature by more than 0.1."""

STALE_Z = 5.0
"""Standard errors from which on the log-probs count as nearer to the starting policy's than to the current policy's."""


class RolloutEngine(Protocol):
    def sync(self, model: Any, version: int) -> None:
        """Take over the policy's current weights; ``version`` counts its updates."""

    def generate(
        self, prompts: Sequence[list[int]], keys: Sequence[str], sampling: Sampling, seed: int
    ) -> list[Generation]:
        """One answer to each of ``prompts`` (token ids), in their order; ``keys`` and ``seed`` decide the draws."""


class HfEngine:
    """Samples in this process, with the model that is trained (`ftcli.models.generate`).

    Where memory does not suffice for a batch, all later ones are as small as the largest that it sufficed for; ``on_halved`` hears
    of their size.
    """

    def __init__(self, on_halved: Callable[[int], None] = lambda size: None) -> None:
        self._model: Any = None
        self._on_halved = on_halved
        self._most: int | None = None

    def sync(self, model: Any, version: int) -> None:
        self._model = model

    def generate(
        self, prompts: Sequence[list[int]], keys: Sequence[str], sampling: Sampling, seed: int
    ) -> list[Generation]:
        if self._model is None:
            raise ValueError("an engine without weights: call sync first")
        return generate(
            self._model,
            prompts,
            keys,
            stop_ids=sampling.stop_ids,
            pad_id=sampling.pad_id,
            max_new_tokens=sampling.response_length,
            temperature=sampling.temperature,
            seed=seed,
            batch_size=min(sampling.batch_size, self._most or sampling.batch_size),
            on_halved=self._halved,
        )

    def _halved(self, size: int) -> None:
        self._most = size
        self._on_halved(size)


class VllmServerEngine:
    """Samples on a vLLM server, which serves the policy's base and reads its adapter from ``folder`` after each update.

    Each version of the adapter has a name of its own, made of this engine, the version and the weights' digest: a server
    that did not get an adapter has none of that name, and its prefix cache, which goes by names, holds nothing of another.
    ``base`` names the served model where there are several. ``folder`` is this engine's alone, and the server must see it
    under the same path. ``concurrency`` requests are under way at once; the server batches them. The rest is `VllmClient`'s.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        api_key: str | None = None,
        base: str | None = None,
        concurrency: int = 128,
        timeout_s: float = 600.0,
        wait_s: float = 1.0,
    ) -> None:
        self.client = VllmClient(url, api_key, timeout_s=timeout_s, wait_s=wait_s)
        self.name: str | None = None
        self._base, self._folder, self._concurrency = base, folder.resolve(), concurrency
        self._id = uuid4().hex[:8]
        self._is_known = False

    def sync(self, model: Any, version: int) -> None:
        """Save the adapter and have the server load it. The old one goes first, so that a server with room for one
        adapter does: were it pushed out by the new one, vLLM could not unload it any more."""
        if not isinstance(model, PeftModel):
            raise UsageError(
                "a vLLM server gets the policy as an adapter, and this policy is a whole model",
                "train an adapter of it, or set rollout_engine to hf",
            )
        if not self._is_known:
            self._meet()
        folder = self._folder / f"policy-{version}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        save_adapter(model, folder)
        name = f"ftcli-{self._id}-{version}-{_digest(folder)}"
        if name == self.name:
            return
        self._unload()
        for old in self._folder.iterdir():
            if old != folder:
                shutil.rmtree(old)
        self.client.load_adapter(name, folder)
        self.name = name

    def generate(
        self, prompts: Sequence[list[int]], keys: Sequence[str], sampling: Sampling, seed: int
    ) -> list[Generation]:
        """As `RolloutEngine.generate`. A row's draws have a seed of their own, but vLLM's kernels round differently in other
        batches, so that answers to the same seed may differ."""
        if self.name is None:
            raise ValueError("an engine without weights: call sync first")
        name = self.name
        pool = ThreadPoolExecutor(max_workers=max(1, min(self._concurrency, len(prompts))))
        try:
            jobs = [
                pool.submit(self.client.complete, name, prompt, sampling, row_seed(seed, key))
                for prompt, key in zip(prompts, keys, strict=True)
            ]
            for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                job.result()  # raises what went wrong, without waiting for the others
            return [job.result() for job in jobs]
        except BaseException:  # an error of one, or the user's: the others' answers are of no use
            self.client.abort()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            self.client.resume()

    def close(self) -> None:
        """Take the adapter off the server and remove the folder. A server that is gone needs neither."""
        try:
            self._unload()
        except FtcliError:
            self.name = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _meet(self) -> None:
        """Check what the server serves, and unload what an earlier engine left there of this folder."""
        cards = self.client.models()
        bases = [card["id"] for card in cards if not card.get("parent")]
        if self._base is not None and self._base not in bases:
            raise UsageError(
                f"{self.client.url}: this server serves {', '.join(bases) or 'nothing'}, not the policy's base {self._base}",
                f"start it with: {SERVE}",
            )
        for card in cards:
            if card.get("parent") and Path(str(card.get("root"))).parent == self._folder:
                self.client.unload_adapter(card["id"])
        self._is_known = True

    def _unload(self) -> None:
        if self.name is not None:
            self.client.unload_adapter(self.name)
            self.name = None


def _digest(folder: Path) -> str:
    return hashlib.blake2b((folder / ADAPTER_WEIGHTS).read_bytes(), digest_size=6).hexdigest()


def logprob_gap(served: Tensor, logprobs: Tensor, mask: Tensor, reference: Tensor | None = None) -> dict[str, float]:
    """How far log-probs ``served`` [B, R] by the sampler are from the trainer's ``logprobs`` [B, R], where ``mask`` is True.

    With those of the starting policy as ``reference`` [B, R], ``rollout/stale_z`` says by how many standard errors the squared
    distance to the current policy exceeds the one to the starting policy, in the mean over tokens. What the number formats
    add is in both distances, so it tells a server with old weights even where these moved by less than rounding does.
    """
    gap = (served - logprobs)[mask].double()  # [N]
    found = {"rollout/logprob_diff_mean": float(gap.abs().mean()), "rollout/logprob_diff_max": float(gap.abs().max())}
    if reference is not None:
        excess = gap**2 - (served - reference)[mask].double() ** 2  # [N]
        error = float(excess.std(correction=0)) / len(excess) ** 0.5
        found["rollout/stale_z"] = float(excess.mean()) / error if error > 0 else 0.0
    return found


def check_served(gap: Mapping[str, float], version: int, *, mean_gap: float = MEAN_GAP) -> None:
    """Refuse a rollout whose ``gap`` (`logprob_gap`) says that it is not from the policy's weights after ``version`` updates.

    A rollout from old weights looks well and teaches little: nothing else would notice.
    """
    hint = (
        "the server must serve the policy's own base with the same quantization, be started with --logprobs-mode "
        "processed_logprobs, and have no proxy before several servers"
    )
    mean, z = gap["rollout/logprob_diff_mean"], gap.get("rollout/stale_z", 0.0)
    if not mean <= mean_gap:
        raise StageFailed(
            f"the sampler's log-probs differ from the policy's by {mean:.3f} a token in the mean after {version} updates, where "
            f"{mean_gap:g} is what rounding explains: it does not sample from the current weights",
            hint,
        )
    if z > STALE_Z:
        raise StageFailed(
            f"the sampler's log-probs are nearer to the starting policy's than to the current policy's ({z:.1f} standard errors) "
            f"after {version} updates: it samples from old weights",
            hint,
        )


def rollout_weights(old: Tensor, served: Tensor, cap: float) -> Tensor:
    """Truncated importance weights ``min(exp(old - served), cap)`` [B, R] for a loss on tokens that the sampler drew with
    log-probs ``served`` instead of the trainer's ``old``; constants, without gradient (Ionides, Truncated Importance Sampling,
    2008; for actor-critic methods arXiv 1802.01561, section 4.1)."""
    return (old - served).detach().exp().clamp(max=cap)
