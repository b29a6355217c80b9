"""Whether an exported model is the trained one: its parity, and the limits that it must keep."""

from __future__ import annotations

import gc
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftcli.core.errors import GateFailed
from ftcli.core.stage import Context
from ftcli.models.load import load_base
from ftcli.models.parity import Pair, Parity, answer_logprobs, compare
from ftcli.stages.export.config import ExportConfig

if TYPE_CHECKING:
    import torch

ROUNDING_KL = {"float32": 1e-5, "f32": 1e-5, "q8_0": 0.02}
"""KL divergence that a number format alone may make. bfloat16 and float16 make up to 0.005: the same model of 135M parameters in
bfloat16 and float32 was 0.0012 apart."""


@dataclass(frozen=True)
class Reference:
    """What the trained model says, in float32 [N, V], and how far its base without the adapter is from that."""

    pairs: list[Pair]
    rows: str
    logprobs: torch.Tensor
    dtype: str
    base: Parity | None


def proven(
    ctx: Context[ExportConfig],
    reference: Reference,
    what: str,
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    number_format: str,
) -> dict[str, Any]:
    """The parity of the model in ``folder``, loaded from there. Raises `GateFailed` if it breaks a limit."""
    model = load_base(folder, dtype, device)
    parity = compare(reference.logprobs, answer_logprobs(model, reference.pairs), reference.pairs)
    del model
    gc.collect()
    config, base = ctx.config, reference.base
    rounding = max(ROUNDING_KL.get(name, 0.005) for name in (reference.dtype, number_format))
    limit = max(rounding, config.max_kl_share * base.kl if base else 0.0)
    ctx.events.note(
        f"{what} against the trained model on {reference.rows} ({parity.positions} answer tokens): "
        f"{parity.top1_agreement:.2%} same likeliest token, log-probabilities differ by {parity.logprob_mean_diff:.2g} "
        f"(at most {parity.logprob_max_diff:.2g}), KL {parity.kl:.2g} nats (limit {limit:.2g}); "
        f"{reference.dtype} against {number_format}"
    )
    if base is not None:
        ctx.events.note(
            f"for comparison, the base without its adapter: {base.top1_agreement:.2%} same likeliest token, KL {base.kl:.2g}"
        )
    if base is not None and base.kl <= rounding:
        ctx.events.note(
            f"training changed so little (KL {base.kl:.2g}) that rounding hides it: this proof cannot tell the trained model "
            "from its base"
        )
    problems = []
    if parity.top1_agreement < config.min_top1_agreement:
        problems.append(
            f"same likeliest token {parity.top1_agreement:.2%}, at least {config.min_top1_agreement:.2%} needed"
        )
    if parity.kl > limit:
        problems.append(f"KL divergence {parity.kl:.3g} nats, at most {limit:.3g} allowed")
    if problems:
        raise GateFailed(
            f"{what} is not the trained model: {'; '.join(problems)} ({parity.positions} answer tokens of {reference.rows})",
            "export --to adapter, or change min_top1_agreement and max_kl_share if you accept that",
        )
    return {"parity": rounded(parity), "kl_limit": _round(limit)}


def rounded(parity: Parity) -> dict[str, Any]:
    return {name: _round(value) for name, value in asdict(parity).items()}


def _round(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.4g}")
