"""RLP on the built-in world: reward models fitted again on a policy's answers, and their policies.

    python -m benchmarks.relearning_effects [--seeds 1] [--scale small] [--out docs/relearning.md]

Prints Markdown tables, the toy's last; what is measured says `benchmarks/relearning_scene.py`.
Differences are paired: over prompts within a seed, over seeds where there are several. With `--out`
the tables replace what stands below the mark in that file.
"""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import polars as pl

from alpacafarm_core.clustering import Canonical, Clustering, Exact, Overlap
from alpacafarm_core.setup import Setup
from benchmarks.relearning_scene import (
    FARM,
    FIXED,
    LABELS,
    PROMPT,
    RANDOM,
    SPG,
    By,
    Figures,
    Scene,
    family,
    mean_of,
    measured,
    share_right,
    truths,
)
from benchmarks.toy_relearning import markdown, tables
from flows.evaluate import evaluated
from tasks.stage import store

MARK = "<!-- made by benchmarks/relearning_effects.py -->"
CLUSTERINGS: Mapping[str, Clustering] = {
    "what the world reads": Canonical(),
    "equal words": Exact(),
    "content words, 0.8": Overlap(),
    "content words, 0.5": Overlap(threshold=0.5),
}


def reward_models(found: Sequence[Mapping[str, Figures]]) -> str:
    """The table of reward models."""
    head = ["reward model", "new pairs", "labels right %", "chosen longer by",
            "right order %", "to fixed", "utility of best of 16", "to fixed"]  # fmt: skip
    rows = []
    for name in found[0]:
        each = [seed[name] for seed in found]
        fixed = [seed[FIXED] for seed in found]
        rights = [(one.right, other.right) for one, other in zip(each, fixed, strict=True)]
        bests = [(one.best, other.best) for one, other in zip(each, fixed, strict=True)]
        rows.append(
            [
                name,
                plain([float(one.pairs) for one in each if one.pairs], 1, 0),
                plain(known([one.labels for one in each]), 100, 1),
                plain(known([one.longer for one in each]), 1, 1),
                plain([fmean(one.right.values()) for one in each], 100, 1),
                "" if name == FIXED else difference(rights, 100, 1),
                plain([fmean(one.best.values()) for one in each], 1, 3),
                "" if name == FIXED else difference(bests, 1, 3),
            ]
        )
    return markdown(head, rows)


def known(values: Sequence[float | None]) -> list[float]:
    """Those that there are."""
    return [each for each in values if each is not None]


def plain(values: Sequence[float], factor: float, digits: int) -> str:
    """A mean over seeds."""
    return f"{factor * fmean(values):.{digits}f}" if values else ""


def difference(pairs: Sequence[tuple[By, By]], factor: float, digits: int) -> str:
    """Mean difference of paired figures with its error: over seeds, or over prompts of one."""
    gaps = [[one[prompt] - other[prompt] for prompt in one] for one, other in pairs]
    each = [fmean(gap) for gap in gaps] if len(gaps) > 1 else gaps[0]
    error = stdev(each) / len(each) ** 0.5
    return f"{factor * fmean(each):+.{digits}f} ± {factor * error:.{digits}f}"


def agreements(scenes: Sequence[Scene]) -> pl.DataFrame:
    """Every prompt of every scene: its family, its agreement, and the truth of its pair if any."""
    frames = []
    for scene in scenes:
        clusters = store().read(FARM.cluster(scene.scored, scene.method.clustering))
        pairs = truths(store().read(scene.pairs(scene.method.agreement)))
        prompts = clusters.unique(PROMPT).select(*PROMPT, "confidence")
        golds = pairs.select(*PROMPT, "gold_1", "gold_2")
        frames.append(prompts.join(golds, on=PROMPT, how="left"))
    named = pl.struct(PROMPT).map_elements(family, return_dtype=pl.String)
    return pl.concat(frames).with_columns(family=named)


def families(scenes: Sequence[Scene]) -> str:
    """Agreement, acceptance and right labels by family of instructions, most agreement first."""
    made = []
    for (name,), some in agreements(scenes).group_by("family"):
        right = share_right(some.drop_nulls())
        accepted = mean_of(some["gold_1"].is_not_null()) or 0.0
        told = [f"{mean_of(some['confidence']):.2f}", plain([accepted], 100, 0)]
        made.append([str(name), str(some.height), *told, plain(known([right]), 100, 0)])
    head = ["family", "prompts", "mean agreement", "accepted %", "labels right %"]
    return markdown(head, sorted(made, key=lambda row: row[2], reverse=True))


