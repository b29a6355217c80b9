"""Lets a teacher model write rows: new ones after seeds, harder ones, ones from documents, paraphrases, or worse answers.

The teacher is a local chat model (input teacher) or a server (teacher_url and teacher_model). Each reply must be one JSON object;
one that is not is asked for once more. Then the gates, in this order: length, copy of a seed, ROUGE-L with seeds and earlier rows,
duplicates, repeats of held-out prompts, personal data, refusals. The seeds' own validation and test rows count as held out.

The output data holds the rows that passed, all in train; each tells in meta.prov what it was made from and how, and prep keeps it
and its seeds in train. The output report holds rejected.jsonl (what was dropped, why, and the reply), requests.jsonl (all that was
asked and answered), summary.txt and report.html. A run that was stopped goes on, and asks for nothing that was answered."""

from __future__ import annotations

from ftcli.core.stage import Context, Input, Kind, Stage
from ftcli.stages.synth.config import SynthConfig


def run(ctx: Context[SynthConfig]) -> None:
    from ftcli.stages.synth.generate import synthesize

    synthesize(ctx)


SYNTH = Stage(
    name="synth",
    config=SynthConfig,
    inputs={
        "seeds": Input(Kind.DATA, "Rows from prep; those in train are the seeds.", unless="documents"),
        "documents": Input(Kind.DATA, "Text rows from prep, for mode from_documents.", required=False),
        "teacher": Input(Kind.MODEL, "The chat model that writes.", required=False),
        "against": Input(
            Kind.DATA, "More data whose validation and test prompts no row may repeat.", required=False, many=True
        ),
    },
    outputs={"data": Kind.DATA, "report": Kind.REPORT},
    run=run,
    module="ftcli.stages.synth.generate",
    example="ftcli synth --run runs/x --seeds prep.data --teacher hf:org/name --mode evolve --requests 200",
    stoppable=True,
)
