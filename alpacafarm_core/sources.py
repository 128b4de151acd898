"""Sources: where instructions, demonstrations, reference outputs and recorded labels come from.

Three kinds: the built-in world, files of the user's, and AlpacaFarm's dataset on the hub. A prompt
of a file belongs to the evaluation split by a hash of its text alone (instruction and input as
AlpacaEval merges them), so no file can bring one in as a prompt to train on, nor a conversation as
a user's message before its turns. A prompt inside a longer text, as in recorded pairs whose talk
of several turns is one instruction, is not found.
"""

import hashlib
import logging
import shutil
from functools import cache
from pathlib import Path

import polars as pl

from alpacafarm_core import files, hub
from alpacafarm_core.artifacts import (
    Candidates,
    Demonstrations,
    Instructions,
    Interactions,
    Preferences,
)
from alpacafarm_core.conversations import users_words
from alpacafarm_core.errors import BadInput, Damaged, Missing
from alpacafarm_core.ledger import digest
from alpacafarm_core.prompts import merged
from alpacafarm_core.recipe import file_digest
from alpacafarm_core.setup import Files, Hub, Pretrained, Source, Split, World

WORLD_BASE = Path(__file__).parents[1] / "data" / "world" / "base"
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
HUB_RECORDED = {
    "human": "alpaca_human_preference",
    "gpt4": "alpaca_gpt4_preference",
    "noisy_multi": "alpaca_noisy_multi_preference",
}

log = logging.getLogger("alpacafarm.sources")


def pinned(source: Source) -> Source:
    """The source at a commit: keys hold what the data is, and a branch says only where to look."""
    if isinstance(source, Hub):
        return source.replace(revision=hub.commit(source.revision))
    return source


def check(source: Source) -> None:
    """Refuse a source that cannot serve an evaluation, before anything is made from it."""
    if isinstance(source, Files):
        published(source, 1)
        demonstrations(source, 1)


def instructions(source: Source, split: Split, size: int) -> pl.DataFrame:
    """At most `size` prompts of a split, with the columns of Instructions."""
    match source:
        case World():
            rows = _world(source.seed, split, size)
        case Files():
            rows = _side(files.read(source.instructions.checked(), "instructions"), source, split)
        case Hub():
            name = "farm_evaluation" if split == "eval" else f"instructions/{split}"
            rows = files.read(hub.fetch(f"alpaca_{name}", source.revision), "instructions")
    return rows.head(size).select(list(Instructions.columns))


def demonstrations(source: Source, size: int, split: Split = "sft") -> pl.DataFrame:
    """Prompts of a split with answers to imitate, with the columns of Demonstrations.

    Those outside the sft split are for tests: of a file, the rows that training leaves out.
    """
    match source:
        case World():
            from alpacafarm_core.world import writers

            rows = _written(_world(source.seed, split, size), writers.DEMONSTRATOR_SKILL)
        case Files():
            rows = files.read(source.demonstrations.checked(), "demonstrations")
            rows = _side(rows, source, "sft" if split == "sft" else "eval")
        case Hub():
            path = hub.fetch(f"alpaca_instructions/{split}", source.revision)
            rows = files.read(path, "demonstrations")
    return rows.head(size).select(list(Demonstrations.columns))


def published(source: Source, size: int) -> pl.DataFrame:
    """The reference's outputs for the evaluation prompts, with the columns of Candidates."""
    match source:
        case World():
            from alpacafarm_core.world import writers

            rows = _written(_world(source.seed, "eval", size), writers.REFERENCE_SKILL)
        case Files():
            path, answers = source.instructions.checked(), source.reference
            rows = files.read(path, "instructions", beside=[answers])
            rows = _side(_texts(rows.with_columns(output=answers)), source, "eval")
        case Hub():
            path = hub.fetch("alpaca_farm_evaluation", source.revision)
            rows = files.read(path, "demonstrations")
    name = source.reference if isinstance(source, Files) else "davinci003"
    return _as_candidates(rows.head(size), name)


