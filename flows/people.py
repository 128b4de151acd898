"""People as judges: pairs in the Prefect UI, a page at a time, in a run that waits for the form.

The run is suspended while a page waits and costs nothing; on submission it starts again, finds the
answers of earlier pages in the ledger and shows the next. So people's labels are answers like any
other: bought once, kept with what was shown, and never asked for again.
"""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field, create_model

from alpacafarm_core import files
from alpacafarm_core.annotate import judge, outstanding
from alpacafarm_core.buying import Batch, purchase
from alpacafarm_core.llm import Answer, nobody
from alpacafarm_core.panel import load
from flows.endings import named_endings
from flows.labelling import refuse_place, rows_of, written
from tasks.stage import ledger

Verdict = Literal["(a)", "(b)", "tie"]
SAID = {"(a)": "Output (a)", "(b)": "Output (b)", "tie": "Tie"}
AskPage = Callable[[Sequence[Batch]], Sequence[Verdict]]
A_DAY = 86_400
MARKS = re.compile(r"[^\w\s]")


@flow(log_prints=True)
@named_endings
def people(
    pairs: Path,
    out: Path,
    page: Annotated[int, Field(ge=1, le=50)] = 5,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> dict[str, Any]:
    """Have a person judge a file of pairs in the UI; resume the run to fill in a page.

    Args:
        pairs: A file the worker sees, with instruction, input?, output_1 and output_2.
        out: File to write: .parquet, .json, .jsonl or .csv.
        page: Pairs on a form, 1 to 50.
        seed: Seed of the order of showing.
    """
    return judged_by_people(pairs, out, page, seed, _form)


def judged_by_people(
    pairs: Path, out: Path, page: int, seed: int, ask: AskPage = lambda _: []
) -> dict[str, Any]:
    """Ask a page at a time for what the ledger lacks, then write the file with its labels.

    `ask` gives the verdicts of a page in its order. Raises BadInput for a file or place that cannot
    be used, before anybody is asked.
    """
    refuse_place(out)
    panel, (raw, rows) = load("person", seed=seed), files.read_pairs(pairs)
    waiting = outstanding(rows, panel, ledger())
    for start in range(0, len(waiting), page):
        some = waiting[start : start + page]
        began = time.time()
        said = ask(some)
        seconds = (time.time() - began) / len(some)
        answers = [Answer(SAID[each], "stop", 0, 0, seconds) for each in said]
        ledger().append(
            [
                purchase(batch, batch.request(), answer)
                for batch, answer in zip(some, answers, strict=True)
            ]
        )
    part = judge(rows, panel, nobody, ledger())
    written(rows_of(raw, [part]), out)
    return {"rows": rows.height, "asked": len(waiting), "out": str(out)}


def _form(page: Sequence[Batch]) -> Sequence[Verdict]:
    """The verdicts of the person who resumes this run."""
    fields = {name: (Verdict, Field(title=name)) for name in _names(page)}
    form: Any = create_model("Verdicts", __base__=RunInput, **fields)  # type: ignore[call-overload]
    key = f"page-{page[0].rows[0].key[:16]}"
    asked = form.with_initial_data(description=shown(page))
    print(f"{len(page)} pairs wait for a person: choose Resume in this run's menu")
    filled = suspend_flow_run(wait_for_input=asked, key=key, timeout=30 * A_DAY)
    return [getattr(filled, name) for name in _names(page)]


def _names(page: Sequence[Batch]) -> list[str]:
    return [f"pair_{number}" for number in range(1, len(page) + 1)]


def shown(page: Sequence[Batch]) -> str:
    """The pairs of a page as Markdown, texts set off so that nothing in them is markup."""
    parts = []
    for number, batch in enumerate(page, start=1):
        example = batch.rows[0].example
        parts += [f"### Pair {number}", _set_off(example.instruction)]
        parts += [_set_off(example.input)] if example.input else []
        parts += ["**(a)**", _set_off(example.output_1), "**(b)**", _set_off(example.output_2)]
    return "\n\n".join(["Which output would you rather have?", *parts])


def _set_off(text: str) -> str:
    """A quotation that shows the text as it stands, whatever marks it holds.

    Not a block of code: one of Prefect's two UIs draws those light on light.
    """
    lines = (MARKS.sub(r"\\\g<0>", line) for line in text.splitlines() or [""])
    return "\n".join(f"> {line}  " for line in lines)
