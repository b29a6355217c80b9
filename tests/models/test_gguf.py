"""The oracle is a model that we write as GGUF with the file format's own library, in llama.cpp's layout."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter, TokenType
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from ftcli.core.errors import UsageError
from ftcli.models.gguf import convert
from tests.tiny import write_tiny_model

ROOT = Path(__file__).parents[2]


def write_gguf(model_folder: Path, target: Path) -> Path:
    """A float32 GGUF of the tiny Llama, named and permuted as llama.cpp does."""
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    config = model.config
    writer = GGUFWriter(target, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _write_tokenizer(writer, tokenizer)
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for number, layer in enumerate(model.model.layers):
        for ours, theirs in names.items():
            weight = layer.get_submodule(ours).weight.detach().numpy()
            if theirs in heads:
                weight = _permuted(weight, heads[theirs])
            writer.add_tensor(f"blk.{number}.{theirs}.weight", weight)
    writer.add_tensor("token_embd.weight", model.model.embed_tokens.weight.detach().numpy())
    writer.add_tensor("output_norm.weight", model.model.norm.weight.detach().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp pairs neighbouring rows for rotary positions, transformers the two halves of a head."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def _write_tokenizer(writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase) -> None:
    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    special = set(tokenizer.all_special_tokens) | {"<|endoftext|>", "<|im_start|>"}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    return write_gguf(write_tiny_model(folder / "model"), folder / "tiny.F32.gguf")


def test_the_converted_model_is_the_one_in_the_file(gguf: Path, tmp_path: Path) -> None:
    convert(gguf, tmp_path / "out")
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    original = AutoModelForCausalLM.from_pretrained(gguf.parent / "model")
    ids = torch.arange(3, 60)[None]
    torch.testing.assert_close(ours(input_ids=ids).logits, original(input_ids=ids).logits)
    assert ours.dtype is torch.float32
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert ours.generation_config.eos_token_id == 2


def test_the_converted_tokenizer_renders_chats_as_before(gguf: Path, tmp_path: Path) -> None:
    convert(gguf, tmp_path / "out")
    ours, original = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "out", gguf.parent / "model"))
    messages = [{"role": "user", "content": "What does the cat do?"}, {"role": "assistant", "content": "It sat."}]
    assert ours.apply_chat_template(messages) == original.apply_chat_template(messages)
    assert (ours.eos_token, ours.pad_token) == ("<|im_end|>", "<|im_end|>")


def test_the_source_is_recorded(gguf: Path, tmp_path: Path) -> None:
    convert(gguf, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "source.json").read_text()) == {
        "file": "tiny.F32.gguf",
        "sha256": sha256(gguf.read_bytes()).hexdigest(),
        "format": "gguf",
        "quantization": {"F32": 2 * 9 + 2},
    }


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    convert(tmp_path / "missing.gguf", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"PK\x03\x04 zip", "no GGUF file"), (b"GGUF", "cannot be read as a model")],
)
def test_a_file_that_is_no_model_leaves_nothing_behind(tmp_path: Path, content: bytes | None, message: str) -> None:
    source = tmp_path / "in" / "model.gguf"
    source.parent.mkdir()
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        convert(source, tmp_path / "out" / "model")
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_a_torn_download_cannot_be_read(gguf: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(gguf.read_bytes()[:-5000])
    with pytest.raises(UsageError, match="cannot be read as a model"):
        convert(torn, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_as_a_command_it_speaks_on_stderr_and_exits_2(tmp_path: Path) -> None:
    source = tmp_path / "notes.txt"
    source.write_text("hello")
    command = [sys.executable, "-m", "ftcli.models.gguf"]
    done = subprocess.run(
        [*command, source, tmp_path / "out"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {source}: no GGUF file")
    assert done.stdout == ""
    alone = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert (alone.returncode, alone.stderr[:6]) == (2, "usage:")