def _as_candidates(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    known = {
        "finish_reason": pl.lit("stop"),
        "generator": pl.lit(name),
        "sample_index": pl.lit(0),
        "temperature": pl.lit(None, dtype=pl.Float64),
        "top_p": pl.lit(None, dtype=pl.Float64),
        "max_tokens": pl.lit(None, dtype=pl.Int64),
        "seed": pl.lit(None, dtype=pl.Int64),
    }
    return rows.with_columns(**known).select(list(Candidates.columns))


def written(source: Source, size: int, skill: float) -> pl.DataFrame:
    """Answers of a writer of the built-in world to the evaluation prompts; skill in [0, 1]."""
    if not isinstance(source, World):
        raise BadInput(f"source {source.name!r} has no writers; only the built-in world has")
    rows = _written(_world(source.seed, "eval", size), skill)
    return _as_candidates(rows.head(size), f"writer_{skill:g}")


def answered(source: Source, prompts: pl.DataFrame, skill: float) -> pl.DataFrame:
    """An answer of a writer of the built-in world to each prompt, as Candidates; skill in [0, 1].

    What is written to a prompt depends on that prompt alone.
    """
    if not isinstance(source, World):
        raise BadInput(
            f"source {source.name!r} has no writers, which only the built-in world has; name "
            "responders that are models"
        )
    from alpacafarm_core.world.writers import write

    asked = prompts.select("instruction", "input").iter_rows()
    outputs = [write(i, x, skill, int(digest("writer", i, x)[:12], 16)) for i, x in asked]
    rows = _texts(prompts.with_columns(output=pl.Series(outputs, dtype=pl.String)))
    return _as_candidates(rows, f"writer_{skill:g}")


def recorded(source: Source) -> pl.DataFrame:
    """Labels somebody recorded, for prompts outside the evaluation split."""
    match source:
        case Files(preferences=file) if file is not None:
            prompts = files.read(source.instructions.checked(), "instructions")
            rows = _unmerged(files.read(file.checked(), "preferences"), prompts)
            return _side(rows, source, "preference").select(list(Preferences.columns))
        case Hub(preferences=which) if which != "simulate":
            return files.read(hub.fetch(HUB_RECORDED[which], source.revision), "preferences")
    raise BadInput(f"source {source.name!r} has no recorded preferences; simulate them")


def interactions(source: Source, size: int) -> pl.DataFrame:
    """At most `size` answers and what their users made of them, with the columns of Interactions.

    A turn is left out where its prompt, or what a user said before it, is a prompt that is
    evaluated; raises BadInput where the source has no such users, or no turn is left.
    """
    match source:
        case World():
            rows = _heard(_world(source.seed, "unlabeled", size), source.seed)
        case Files(interactions=file) if file is not None:
            heard = files.read(file.checked(), "interactions")
            rows = _unevaluated(heard, file.path, source.share_eval)
        case _:
            raise BadInput(
                f"source {source.name!r} has no interactions; give a file of them with "
                "source.interactions, or use the built-in world"
            )
    return rows.head(size).select(list(Interactions.columns))


def is_evaluated(prompt: str, share: float) -> bool:
    """Whether a merged prompt belongs to the evaluation split; stable across machines."""
    number = int.from_bytes(hashlib.sha256(prompt.strip().encode()).digest()[:8])
    return number < share * 2**64


def model_folder(model: str) -> Path:
    """The folder of a base model: the world's, a path, or a hub name fetched as safetensors."""
    if model == "world":
        return WORLD_BASE
    if Path(model).is_dir():
        return Path(model)
    if model.startswith((".", "/")) or "/" not in model:
        raise Missing(f"no model folder {model!r}; give a folder, a hub name, or 'world'")
    return hub.model(model)


def pretrained(model: str) -> Pretrained:
    """A model and what it is: SHA-256 over the names and contents of its files."""
    laid = _model_files(model_folder(model))
    stamped = tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in laid)
    return Pretrained(name=model, digest=_digest_of(stamped))


@cache
def _digest_of(laid: tuple[tuple[Path, int, int], ...]) -> str:
    """Of files as they lay there, with size and time of change: a change is another question."""
    total = hashlib.sha256()
    for file, _, _ in laid:
        total.update(f"{file.name} {file_digest(file)}\n".encode())
    return total.hexdigest()


