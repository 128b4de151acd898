"""Whether a shaped reward keeps PPO from ruin on the built-in world, step by step.

    python -m benchmarks.shaping_effects [--seeds 3] [--scale small] [--out docs/shaping-effects.md]

One PPO, pushed far beyond what the leaderboard's does, with each shaping of the reward and nothing
else changed: a constant rate of 1e-3, next to no KL penalty, no whitening of rewards (advantages
are always whitened). Reward and true utility are of fresh answers to the evaluation prompts after
some and after all of the steps. Beside `--out` a plot of the same name is laid.
"""

import argparse
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import tasks
from alpacafarm_core.comparison import standard_error
from alpacafarm_core.farm import Farm, Start
from alpacafarm_core.methods.ppo import PPO
from alpacafarm_core.proximal import KLPenalty, ProximalObjective
from alpacafarm_core.references import references
from alpacafarm_core.settings import Sampling, Truth
from alpacafarm_core.setup import Setup
from alpacafarm_core.shaping import (
    Clipped,
    LogSigmoid,
    Preference,
    Ranged,
    Reshape,
    Standardised,
    Tanh,
    Vanilla,
)
from alpacafarm_core.weights import Policy, Reward
from benchmarks.world_effects import markdown
from flows.evaluate import answered
from flows.prepare import started
from tasks.stage import store
from tasks.study import drift

FARM: Farm = tasks
SHAPINGS: dict[str, Reshape] = {
    "vanilla": Vanilla(),
    "meanstd": Standardised(),
    "minmax": Ranged(),
    "clip": Clipped(),
    "lsc": LogSigmoid(),
    "tanh": Tanh(),
    "par": Preference(),
}
LABELS = {"noisy": ("world", 0.25), "clean": ("world_clean", 0.0)}
STEPS = {"smoke": (1, 2), "small": (5, 15, 30)}
SHARES = {"smoke": 1, "small": 4}
"""The start's prompts are shared among so many, and one share is used: each gets M references."""


class Run(NamedTuple):
    """One policy of one seed; proxy and utility of an answer each, and nats from the start."""

    seed: int
    shaping: str
    steps: int
    kl: float
    proxy: np.ndarray[tuple[int], np.dtype[np.float64]]
    utility: np.ndarray[tuple[int], np.dtype[np.float64]]


class Push(NamedTuple):
    """How far PPO is pushed, and by labels of which sort."""

    rate: float
    price: float
    labels: str


def main() -> None:
    """Run every seed, print the tables, write them and the plot where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", choices=sorted(STEPS), default="small")
    parser.add_argument("--labels", choices=sorted(LABELS), default="noisy")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--price", type=float, default=0.005)
    parser.add_argument("--shapings", default=",".join(SHAPINGS))
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    push = Push(chosen.rate, chosen.price, chosen.labels)
    names = chosen.shapings.split(",")
    runs = [
        run
        for seed in range(chosen.seeds)
        for run in runs_of(Setup(seed=seed, scale=chosen.scale), names, push)
    ]
    text = f"### {push.labels} labels, rate {push.rate:g}, {push.price:g} a nat\n\n{table(runs)}"
    print(text)
    if chosen.out:
        chosen.out.write_text(f"<!-- made by benchmarks/shaping_effects.py -->\n\n{text}\n")
        chosen.out.with_suffix(".png").write_bytes(picture(runs))


def runs_of(setup: Setup, names: Sequence[str], push: Push) -> list[Run]:
    """Every shaping of one seed at every number of steps, the start first."""
    panel, flip = LABELS[push.labels]
    setup = setup.replace(panel=panel, flip=flip)
    start, ppo = started(setup), PPO.at(setup.scale).seeded(setup.seed)
    reward = FARM.fit_reward(start.policy, start.preferences, ppo.fitting)
    found = [_measured(setup, start, reward, "start", 0, start.policy)]
    for name in names:
        for steps in STEPS[setup.scale]:
            objective = pushed(ppo.objective, SHAPINGS[name], steps, push)
            policy = trained(setup, start, reward, objective)
            found.append(_measured(setup, start, reward, name, steps, policy))
    return found


def pushed(
    objective: ProximalObjective, reshape: Reshape, steps: int, push: Push
) -> ProximalObjective:
    """PPO with this shaping, so many steps at a constant rate; a longer run begins as a shorter."""
    return objective.replace(
        steps=steps,
        kl=KLPenalty(coef=push.price, limit=1e6),
        shaping=objective.shaping.replace(whiten=False, reshape=reshape),
        training=objective.training.replace(learning_rate=push.rate, schedule="constant"),
    )


def trained(setup: Setup, start: Start, reward: Reward, objective: ProximalObjective) -> Policy:
    """The policy after rolling out on a share of the prompts."""
    prompts = FARM.share(start.instructions, 1, SHARES[setup.scale])
    refs = references(FARM, start.policy, reward, prompts, objective)
    return FARM.roll_out(start.policy, reward, prompts, objective, ref_rewards=refs)


def _measured(
    setup: Setup, start: Start, reward: Reward, name: str, steps: int, policy: Policy
) -> Run:
    answers = answered(policy, setup)
    proxy, truth = (store().read(FARM.score(answers, by))["score"] for by in (reward, Truth()))
    kl = 0.0 if policy == start.policy else _nats(setup, start, policy)
    return Run(setup.seed, name, steps, kl, proxy.to_numpy(), truth.to_numpy())


def _nats(setup: Setup, start: Start, policy: Policy) -> float:
    """Mean log-ratio of the policy's answers to the start, at temperature 1."""
    prompts = FARM.instructions(setup.source, "val", setup.sizes.val)
    warm = Sampling(temperature=1.0, max_tokens=setup.sizes.max_tokens, seed=setup.seed)
    drawn = drift(FARM.generate(policy, prompts, warm), policy, start.policy)
    return float(np.mean(store().read(drawn)["score"].to_numpy()))


