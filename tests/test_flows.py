"""The whole farm at scale "smoke" on the built-in world, end to end."""

import json
import os
from pathlib import Path

import polars as pl
import pytest

import tasks
from alpacafarm_core.annotate import judge, pair
from alpacafarm_core.arrivals import Incoming, Way
from alpacafarm_core.landing import take_in
from alpacafarm_core.panel import load
from alpacafarm_core.settings import Sampling
from alpacafarm_core.setup import File, Files, Setup
from alpacafarm_core.store import Store
from flows.arrivals import planned_refresh, refresh
from flows.cli import main
from flows.leaderboard import methods_named, ranked
from flows.planning import planned
from flows.prepare import started
from flows.spreading import divided, told
from tasks.stage import cap, ledger

SMOKE = Setup(scale="smoke")
METHODS = ("sft", "feedme", "best_of_n", "dpo", "ppo")


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    """A store in which the smoke leaderboard has been made once."""
    root = tmp_path_factory.mktemp("farm")
    before = os.environ.get("ALPACAFARM_STORE")
    os.environ["ALPACAFARM_STORE"] = str(root)
    ranked(methods_named(METHODS, SMOKE), SMOKE)
    yield Store(root)
    os.environ.pop("ALPACAFARM_STORE") if before is None else os.environ.update(
        ALPACAFARM_STORE=before
    )


def ran_since(store: Store, events: int) -> list[str]:
    """Stages that really ran after so many events of the journal."""
    return [event["stage"] for event in store.journal()[events:] if event["ran"]]


def test_the_board_has_base_and_every_method_and_is_traceable(farm):
    board = ranked(methods_named(METHODS, SMOKE), SMOKE)
    rows = farm.read(board)
    assert set(rows["model"]) == {"base", *METHODS}
    assert rows["coverage"].to_list() == [100.0] * 6
    assert (rows["n_total"] == SMOKE.sizes.eval).all()
    assert {"leaderboard.csv", "leaderboard.png"} <= set(farm.manifest(board).files)


def test_the_second_run_makes_nothing_and_buys_nothing(farm):
    events, calls = len(farm.journal()), ledger().counts()
    ranked(methods_named(METHODS, SMOKE), SMOKE)
    assert ran_since(farm, events) == []
    assert ledger().counts() == calls


def test_another_micro_batch_reruns_nothing(farm, monkeypatch):
    monkeypatch.setenv("ALPACAFARM_MICRO_BATCH", "4")
    events = len(farm.journal())
    ranked(methods_named(METHODS, SMOKE), SMOKE)
    assert ran_since(farm, events) == []


def test_another_number_of_ppo_steps_reruns_ppo_and_what_stands_on_it(farm):
    (ppo,) = methods_named(["ppo"], SMOKE)
    longer = ppo.replace(objective=ppo.objective.replace(steps=ppo.objective.steps - 1))
    events = len(farm.journal())
    ranked([*methods_named(METHODS[:-1], SMOKE), longer], SMOKE)
    assert ran_since(farm, events) == ["roll_out", "generate", "annotate", "score", "tally"]


def test_one_more_row_samples_and_buys_one_more_row(farm):
    start = started(SMOKE)
    panel = load("world", flip=0.0)
    sampling = Sampling(n=2, temperature=1.0, max_tokens=24)
    bought = []
    for size in (96, 97, 98, 99):
        prompts = tasks.instructions(SMOKE.source, "preference", size)
        before = ledger().counts()
        pairs = tasks.generate(start.policy, prompts, sampling)
        labels = tasks.annotate(pairs, pairs, panel)
        after = ledger().counts()
        bought.append((after.samples - before.samples, after.calls - before.calls))
        assert farm.read(labels).height == size
    assert [samples for samples, _ in bought[1:]] == [2, 2, 2]
    assert all(calls <= 1 for _, calls in bought[1:])
    assert sum(calls for _, calls in bought[1:]) >= 1


def test_a_changed_template_buys_exactly_its_annotators_rows_again(farm):
    start = started(SMOKE)
    prompts = tasks.instructions(SMOKE.source, "preference", 96)
    pairs = tasks.generate(start.policy, prompts, Sampling(n=2, temperature=1.0, max_tokens=24))
    panel = load("world", flip=0.0)
    labels = farm.read(tasks.annotate(pairs, pairs, panel))
    edited = panel.annotators[5]
    changed = edited.replace(
        prompt=edited.prompt.replace(". ", "! ", 1),
        prompt_with_input=edited.prompt_with_input.replace(". ", "! ", 1),
    )
    assert changed != edited
    new = panel.replace(annotators=(*panel.annotators[:5], changed, *panel.annotators[6:]))
    events, before = len(farm.journal()), ledger().counts()
    tasks.annotate(pairs, pairs, new)
    assert ran_since(farm, events) == ["annotate"]
    asked = labels.filter(annotator=edited.name, status="ok").height
    assert ledger().counts().rows - before.rows == asked > 0


def test_judging_again_in_another_store_gives_the_same_labels(farm, tmp_path):
    from alpacafarm_core.ledger import Ledger
    from alpacafarm_core.world.judges import ask

    start = started(SMOKE)
    prompts = tasks.instructions(SMOKE.source, "preference", 96)
    pairs = farm.read(
        tasks.generate(start.policy, prompts, Sampling(n=2, temperature=1.0, max_tokens=24))
    )
    panel = load("world", flip=0.25)
    first, second = (
        judge(pair(pairs, pairs), panel, ask, Ledger(Path(tmp_path, f"{n}.sqlite"))).preferences
        for n in (1, 2)
    )
    assert first.equals(second)


