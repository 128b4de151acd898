"""The pairwise judge: its loss by hand, both orders, what is too long, and circles it can hold."""

import math
import time

import polars as pl
import pytest
import torch
from torch import Tensor

import tasks
from alpacafarm_core.artifacts import Candidates, Comparisons
from alpacafarm_core.errors import BadInput
from alpacafarm_core.machine import Machine
from alpacafarm_core.pairs import asymmetry, probable
from alpacafarm_core.pairwise import Form, fit, log_odds, pairwise_loss, split_of, told, write
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.settings import Fitting, Training, Winning
from alpacafarm_core.store import Made
from alpacafarm_core.train.batches import encode
from alpacafarm_core.train.models import load_scorer
from alpacafarm_core.weights import Pairwise
from tests.paper_farm import START, numbered
from tests.test_soup import lay
from tests.tiny import ANSWERS, PROMPTS, frame, preferences, tiny_model

HERE = Machine(device="cpu", precision="float32")
QUICK = Fitting(
    training=Training(learning_rate=3e-3, epochs=6, batch=8, max_length=128), above_length=False
)


def test_the_loss_is_the_cross_entropy_of_both_orders():
    first, second = torch.tensor([0.0, 2.0]), torch.tensor([0.0, -1.0])
    log_two, certain = math.log(2), (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2
    assert pairwise_loss(first, second).tolist() == pytest.approx([log_two, certain])


def test_at_even_odds_each_order_is_pushed_its_own_way():
    first, second = (torch.zeros(1, requires_grad=True) for _ in range(2))
    pairwise_loss(first, second).sum().backward()
    assert (first.grad.item(), second.grad.item()) == (-0.25, 0.25)


def test_a_judge_that_only_sees_the_place_learns_nothing_of_the_pair():
    # Always 3 for the first place: both orders together say neither is better.
    tested = torch.tensor([[3.0, 3.0], [3.0, 3.0]])
    assert told(tested, [1, 0]) == {
        "accuracy": 0.0,
        "length_accuracy": 0.75,
        "agreement": 0.0,
        "position_bias": 3.0,
        "asymmetry": 3.0,
    }


def test_figures_of_held_out_pairs_by_hand():
    tested = torch.tensor([[2.0, -1.0], [0.5, 1.0]])
    found = told(tested, [-2, 0])
    assert found == pytest.approx(
        {
            "accuracy": 0.5,  # 2 > -1, and not 0.5 > 1
            "length_accuracy": 0.25,
            "agreement": 0.5,
            "position_bias": 0.625,  # (1 + 1.5) / 2 / 2
            "asymmetry": 0.625,
        }
    )
    assert set(told(torch.zeros(0, 2), []).values()) == {None}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("start") / "policy")


@pytest.fixture(scope="module")
def judge(start, tmp_path_factory):
    """A judge fitted to the tiny pairs, and its notes."""
    folder = tmp_path_factory.mktemp("judge") / "pairwise"
    return folder, fit(start, folder, preferences(), QUICK.replace(held_out=2), HERE)


def test_both_orders_are_read_without_end_tokens_and_with_the_same_words_around(start):
    tokenizer = load_scorer(start, HERE).tokenizer
    form = Form.of(tokenizer)
    pair = form.both([0, 9], [5, 6, 1], [7, 1, 1])
    assert pair.chosen.prompt == pair.rejected.prompt == [0, 9]
    assert pair.chosen.response == [5, 6, *form.between, 7, *form.after]
    assert pair.rejected.response == [7, *form.between, 5, 6, *form.after]
    assert tokenizer.decode(form.between).endswith("Other response:")


