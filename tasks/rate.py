"""Marks, critiques and tags of answers and prompts."""

from collections.abc import Callable
from functools import partial
from importlib import import_module

from alpacafarm_core import composing, endpoints, proving
from alpacafarm_core import critique as criticism
from alpacafarm_core import rate as rating
from alpacafarm_core import tag as tagging
from alpacafarm_core.artifacts import Candidates, Demonstrations, Instructions
from alpacafarm_core.assessors import Assessors
from alpacafarm_core.errors import Unanswered
from alpacafarm_core.ratings import Critiques, Ratings, Tags
from alpacafarm_core.store import Made
from tasks.stage import ledger, purse, stage, store


@stage(Ratings, version=2)
def rate(
    candidates: Candidates, raters: Assessors, references: Demonstrations | None = None
) -> Made:
    """Have all answers to a prompt marked together, aspect by aspect.

    Raises as `annotate` does.
    """
    known = None if references is None else store().read(references)
    answers = store().read(candidates)
    return _asked(raters, partial(rating.rate, answers, raters, references=known))


@stage(Critiques, version=3)
def critique(candidates: Candidates | Ratings, critics: Assessors) -> Made:
    """Have every answer criticised, with an overall score. Raises as `annotate` does."""
    answers, critics = store().read(candidates), critics.but("critique")
    return _asked(critics, partial(criticism.criticise, answers, critics))


@stage(Ratings, version=2)
def repair(ratings: Ratings, critiques: Critiques, critics: Assessors) -> Made:
    """Put critiques and overall scores to the marks, doubtful scores asked for again.

    Raises as `annotate` does.
    """
    both, critics = (store().read(ratings), store().read(critiques)), critics.but("repair")
    return _asked(critics, partial(criticism.repair, *both, critics))


@stage(Tags, version=2)
def tag(prompts: Instructions | Demonstrations, taggers: Assessors) -> Made:
    """Have prompts tagged, or prompts with answers. Raises as `annotate` does."""
    rows = store().read(prompts)
    return _asked(taggers, partial(tagging.tag, rows, taggers))


def criticise(ratings: Ratings, critics: Assessors) -> Ratings:
    """Rated answers with critiques and overall scores, in two stages."""
    return composing.criticise(import_module("tasks"), ratings, critics)


def _asked(panel: Assessors, buy: Callable[..., rating.Rated]) -> Made:
    """What assessors say, once they have passed their self-test; `buy` takes who is asked."""
    endpoints.check(panel)
    proving.check(panel)
    rows, spent = buy(endpoints.ask_for(panel.endpoint, store().root), ledger(), purse())
    if spent.rows_failed:
        raise Unanswered(
            f"{spent.rows_failed} questions got no answer from {panel.endpoint} "
            f"({spent.complaint or 'answers that cannot be read'}); what was answered is kept, "
            "mend that and run again to ask only for the rest"
        )
    notes = {
        "calls_bought": spent.calls,
        "usd_bought": spent.price,
        "rows_from_ledger": spent.rows_from_ledger,
        "usd": float(rows["price"].sum()),
    }
    return Made(rows, notes)
