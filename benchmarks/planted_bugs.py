"""Bugs put into the code that judges, one at a time, to see that the self-test stops each.

    python -m benchmarks.planted_bugs [--panel world]

Prints which check caught which bug; leaves with status 1 when one got through.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from alpacafarm_core import annotate, buying, desk, draws, ledger, llm, selftest, templates
from alpacafarm_core.answers import Verdict
from alpacafarm_core.errors import JudgeFailed
from alpacafarm_core.ledger import Call, Purchase, digest
from alpacafarm_core.panel import load


class Bug(NamedTuple):
    """What is wrong, the one place where, and what stands there instead, made of what stood."""

    name: str
    place: object
    attribute: str
    spoilt: Callable[[Any], Any]

    def put(self, patch: pytest.MonkeyPatch) -> None:
        """Put the bug in until `patch` is undone."""
        patch.setattr(self.place, self.attribute, self.spoilt(vars(self.place)[self.attribute]))


def order_not_undone(label: Any) -> Any:
    return lambda row, *rest: label(row._replace(is_switched=False), *rest)._replace(
        is_switched=row.is_switched
    )


def order_undone_twice(label: Any) -> Any:
    def again(*given: Any) -> Any:
        found = label(*given)
        turns = found.is_switched and found.preference
        return found._replace(preference=3 - found.preference) if turns else found

    return again


def order_is_fixed_and_noted_as_random(row_of: Any) -> Any:
    return lambda *given: row_of(*given)._replace(is_switched=True)


def judge_not_drawn(drawn: Any) -> Any:
    return lambda row, panel: drawn(row, panel)._replace(judge=0)


def verdict_ignored(label: Any) -> Any:
    return lambda *given: label(*given)._replace(preference=1.0, status="ok")


def noise_applied_twice(drawn: Any) -> Any:
    def twice(row: Any, panel: Any) -> Any:
        once = drawn(row, panel)
        return once._replace(coin=once.coin or draws._coin(f"again{row}", panel.flip))

    return twice


def answers_flipped_on_top_of_noise(label: Any) -> Any:
    def flipped(row: Any, *rest: Any) -> Any:
        found = label(row, *rest)
        if found.is_noisy or not found.preference or draws._uniform(str(row.example)) > 0.25:
            return found
        return found._replace(preference=3 - found.preference)

    return flipped


def noised_rows_kept_as_clean(judge: Any) -> Any:
    def keeping(pairs: Any, panel: Any, ask: Any, kept: Any, *more: Any) -> Any:
        judged = judge(pairs, panel, ask, kept, *more)
        clean = annotate._rows(pairs, panel.replace(flip=0.0))
        labels = judged.preferences.select("is_noisy", "preference").rows()
        for row, (is_noisy, preference) in zip(clean, labels, strict=True):
            if is_noisy:
                mark = 3 - preference if row.is_switched else preference
                said = row.desk.annotator.answer.written([mark]).text
                call = Call(f"noise {row.key}", 1, "coin", said, "stop", 0, 0, 0.0, 0.0)
                kept.append([Purchase(call, (row.key,))])
        return judged

    return keeping


def verdicts_shifted_by_one(read: Any) -> Any:
    def shifted(*given: Any) -> list[Verdict] | None:
        verdicts = read(*given)
        return verdicts and verdicts[1:] + verdicts[:1]

    return shifted


def rows_fill_the_template(fill: Any) -> Any:
    names = templates.Example._fields

    def one_after_the_other(turn: Any, rows: Sequence[Any]) -> llm.Message:
        places = [f"{{{names[field]}}}" for _, field in turn.slots]
        text = "".join(
            part for pair in zip(turn.pieces, [*places, ""], strict=True) for part in pair
        )
        for place, (example, field) in zip(places, turn.slots, strict=True):
            text = text.replace(place, rows[example][field], 1)
        return llm.Message(turn.role, text)

    return one_after_the_other


def row_key_without_prompt(_: Any) -> Any:
    return property(lambda self: digest(self.annotator.model, self.annotator.temperature))


def row_key_without_model(_: Any) -> Any:
    return property(lambda self: digest(self.text, self.annotator.temperature))


def call_key_without_prompt(key: Any) -> Any:
    return lambda request: key(replace(request, messages=()))


def call_key_without_model(key: Any) -> Any:
    return lambda request: key(replace(request, model=""))


def failure_kept_as_an_answer(arrivals: Any) -> Any:
    def all_well(*given: Any) -> Any:
        for group in arrivals(*given):
            yield [(index, replace(answer, status="ok")) for index, answer in group]

    return all_well


def failure_labelled(label: Any) -> Any:
    def labelled(*given: Any) -> Any:
        found = label(*given)
        return found._replace(preference=1.5) if found.status == "failed" else found

    return labelled


def refusal_labelled(label: Any) -> Any:
    def labelled(*given: Any) -> Any:
        found = label(*given)
        return found._replace(preference=1.5) if found.status == "refused" else found

    return labelled


BUGS = [
    Bug("order not undone", annotate, "_label", order_not_undone),
    Bug("order undone twice", annotate, "_label", order_undone_twice),
    Bug("order noted that was not shown", annotate, "_drawn", order_is_fixed_and_noted_as_random),
    Bug("judge ignored: one for all", annotate, "draws", judge_not_drawn),
    Bug("judge ignored: one label for all", annotate, "_label", verdict_ignored),
    Bug("noise applied twice: two coins", annotate, "draws", noise_applied_twice),
    Bug("noise applied twice: answers too", annotate, "_label", answers_flipped_on_top_of_noise),
    Bug("noised row cached as clean", annotate, "judge", noised_rows_kept_as_clean),
    Bug("parser shifted by one in a batch", desk, "read", verdicts_shifted_by_one),
    Bug("template filled from inside a row", templates, "_fill", rows_fill_the_template),
    Bug("row key without prompt", desk.Desk, "_key", row_key_without_prompt),
    Bug("row key without model", desk.Desk, "_key", row_key_without_model),
    Bug("call key without prompt", ledger, "call_key", call_key_without_prompt),
    Bug("call key without model", ledger, "call_key", call_key_without_model),
    Bug("failure stored in the ledger", buying, "arrivals", failure_kept_as_an_answer),
    Bug("failure stored as a label", annotate, "_label", failure_labelled),
    Bug("refusal stored as a label", annotate, "_label", refusal_labelled),
]
"""Ten kinds of bug, some of them in two places.

A panel of one annotator cannot show that the judge's draw is ignored: it has one judge for all.
"""


def caught(bug: Bug, panel: str) -> str:
    """What the self-test of a shipped panel says of a bug; "" when it says nothing."""
    with pytest.MonkeyPatch.context() as patch:
        bug.put(patch)
        try:
            selftest.trial(load(panel))
        except JudgeFailed as error:
            return str(error).split("self-test: ")[-1].split("; ")[0]
    return ""


def main() -> None:
    """Print the table for one panel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--panel", default="world")
    panel = parser.parse_args().panel
    start = time.perf_counter()
    selftest.trial(load(panel))
    print(f"panel {panel}, no bug: passes in {time.perf_counter() - start:.2f} s")
    found = {bug.name: caught(bug, panel) for bug in BUGS}
    for name, said in found.items():
        print(f"{name:34} {said or 'NOT CAUGHT'}")
    sys.exit(not all(found.values()))


if __name__ == "__main__":
    main()
