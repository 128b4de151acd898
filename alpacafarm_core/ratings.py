"""Ratings, critiques and tags: the tables of judges that look at answers and prompts one by one.

UltraFeedback (arXiv 2310.01377, section 2) has four aspects of an answer rated from 1 to 5 and each
answer criticised, with an overall score from 1 to 10. Magpie (arXiv 2406.08464, section 2.2) tags
instructions. What a judge did not say, or nobody could read, is null and never a mark.
"""

from typing import ClassVar

import polars as pl

from alpacafarm_core.artifacts import REAL, TEXT, WHOLE, Candidates, Columns, Demonstrations, Table

ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
TYPED = ("truthfulness", "helpfulness")
"""Aspects of which the types of fault, or of merit, are listed before the mark."""

LOWEST, HIGHEST = 1, 5
TOP = 10
"""Best overall score; the worst is 1."""

_BOUGHT: Columns = {
    "judge": TEXT,
    "prompt_digest": TEXT,
    "tokens": WHOLE,
    "price": REAL,
    "seconds": REAL,
}


def _aspect(name: str) -> Columns:
    """The columns of one aspect."""
    types: Columns = {f"{name}_types": pl.List(WHOLE), f"{name}_reason": TEXT}
    return {
        name: WHOLE,
        f"{name}_rationale": TEXT,
        **(types if name in TYPED else {}),
        f"{name}_status": TEXT,
        f"{name}_position": WHOLE,
    }


class Ratings(Table):
    """Answers with a mark from 1 to 5 for each aspect, one row an answer.

    `principle` is what its writer was told to keep to, "" for none. Of an aspect there is the mark
    (null where there is none), the judge's `_rationale` of it, the `_status` (ok, na for not
    applicable, unparsable, refused, failed, or unasked) and the `_position`, from 0, at which the
    answer was shown among all to its prompt. Two aspects also have `_types` and the `_reason` for
    those. `fine` is the mean of the marks there are.

    `overall` is the score from 1 to 10 of the answer's critique, after repair; `repaired` says what
    was done to it: "" where nobody criticised, else kept, lowered, asked or unread.
    """

    kind = "ratings"
    columns: ClassVar[Columns] = {
        **Candidates.columns,
        "principle": TEXT,
        **{name: kind for aspect in ASPECTS for name, kind in _aspect(aspect).items()},
        "fine": REAL,
        "overall": WHOLE,
        "critique": TEXT,
        "repaired": TEXT,
        **_BOUGHT,
    }


class Critiques(Table):
    """Answers with a tutor's feedback and an overall score from 1 to 10, null where unread.

    `status` is ok, unparsable, refused or failed.
    """

    kind = "critiques"
    columns: ClassVar[Columns] = {
        **Candidates.columns,
        "principle": TEXT,
        "critique": TEXT,
        "overall": WHOLE,
        "status": TEXT,
        **_BOUGHT,
    }


class Tags(Table):
    """Prompts, with their answer or "", and what a judge says of them; null where it did not.

    `difficulty` runs from "very easy" to "very hard", `quality` (of the prompt) from "very poor" to
    "excellent", `safety` (of prompt and answer) is safe or unsafe. `status` is ok when all that was
    asked could be read, else the first fault.
    """

    kind = "tags"
    columns: ClassVar[Columns] = {
        **Demonstrations.columns,
        "intent": TEXT,
        "knowledge": TEXT,
        "difficulty": TEXT,
        "quality": TEXT,
        "quality_explanation": TEXT,
        "task": TEXT,
        "other_tasks": pl.List(TEXT),
        "safety": TEXT,
        "status": TEXT,
        **_BOUGHT,
    }