def test_it_learns_which_answer_is_better_in_whichever_order(judge):
    folder, notes = judge
    losses = [step["loss"] for step in notes["steps"]]
    assert losses[-1] < 0.5 * losses[0] and notes["steps"][-1]["accuracy"] == 1.0
    rows = preferences(1)
    loaded = load_scorer(folder, HERE)
    form, sides = (
        Form.of(loaded.tokenizer),
        [encode(rows, f"output_{n}", loaded.tokenizer) for n in (1, 2)],
    )
    pairs = [
        form.both(one.prompt, one.response, other.response)
        for one, other in zip(*sides, strict=True)
    ]
    odds = log_odds(loaded, pairs, HERE)
    is_first_better = torch.tensor((rows["preference"] == 1.0).to_list())
    assert torch.equal(odds[:, 0] > odds[:, 1], is_first_better)


def test_its_notes_tell_accuracy_length_and_how_it_minds_the_order(judge):
    notes = judge[1]
    assert notes["held_out_rows"] == 1 and notes["rows"] == 15
    assert notes["accuracy"] == 1.0 and 0 <= notes["agreement"] <= 1
    assert notes["asymmetry"] >= abs(notes["position_bias"])


def test_what_is_too_long_is_left_out_counted_and_where_nothing_is_left_refused(start):
    judge = load_scorer(start, HERE)
    long = preferences(1).with_columns(
        output_1=pl.when(pl.int_range(pl.len()) == 0)
        .then(pl.lit("apple " * 150))
        .otherwise("output_1")
    )
    judge.tokenizer.model_max_length = 160
    split = split_of(long, judge, QUICK)
    assert split.counts["too_long"] == 1 and split.counts["rows"] == 3
    judge.tokenizer.model_max_length = 16
    with pytest.raises(BadInput, match="none of 4 pairs fits in 16 tokens with its prompt; raise"):
        split_of(long, judge, QUICK)


@pytest.mark.parametrize("term", [{"penalty": 0.1}, {"share": 0.5}, {"head": 3}])
def test_what_only_reward_models_are_fitted_for_is_refused_by_name(start, tmp_path, term):
    with pytest.raises(BadInput, match=f"fitting.{next(iter(term))} is for reward models"):
        fit(start, tmp_path / "out", preferences(), QUICK.replace(**term), HERE)


def answers(repeats: int = 3) -> pl.DataFrame:
    """Several answers to each of two prompts."""
    rows = [
        {
            "instruction": instruction,
            "input": text,
            "output": ANSWERS[(at + index) % len(ANSWERS)],
            "tokenizer": "",
            "sample_index": index,
        }
        for at, (instruction, text) in enumerate(PROMPTS[:2])
        for index in range(repeats)
    ]
    return frame(Candidates, rows)


def test_all_answers_meet_in_both_orders_and_nobody_meets_himself(judge, tmp_path):
    rows = answers()
    rows.write_parquet(tmp_path / "rows.parquet")
    arguments = (judge[0], tmp_path / "rows.parquet", (0, 2), "pairwise/x")
    assert write(*arguments, tmp_path / "out.parquet", HERE) == 18
    found = pl.read_parquet(tmp_path / "out.parquet")
    assert found.columns == list(Comparisons.columns)
    own = found.filter(pl.col("index") == pl.col("rival"))
    assert own.height == 6 and own["logit"].to_list() == [0.0] * 6
    loaded = load_scorer(judge[0], HERE)
    one, other = encode(rows, "output", loaded.tokenizer)[:2]
    form = Form.of(loaded.tokenizer)
    pair = form.both(one.prompt, one.response, other.response)
    odds = log_odds(loaded, [pair], HERE)[0].tolist()
    met = {
        (row["index"], row["rival"]): row["logit"]
        for row in found.filter(pl.col("instruction") == PROMPTS[0][0]).to_dicts()
    }
    assert [met[0, 1], met[1, 0]] == pytest.approx(odds, abs=1e-5)
    wins = probable(found, Winning(probability="pairwise"))
    both = wins.filter(pl.col("instruction") == PROMPTS[0][0]).sort("index", "rival")["beats"]
    odds_of = torch.tensor(both.to_list()).view(3, 3)
    torch.testing.assert_close(odds_of + odds_of.T, torch.ones(3, 3))


