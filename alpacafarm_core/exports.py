"""Tables in other people's formats: alpaca_eval's, AlpacaFarm's, TRL's, a dataset folder, lines.

Two ways lead out. Raw records keep every key and its order: what `read_records` reads from a file
that alpaca_eval wrote, `written_records` (or `written_table` for CSV) writes again as the same
text. Typed rows become the records of a format; a kind that does not fit it is refused.
"""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import Any

import polars as pl

from alpacafarm_core.artifacts import Table
from alpacafarm_core.errors import BadInput
from alpacafarm_core.formats import load
from alpacafarm_core.prompts import merged
from alpacafarm_core.store import KINDS, Manifest
from alpacafarm_core.tally import CSV_COLUMNS

Record = dict[str, Any]
Writer = Callable[[pl.DataFrame], str]
SHARD = 100_000  # rows of one Parquet file in a dataset folder
TIE, OLD_TIE = 1.5, 0
NEEDED = {
    "candidates": (".json", {"instruction", "output"}),
    "preferences": (".json", {"instruction", "output_1", "output_2", "preference"}),
    "leaderboard": (".csv", {"win_rate"}),
}
"""alpaca_eval's files: their ending, and the columns without which a file is none of them."""


def read_records(path: Path | str) -> list[Record]:
    """The rows of a file as they stand, every key in its place; raises Missing or BadInput.

    JSON keeps whole numbers, nulls and absent keys apart. Fields of CSV are text.
    """
    path = Path(path)
    frame, ending = load(path), path.suffix.lower()
    if ending == ".parquet":
        return frame.to_dicts()
    text = path.read_bytes().decode("utf-8-sig")
    if ending in (".csv", ".tsv"):
        separator = "\t" if ending == ".tsv" else ","
        return list(csv.DictReader(StringIO(text, newline=""), delimiter=separator))
    if text.lstrip().startswith("["):
        return list(json.loads(text))
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def written_records(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as alpaca_eval's JSON files are written, without a newline at the end.

    Two spaces a level, none after a colon, `/` and everything beyond ASCII escaped, at most ten
    decimals and no exponent; a number that is none becomes null.
    """
    return _json(list(records), "\n")


def written_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as CSV under the keys of the first one, numbers at full precision, null empty."""
    text = StringIO(newline="")
    names = list(records[0]) if records else []
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def is_theirs(path: Path, kind: str) -> bool:
    """Whether a file is what alpaca_eval itself writes for this kind, inputs merged."""
    ending, needed = NEEDED.get(kind, ("", set()))
    if path.suffix != ending or (
        ending == ".json" and not path.read_bytes().lstrip().startswith(b"[")
    ):
        return False
    return all(needed <= set(each) and not each.get("input") for each in read_records(path))


def model_outputs(rows: pl.DataFrame) -> list[Record]:
    """Candidates as in `model_outputs.json`, the input merged into the instruction.

    Raises BadInput where a generator answers a prompt twice, which no evaluation there expects.
    """
    prompts = _merged(rows)
    same = list(zip(prompts, rows["generator"], strict=True))
    if twice := len(same) - len(set(same)):
        raise BadInput(
            f"{twice} of {rows.height} answers are further ones to a prompt, and alpaca_eval takes "
            "one each; generate one, or export as jsonl"
        )
    held = rows.select("dataset", "output", "generator").to_dicts()
    return [{"instruction": prompt} | each for prompt, each in zip(prompts, held, strict=True)]


def annotations(rows: pl.DataFrame) -> list[Record]:
    """Preferences as in `annotations.json`, by the present names of its columns.

    Price (US dollars), seconds and the judge's words are null where nobody was asked.
    """
    asked = pl.col("raw_completion").fill_null("") != ""
    held = rows.select(
        "dataset",
        "output_1",
        "generator_1",
        "output_2",
        "generator_2",
        "annotator",
        "preference",
        preference_price_per_example=pl.when(asked).then("price"),
        preference_time_per_example=pl.when(asked).then("seconds"),
        preference_raw_completion=pl.when(asked).then("raw_completion"),
    ).to_dicts()
    prompts = _merged(rows)
    return [{"instruction": prompt} | each for prompt, each in zip(prompts, held, strict=True)]


def published_board(rows: pl.DataFrame) -> list[Record]:
    """A leaderboard as in their CSV: the first column has no name, percent at full precision."""
    return [
        {"" if name == "model" else name: held for name, held in row.items()}
        for row in rows.select(CSV_COLUMNS).to_dicts()
    ]


def farm_records(rows: pl.DataFrame) -> list[Record]:
    """Rows as AlpacaFarm's JSON has them: the input apart, a tie is 0, labels whole where whole."""
    names = ("instruction", "input", "output", "output_1", "output_2", "preference")
    held = rows.select(name for name in (*names, "annotator", "generator") if name in rows.columns)
    return [_with_old_label(row) for row in held.to_dicts()]


def chosen_and_rejected(rows: pl.DataFrame) -> list[Record]:
    """Preferences as TRL's conversational pairs; ties and rows without a label are left out."""
    decided = rows.filter(pl.col("preference").is_not_null() & (pl.col("preference") != TIE))
    return [
        {
            "prompt": [_turn("user", merged(row["instruction"], row["input"]))],
            "chosen": [_turn("assistant", row["output_1" if is_first else "output_2"])],
            "rejected": [_turn("assistant", row["output_2" if is_first else "output_1"])],
        }
        for row in decided.to_dicts()
        for is_first in (row["preference"] < TIE,)
    ]


def prompted(rows: pl.DataFrame) -> list[Record]:
    """Demonstrations as TRL's conversational prompts with completions."""
    return [
        {
            "prompt": [_turn("user", merged(row["instruction"], row["input"]))],
            "completion": [_turn("assistant", row["output"])],
        }
        for row in rows.to_dicts()
    ]


def conversed(rows: pl.DataFrame) -> list[Record]:
    """Synthetic rows as TRL's `messages`: the turns before, what was asked, and the answer."""
    return [
        {
            "messages": [
                *json.loads(row["history"]),
                _turn("user", merged(row["asked"], row["input"])),
                _turn("assistant", row["output"]),
            ]
        }
        for row in rows.to_dicts()
    ]


def dataset_folder(rows: pl.DataFrame, manifest: Manifest, folder: Path) -> None:
    """Fill a folder that the `datasets` library loads: Parquet shards and a card."""
    (folder / "data").mkdir(parents=True)
    shards = [rows[start : start + SHARD] for start in range(0, max(1, rows.height), SHARD)]
    for number, shard in enumerate(shards):
        shard.write_parquet(folder / f"data/train-{number:05}-of-{len(shards):05}.parquet")
    (folder / "README.md").write_text(_card(rows, manifest), encoding="utf-8")


def _lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _farm_json(rows: pl.DataFrame) -> str:
    return json.dumps(farm_records(rows), indent=4)


FORMATS: dict[str, dict[str, Writer]] = {
    "alpaca_eval": {
        "candidates": lambda rows: written_records(model_outputs(rows)),
        "preferences": lambda rows: written_records(annotations(rows)),
        "leaderboard": lambda rows: written_table(published_board(rows)),
    },
    "alpaca_farm": dict.fromkeys(
        ("instructions", "demonstrations", "candidates", "preferences"), _farm_json
    ),
    "trl": {
        "preferences": lambda rows: _lines(chosen_and_rejected(rows)),
        "demonstrations": lambda rows: _lines(prompted(rows)),
        "synthetic": lambda rows: _lines(conversed(rows)),
    },
    "jsonl": {
        name: lambda rows: _lines(rows.to_dicts())
        for name, kind in KINDS.items()
        if issubclass(kind, Table)
    },
}
"""The formats of one file, and of each the kinds that fit it."""


def writer_of(kind: str, form: str) -> Writer:
    """What writes a kind in a format; raises BadInput where the two do not fit."""
    fitting = FORMATS[form]
    if kind not in fitting:
        others = [name for name, kinds in FORMATS.items() if kind in kinds]
        mend = f"export it as {', '.join([*others, 'hf'])}" if others else "it is not a table"
        raise BadInput(
            f"{kind} cannot be written as {form}, which takes {', '.join(fitting)}; {mend}"
        )
    return fitting[kind]


def _merged(rows: pl.DataFrame) -> list[str]:
    return [merged(*each) for each in rows.select("instruction", "input").iter_rows()]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _with_old_label(row: Record) -> Record:
    label = row.get("preference")
    if label is None:
        return row
    old = OLD_TIE if label == TIE else int(label) if label == int(label) else label
    return row | {"preference": old}


def _json(held: Any, margin: str) -> str:
    """A JSON value whose lines begin with `margin`, a newline and the spaces of its level."""
    inner = margin + "  "
    if isinstance(held, Mapping):
        parts = [f"{_quoted(str(name))}:{_json(each, inner)}" for name, each in held.items()]
        return "{" + inner * bool(parts) + f",{inner}".join(parts) + _end(parts, margin) + "}"
    if isinstance(held, list | tuple):
        parts = [_json(each, inner) for each in held]
        return "[" + inner * bool(parts) + f",{inner}".join(parts) + _end(parts, margin) + "]"
    if isinstance(held, str):
        return _quoted(held)
    return _decimal(held) if isinstance(held, float) else json.dumps(held)


def _end(parts: Sequence[str], margin: str) -> str:
    """Before the closing bracket; one without parts has an empty line, as pandas writes it."""
    return margin if parts else "\n" + margin


def _quoted(text: str) -> str:
    # Only DEL stands as it is: Python would escape it.
    parts = (json.dumps(part)[1:-1].replace("/", r"\/") for part in text.split("\x7f"))
    return '"' + "\x7f".join(parts) + '"'


def _decimal(number: float) -> str:
    if not isfinite(number):
        return "null"
    text = f"{number:.10f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


def _card(rows: pl.DataFrame, manifest: Manifest) -> str:
    columns = "\n".join(f"| `{name}` | {kind} |" for name, kind in rows.schema.items())
    version = manifest.packages.get("alpacafarm", "")
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
tags:
- alpacafarm
---

# {manifest.kind} {manifest.key}

{rows.height} rows, made by the stage `{manifest.recipe.stage}` of AlpacaFarm {version} on
{manifest.made}. Texts keep the licence of where they come from.

| column | type |
|---|---|
{columns}

## How it was made

```json
{manifest.recipe.model_dump_json(indent=1)}
```
"""
