from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ftcli.core.errors import UsageError
from ftcli.models.chat import Answer, Speaker, TextStream
from ftcli.models.load import load_base, load_tokenizer

PROMPT = "<|im_start|>user\nWhat does cat do?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(tiny_model)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    """With larger weights than a fresh model has, so that it does not say one word for ever."""
    model = load_base(tiny_model, torch.float32, torch.device("cpu"))
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.3 * torch.randn_like(weight))
    return model


def ids_of(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def speak(speaker: Speaker, prompt: list[int], **changes: Any) -> tuple[Answer, list[str]]:
    told: list[str] = []
    options: dict[str, Any] = {"max_new_tokens": 20, "temperature": 0.0, "seed": 3, "key": "1", **changes}
    on_text = options.pop("on_text", told.append)
    return speaker.answer(prompt, on_text, **options), told


def expected(model: Any, prompt: list[int], tokens: int = 20) -> list[int]:
    """What transformers says greedily."""
    ids_in = torch.tensor([prompt])
    found = model.generate(
        input_ids=ids_in,
        attention_mask=torch.ones_like(ids_in),  # else it leaves out <|im_end|>, which is also the padding
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=2,
    )
    ids: list[int] = found[0, len(prompt) :].tolist()
    return ids


# ---- text from tokens


def test_characters_that_span_tokens_are_given_out_whole(tokenizer: Any) -> None:
    text = "naïve 你好 🙂 end\n  x"
    ids = ids_of(tokenizer, text)
    assert len(ids) > len(text), "the tiny vocabulary has single bytes for these"
    stream = TextStream(tokenizer)
    pieces = [stream.add(token) for token in ids]
    assert "".join(pieces) + stream.rest() == text
    assert "\ufffd" not in "".join(pieces)
    assert "" in pieces, "half of a character is held back"
    assert "🙂" in pieces


def test_bytes_that_never_become_a_character_are_given_out_at_the_end(tokenizer: Any) -> None:
    stream = TextStream(tokenizer)
    half = ids_of(tokenizer, "a好")[:-1]
    assert "".join(stream.add(token) for token in half) == "a"
    assert set(stream.rest()) == {"\ufffd"}
    assert stream.rest() == "", "once"


def test_a_replacement_character_that_was_written_is_kept(tokenizer: Any) -> None:
    stream = TextStream(tokenizer)
    pieces = [stream.add(token) for token in ids_of(tokenizer, "a\ufffdb")]
    assert "".join(pieces) + stream.rest() == "a\ufffdb"


def test_special_tokens_are_no_text(tokenizer: Any) -> None:
    stream = TextStream(tokenizer)
    assert "".join(stream.add(token) for token in ids_of(tokenizer, "yes .<|im_end|>")) == "yes ."
    assert len(stream) == len(ids_of(tokenizer, "yes .")) + 1


# ---- answers


def test_the_answer_is_that_of_transformers_and_is_told_as_it_comes(model: Any, tokenizer: Any) -> None:
    prompt = ids_of(tokenizer, PROMPT)
    answer, told = speak(Speaker("tiny", model, tokenizer, frozenset()), prompt)
    text = tokenizer.decode(expected(model, prompt), skip_special_tokens=True)
    assert answer == Answer(text, 20, "length")
    assert len(told) > 5
    assert "".join(told) == text


def test_it_stops_at_its_stop_token(model: Any, tokenizer: Any) -> None:
    prompt = ids_of(tokenizer, PROMPT)
    ids = expected(model, prompt)
    stop = ids[4]
    assert stop not in ids[:4]  # else the answer ends earlier
    answer, _ = speak(Speaker("tiny", model, tokenizer, frozenset({stop})), prompt)
    assert answer.finish_reason == "stop"
    assert answer.tokens == 5


def test_the_context_ends_the_answer_and_a_longer_conversation_is_refused(model: Any, tokenizer: Any) -> None:
    speaker = Speaker("tiny", model, tokenizer, frozenset())
    assert speaker.context_tokens == 512
    answer, _ = speak(speaker, [7] * 509, max_new_tokens=100)
    assert (answer.tokens, answer.finish_reason) == (3, "length")
    with pytest.raises(UsageError, match="512 tokens and the model's context holds 512") as raised:
        speak(speaker, [7] * 512)
    assert "/reset" in raised.value.hint


def test_an_interrupt_keeps_what_was_written(model: Any, tokenizer: Any) -> None:
    prompt = ids_of(tokenizer, PROMPT)
    whole, _ = speak(Speaker("tiny", model, tokenizer, frozenset()), prompt)
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if len(told) == 3:
            raise KeyboardInterrupt

    answer, _ = speak(Speaker("tiny", model, tokenizer, frozenset()), prompt, on_text=tell)
    assert answer.finish_reason == "interrupted"
    assert 0 < len(answer.text) < len(whole.text)
    assert whole.text.startswith(answer.text.rstrip("\ufffd"))
    assert speak(Speaker("tiny", model, tokenizer, frozenset()), prompt)[0] == whole, "the model is as before"


def test_with_its_adapter_off_the_base_answers(model: Any, tokenizer: Any) -> None:
    from peft import LoraConfig, get_peft_model

    prompt = ids_of(tokenizer, PROMPT)
    base = tokenizer.decode(expected(model, prompt), skip_special_tokens=True)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    with_adapter = tokenizer.decode(expected(adapted, prompt), skip_special_tokens=True)
    assert with_adapter != base
    assert speak(Speaker("base", adapted, tokenizer, frozenset(), adapter_off=True), prompt)[0].text == base
    assert speak(Speaker("lora", adapted, tokenizer, frozenset()), prompt)[0].text == with_adapter
    adapted.unload()


def test_the_key_and_the_seed_decide_the_sample(model: Any, tokenizer: Any) -> None:
    prompt = ids_of(tokenizer, PROMPT)
    speaker = Speaker("tiny", model, tokenizer, frozenset())
    sampled = [
        speak(speaker, prompt, temperature=1.0, **changes)[0].text for changes in ({}, {}, {"key": "2"}, {"seed": 4})
    ]
    assert sampled[0] == sampled[1]
    assert len(set(sampled)) == 3