def where_it_agrees(
    scenes: Sequence[Scene], found: Sequence[Mapping[str, Figures]], often: float = 0.25
) -> str:
    """The right order on families of which many prompts gave a pair, and on the others."""
    rows = agreements(scenes)
    accepted = rows.group_by("family").agg(pl.col("gold_1").is_not_null().mean())
    many = dict(accepted.select("family", pl.col("gold_1") >= often).rows())
    made = []
    for title, is_many in ((f"{often:.0%} or more", True), (f"less than {often:.0%}", False)):
        rights = {
            name: [
                {at: right for at, right in seed[name].right.items()
                 if many.get(family(dict(zip(PROMPT, at, strict=True))), False) is is_many}
                for seed in found
            ]
            for name in (FIXED, SPG, RANDOM)
        }  # fmt: skip
        fixed = rights[FIXED]
        made.append(
            [
                title,
                plain([fmean(each.values()) for each in fixed], 100, 1),
                *(
                    difference(list(zip(rights[name], fixed, strict=True)), 100, 1)
                    for name in (SPG, RANDOM)
                ),
            ]
        )
    head = ["families that give pairs for", "fixed, right order %", f"{SPG}, to fixed"]
    return markdown([*head, f"{RANDOM}, to fixed"], made)


def clusterings(scenes: Sequence[Scene]) -> str:
    """How much is accepted and right, by what counts as the same."""
    rows = []
    for name, clustering in CLUSTERINGS.items():
        found = [store().read(scene.pairs(scene.method.agreement, clustering)) for scene in scenes]
        prompts = [store().read(scene.start.instructions).height for scene in scenes]
        shares = [each.height / count for each, count in zip(found, prompts, strict=True)]
        labels = known([share_right(truths(each)) for each in found])
        rows.append([name, plain(shares, 100, 1), plain(labels, 100, 1)])
    return markdown(["the same are answers with", "accepted %", "labels right %"], rows)


def policies(scene: Scene) -> Iterator[tuple[str, dict[str, object]]]:
    """Every policy beside SFT on the leaderboard of one seed, as the method makes them."""
    setup, start, method = scene.setup, scene.start, scene.method
    variants = {
        "sft": start.policy,
        "ppo": scene.policy,
        "rlp": method.optimise(FARM, start),
        "rlp, random winner": method.replace(
            agreement=method.agreement.replace(winner="random")
        ).optimise(FARM, start),
        "rlp, uml": method.replace(variant="uml").optimise(FARM, start),
    }
    board = FARM.tally({name: evaluated(policy, setup) for name, policy in variants.items()})
    yield from ((str(row["model"]), row) for row in store().read(board).to_dicts())


def standings(scenes: Sequence[Scene]) -> str:
    """The table of policies; differences to PPO are those of each seed."""
    boards = [dict(policies(scene)) for scene in scenes]
    head = ["policy", "win rate %", "to PPO", "utility", "to PPO", "characters"]
    rows = []
    for name in boards[0]:
        means = [
            plain([float(str(board[name][column])) for board in boards], 1, digits)
            for column, digits in (("win_rate", 1), ("utility", 3), ("avg_length", 0))
        ]
        to_ppo = [
            against([(board[name][column], board["ppo"][column]) for board in boards], digits)
            for column, digits in (("win_rate", 1), ("utility", 3))
        ]
        rows.append([name, means[0], to_ppo[0], means[1], to_ppo[1], means[2]])
    return markdown(head, rows)


def against(pairs: Sequence[tuple[object, object]], digits: int) -> str:
    """The mean difference; with its standard error where there are several seeds."""
    gaps = [float(str(one)) - float(str(other)) for one, other in pairs]
    error = f" ± {stdev(gaps) / len(gaps) ** 0.5:.{digits}f}" if len(gaps) > 1 else ""
    return f"{fmean(gaps):+.{digits}f}{error}"


def main() -> None:
    """Run every seed, print the tables, put them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--scale", choices=("smoke", "small"), default="small")
    parser.add_argument("--out", type=Path, help="page whose tables are replaced")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    scenes = [Scene.of(Setup(seed=seed, scale=asked.scale)) for seed in range(asked.seeds)]
    found = [{name: measured(scene, name) for name in LABELS} for scene in scenes]
    parts = {
        "Reward models asked about the policy's answers": reward_models(found),
        "Where the gain is": where_it_agrees(scenes, found),
        "Agreement by family": families(scenes),
        "What counts as the same": clusterings(scenes),
        "Policies": standings(scenes),
    }
    said = f"Scale {asked.scale}, {asked.seeds} seed{'s' * (asked.seeds > 1)} of the world."
    text = "\n\n".join([said, *(f"### {title}\n\n{table}" for title, table in parts.items()),
                        *tables(10)])  # fmt: skip
    print(text)
    if asked.out:
        by_hand = asked.out.read_text().split(MARK)[0] if asked.out.exists() else ""
        asked.out.write_text(f"{by_hand}{MARK}\n\n{text}\n")


if __name__ == "__main__":
    main()
