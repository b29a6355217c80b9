"""What is wrong, or may surprise, in a tokenizer with its chat template, told before anything is trained with them.

A template at fault trains without a word: the loss falls, and the model never stops, or was never shown the system message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftcli.core.errors import BadData
from ftcli.data.chat import TemplateFault, render_text
from ftcli.data.rows import Row
from ftcli.data.template_case import ANSWER, ASK, Case, message, quoted
from ftcli.data.template_checks import CHECKS, Finding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Finding", "check_template", "require_healthy"]


def check_template(
    tokenizer: PreTrainedTokenizerBase,
    stop_ids: frozenset[int],
    rows: Sequence[Row] = (),
    generation_eos: int | Sequence[int] | None = None,
) -> list[Finding]:
    """What there is to say of the chat template and of training on ``rows`` (messages) with it, always in the same order.

    ``stop_ids`` are those of `ftcli.data.chat.stop_token_ids`; ``generation_eos`` is what the model's generation config alone
    says, which other programs go by. All ``rows`` are read, and a sample with each order of roles in it is rendered.

    A template that cannot render the simplest conversation has this one finding, since nothing else can be said of it.
    """
    broken = _broken(tokenizer)
    if broken:
        return [broken]
    own = (generation_eos,) if isinstance(generation_eos, int) else tuple(generation_eos or ())
    case = Case(tokenizer, stop_ids, own, rows)
    return [finding for check in CHECKS for finding in check(case)]


def require_healthy(findings: Sequence[Finding]) -> None:
    """Raise one `BadData` that lists every finding of level error, and every fix, if there are any."""
    errors = [item for item in findings if item.level == "error"]
    if errors:
        raise BadData(
            "\n".join(
                [
                    "the model's chat template and these rows cannot be trained with:",
                    *(f"  {item.name}: {item.seen}" for item in errors),
                ]
            ),
            "\n".join(f"{item.name}: {item.fix}" for item in errors),
        )


def _broken(tokenizer: PreTrainedTokenizerBase) -> Finding | None:
    """Why the simplest conversation cannot be rendered, or None."""
    if not str(tokenizer.chat_template or "").strip():
        return Finding(
            "no_chat_template",
            "error",
            "the model has no chat template, or an empty one, so messages cannot be rendered",
            "use an instruction-tuned model, or put a chat_template.jinja into the model folder",
        )
    conversation = [message("user", ASK), message("assistant", ANSWER)]
    fix = "correct chat_template.jinja in the model folder"
    try:
        text = render_text(tokenizer, conversation, answer_next=False)
        render_text(tokenizer, conversation[:1], answer_next=True)
    except TemplateFault as fault:
        return Finding(
            "template_fails", "error", f"one question and its answer cannot be rendered: {fault.message}", fix
        )
    for name, content in (("user", ASK), ("assistant", ANSWER)):
        if content not in text:
            seen = f"the template writes nothing of the {name}'s message {quoted(content)}: {quoted(text)}"
            return Finding("content_left_out", "error", seen, f"{fix}: it must write message['content'] of every role")
    return None
