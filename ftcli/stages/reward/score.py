"""Score any texts with a reward model, through the function and the layout that training, PPO and eval score with.

A line is a JSON object of one of these forms, and comes back with its scores:

* ``messages``: the last one, the assistant's, given the others: ``score``
* ``prompt`` and ``response`` or ``completion``: ``score``
* ``prompt``, ``chosen`` and ``rejected``: ``chosen_score`` and ``rejected_score``
* ``prompt`` and ``candidates``: ``score`` in each candidate

Prompts and answers are messages or plain text; a plain prompt is what a user says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftcli.core.errors import BadData, UsageError
from ftcli.core.stage import Artifact
from ftcli.data.chat import generation_eos, render_answer, stop_token_ids
from ftcli.data.rows import Message, Row
from ftcli.data.tool_calls import calls_tools
from ftcli.models.load import load_tokenizer_of, pick_device, pick_dtype
from ftcli.rl.reward_model import load_reward_model, read_stats
from ftcli.rl.sequences import Exchange

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 256
"""Texts that are scored, in batches of like length, before their rows are given out."""
FORMS = (
    "messages; prompt with response or completion; prompt with chosen and rejected; or prompt with candidates, "
    "each as text or messages"
)


@dataclass(frozen=True)
class Asked:
    """A row and its answers in token ids; ``places`` says for each answer which object gets its score, under which name."""

    row: Row
    exchanges: list[Exchange]
    places: list[tuple[dict[str, Any], str]]
    is_truncated: bool


def score_lines(reward: Artifact, lines: Iterable[bytes], name: str, say: Callable[[str], None]) -> Iterator[Row]:
    """The rows of ``lines`` with scores, in their order. All are read before the first one is scored.

    ``name`` is what errors call the file. Raises `BadData` naming line and fault, `UsageError` where ``reward`` is no reward
    model.
    """
    stats = read_stats(reward.path)
    if "scoring" not in stats:
        raise UsageError(
            f"{reward.ref}: its reward_stats.json does not say what it was made to score", "train it again"
        )
    limit, precision = int(stats["scoring"]["max_length"]), stats["scoring"]["precision"]
    tokenizer = load_tokenizer_of(reward)
    stop_ids = stop_token_ids(tokenizer, generation_eos((reward.base or reward).path))
    asked = [_read(tokenizer, stop_ids, limit, f"{name}:{number}", line) for number, line in enumerate(lines, start=1)]
    device = pick_device()
    model = load_reward_model(reward, pick_dtype(precision, device), device, int(tokenizer.pad_token_id))
    for part in _chunks(asked):
        scores = iter(model.score_exchanges([exchange for one in part for exchange in one.exchanges]))
        for one in part:
            for place, key in one.places:
                place[key] = next(scores)
            yield one.row
    texts, truncated = sum(len(one.exchanges) for one in asked), sum(one.is_truncated for one in asked)
    told = f"; {truncated} prompts lost their beginning, {limit} tokens of prompt and answer fit" if truncated else ""
    say(f"{len(asked)} rows, {texts} texts scored{told}")


def _chunks(asked: Sequence[Asked]) -> Iterator[list[Asked]]:
    part: list[Asked] = []
    texts = 0
    for one in asked:
        part.append(one)
        texts += len(one.exchanges)
        if texts >= CHUNK:
            yield part
            part, texts = [], 0
    if part:
        yield part


def _read(tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int], limit: int, place: str, line: bytes) -> Asked:
    try:
        row = json.loads(line.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise BadData(f"{place}: no JSON: {reason}", "one JSON object a line") from None
    if not isinstance(row, dict):
        raise BadData(f"{place}: no JSON object", "one JSON object a line")
    if not _is_text(row):
        raise BadData(f"{place}: half a surrogate pair, which is no character", "write the character whole")
    try:
        prompt, answers, places = _form(row)
        taken = [key for target, key in places if key in target]
        if taken:
            raise BadData(f"{taken[0]} is there already", "rename it, so that it is not overwritten")
        if "tools" in row or calls_tools(prompt):
            raise BadData("tools, which reward models are not trained on", "leave such rows out")
        rendered = [render_answer(tokenizer, prompt, answer, stop_ids) for answer in answers]
    except BadData as error:
        raise BadData(f"{place}: {error.message}", error.hint) from None
    longest = max(len(answer) for _, answer in rendered)
    if longest >= limit:
        raise BadData(
            f"{place}: an answer of {longest} tokens; {limit} of prompt and answer together fit",
            "shorten it, or train the reward model with a larger max_length",
        )
    room = limit - longest
    exchanges = [Exchange(ids[-room:], answer) for ids, answer in rendered]
    return Asked(row, exchanges, places, len(rendered[0][0]) > room)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _is_text(row: Row) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _form(row: Row) -> tuple[list[Message], list[str], list[tuple[dict[str, Any], str]]]:
    """The prompt's messages, the answers' texts, and where each answer's score goes."""
    if "messages" in row:
        messages = _messages(row, "messages")
        if len(messages) < 2 or messages[-1]["role"] != "assistant" or "tool_calls" in messages[-1]:
            raise BadData("the last of two or more messages is not the assistant's text", FORMS)
        return messages[:-1], [str(messages[-1]["content"])], [(row, "score")]
    if "prompt" not in row:
        raise BadData(f"it has {', '.join(row) or 'nothing'}, which is no form that can be scored", f"give {FORMS}")
    asked = row["prompt"]
    prompt: list[Message] = [{"role": "user", "content": asked}] if isinstance(asked, str) else _messages(row, "prompt")
    if "chosen" in row and "rejected" in row:
        sides = ("chosen", "rejected")
        return prompt, [_answer(row, side) for side in sides], [(row, f"{side}_score") for side in sides]
    if "candidates" in row:
        candidates = row["candidates"]
        if not isinstance(candidates, list) or not candidates or not all(isinstance(one, dict) for one in candidates):
            raise BadData("candidates is not a list of {content, rank}", FORMS)
        return prompt, [_answer(one, "content") for one in candidates], [(one, "score") for one in candidates]
    for name in ("response", "completion"):
        if name in row:
            return prompt, [_answer(row, name)], [(row, "score")]
    raise BadData("it has a prompt and no answer", f"give {FORMS}")


def _messages(row: Row, name: str) -> list[Message]:
    found = row[name]
    if (
        isinstance(found, list)
        and found
        and all(isinstance(one, dict) and isinstance(one.get("role"), str) for one in found)
        and all(isinstance(one.get("content"), str) for one in found)
    ):
        return found
    raise BadData(f"{name} is not a list of messages, each with role and content as text", FORMS)


def _answer(holder: Row, name: str) -> str:
    """The text of one answer: itself, or the only message of a list."""
    found = holder.get(name)
    if isinstance(found, str):
        return found
    if isinstance(found, list) and len(found) == 1 and _messages(holder, name)[0]["role"] == "assistant":
        return str(found[0]["content"])
    raise BadData(f"{name} is neither text nor one message of the assistant", FORMS)
