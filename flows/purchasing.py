"""Commands that buy answers, or say what would be bought: plan and annotate.

What they share with the commands that train is here too: options on money and seeds, and how
dotted flags become methods and setups.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from alpacafarm_core.errors import BadInput, Unanswered
from flows.inspection import Json, StorePath

EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}
Budget = Annotated[
    float | None,
    typer.Option(
        help="US dollars this run may spend on judges; exit 3 before more.",
        min=0.0,
        show_default=False,
    ),
]
BothOrders = Annotated[
    bool, typer.Option("--both-orders", help="Judge each pair in both orders, a row for each.")
]
Flip = Annotated[
    float | None,
    typer.Option(help="Share of labels flipped; default the panel's.", min=0.0, max=1.0),
]
PANEL = "Shipped panel, a .yaml file, or an alpaca_eval evaluator folder."
UNTIL = "Stop buying when it is decided, at this error rate, which side is better."
BASE_URL = "OpenAI-compatible endpoint to ask instead of the panel's."
Names = Annotated[str, typer.Option(help="Names, comma between; default all.")]
Seeds = Annotated[int, typer.Option(help="How many seeds.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of sampling, labels and training.", min=0)]


BETWEEN_TWO = 70.7  # points a prompt: the most that two models of like strength can vary


plan = typer.Typer(help="What a run would make, buy and cost; asks and writes nothing.")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(annotate)
    app.command(context_settings=EXTRA)(evaluate)
    app.add_typer(plan, name="plan")


@plan.command("run", context_settings=EXTRA)
def plan_run(
    context: typer.Context,
    method: str,
    budget: Budget = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """The plan of `alpacafarm run`, with the same options."""
    _plan(*one_method(context.args, method), store, as_json, budget)


@plan.command("leaderboard", context_settings=EXTRA)
def plan_leaderboard(
    context: typer.Context,
    methods: Names = "",
    seeds: Seeds = 1,
    out: Annotated[Path | None, typer.Option(help="Not written by a plan.")] = None,
    budget: Budget = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """The plan of `alpacafarm leaderboard`, with the same options."""
    from flows.leaderboard import methods_named

    names, setups = several(context.args, methods, seeds)
    _plan(methods_named(names, setups[0]), setups, store, as_json, budget)


@plan.command("annotate")
def plan_annotate(
    pairs: Path,
    panel: Annotated[str, typer.Option(help=PANEL)],
    base_url: Annotated[str | None, typer.Option(help=BASE_URL)] = None,
    seed: Seed = 0,
    flip: Flip = None,
    both_orders: BothOrders = False,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """The plan of `alpacafarm annotate`, with the options that say what is bought."""
    use(store)
    from alpacafarm_core.places import place
    from flows.labelling import Labelling, priced
    from flows.printing import show_json, show_plan

    work = Labelling(
        pairs=pairs, panel=panel, base_url=base_url, seed=seed, flip=flip, both_orders=both_orders
    )
    document = priced(work, place())
    show_json(document) if as_json else show_plan(document)


def annotate(
    pairs: Path,
    panel: Annotated[str, typer.Option(help=PANEL)],
    out: Annotated[Path, typer.Option(help="File to write: .parquet, .json, .jsonl or .csv.")],
    base_url: Annotated[str | None, typer.Option(help=BASE_URL)] = None,
    budget: Budget = None,
    seed: Seed = 0,
    flip: Flip = None,
    both_orders: BothOrders = False,
    offline: Annotated[bool, typer.Option(help="Buy nothing; use answers bought before.")] = False,
    until_decided: Annotated[
        float | None, typer.Option(help=UNTIL, min=0.0001, max=0.5, show_default=False)
    ] = None,
    max_concurrency: Annotated[
        int | None, typer.Option(help="Calls under way at a time.", min=1)
    ] = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Label a file of pairs (instruction, input?, output_1, output_2) with a panel."""
    use(store)
    if max_concurrency is not None:
        os.environ["ALPACAFARM_CONCURRENCY"] = str(max_concurrency)
    from flows.labelling import Labelling, labelled
    from flows.printing import show_json, show_labelling

    work = Labelling(
        pairs=pairs,
        panel=panel,
        base_url=base_url,
        seed=seed,
        flip=flip,
        both_orders=both_orders,
        offline=offline,
        until_decided=until_decided,
    )
    document = labelled(work, out, budget)
    show_json(document) if as_json else show_labelling(document, out)
    if document["failed"] and not offline:
        raise Unanswered(
            f"{document['failed']} of {document['rows']} rows failed ({document['complaint']}); "
            "what was answered is kept, run again to ask only for them"
        )


def evaluate(
    context: typer.Context,
    outputs: Path,
    model: Annotated[str, typer.Option(help="Its name on the board; default the file's.")] = "",
    panel: Annotated[str, typer.Option(help=PANEL)] = "world",
    reference: Annotated[
        Path | None, typer.Option(help="File of outputs to beat; default the source's.")
    ] = None,
    prompts: Annotated[int, typer.Option(help="Prompts of a source, at most.", min=1)] = 805,
    seed: Seed = 0,
    budget: Budget = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Judge a file of a model's outputs; `--against.FIELD V` names a source, default the world."""
    use(store, budget)
    from alpacafarm_core.setup import File
    from flows.options import dotted, settled
    from flows.outputs import Given, Outputs, ranked_alone
    from flows.printing import show_board

    if reference is not None and context.args:
        raise BadInput(f"{context.args[0]!r} and --reference name two rivals; take one out")
    files = {"outputs": File.model_validate(outputs)}
    work = Outputs(**files, model=model, panel=panel, prompts=prompts, seed=seed)
    if reference is not None:
        work = work.replace(against=Given(outputs=File.model_validate(reference)))
    work = settled(work, dotted(context.args, ("against",)), "evaluate")
    show_board(ranked_alone(work), as_json)


def one_method(words: list[str], method: str) -> tuple[list[Any], list[Any]]:
    """A method and its setup from dotted flags, beside SFT."""
    from alpacafarm_core.setup import Setup
    from flows.leaderboard import beside_sft, methods_named
    from flows.options import dotted, settled

    fields = dotted(words, ("setup", "method"))
    setup = settled(Setup(), fields["setup"], "setup")
    chosen = settled(methods_named([method], setup)[0], fields["method"], "method")
    return beside_sft(chosen, setup), [setup]


def several(words: list[str], methods: str, seeds: int) -> tuple[list[str], list[Any]]:
    """Names of methods, all when none is given, and a setup a seed."""
    from alpacafarm_core.methods import METHODS
    from alpacafarm_core.setup import Setup
    from flows.options import dotted, settled

    setup = settled(Setup(), dotted(words, ("setup",))["setup"], "setup")
    names = [name.strip() for name in methods.split(",") if name.strip()] or list(METHODS)
    return names, [setup.replace(seed=setup.seed + number) for number in range(seeds)]


def _plan(
    methods: Any,
    setups: list[Any],
    store: str | None,
    as_json: bool,
    budget: float | None = None,
) -> None:
    use(store)
    from alpacafarm_core.comparison import detectable
    from flows.planning import planned
    from flows.printing import show_json, show_plan

    told = detectable(setups[0].sizes.eval, BETWEEN_TWO)
    document = planned(methods, setups) | {"budget": budget, "detectable": told}
    show_json(document) if as_json else show_plan(document)


def use(store: str | None, budget: float | None = None) -> None:
    """Let this process use a store and spend no more than a budget, where they are given."""
    if store is not None:
        os.environ["ALPACAFARM_STORE"] = store
    if budget is not None:
        os.environ["ALPACAFARM_BUDGET"] = str(budget)
