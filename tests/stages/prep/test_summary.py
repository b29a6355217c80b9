from __future__ import annotations

from ftcli.stages.prep.report.summary import summary_text
from tests.stages.prep.report_folder import STATS, Json, stats

WHOLE = """\
  read                    1,000  alpaca.jsonl, support.csv
  rejected                  100  exact_duplicate 40 · empty_answer 28 · near_duplicate 21 ·
                                 contaminated 7 · parse_json 4  → rejects.jsonl
  changed                        rule:noinput 120 · whitespace 64 · unicode 11
  flagged                        boilerplate 9 · pii:email 5 · secret:aws_key 1  → flags.jsonl
  exact duplicates           40  near 21 (≥ 0.90) · flagged 13 (≥ 0.80)  → duplicates.jsonl
  contamination               7  gsm8k_test 7
  conflicts                   6  prompts (soft 4 · hard 2)  → conflicts.jsonl
  personal data                  pii:email 5 · secret:aws_key 1
  tokens                135,450  mean 150.50 · 95 % up to 300 · longest 900 tokens · 12 over 512 (truncate)
  splits                         810 / 50 / 40 (train / validation / test)
  across splits                  0 equal, 0 alike (≥ 0.70) · 784 groups
  ledger                  1,000  = 900 + 100 ✓
  representativeness             AUC 0.61 ◐ · coverage 70.0 %
  gate failed                    max_auc 0.612, limit 0.6 ✗
  note                           alpaca: format alpaca does not read the columns tags
"""


def test_the_summary_says_what_came_of_every_row():
    assert summary_text(stats()) == WHOLE


def test_what_was_not_looked_for_and_did_not_happen_has_no_line():
    names = ("duplicates", "conflicts", "pii", "leakage", "representativeness")
    bare = stats() | dict.fromkeys(names) | {"contamination": [], "gates": [], "notes": [], "changed": {}, "flags": {}}
    bare |= {"rejected": {}, "rows_out": 1000, "ledger": []}
    assert [line.split()[0] for line in summary_text(bare).splitlines()] == ["read", "tokens", "splits", "ledger"]


def test_rows_that_are_unaccounted_for_stand_out():
    assert "  ledger                  1,000  ≠ 899 + 100 ✗ rows are unaccounted for" in summary_text(
        stats() | {"rows_out": 899}
    )


def test_gates_that_all_pass_are_one_line():
    gates = [{**gate, "passed": True} for gate in STATS["gates"]]
    assert "  gates                          2 of 2 passed ✓" in summary_text(stats() | {"gates": gates}).splitlines()


def test_a_value_that_was_not_measured_fails_its_gate_visibly():
    gate = {"name": "max_auc", "value": None, "limit": 0.6, "passed": False}
    assert "max_auc -, limit 0.6 ✗" in summary_text(stats() | {"gates": [gate]})


def test_the_most_that_can_happen_is_25_lines_of_110_characters():
    long = "ünïcode/" * 60
    many = {f"{reason}_{number}": 1_000_000 + number for number in range(20) for reason in ("reason", "other")}
    worst: Json = stats() | {
        "notes": [long] * 9,
        "sources": [{**STATS["sources"][0], "ref": long}] * 9,
        "rejected": many,
        "changed": many,
        "flags": many,
        "contamination": [{"label": long, "items": 10, "dropped": 5, "flagged": 5}] * 9,
        "pii": {**STATS["pii"], "counts": many},
        "gates": [{"name": long, "value": 1, "limit": 0.5, "passed": False}] * 9,
    }
    lines = summary_text(worst).splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 110


def test_a_measure_with_too_few_rows_gives_its_reason():
    few = {"auc": None, "light": None, "reason": "7 rows on the smaller side, at least 30 needed"}
    found = {**STATS["representativeness"], "classifier": few}
    assert "7 rows on the smaller side" in summary_text(stats() | {"representativeness": found})


def test_names_from_outside_cannot_steer_the_terminal():
    text = summary_text(stats() | {"notes": ["red \x1b[31m\nand a second line"]})
    assert "red <U+001B>[31m and a second line" in text
