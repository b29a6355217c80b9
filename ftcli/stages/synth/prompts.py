"""What the teacher is asked, and what of it goes into a row's provenance. The wording is ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from ftcli.data.rows import Message
from ftcli.data.synthetic import Exchange, Form, Instruction, Quoted, Worse

OPENING = "You write training data for a language model."
CLOSING = """{attributes}
Reply with one JSON object and nothing else, in this form:
{form}"""

FORMS: dict[type[Form], str] = {
    Exchange: '{"instruction": "the request", "response": "the answer to it"}',
    Instruction: '{"instruction": "the request in other words"}',
    Quoted: '{"instruction": "the question", "response": "the answer", "quote": "the words of the passage that prove it"}',
    Worse: '{"flaw": "what is wrong with the answer", "response": "the worse answer"}',
}
EVOLVE = """Below is a request that people make of a language model.

Request:
{request}

{operation}
The new request must be clear and answerable on its own, without the one above. Then answer it, correctly and completely."""
TEMPLATES = {
    "self_instruct": """Below are {count} requests with their answers.

{examples}

Write one more request of this kind, and its answer. It must be about something else than those above, not a variation of one of
them, and it must be answerable as it stands. The answer must be correct and complete.""",
    "from_documents": """Below is a passage of a document.

Passage:
{passage}

Write a question that the passage answers, as somebody would ask it who does not have the passage before them: do not speak of the
passage or the text. Answer it from the passage alone. Quote the words that prove the answer, copied from the passage exactly.""",
    "augment": """Below are a request and the answer that it got.

Request:
{request}

Answer:
{answer}

Write the same request in quite other words, as another person might put it. It must ask for exactly the same, with every name,
number and piece of code that the answer depends on, so that the answer above is still the right one.""",
    "preferences": """Below are a request and a good answer to it.

Request:
{request}

Good answer:
{answer}

Write another answer that is worse: plausible, of about the same length and style, but with one clear flaw, such as a wrong fact, a
missed part of the request or a step that does not follow. Do not hint at the flaw in the answer. Name it apart.""",
    "evolve/add_constraint": EVOLVE.replace(
        "{operation}", "Write a new request that adds one more condition or requirement to it."
    ),
    "evolve/deepen": EVOLVE.replace(
        "{operation}",
        "Write a new request that goes deeper: into causes, limits, exceptions or details of the same matter.",
    ),
    "evolve/concretise": EVOLVE.replace(
        "{operation}", "Write a new request in which its general ideas are replaced by a concrete case."
    ),
    "evolve/reasoning": EVOLVE.replace(
        "{operation}", "Write a new request that cannot be answered without several steps of reasoning."
    ),
    "evolve/breadth": EVOLVE.replace(
        "{operation}", "Write a new request of the same field and length, about another and rarer matter."
    ),
}
OPERATORS = tuple(name.partition("/")[2] for name in TEMPLATES if name.startswith("evolve/"))


def ask(template: str, form: type[Form], attributes: Mapping[str, str], parts: Mapping[str, str]) -> list[Message]:
    """The messages of a request. One message of the user, since some chat templates have no system."""
    wanted = "".join(f"\n- {name}: {value}" for name, value in attributes.items())
    body = TEMPLATES[template].format(**parts)
    closing = CLOSING.format(attributes=wanted and f"\nIt must have these attributes:{wanted}\n", form=FORMS[form])
    return [{"role": "user", "content": f"{OPENING} {body}\n{closing}"}]


def repair(messages: Sequence[Message], reply: str, problem: str, form: type[Form]) -> list[Message]:
    """The messages that ask once more after a ``reply`` that was of no use."""
    again = (
        f"This reply cannot be used: {problem}. Write one JSON object and nothing else, in this form:\n{FORMS[form]}"
    )
    return [*messages, {"role": "assistant", "content": reply}, {"role": "user", "content": again}]


def is_echo(form: Form) -> bool:
    """Whether a text of ``form`` is the placeholder that the teacher was shown in its place, as small models are apt to reply."""
    shown = json.loads(FORMS[type(form)])
    return any(getattr(form, part) == text for part, text in shown.items())


def shown_examples(pairs: Sequence[tuple[str, str]]) -> str:
    return "\n\n".join(
        f"Request {n}:\n{request}\n\nAnswer {n}:\n{answer}" for n, (request, answer) in enumerate(pairs, 1)
    )


def template_hash(template: str, form: type[Form]) -> str:
    """Twelve digits of a digest of all the wording that a request of ``template`` has beside its parts."""
    text = "\0".join([OPENING, TEMPLATES[template], CLOSING, FORMS[form]])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