def take_model(model: Pretrained, out: Path) -> None:
    """Lay a model's files into `out`; raises Damaged when they are no longer those named."""
    if pretrained(model.name) != model:
        raise Damaged(f"model {model.name} changed while the flow ran; start the flow again")
    for file in _model_files(model_folder(model.name)):
        shutil.copyfile(file, out / file.name)


def _model_files(folder: Path) -> list[Path]:
    found = sorted(file for pattern in MODEL_FILES for file in folder.glob(pattern))
    if not any(file.suffix == ".safetensors" for file in found):
        raise BadInput(f"{folder} holds no .safetensors; save the model with safetensors first")
    return found


@cache
def _world(seed: int, split: str, size: int) -> pl.DataFrame:
    from alpacafarm_core.world.instructions import instructions as write

    return pl.DataFrame(write(split, size, seed)).select(list(Instructions.columns))


def _written(prompts: pl.DataFrame, skill: float) -> pl.DataFrame:
    from alpacafarm_core.world.writers import write

    rows = prompts.select("instruction", "input").iter_rows()
    outputs = [write(asked, given, skill, number) for number, (asked, given) in enumerate(rows)]
    return _texts(prompts.with_columns(output=pl.Series(outputs)))


def _heard(prompts: pl.DataFrame, seed: int) -> pl.DataFrame:
    from alpacafarm_core.world.users import Turn, turn

    rows = prompts.select("instruction", "input").iter_rows()
    turns = [turn(asked, given, seed) for asked, given in rows]
    heard = pl.DataFrame(turns, schema=list(Turn._fields), orient="row")
    return prompts.with_columns(heard, history=pl.lit("[]"))


def _texts(rows: pl.DataFrame) -> pl.DataFrame:
    none = pl.lit([], dtype=pl.List(pl.Int32))
    return rows.with_columns(output_ids=none, tokenizer=pl.lit(""))


def _side(rows: pl.DataFrame, source: Files, split: Split) -> pl.DataFrame:
    """Rows of the evaluation split, or all others."""
    prompts = rows.select("instruction", "input").iter_rows()
    evaluated = [is_evaluated(merged(*row), source.share_eval) for row in prompts]
    wanted = pl.Series(evaluated, dtype=pl.Boolean)
    kept = rows.filter(wanted if split == "eval" else ~wanted)
    if kept.is_empty():
        raise BadInput(
            f"{source.instructions.path}: of {rows.height} prompts none falls to the {split} split "
            f"at share_eval {source.share_eval}; give more prompts or another share"
        )
    return kept


def _unevaluated(turns: pl.DataFrame, path: Path, share: float) -> pl.DataFrame:
    """Turns with no evaluation prompt, neither theirs nor in their history; the others counted."""
    columns = turns.select("instruction", "input", "history").iter_rows()
    own, before = [], []
    for instruction, text, history in columns:
        own.append(is_evaluated(merged(instruction, text), share))
        before.append(any(is_evaluated(each, share) for each in users_words(history)))
    rows = turns.with_columns(own=pl.Series(own), before=pl.Series(before))
    kept = rows.filter(~pl.col("own"), ~pl.col("before")).drop("own", "before")
    if dropped := turns.height - kept.height:
        said = "%d of %d turns left out: %d ask an evaluation prompt, %d more come after one"
        log.warning(said, dropped, turns.height, sum(own), dropped - sum(own))
    if kept.is_empty():
        raise BadInput(
            f"{path}: each of {turns.height} turns asks an evaluation prompt or comes after one, "
            f"at share_eval {share}; give more turns or a smaller share"
        )
    return kept


def _unmerged(rows: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """Give recorded pairs back the instruction and input they were merged from, where known."""
    parts = {merged(i, x): (i, x, d) for i, x, d in prompts.iter_rows()}
    found = [
        parts.get(merged(i, x), (i, x, d))
        for i, x, d in rows.select("instruction", "input", "dataset").iter_rows()
    ]
    columns = dict(zip(("instruction", "input", "dataset"), zip(*found, strict=True), strict=True))
    return rows.with_columns(pl.Series(name, held) for name, held in columns.items())