def test_a_panel_that_fails_its_self_test_ends_the_run_with_four_and_buys_nothing(
    farm, tmp_path, capsys
):
    fields = (
        "model: world/judge-gpt4-3, price_per_1k_tokens: 0.03, batch: 5, "
        "prompt: guided_5.txt, prompt_with_input: guided_5_with_input.txt, "
        r"answer: {form: choice, first: 'Output \(b\)', second: 'Output \(a\)'}"
    )
    exchanged = tmp_path / "exchanged.yaml"
    exchanged.write_text(f"annotators:\n  - {{name: mine, {fields}}}\n")
    calls = ledger().counts().calls
    with pytest.raises(SystemExit) as left:
        main(["run", "sft", "--setup.scale", "smoke", "--setup.panel", str(exchanged)])
    assert left.value.code == 4
    assert "panel exchanged, annotator mine failed its self-test" in capsys.readouterr().err
    assert ledger().counts().calls == calls


def test_a_plan_names_what_is_left_and_costs_nothing(farm):
    methods, calls = methods_named(METHODS, SMOKE), ledger().counts()
    done = planned(methods, [SMOKE])
    assert {line["state"] for line in done["stages"]} == {"cached"} and done["usd_high"] == 0
    other = planned(methods, [SMOKE.replace(seed=1)])
    todo = {line["stage"] for line in other["stages"] if line["state"] == "to do"}
    assert {"annotate", "generate", "fit_reward", "roll_out", "tally"} <= todo
    assert 0 < other["usd_low"] < other["usd_high"] and other["seconds"] > 0
    assert ledger().counts() == calls and len(farm.all("leaderboard")) >= 1


def test_a_plan_says_what_could_be_told_apart(store, capsys):
    main(["plan", "run", "sft", "--setup.scale", "smoke", "--json"])
    told = json.loads(capsys.readouterr().out)["detectable"]
    assert told == pytest.approx((1.959964 + 0.841621) * 70.7 / SMOKE.sizes.eval**0.5, abs=1e-3)
    main(["plan", "run", "sft", "--setup.scale", "smoke"])
    assert "told apart from 35.0 points on" in capsys.readouterr().out


def test_a_part_of_the_judges_ranks_again_for_nothing(farm, tmp_path, monkeypatch):
    part = tmp_path / "part.yaml"
    part.write_text("based_on: world\nonly: [gpt4_1, gpt4_2, gpt4_3, gpt4_4, gpt4_5]\n")
    monkeypatch.setenv("ALPACAFARM_BUDGET", "")
    cap(0.0)
    calls = ledger().counts()
    rows = farm.read(ranked(methods_named(METHODS, SMOKE), SMOKE.replace(judges=str(part))))
    assert ledger().counts() == calls
    assert (rows["n_total"] < SMOKE.sizes.eval).all() and (rows["coverage"] == 100.0).all()


def test_a_board_of_several_machines_is_that_of_one_with_a_run_begun_for_each_method(farm):
    begun: list[tuple[str, float | None]] = []
    events = len(farm.journal())
    methods = methods_named(METHODS, SMOKE)

    def begin(method, setup, allowance):
        begun.append((method.name, allowance))

    board = divided(methods, SMOKE, 0.0, begin)
    assert begun == [(name, 0.0) for name in METHODS]
    assert board == ranked(methods, SMOKE)
    assert ran_since(farm, events) == []


def test_a_run_told_to_another_machine_names_the_files_of_its_setup(tmp_path):
    (tmp_path / "prompts.json").write_text("[]")
    file = File.model_validate(tmp_path / "prompts.json")
    given = Setup(source=Files(instructions=file, demonstrations=file))
    assert Setup.model_validate(told(given)) == given
    assert told(given)["source"]["instructions"]["path"] == str(file.path)


def test_new_pairs_are_bought_once_and_what_changed_is_said(farm, tmp_path):
    file = tmp_path / "new.jsonl"
    prompts = farm.read(tasks.instructions(SMOKE.source, "preference", 108)).tail(12)
    pairs = prompts.select("instruction", "input", output_1=pl.lit("Yes."), output_2=pl.lit("No."))
    pairs.write_ndjson(file)
    (dpo,) = methods_named(["dpo"], SMOKE)
    way = Way(dataset="new", how="again", method=dpo, setup=SMOKE)
    made, _ = take_in(farm, file, "preferences", "new")
    plan = {line["stage"]: line for line in planned_refresh(way, [made.artifact])["stages"]}
    assert (plan["fresh"]["rows"], plan["unite"]["state"]) == (12, "to do")
    before = ledger().counts()
    changed = refresh.fn(Incoming(name="new"), dpo, SMOKE)
    (row,) = farm.read(changed).to_dicts()
    assert (row["rows"], row["new"], row["known"], row["is_recent"]) == (12, 12, 0, True)
    calls = ledger().counts().calls - before.calls
    assert row["bought"] > 0 and plan["label"]["calls"] <= calls
    page = (farm.path(changed) / "report.md").read_text()
    assert f"12 new rows; 0 were left out. Labels of {row['bought']} rows were bought" in page
    boards = farm.manifest(changed).recipe.inputs["boards"]
    assert f"alpacafarm diff {boards[0]} {boards[1]}" in page
    pl.concat([pairs.head(5)] * 2).write_ndjson(tmp_path / "copies.jsonl")
    events, counts = len(farm.journal()), ledger().counts()
    assert refresh.fn(Incoming(name="new"), dpo, SMOKE) == changed
    assert ran_since(farm, events) == []
    take_in(farm, tmp_path / "copies.jsonl", "preferences", "new")
    again = refresh.fn(Incoming(name="new"), dpo, SMOKE)
    assert farm.read(again)["known"].to_list() == [0, 10]
    assert ran_since(farm, events) == ["fresh", "label", "changed"]
    assert ledger().counts() == counts
