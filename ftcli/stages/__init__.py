"""The table of stages: plain data, so that `ftcli --help` prints it and imports no stage."""

STAGES: dict[str, tuple[str, str]] = {
    "prep": ("ftcli.stages.prep.stage:PREP", "Turn raw rows into clean, deduplicated, split training data."),
    "synth": ("ftcli.stages.synth.stage:SYNTH", "Let a teacher model write rows, checked and with provenance."),
    "review": ("ftcli.stages.review.stage:REVIEW", "Let people accept, edit or reject rows before training on them."),
    "sft": ("ftcli.stages.sft.stage:SFT", "Fine-tune all weights on chat data."),
    "lora": ("ftcli.stages.sft.stage:LORA", "Fine-tune LoRA adapters on chat data."),
    "qlora": ("ftcli.stages.sft.stage:QLORA", "Fine-tune LoRA adapters on a 4-bit base."),
    "sample": ("ftcli.stages.sample.stage:SAMPLE", "Let a model answer prompts, and make preference pairs."),
    "rank": ("ftcli.stages.rank.stage:RANK", "Let people order answers: preference pairs, and who is preferred."),
    "reward": ("ftcli.stages.reward.stage:REWARD", "Train a reward model on preference pairs."),
    "ppo": ("ftcli.stages.ppo.stage:PPO", "Improve a model against a reward model with PPO."),
    "dpo": ("ftcli.stages.dpo.stage:DPO", "Train a model on preference pairs directly, with DPO."),
    "eval": ("ftcli.stages.eval.stage:EVAL", "Measure models on the same held-out rows and write a report."),
    "export": (
        "ftcli.stages.export.stage:EXPORT",
        "Turn a model into something to ship, proven to be the trained one.",
    ),
}
"""``name: (module:OBJECT, one line of help)``, in the order a pipeline usually has."""
