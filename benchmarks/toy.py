"""What the methods do where the truth is known and a training takes a second.

    python -m benchmarks.toy [--methods dpo,sppo] [--seeds 8] [--out docs/effects.md]

Every method's own file runs on the toy (`benchmarks/toy_farm.py`); then come scans of a setting,
controls, and what each round of a method is like. Prints Markdown tables. With `--out` they replace
what stands below the mark in that file. The column "before" has the figures of an earlier toy of
the same design, written in numpy without these files.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from alpacafarm_core.methods import METHODS
from benchmarks import toy_scans as scans
from benchmarks.toy_farm import Toy
from benchmarks.toy_runs import Run, in_toy, paced, run
from benchmarks.toy_training import Stage

MARK = "<!-- made by benchmarks/toy.py -->"
Rows = Iterable[dict[str, object]]

BEFORE = {
    "feedme": "0.210",
    "dpo": "0.689 ± 0.042; chosen -5.8, rejected -11.2",
    "ipo": "0.489",
    "simpo": "0.609",
    "orpo": "0.219; chosen +0.23",
    "asft": "0.225; chosen +0.23, rejected -0.64",
    "spin": "0.273 … 0.482 in five rounds; gradient 0.035 → 0.023",
}


def main() -> None:
    """Run all of it, print the tables, put them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(METHODS), help="names, with commas")
    parser.add_argument("--seeds", type=int, default=8, help="worlds, numbered from 0")
    parser.add_argument("--out", type=Path, help="page whose tables are replaced")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    names = asked.methods.split(",")
    text = "\n\n".join(parts(names, Toy(worlds=asked.seeds)))
    print(text)
    if asked.out:
        by_hand = asked.out.read_text().split(MARK)[0] if asked.out.exists() else ""
        asked.out.write_text(f"{by_hand}{MARK}\n\n{text}\n")


def parts(names: Sequence[str], toy: Toy) -> Iterator[str]:
    """Every table, the scans of methods that are not named left out."""
    yield f"### Every method, {toy.worlds} worlds\n\n{markdown(every_method(names, toy))}"
    for title, needs, rows in SCANS:
        if needs in names:
            yield f"### {title}\n\n{markdown(rows(toy))}"


def every_method(names: Sequence[str], toy: Toy) -> Rows:
    """One row a method; all learn from the same labels, or from a reward model fitted to them."""
    for name in names:
        found = run(in_toy(name), paced(name, toy))
        yield {
            "method": name,
            "gold": spread(found.gold),
            "worst": f"{float(found.gold.min()):.3f}",
            "gain": f"{float(found.gain.mean()):+.3f}",
            "worlds that gain": f"{int((found.gain > 0).sum())}",
            **rounds(found.stages),
            "before": BEFORE.get(name, ""),
        }


def rounds(stages: Sequence[Stage]) -> dict[str, object]:
    """What each training was like, means over the worlds."""
    is_of_pairs = any(bool(stage.rejected.any()) for stage in stages)
    return {
        "chosen": each(stages, lambda stage: stage.chosen, "+.2f"),
        "rejected": each(stages, lambda stage: stage.rejected, "+.2f") if is_of_pairs else "",
        "gradient": each(stages, lambda stage: stage.grad_norm, ".3f"),
    }


def sppo_rounds(toy: Toy) -> Rows:
    """Three rounds, judged by gold."""
    found = scans.sppo_by_gold(toy)
    before = ("0.375; +0.7, -1.9", "0.632; +0.7, -1.9", "0.829; +0.7, -1.9")
    for number, (stage, said) in enumerate(zip(found.stages, before, strict=True), 1):
        yield {"round": number, "gold": spread(stage.gold), **rounds([stage]), "before": said}


def sppo_etas(toy: Toy) -> Rows:
    """The scan of eta."""
    before = ("0.04; +0.18", "0.18; +0.61", "0.28; +0.73", "0.44; +0.44", "0.55; -0.41")
    for (eta, found), said in zip(scans.sppo_by_eta(toy), before, strict=True):
        yield {
            "eta": f"{eta:g}",
            "gain": spread(found.gain),
            "chosen": spread(found.stages[0].chosen),
            "worlds with chosen up": int((found.stages[0].chosen > 0).sum()),
            "before (gain; chosen)": said,
        }


def drift_rounds(toy: Toy) -> Rows:
    """DRIFT, round 0 being its warm start, with the complaint hidden too, and SPIN beside it."""
    shown, hidden = (scans.drift_rounds(toy, is_shown) for is_shown in (True, False))
    played = scans.spin_rounds(toy)
    before = ("", "0.324", "0.589", "0.754", "0.838", "0.881; hidden 0.819; gradient 0.012 → 0.051")
    for number, said in enumerate(before):
        stage = shown.stages[number]
        yield {
            "round": number,
            "gold": spread(stage.gold),
            "complaint hidden": spread(hidden.stages[number].gold),
            "gradient": spread(stage.grad_norm),
            "chosen truly better by": spread(stage.margin),
            "SPIN": spread(played.stages[number - 1].gold) if number else "",
            "SPIN's gradient": spread(played.stages[number - 1].grad_norm) if number else "",
            "before": said,
        }


