"""A file of labels to the judge card."""

from pathlib import Path
from typing import Any

import polars as pl

from alpacafarm_core import files
from alpacafarm_core.card import card
from alpacafarm_core.errors import BadInput
from flows import inspection

WORDS = {
    "agreement": ("agreement with gold %", "--gold FILE with labels of the same pairs"),
    "agreement_leave_one_out": ("agreement, leave one out %", "several labels of a pair"),
    "bias": ("bias %", "--gold FILE, and several labels of a pair"),
    "variance": ("variance %", "several labels of a pair"),
    "spearman": ("Spearman with gold", "--gold FILE, three models with over 100 pairs each"),
    "pearson": ("Pearson with gold", "--gold FILE, three models with over 100 pairs each"),
    "order_flip_rate": ("order flips %", "pairs judged in both orders"),
    "probability_prefer_longer": ("prefers the longer", "outputs 31 characters apart"),
    "probability_prefer_list": ("prefers the list", "pairs in which one output has a list"),
    "probability_prefer_1": ("prefers output_1", "a label"),
    "probability_prefer_first_shown": ("prefers the first shown", "a column is_switched"),
    "self_preference": ("prefers its family, points", "a second judge, or --gold FILE"),
    "parse_rate": ("parsed %", "a row that a judge was asked about"),
    "price_per_1000": ("$ per 1000", "a column price"),
    "seconds_per_1000": ("seconds per 1000", "a column seconds"),
}
"""What each measure is called in a table, and what a file must have for it."""


def carded(annotations: str, gold: Path | None, store: str | None) -> dict[str, Any]:
    """The card as one document; raises BadInput naming the file and the mend.

    `annotations` is a file, or the key of preferences in the store.
    """
    rows = _labelled(annotations, store)
    truth = None if gold is None else files.read(gold, "preferences")
    try:
        measures = card(rows, truth)
    except BadInput as error:
        raise BadInput(f"{gold}: {error}") from error
    return {
        **{name: measure.value for name, measure in measures.items()},
        "standard_errors": {name: measure.standard_error for name, measure in measures.items()},
        "counts": {name: measure.n for name, measure in measures.items()},
        **_summary(rows),
    }


def _labelled(annotations: str, place: str | None) -> pl.DataFrame:
    if not inspection.is_key(annotations):
        return files.read(annotations, "preferences")
    store, found = inspection.labels_kept(annotations, place)
    return store.read(found)


def _summary(rows: pl.DataFrame) -> dict[str, Any]:
    pair = ["instruction", "input", "output_1", "output_2"]
    labelled = rows.drop_nulls("preference")
    statuses = rows["status"].value_counts(sort=True).rows()
    annotators = labelled["annotator"].value_counts(sort=True).rows()
    return {
        "rows": rows.height,
        "labels": labelled.height,
        "pairs": labelled.select(pair).n_unique(),
        "noisy": int(rows["is_noisy"].sum()),
        "statuses": dict(statuses),
        "annotators": {name or "unnamed": count for name, count in annotators},
    }


def show_card(document: dict[str, Any]) -> None:
    """The card as a table, and what the file did not tell."""
    from flows.printing import show_rows

    known = [name for name in WORDS if document[name] is not None]
    errors, counts = document["standard_errors"], document["counts"]
    show_rows(
        [
            {"": WORDS[name][0], "is": document[name], "± SE": errors[name], "n": counts[name]}
            for name in known
        ]
    )
    statuses = ", ".join(f"{count} {status}" for status, count in document["statuses"].items())
    print(f"{document['labels']} labels of {document['pairs']} pairs ({statuses})")
    for name, (title, needs) in WORDS.items():
        if name not in known:
            print(f"not known: {title.removesuffix(' %')} needs {needs}")