def table(runs: Sequence[Run]) -> str:
    """A row a shaping and number of steps: means over seeds, and utility less vanilla's."""
    rows = []
    for name, steps in dict.fromkeys((run.shaping, run.steps) for run in runs):
        mine = [run for run in runs if (run.shaping, run.steps) == (name, steps)]
        rows.append(
            {
                "shaping": name,
                "steps": steps,
                "KL": f"{np.mean([run.kl for run in mine]):.1f}",
                "reward": f"{np.mean([run.proxy.mean() for run in mine]):.3f}",
                "true utility": f"{np.mean([run.utility.mean() for run in mine]):.3f}",
                "utility less the start's": _paired(mine, _like(runs, "start", 0)),
                "less vanilla's": _paired(mine, _like(runs, "vanilla", steps)),
            }
        )
    return markdown(rows)


def _like(runs: Sequence[Run], name: str, steps: int) -> dict[int, Run]:
    return {run.seed: run for run in runs if (run.shaping, run.steps) == (name, steps)}


def _paired(mine: Sequence[Run], others: dict[int, Run]) -> str:
    """Mean difference in utility and its standard error: over seeds, or over prompts of one."""
    pairs = [(run, others[run.seed]) for run in mine if run.seed in others]
    if not pairs or mine[0] is pairs[0][1]:
        return "-"
    each = [one.utility - other.utility for one, other in pairs]
    values = each[0] if len(each) == 1 else np.array([one.mean() for one in each])
    return f"{values.mean():+.3f} ± {standard_error(values):.3f}"


def picture(runs: Sequence[Run]) -> bytes:
    """Reward and true utility after so many steps, means over seeds, a line a shaping; a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    both = figure.subplots(1, 2)
    for name in dict.fromkeys(run.shaping for run in runs if run.steps):
        ladder = [0, *sorted({run.steps for run in runs if run.shaping == name})]
        mine = [list(_like(runs, name if at else "start", at).values()) for at in ladder]
        for axes, measure in zip(both, ("proxy", "utility"), strict=True):
            means = [np.mean([getattr(run, measure).mean() for run in some]) for some in mine]
            axes.plot(ladder, means, marker="o", markersize=3, label=name)
    for axes, title in zip(both, ("reward model", "true utility"), strict=True):
        axes.set(title=title, xlabel="steps of PPO")
        axes.spines[["top", "right"]].set_visible(False)
    both[1].legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


if __name__ == "__main__":
    main()
