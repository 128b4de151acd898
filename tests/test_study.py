"""The studies at scale "smoke", end to end, and a ranking from a file."""

import json

import pytest

from alpacafarm_core.errors import BadInput
from alpacafarm_core.setup import Files, Setup
from flows.study import compared, overoptimised
from flows.studying import rates_of
from tests.test_cli import complaint, typed

SMOKE = Setup(scale="smoke")


@pytest.mark.slow
def test_over_optimisation_has_a_curve_a_label_and_ends_further_away(store, monkeypatch):
    monkeypatch.setattr("flows.study.SIZES", (1, 2, 4))
    made = overoptimised(SMOKE, steps=[1, 3], betas=[0.1])
    rows, notes = store.read(made), store.manifest(made).notes
    series = {"best-of-n", "PPO", "DPO"}
    assert set(rows["series"]) == {
        f"{s}, {k}" for s in series for k in ("noisy pool", "clean judge")
    }
    for name in ("best-of-n, noisy pool", "best-of-n, clean judge"):
        own = rows.filter(rows["series"] == name)
        assert own["x"].to_list() == [1, 2, 4]
        assert own["kl"].is_sorted() and own["proxy"].is_sorted()
    assert rows.drop("win_error", "human_error").null_count().sum_horizontal()[0] == 0
    assert set(notes["peaks"]) == set(rows["series"])
    assert (store.path(made) / "plot.png").is_file()
    assert overoptimised(SMOKE, steps=[1, 3], betas=[0.1]) == made


def test_a_ranking_has_a_row_for_every_model_and_says_how_alike(store):
    made = compared(["sft"], SMOKE)
    rows, notes = store.read(made), store.manifest(made).notes
    assert set(rows["model"]) == {"base", "sft", "writer 0.3", "writer 0.9"}
    assert rows["human"].is_between(0, 100).all() and -1 <= notes["spearman"] <= 1
    low, high = notes["spearman_interval"]
    assert low <= high


def test_a_ranking_over_seeds_is_of_the_mean_of_their_farms(store):
    alone = [store.read(compared([], SMOKE.replace(seed=seed))) for seed in (0, 1)]
    both = store.read(compared([], SMOKE, seeds=2))
    for side in ("simulated", "human"):
        mean = [sum(two) / 2 for two in zip(*(board[side] for board in alone), strict=True)]
        assert both[side].to_list() == pytest.approx(mean)


def test_steps_and_betas_are_numbers(store, capsys):
    assert typed("study", "overoptimisation", "--steps", "5,x") == 2
    assert "--steps='5,x': give numbers with commas between" in complaint(capsys)
    assert typed("study", "ranking", "--seeds", "0") == 2


def test_studies_need_a_world_whose_people_can_be_asked(store, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    path = {"path": tmp_path / "rows.jsonl", "digest": "x"}
    source = Files(instructions=path, demonstrations=path)
    with pytest.raises(BadInput, match="studies run on world"):
        compared(["sft"], SMOKE.replace(source=source))


def test_a_file_of_rates_is_ranked_and_a_wrong_one_refused(store, tmp_path, capsys):
    file = tmp_path / "rates.csv"
    file.write_text("model,simulated,human\na,1,1\nb,2,3\nc,3,2\n")
    assert typed("study", "ranking", "--file", file, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["spearman"] == pytest.approx(0.5) and document["swaps"] == [["c", "b"]]
    file.write_text("model,simulated\na,1\n")
    assert typed("study", "ranking", "--file", file) == 2
    assert "no column 'human', only model, simulated; add or rename it" in complaint(capsys)


ROWS = [
    {"model": name, "simulated": rate, "human": rate + 1, "simulated_error": 1, "human_error": 1}
    for name, rate in (("a", 10), ("b", 20), ("c", 40))
]


@pytest.mark.parametrize(
    ("name", "held", "said"),
    [
        *(
            (name, held, f"row 2, column '{name}': {held!r} is no number from 0 to 100; write")
            for name in ("simulated", "human", "simulated_error", "human_error")
            for held in ("x", "nan", "inf", "", "45%", -1, 3000, 1e300, None, True, {"rate": 1})
        ),
        ("model", "a", "row 2, column 'model': 'a' has row 1 too; give"),
        ("model", " ", "row 2, column 'model': no name; give"),
        ("model", None, "row 2, column 'model': no name; give"),
    ],
)
def test_a_row_that_cannot_be_ranked_is_named(tmp_path, name, held, said):
    rows = [row | {name: held} if row["model"] == "b" else row for row in ROWS]
    (tmp_path / "rates.json").write_text(json.dumps(rows))
    with pytest.raises(BadInput) as refused:
        rates_of(tmp_path / "rates.json")
    assert str(refused.value).startswith(f"{tmp_path}/rates.json: {said}")


def test_text_of_csv_that_is_no_rate_is_named(store, tmp_path, capsys):
    (file := tmp_path / "rates.csv").write_text("model,simulated,human\na,1,1\nb,nan,3\nc,3,2\n")
    assert typed("study", "ranking", "--file", file) == 2
    assert "row 2, column 'simulated': 'nan' is no number from 0 to 100" in complaint(capsys)


@pytest.mark.parametrize("rate", [50, 0.1])
def test_a_column_that_is_constant_is_no_ranking(tmp_path, rate):
    (tmp_path / "rates.json").write_text(json.dumps([row | {"human": rate} for row in ROWS]))
    with pytest.raises(BadInput, match=f"column 'human' is {rate} in every row"):
        rates_of(tmp_path / "rates.json")


def test_one_column_of_errors_and_two_models_are_refused(tmp_path):
    file = tmp_path / "rates.json"
    alone = [{name: row[name] for name in row if name != "human_error"} for row in ROWS]
    file.write_text(json.dumps(alone))
    with pytest.raises(BadInput, match="no column 'human_error'"):
        rates_of(file)
    file.write_text(json.dumps(ROWS[:2]))
    with pytest.raises(BadInput, match="2 models cannot be correlated; give three"):
        rates_of(file)


def test_a_ranking_from_a_file_is_laid_where_out_says(store, tmp_path, capsys):
    (file := tmp_path / "rates.json").write_text(json.dumps(ROWS))
    assert typed("study", "ranking", "--file", file, "--out", tmp_path / "out.csv", "--json") == 0
    low, high = json.loads(capsys.readouterr().out)["spearman_interval"]
    assert low <= high == pytest.approx(1)
    laid = (tmp_path / "out.csv").read_text().splitlines()
    assert laid[:2] == ["model,simulated,simulated_error,human,human_error", "a,10.0,1.0,11.0,1.0"]
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--methods", "--seeds", "--nonsense", "--setup.seed"])
def test_what_a_file_has_no_use_for_is_refused(store, tmp_path, capsys, option):
    (file := tmp_path / "rates.json").write_text(json.dumps(ROWS))
    assert typed("study", "ranking", "--file", file, option, "1") == 2
    assert f"{option!r} has no meaning beside --file" in complaint(capsys)
