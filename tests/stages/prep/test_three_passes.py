"""Prep as a whole: what must not depend on order, processes or crashes, and what rows do to each other."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from ftcli.core.errors import BadData, GateFailed, StageFailed, UsageError
from ftcli.core.stage import Artifact, Kind
from ftcli.data.rows import SPLITS, RowType, read_split
from ftcli.stages.prep import chunks, row_steps
from ftcli.stages.prep.stage import PREP
from tests.conftest import artifact, run_stage

Value = dict[str, Any]
WORDS = [f"{first}{last}" for first in "bdfgklmnprst" for last in ("aro", "ene", "ilu", "omi", "usa", "yre")]


def sentence(generator: random.Random, length: int = 20) -> str:
    return " ".join(generator.choices(WORDS, k=length)).capitalize() + "."


def values_of(count: int, seed: int = 1) -> list[Value]:
    generator = random.Random(seed)
    return [{"question": sentence(generator), "answer": sentence(generator)} for _ in range(count)]


def write(path: Path, values: list[Any]) -> Path:
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in values))
    return path


def prep(folder: Path, *sources: Path | Artifact, others: dict[str, Any] | None = None, **options: Any) -> Value:
    found = tuple(item if isinstance(item, Artifact) else artifact(Kind.SOURCE, item) for item in sources)
    run_stage(PREP, folder, {"source": found, **(others or {})}, **options)
    stats: Value = json.loads((folder / "out/report/stats.json").read_text())
    return stats


def rows_of(folder: Path, split: str | None = None, wanted: RowType = RowType.MESSAGES) -> list[Value]:
    return [row for name in ([split] if split else SPLITS) for row in read_split(folder / "out/data", name, wanted)]


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder / "out").as_posix(): path.read_bytes()
        for path in (folder / "out").rglob("*")
        if path.is_file()
    }


def lines_of(folder: Path, name: str) -> list[Value]:
    return [json.loads(line) for line in (folder / f"out/report/{name}.jsonl").read_text().splitlines()]


def mixed(count: int = 300) -> list[Any]:
    """Rows with every fate: kept, malformed, exact and near duplicates, conflicts, empty answers."""
    values: list[Any] = values_of(count)
    values += values[:20]
    values += [{**value, "answer": value["answer"].replace("aro", "are", 1)} for value in values[20:40]]
    values += [{**value, "answer": "Quite another answer to it."} for value in values[40:50]]
    values += ["{", {"question": "what?", "answer": " "}]
    return values


def content(folder: Path) -> dict[str, set[str]]:
    return {split: {json.dumps(row["messages"]) for row in rows_of(folder, split)} for split in SPLITS}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (chunks, row_steps):
        monkeypatch.setattr(module, "CHUNK_ROWS", 16)


def test_the_order_of_the_rows_changes_neither_what_is_kept_nor_its_split(tmp_path: Path) -> None:
    values = mixed()
    prep(tmp_path / "one", write(tmp_path / "x.jsonl", values))
    prep(tmp_path / "two", write(tmp_path / "x.jsonl", random.Random(3).sample(values, len(values))))
    assert content(tmp_path / "one") == content(tmp_path / "two")
    kept = [[row["id"] for row in rows_of(tmp_path / name, "train")] for name in ("one", "two")]
    assert kept[0] == kept[1]  # in the same order, too


def test_several_processes_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    source = write(tmp_path / "x.jsonl", [*mixed(6000), *values_of(6000, seed=2)])
    prep(tmp_path / "one", source, workers=1)
    prep(tmp_path / "two", source, workers=2)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_preparing_the_output_again_changes_nothing(tmp_path: Path) -> None:
    prep(tmp_path / "one", write(tmp_path / "x.jsonl", mixed()))
    stats = prep(tmp_path / "two", tmp_path / "one/out/data")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert stats["rejected"] == {}


CHILD = """
import json, sys
from pathlib import Path
from tests.stages.prep.test_three_passes import prep
from ftcli.stages.prep import chunks, row_steps
chunks.CHUNK_ROWS = row_steps.CHUNK_ROWS = 16
write = row_steps.write_chunk
def slow(*args):
    write(*args)
    print("chunk", flush=True)
    import time; time.sleep(0.05)