def test_a_share_of_the_prompts_is_judged_as_in_the_whole(judge, tmp_path):
    answers().write_parquet(tmp_path / "rows.parquet")
    for name, share in (("whole", (0, 2)), ("second", (1, 1))):
        out = tmp_path / f"{name}.parquet"
        write(judge[0], tmp_path / "rows.parquet", share, "x", out, HERE)
    whole, second = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("whole", "second"))
    assert second["output"].to_list() == whole[9:]["output"].to_list()
    assert second["logit"].to_list() == pytest.approx(whole[9:]["logit"].to_list(), abs=1e-5)


def test_answers_that_are_longer_than_it_reads_are_refused_by_row(judge, tmp_path):
    rows = answers().with_columns(
        output=pl.when(pl.int_range(pl.len()) == 4).then(pl.lit("apple " * 120)).otherwise("output")
    )
    rows.write_parquet(tmp_path / "rows.parquet")
    with pytest.raises(BadInput, match="rows 3 and 4: prompt and both answers are"):
        write(judge[0], tmp_path / "rows.parquet", (0, 2), "pairwise/x", tmp_path / "out", HERE)


def met(*logits: float) -> pl.DataFrame:
    """Three answers in all ordered meetings, row by row."""
    return pl.DataFrame(
        {
            "instruction": "x",
            "input": "",
            "index": [at for at in range(3) for _ in range(3)],
            "rival": list(range(3)) * 3,
            "logit": list(logits),
        }
    )


def test_how_a_judge_minds_the_order_is_measured_over_all_pairs():
    fair = met(0, 1, -1, -1, 0, 2, 1, -2, 0)
    assert asymmetry(fair) == {"agreement": 1.0, "position_bias": 0.0, "asymmetry": 0.0}
    first = met(0, 2, 1, 0, 0, 1, 1, -3, 0)
    found = asymmetry(first)
    # Half the sums of both orders are 1, 1 and -1; only the last pair is decided alike.
    assert found == pytest.approx({"agreement": 1 / 3, "position_bias": 1 / 3, "asymmetry": 1.0})
    assert asymmetry(fair.head(1)) == {}


def circle(generator: torch.Generator, count: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of kinds 0, 1, 2 in which each beats the next one."""
    one = torch.randint(3, (count,), generator=generator)
    other = (one + torch.randint(1, 3, (count,), generator=generator)) % 3
    return one, other, ((other - one) % 3 == 1)


def test_preferences_that_go_in_circles_are_learned_by_pairs_and_not_by_scores():
    generator = torch.Generator().manual_seed(0)
    one, other, wins = circle(generator)
    kinds = torch.eye(3)
    scores = torch.zeros(3, requires_grad=True)
    odds = torch.zeros(3, 3, requires_grad=True)
    optimiser = torch.optim.Adam([scores, odds], 0.1)
    for _ in range(200):
        better = torch.where(wins, one, other)
        worse = torch.where(wins, other, one)
        gap = kinds[better] @ scores - kinds[worse] @ scores
        loss = torch.nn.functional.softplus(-gap).mean()
        loss = loss + pairwise_loss(odds[better, worse], odds[worse, better]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    by_score = ((scores[one] > scores[other]) == wins).float().mean()
    by_pair = ((odds[one, other] > odds[other, one]) == wins).float().mean()
    assert by_pair == 1.0 and by_score < 0.75


def test_a_judge_is_an_artifact_that_compares_as_reward_models_do(store, start, judge):
    lay(store, START.policy, start)
    made = Recipe.of("laid", 1, {})
    store.write(START.preferences, Made(preferences()), made, time.time())
    candidates = Candidates(key=numbered(0xCA))
    store.write(candidates, Made(answers()), made, time.time())
    fitted = tasks.fit_pairwise(START.policy, START.preferences, QUICK)
    assert isinstance(fitted, Pairwise)
    comparisons = tasks.compare(candidates, fitted)
    assert store.read(comparisons).height == 18
    notes = store.manifest(comparisons).notes
    assert notes.keys() == {"agreement", "position_bias", "asymmetry"}
    assert store.read(tasks.rank(comparisons, Winning())).height == 2