def tpo_alphas(toy: Toy) -> Rows:
    """The scan of alpha, and imitation alone of the same gold answers."""
    imitation = scans.tpo_without_contrast(toy)
    yield {"alpha": "imitation alone", **_imitating(imitation, imitation), "before": "0.546"}
    before = ("0.587; +3.8", "0.659; +3.2", "0.750; +1.9", "0.791; +1.0", "0.816; -0.4")
    for (alpha, found), said in zip(scans.tpo_by_alpha(toy), before, strict=True):
        yield {"alpha": f"{alpha:g}", **_imitating(found, imitation), "before": said}


def _imitating(found: Run, imitation: Run) -> dict[str, object]:
    return {
        "gold": spread(found.gold),
        "over imitation, worst world": f"{float((found.gold - imitation.gold).min()):+.3f}",
        "log-probability of the gold answer": spread(found.stages[0].imitated),
    }


def selfie_labels(toy: Toy) -> Rows:
    """The scan of labels, and labels that are coins."""
    before = ("+0.05; 0.57", "+0.10; 0.63", "+0.18; 0.70", "+0.27; 0.78")
    for (count, found), said in zip(scans.selfie_by_labels(toy), before, strict=True):
        yield {"labels": count, **_beyond(found), "before (gain; first)": said}
    for count, found in scans.selfie_by_labels(toy, (128,), flip=0.5):
        yield {"labels": f"{count}, coins", **_beyond(found), "before (gain; first)": "no gain"}


def _beyond(found: Run) -> dict[str, object]:
    more = found.gold - found.stages[0].gold
    return {
        "DPO on the labels": spread(found.stages[0].gold),
        "after two rounds": spread(found.gold),
        "gain of the rounds": spread(more),
        "worlds that gain": int((more > 0).sum()),
        "own labels right": each(found.stages[1:], lambda stage: stage.right, ".2f"),
    }


def curricula(toy: Toy) -> Rows:
    """Curry-DPO and its controls."""
    before = ("0.602", "0.600", "", "0.592", "0.668", "0.642", "0.422")
    for (order, found), said in zip(scans.curricula(toy), before, strict=True):
        yield {
            "order": order,
            "gold": spread(found.gold),
            "worst": f"{float(found.gold.min()):.3f}",
            "pairs right": each(found.stages, lambda stage: stage.right, ".2f"),
            "before": said,
        }


def wrong_labels(toy: Toy) -> Rows:
    """DPO and cDPO, the latter with smoothing of 0.2, on labels of which some are wrong."""
    plain, smooth = (dict(scans.by_flips(toy, name)) for name in ("dpo", "cdpo"))
    before = ("0.668, 0.645", "0.469, 0.427", "0.139, 0.123")
    for (flip, found), said in zip(plain.items(), before, strict=True):
        yield {
            "wrong": f"{flip:g}",
            "gain of DPO": spread(found.gain),
            "gain of cDPO": spread(smooth[flip].gain),
            "before": said,
        }


def best_of(toy: Toy) -> Rows:
    """Best-of-n by a fitted reward model and by the true reward."""
    before = ("0.088", "0.230", "0.355", "0.467", "0.577")
    oracle = dict(scans.best_of(toy, judge="gold"))
    for (size, many), said in zip(scans.best_of(toy), before, strict=True):
        yield {
            "n": size,
            "reward model's number": spread(many.proxy),
            "gold": spread(many.gold),
            "gold, chosen by gold": spread(oracle[size].gold),
            "before": said,
        }


def reward_model(toy: Toy) -> Rows:
    """The accuracy of that reward model."""
    yield {"fresh pairs in order": spread(scans.reward_accuracy(toy)), "before": "0.885"}


SCANS: tuple[tuple[str, str, Callable[[Toy], Rows]], ...] = (
    ("SPPO, eta 10, judged by gold", "sppo", sppo_rounds),
    ("SPPO by eta, one round, judged by gold", "sppo", sppo_etas),
    ("DRIFT round by round, and SPIN", "drift", drift_rounds),
    ("TPO by alpha, from the raw base, judged by gold", "tpo", tpo_alphas),
    ("SPA by labels", "selfie", selfie_labels),
    ("Curry-DPO and controls, ratings with noise", "curry_dpo", curricula),
    ("Wrong labels", "cdpo", wrong_labels),
    ("Reward model of best-of-n", "best_of_n", reward_model),
    ("Best-of-n", "best_of_n", best_of),
)


def spread(numbers: Tensor) -> str:
    """Mean and standard deviation over worlds."""
    return f"{float(numbers.mean()):.3f} ± {float(numbers.std()):.3f}"


def each(stages: Sequence[Stage], figure: Callable[[Stage], Tensor], form: str) -> str:
    """A figure of every training, a mean over worlds."""
    return " → ".join(format(float(figure(stage).mean()), form) for stage in stages)


def markdown(rows: Rows) -> str:
    """Rows as a Markdown table."""
    held = list(rows)
    names = list(held[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in held)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
