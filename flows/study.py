"""The two studies of AlpacaFarm: over-optimisation, and whether simulation ranks as people do."""

from collections.abc import Sequence
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from pydantic import Field

from alpacafarm_core.artifacts import Candidates, Curves, Preferences, Ranks
from alpacafarm_core.curves import Pool, Run
from alpacafarm_core.errors import BadInput
from alpacafarm_core.farm import Evaluation, Start
from alpacafarm_core.methods import METHODS
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.methods.ppo import PPO
from alpacafarm_core.panel import load
from alpacafarm_core.settings import Fitting, Sampling, Truth
from alpacafarm_core.setup import Setup, World
from alpacafarm_core.weights import Policy, Reward
from flows.approval import UNKNOWN, AskAbove, admit
from flows.endings import named_endings
from flows.evaluate import answered, judged
from flows.leaderboard import Dollars, MethodName, methods_named, ranked
from flows.prepare import FARM, admitted, started
from tasks import study
from tasks.stage import in_flow_run, store

LABELS = {"noisy pool": ("world", 0.25), "clean judge": ("world_clean", 0.0)}
SIZES = (1, 2, 4, 8, 16, 32)
STEPS = (5, 10, 20, 40)
BETAS = (0.5, 0.1, 0.02)
WRITERS = (0.3, 0.9)


def overoptimised(
    setup: Setup, steps: Sequence[int] = STEPS, betas: Sequence[float] = BETAS
) -> Curves:
    """Best-of-n over n, PPO over steps and DPO over beta, with noisy and with clean labels."""
    _refuse_other_worlds(setup)
    setup = admitted(setup)
    pools, runs = [], []
    for labels, (panel, flip) in LABELS.items():
        mine = setup.replace(panel=panel, flip=flip)
        start = started(mine)
        reward = FARM.fit_reward(
            start.policy, start.preferences, Fitting.at(setup.scale).seeded(setup.seed)
        )
        pools.append(best_of_pool(f"best-of-n, {labels}", mine, start, reward))
        for count in steps:
            policy = _ppo(setup, count).optimise(FARM, start)
            runs.append(_run(f"PPO, {labels}", float(count), mine, policy, (start, reward)))
        for beta in betas:
            dpo = DPO.at(setup.scale).replace(beta=beta).seeded(setup.seed)
            policy = dpo.optimise(FARM, start)
            runs.append(_run(f"DPO, {labels}", beta, mine, policy, (start, reward)))
    return study.curves(pools, runs, SIZES)


def best_of_pool(series: str, setup: Setup, start: Start, reward: Reward) -> Pool:
    """The most samples of every evaluation prompt that any n needs, each scored and judged."""
    prompts = FARM.instructions(setup.source, "eval", setup.sizes.eval)
    sampling = Sampling(
        n=max(SIZES),
        temperature=setup.sizes.temperature,
        max_tokens=setup.sizes.max_tokens,
        seed=setup.seed,
    )
    samples = FARM.generate(start.policy, prompts, sampling)
    each = [study.nth(samples, index) for index in range(max(SIZES))]
    return Pool(
        series=series,
        proxy=FARM.score(samples, reward),
        truth=FARM.score(samples, Truth()),
        judged=tuple(judged_by(one, setup, setup.judges) for one in each),
        human=tuple(judged_by(one, setup, "people") for one in each),
    )


def judged_by(answers: Candidates, setup: Setup, panel: str) -> Preferences:
    """Answers against the reference's, judged by a panel."""
    reference = FARM.published(setup.source, setup.sizes.eval)
    return FARM.annotate(answers, reference, load(panel, seed=setup.seed))


def _ppo(setup: Setup, steps: int) -> PPO:
    """PPO at a constant rate, so that a longer run begins with a shorter one."""
    ppo = PPO.at(setup.scale)
    training = ppo.objective.training.replace(schedule="constant")
    objective = ppo.objective.replace(steps=steps, training=training)
    return ppo.replace(objective=objective).seeded(setup.seed)


def _run(series: str, x: float, setup: Setup, policy: Policy, origin: tuple[Start, Reward]) -> Run:
    start, reward = origin
    answers = answered(policy, setup)
    prompts = FARM.instructions(setup.source, "val", setup.sizes.val)
    warm = Sampling(temperature=1.0, max_tokens=setup.sizes.max_tokens, seed=setup.seed)
    return Run(
        series=series,
        x=x,
        proxy=FARM.score(answers, reward),
        truth=FARM.score(answers, Truth()),
        judged=judged_by(answers, setup, setup.judges),
        human=judged_by(answers, setup, "people"),
        drift=study.drift(FARM.generate(policy, prompts, warm), policy, start.policy),
    )


