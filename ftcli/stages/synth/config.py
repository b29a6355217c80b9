"""Settings of the synth stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ftcli.core.config import ExecOnly, StageConfig

Mode = Literal["self_instruct", "evolve", "from_documents", "augment", "preferences"]


class SynthConfig(StageConfig):
    mode: Mode = "self_instruct"
    """self_instruct: a new prompt and answer after some seeds. evolve: a seed's prompt made harder or moved, and its answer.
    from_documents: a question on a passage, its answer and a quote. augment: a seed's prompt in other words, with its answer.
    preferences: a worse answer beside a seed's own."""
    requests: int = Field(default=100, ge=1)
    """Rows to ask the teacher for; what the gates drop is not asked for again."""
    examples: int = Field(default=3, ge=1)
    """Seeds shown in each request of self_instruct."""
    depth: int = Field(default=1, ge=1, le=10)
    """Rounds of evolve; each after the first goes on from the rows of the one before, and the requests are shared out."""
    attributes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """What rows should be about or like, e.g. {topic: [files, lists], difficulty: [easy, hard]}; each request gets one
    combination, in turn."""
    passage_chars: int = Field(default=2000, ge=100)
    """Longest passage of a document in one request, in characters."""

    teacher_url: str = ""
    """Address of an OpenAI-compatible server, up to /v1, instead of the input teacher; its key is in FTCLI_TEACHER_API_KEY."""
    teacher_model: str = ""
    """The teacher's name on that server."""
    teacher_license: str = ""
    """The licence of what the teacher writes, for the rows' provenance; unset takes that of the model's folder, if it says one."""
    temperature: float = Field(default=0.8, ge=0)
    """Sampling temperature of the teacher."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Longest reply, in tokens."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Stop asking once prompts and replies have taken this many tokens; requests on their way are still waited for."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of a local teacher; auto is bf16 where the hardware multiplies it, else fp32."""

    min_chars: int = Field(default=1, ge=1)
    """Drop rows with a written prompt or answer that is shorter."""
    max_chars: int = Field(default=8000, ge=1)
    """Drop rows with a written prompt or answer that is longer."""
    max_rouge_l: float = Field(default=0.7, gt=0, le=1)
    """Drop rows whose prompt has this ROUGE-L or more with a seed's or an earlier row's."""
    near_threshold: float = Field(default=0.9, gt=0.5, le=1)
    """Drop rows that are this similar to a seed or an earlier row, as prep's setting of this name."""
    containment: float = Field(default=0.5, gt=0, le=1)
    """Drop rows that have this share of a held-out prompt's word 3-grams, as prep's setting of this name."""

    concurrency: Annotated[int, ExecOnly()] = Field(default=8, ge=1, le=256)
    """Requests to a server at a time."""
    batch_size: Annotated[int, ExecOnly()] = Field(default=16, ge=1)
    """Rows that a local teacher decodes together."""

    @field_validator("attributes")
    @classmethod
    def _has_values(cls, attributes: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, values in attributes.items():
            if not values:
                raise ValueError(f"{name} has no values")
        return attributes

    @model_validator(mode="after")
    def _is_consistent(self) -> SynthConfig:
        if bool(self.teacher_url) != bool(self.teacher_model):
            raise ValueError("teacher_url and teacher_model belong together")
        if self.min_chars > self.max_chars:
            raise ValueError("min_chars must not be above max_chars")
        if self.depth > 1 and self.mode != "evolve":
            raise ValueError("depth is a setting of mode evolve")
        return self
