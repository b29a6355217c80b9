"""A tiny random Llama with a BPE tokenizer and SmolLM2's chat template, made in code: no files, no network."""

from __future__ import annotations

from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = (
    "the cat sat on a mat and looked at what was there return value of list object given string number file path raise "
    "error when name is not found open close read write system user assistant What does do ? . , ( ) python module function"
)


def write_tiny_model(folder: Path, *, seed: int = 0, hidden_size: int = 64, layers: int = 2) -> Path:
    """Save a random model of about 0.2 M parameters and its tokenizer to ``folder``."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    raw.train_from_iterator([WORDS] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def messages_row(index: int) -> dict[str, object]:
    """A canonical messages row; the answer follows from the question, so that there is something to learn."""
    noun = ["cat", "mat", "list", "file", "string"][index % 5]
    return {
        "id": f"row-{index}",
        "messages": [
            {"role": "user", "content": f"What does {noun} {index} do?"},
            {"role": "assistant", "content": f"Return the {noun} of the given object."},
        ],
        "meta": {},
    }


def preference_row(index: int) -> dict[str, object]:
    row = messages_row(index)
    prompt, answer = row["messages"][:1], row["messages"][1:]  # type: ignore[index]
    rejected = [{"role": "assistant", "content": "the the the file file"}]
    return {"id": f"pair-{index}", "prompt": prompt, "chosen": answer, "rejected": rejected, "meta": {}}