row_steps.write_chunk = slow
prep(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_after_a_kill_in_the_first_pass_the_next_run_gives_the_same_bytes(tmp_path: Path, small_chunks: None) -> None:
    source = write(tmp_path / "x.jsonl", mixed())
    prep(tmp_path / "whole", source)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", CHILD, str(tmp_path / "killed"), str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout
        for _ in range(5):
            assert child.stdout.readline() == "chunk\n"
        child.send_signal(signal.SIGKILL)
    done = [path.name for path in (tmp_path / "killed/scratch/chunks").iterdir() if not path.name.startswith(".")]
    assert 5 <= len(done) < 20
    before = {name: (tmp_path / "killed/scratch/chunks" / name).stat().st_mtime_ns for name in done}
    assert before
    prep(tmp_path / "killed", source)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_near_duplicates_go_and_the_longer_one_stays(tmp_path: Path) -> None:
    values = values_of(60)
    longer = {**values[0], "answer": values[0]["answer"] + " Baro."}
    stats = prep(tmp_path, write(tmp_path / "x.jsonl", [*values, longer]))
    assert stats["rejected"] == {"near_duplicate": 1}
    (pair,) = lines_of(tmp_path, "duplicates")
    assert (pair["line"], pair["kept_line"], pair["action"]) == (1, 61, "removed")
    assert pair["jaccard"] > 0.9
    (reject,) = lines_of(tmp_path, "rejects")
    assert f"similarity {pair['jaccard']:.3f} to x.jsonl:61" in reject["detail"]


def test_rows_that_differ_in_a_number_are_no_near_duplicates_unless_the_guard_is_off(tmp_path: Path) -> None:
    story = "A farmer sells {} baskets of eggs at the market and gives the rest to her neighbours. How many are left?"
    values = [
        *values_of(50),
        *(
            {"question": story.format(n), "answer": f"Of all her baskets of eggs the farmer sold {n} at the market."}
            for n in (12, 13, 14)
        ),
    ]
    source = write(tmp_path / "x.jsonl", values)
    assert prep(tmp_path / "guarded", source)["rejected"] == {}
    assert prep(tmp_path / "open", source, number_guard=False, near_threshold=0.8)["rejected"] == {"near_duplicate": 2}
    (split,) = {
        name
        for name in SPLITS
        for row in rows_of(tmp_path / "guarded", name)
        if "farmer" in row["messages"][0]["content"]
    }
    assert split  # similar prompts share a split


def test_the_same_long_question_with_another_label_is_a_conflict_and_no_near_duplicate(tmp_path: Path) -> None:
    review = sentence(random.Random(5), 60)
    values = [
        {"question": sentence(random.Random(n), 30), "answer": random.Random(n).choice(["good", "bad"])}
        for n in range(60)
    ]
    values += [{"question": review, "answer": answer} for answer in ("good", "good", "bad")]
    stats = prep(tmp_path, write(tmp_path / "x.jsonl", values))
    assert stats["rejected"] == {"exact_duplicate": 1}
    assert stats["conflicts"]["hard"] == 1
    (conflict,) = lines_of(tmp_path, "conflicts")
    assert sorted(answer["text"] for answer in conflict["answers"]) == ["bad", "good"]
    stats = prep(tmp_path / "dropped", write(tmp_path / "x.jsonl", values), conflicts="drop_all")
    assert stats["rejected"] == {"exact_duplicate": 1, "conflict": 2}


def test_no_two_splits_hold_similar_prompts(tmp_path: Path) -> None:
    generator = random.Random(2)
    values = values_of(150)
    for value in values[:100]:  # close variants of two thirds of the prompts
        words = value["question"].split()
        words[generator.randrange(len(words))] = generator.choice(WORDS)
        values.append({"question": " ".join(words), "answer": sentence(generator)})
    stats = prep(tmp_path, write(tmp_path / "x.jsonl", values), validation_share=0.2, test_share=0.2)
    assert stats["leakage"] | {"exact_pairs": 0, "near_pairs": 0} == stats["leakage"]

    def shingles(row: Value) -> set[str]:
        text = row["messages"][0]["content"].lower()
        return {text[start : start + 5] for start in range(len(text) - 4)}

    parts = {split: [shingles(row) for row in rows_of(tmp_path, split)] for split in SPLITS}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert len(parts[one]) > 0 < len(parts[other])
        worst = max(len(a & b) / len(a | b) for a in parts[one] for b in parts[other])
        assert worst < 0.7


def test_rows_of_one_user_share_a_split(tmp_path: Path) -> None:
    values = [{**value, "user": f"u{index % 25}"} for index, value in enumerate(values_of(200))]
    prep(tmp_path, write(tmp_path / "x.jsonl", values), group_by="user", test_share=0.2)
    users = [{row["meta"]["user"] for row in rows_of(tmp_path, split)} for split in SPLITS]
    assert sum(map(len, users)) == len(set.union(*users)) == 25


def test_strata_have_their_share_in_each_split(tmp_path: Path) -> None:
    values = [{**value, "kind": "rare" if index % 10 == 0 else "common"} for index, value in enumerate(values_of(400))]
    prep(tmp_path, write(tmp_path / "x.jsonl", values), stratify_by="kind", validation_share=0.25, test_share=0.25)
    rare = [sum(row["meta"]["kind"] == "rare" for row in rows_of(tmp_path, split)) for split in SPLITS]
    assert rare == [20, 10, 10]


def test_contamination_is_dropped_or_flagged(tmp_path: Path) -> None:
    values = values_of(80)
    test_set = write(tmp_path / "eval.jsonl", [values[3], *values_of(20, seed=9)])
    hidden = {"question": "Tell me this: " + values_of(20, seed=9)[4]["question"], "answer": "No."}
    source = write(tmp_path / "x.jsonl", [*values, hidden])
    against = {"against": (Artifact(Kind.SOURCE, "eval.jsonl", test_set, "d", "exam"),)}
    stats = prep(tmp_path / "drop", source, others=against)
    assert stats["rejected"] == {"contaminated": 2}
    assert stats["contamination"] == [{"label": "exam", "items": 21, "dropped": 2, "flagged": 0}]
    assert {item["line"] for item in lines_of(tmp_path / "drop", "rejects")} == {4, 81}
    stats = prep(tmp_path / "flag", source, others=against, contamination="flag")
    assert stats["rejected"] == {}
    assert [item["line"] for item in lines_of(tmp_path / "flag", "flags") if item["kind"] == "contamination"] == [4, 81]


def test_several_sources_of_different_formats_with_weights(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", values_of(100))
    other = write(
        tmp_path / "b.jsonl",
        [{"instruction": value["question"], "output": value["answer"]} for value in values_of(100, seed=2)],
    )
    labelled = [Artifact(Kind.SOURCE, path.name, path, "d", path.stem) for path in (one, other)]
    plain = prep(tmp_path / "plain", *labelled)
    stats = prep(tmp_path / "run", *labelled, weights={"a": 2.0, "b": 0.5})
    assert [(item["label"], item["format"], item["weight"]) for item in stats["sources"]] == [
        ("a", "question_answer", 2.0),
        ("b", "alpaca", 0.5),
    ]
    sources = [row["meta"]["source"] for row in rows_of(tmp_path / "run", "train")]
    before = [row["meta"]["source"] for row in rows_of(tmp_path / "plain", "train")]
    assert sources.count("a") == 2 * before.count("a")
    assert 0.3 * before.count("b") < sources.count("b") < 0.7 * before.count("b")
    ids = [row["id"] for row in rows_of(tmp_path / "run")]
    assert len(ids) == len(set(ids))
    assert rows_of(tmp_path / "run", "test") == rows_of(tmp_path / "plain", "test")
    assert plain["rows_out"] == stats["rows_out"] == 200


def test_sources_of_different_row_types_are_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", values_of(5))
    other = write(tmp_path / "b.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}])
    labelled = [Artifact(Kind.SOURCE, path.name, path, "d", path.stem) for path in (one, other)]
    with pytest.raises(BadData, match="rows of different types: a: messages, b: preference"):
        prep(tmp_path, *labelled)


def test_a_weight_without_a_source_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no source is labelled web"):
        prep(tmp_path, write(tmp_path / "x.jsonl", values_of(3)), weights={"web": 2})


def test_parquet_holds_the_same_rows(tmp_path: Path) -> None:
    source = write(tmp_path / "x.jsonl", mixed())
    prep(tmp_path / "jsonl", source)
    prep(tmp_path / "parquet", source, output_format="parquet")
    assert rows_of(tmp_path / "jsonl") == rows_of(tmp_path / "parquet")
    folder = tmp_path / "parquet/out/data"
    data = load_dataset(
        "parquet", data_files={"train": str(folder / "train.parquet")}, cache_dir=str(tmp_path / "cache")
    )
    assert data["train"].num_rows == len(rows_of(tmp_path / "jsonl", "train"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_rows": 1000}, "min_rows: "),
        ({"max_near_duplicate_rate": 0.01}, "max_near_duplicate_rate: "),
        ({"max_conflict_rate": 0.01}, "max_conflict_rate: "),
    ],
)
def test_a_gate_fails_the_stage_and_says_where_the_report_is(tmp_path: Path, options: Value, message: str) -> None:
    with pytest.raises(GateFailed, match=message) as caught:
        prep(tmp_path, write(tmp_path / "x.jsonl", mixed()), **options)
    assert "nothing was published" in caught.value.hint
    assert (tmp_path / "scratch/report/report.html").is_file()


def test_max_auc_compares_with_the_reference(tmp_path: Path) -> None:
    source = write(tmp_path / "x.jsonl", values_of(150))
    like = write(tmp_path / "like.jsonl", values_of(150, seed=4))
    unlike = write(
        tmp_path / "unlike.jsonl", [{"text": f"xyzzy {n} plugh qwerty zxcvb asdfg {n * 7}"} for n in range(150)]
    )
    with pytest.raises(UsageError, match="max_auc compares with a reference"):
        prep(tmp_path / "none", source, max_auc=0.7)
    stats = prep(tmp_path / "like", source, others={"reference": artifact(Kind.SOURCE, like)}, max_auc=0.7)
    assert stats["gates"][0]["passed"]
    with pytest.raises(GateFailed, match="max_auc: "):
        prep(tmp_path / "unlike", source, others={"reference": artifact(Kind.SOURCE, unlike)}, max_auc=0.7)


def test_mass_deduplication_stops_unless_allowed(tmp_path: Path) -> None:
    story = "The inspector wrote in the long report that nothing at all was found in the {} of the old house"
    values = [*values_of(60), *({"question": "What?", "answer": story.format(word)} for word in WORDS[:40])]
    source = write(tmp_path / "x.jsonl", values)
    with pytest.raises(BadData, match="one cluster of near-duplicates has") as caught:
        prep(tmp_path / "stop", source, near_threshold=0.8)
    assert "is x.jsonl:" in caught.value.hint
    stats = prep(tmp_path / "go", source, near_threshold=0.8, allow_mass_dedup=True)
    assert stats["duplicates"]["near_removed"] > 20


def test_strict_stops_at_the_first_malformed_row(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"x.jsonl:51: parse_json"):
        prep(tmp_path, write(tmp_path / "x.jsonl", [*values_of(50), "{"]), strict=True)


def test_languages_can_be_kept(tmp_path: Path) -> None:
    english = "The farmer went to the market in the morning and sold all of the eggs he had brought."
    german = "Der Bauer ging am Morgen auf den Markt und verkaufte alle Eier, die er mitgebracht hatte."
    values = [{"question": f"{n}?", "answer": text} for n, text in enumerate([english, german] * 5)]
    stats = prep(tmp_path, write(tmp_path / "x.jsonl", values), keep_languages=["en"], near_duplicates="off")
    assert stats["rejected"] == {"language": 5}
    assert stats["languages"] == {"en": 5}


def test_a_language_that_cannot_be_told_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="keep_languages: eng cannot be told"):
        prep(tmp_path, write(tmp_path / "x.jsonl", values_of(3)), keep_languages=["eng"])


def test_secrets_are_redacted_by_default_and_never_in_the_report(tmp_path: Path) -> None:
    key = "AKIA" + "IOSFODNN7EXAMPLQ"
    answer = f"It is {key} of course, keep it."
    values: list[Any] = [*values_of(60), {"question": "What is the key?", "answer": answer}]
    values += [
        {"question": answer, "answer": " "},
        f'{{"question": "{answer}"',
    ]  # refused rows have none in them either
    prep(tmp_path, write(tmp_path / "x.jsonl", values))
    assert all(key.encode() not in text for text in files_of(tmp_path).values())


@pytest.mark.parametrize("executor", ["processes", "ray"])
def test_other_executors_write_the_same_bytes(tmp_path: Path, executor: str) -> None:
    pytest.importorskip("datatrove" if executor == "processes" else "ray")
    source = write(tmp_path / "x.jsonl", [*mixed(5000), *values_of(4000, seed=2)])
    prep(tmp_path / "here", source)
    prep(tmp_path / "there", source, executor=executor, tasks=2, workers=2)
    assert files_of(tmp_path / "here") == files_of(tmp_path / "there")


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_slurm_gets_a_job_array_and_prep_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datatrove")
    source = write(tmp_path / "x.jsonl", mixed(5000))
    prep(tmp_path / "here", source)
    (tmp_path / "bin").mkdir()
    # Runs each array task in the background, as a cluster would, and reports a job until all have ended.
    executable(
        tmp_path / "bin/sbatch",
        f"""#!/bin/bash
grep -q merge_stats "${{@: -1}}" && {{ echo "Submitted batch job 78"; exit; }}  # the summary that datatrove makes afterwards
cp "${{@: -1}}" {tmp_path}/script.sh
echo "Submitted batch job 77"
( for task in 0 1; do SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_JOB_ID=77 RUN_OFFSET=0 SLURM_NODEID=0 SLURM_PROCID=0 \\
  SLURM_NODELIST=n1 SLURM_JOB_ID=77 bash {tmp_path}/script.sh; done; touch {tmp_path}/ended ) > {tmp_path}/log 2>&1 &
""",
    )
    executable(tmp_path / "bin/scontrol", "#!/bin/bash\necho n1\n")
    executable(
        tmp_path / "bin/srun",
        '#!/bin/bash\nwhile [[ "$1" == -* ]]; do [[ "$1" == -n ]] && shift; shift; done\nexec "$@"\n',
    )
    executable(tmp_path / "bin/squeue", f"#!/bin/bash\n[[ -e {tmp_path}/ended ]] || echo 77\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr("ftcli.stages.prep.scale.POLL_S", 0.2)
    prep(tmp_path / "there", source, executor="slurm", tasks=2, slurm_partition="cpu")
    assert files_of(tmp_path / "here") == files_of(tmp_path / "there")
    script = (tmp_path / "script.sh").read_text()
    assert "#SBATCH --array=0-1" in script
    assert "#SBATCH --partition=cpu" in script


def test_slurm_needs_a_partition_and_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datatrove")
    source = write(tmp_path / "x.jsonl", values_of(3))
    with pytest.raises(UsageError, match="needs slurm_partition"):
        prep(tmp_path / "a", source, executor="slurm")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="no sbatch"):
        prep(tmp_path / "b", source, executor="slurm", slurm_partition="cpu")


def test_a_task_that_does_not_finish_fails_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datatrove")
    (tmp_path / "bin").mkdir()
    executable(tmp_path / "bin/sbatch", '#!/bin/bash\necho "Submitted batch job 78"\n')
    executable(tmp_path / "bin/squeue", "#!/bin/bash\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(StageFailed, match="2 of 2 tasks did not finish"):
        prep(tmp_path, write(tmp_path / "x.jsonl", values_of(3)), executor="slurm", tasks=2, slurm_partition="cpu")


def test_inspect_shows_and_writes_nothing(tmp_path: Path) -> None:
    source = write(tmp_path / "x.jsonl", mixed(30))
    before = time.time_ns()
    command = [
        sys.executable,
        "-m",
        "ftcli",
        "prep",
        "--inspect",
        "--run",
        str(tmp_path / "run"),
        "--source",
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path)
    assert "file      x.jsonl: " in done.stdout
    assert "format    question_answer" in done.stdout
    assert done.stdout.count("\n  row       ") == 3
    assert "refused: read: parse_json" in done.stdout
    assert not (tmp_path / "run").exists()
    assert all(path.stat().st_mtime_ns < before for path in tmp_path.rglob("*"))