def compared(methods: Sequence[str], setup: Setup, seeds: int = 1) -> Ranks:
    """Methods trained and judged in simulation beside the same among people; and two writers.

    With several seeds, from that of the setup on, rates are means over as many farms.
    """
    _refuse_other_worlds(setup)
    if seeds < 1:
        raise BadInput(f"seeds={seeds}: a ranking needs one at least")
    simulated, human = ([_rows(methods, side) for side in farms] for farms in sides(setup, seeds))
    return study.ranks(simulated, human)


def sides(setup: Setup, seeds: int) -> tuple[list[Setup], list[Setup]]:
    """The farms of a ranking in simulation, and the same among people."""
    among_people = setup.replace(panel="people", judges="people", flip=0.0)
    simulated, human = (
        [side.replace(seed=setup.seed + more) for more in range(seeds)]
        for side in (setup, among_people)
    )
    return simulated, human


def planned_ranking(methods: Sequence[str], setup: Setup, seeds: int) -> dict[str, Any]:
    """The document of `alpacafarm plan` for a ranking, but for the answers of its two writers."""
    from flows.planning import planned

    simulated, human = sides(setup, seeds)
    document = planned(methods_named(methods, setup), [*simulated, *human])
    return document | {"unpriced": [*document["unpriced"], "annotate of two writers"]}


def _rows(methods: Sequence[str], setup: Setup) -> dict[str, Evaluation]:
    """The methods' rows and those of a poor and a good writer, by one setup's judges."""
    chosen = methods_named(methods, setup)
    ranked(chosen, setup)
    setup = admitted(setup)
    start = started(setup)
    policies = {"base": start.base} | {
        method.name: method.seeded(setup.seed).optimise(FARM, start) for method in chosen
    }
    rows: dict[str, Evaluation] = {
        name: judged(answered(policy, setup), setup) for name, policy in policies.items()
    }
    for skill in WRITERS:
        answers = study.written(setup.source, setup.sizes.eval, skill)
        rows[f"writer {skill:g}"] = judged(answers, setup)
    return rows


def _refuse_other_worlds(setup: Setup) -> None:
    if not isinstance(setup.source, World):
        raise BadInput(
            f"source {setup.source.name!r} has no people to ask and no truth; studies run on world"
        )


@flow(log_prints=True)
@named_endings
def overoptimisation(
    setup: Setup = Setup(),  # noqa: B008
    steps: list[int] = list(STEPS),  # noqa: B006
    betas: list[float] = list(BETAS),  # noqa: B006
    budget: Dollars = None,
    ask_above: AskAbove = None,
) -> Curves:
    """Optimise further and further against a reward model, and see what people would say.

    Args:
        setup: What it begins from; the built-in world is the only source with people.
        steps: How many steps of PPO, a run each.
        betas: Strengths of the reference in DPO, a run each.
        budget: Judges may cost so many US dollars; the run stops before it would spend more.
        ask_above: Like budget here, as the price of this study is not known ahead.
    """
    admit(budget, ask_above, lambda: UNKNOWN)
    made = overoptimised(setup, steps, betas)
    _publish("overoptimisation", made)
    return made


@flow(log_prints=True)
@named_endings
def ranking(
    methods: list[MethodName] = sorted(METHODS),  # noqa: B008
    setup: Setup = Setup(),  # noqa: B008
    seeds: Annotated[int, Field(ge=1)] = 1,
    budget: Dollars = None,
    ask_above: AskAbove = None,
) -> Ranks:
    """Train and judge every method in simulation and among people, and compare the rankings.

    Args:
        methods: Which methods, with their settings for the scale.
        setup: What they begin from; the built-in world is the only source with people.
        seeds: Farms whose mean counts, from the setup's seed on.
        budget: Judges may cost so many US dollars; the run stops before it would spend more.
        ask_above: Above so many US dollars the run waits for a person who approves its price.
    """
    admit(budget, ask_above, lambda: planned_ranking(methods, setup, seeds))
    made = compared(methods, setup, seeds)
    _publish("ranking", made)
    return made


def _publish(name: str, made: Curves | Ranks) -> None:
    """The table and the findings on the page of a flow run."""
    if not in_flow_run():
        return
    create_table_artifact(key=name, table=store().read(made).to_dicts())
    notes = "\n".join(f"- {key}: {held}" for key, held in store().manifest(made).notes.items())
    create_markdown_artifact(key=f"{name}-findings", markdown=notes or "nothing noted")
