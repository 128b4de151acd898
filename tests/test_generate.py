"""Both engines for real on a tiny Llama: equal greedy answers, samples that stand on their own."""

from pathlib import Path

import polars as pl
import pytest
import torch

from alpacafarm_core.artifacts import Candidates, Instructions
from alpacafarm_core.decoding import TransformersSampler, choose, uniforms
from alpacafarm_core.errors import BadInput
from alpacafarm_core.generate import best_of, generate, seed_of
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.machine import Machine
from alpacafarm_core.reward import score
from alpacafarm_core.sampler import Sampler
from alpacafarm_core.settings import Sampling
from alpacafarm_core.train.models import load_policy, load_scorer, save
from alpacafarm_core.weights import BestOf, RewardModel
from tests.tiny import PROMPTS, frame, tiny_model

EXACT = Machine(device="cpu", precision="float32", engine="transformers", micro_batch=8)
EOS = 1
GREEDY, WARM = Sampling(temperature=0, max_tokens=24), Sampling(temperature=1.0, max_tokens=24)
IDS = [[0, *range(10 + n, 12 + 3 * n)] for n in range(1, 9)]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a tied head, the case in which a weight sync can go wrong unseen."""
    return tiny_model(tmp_path_factory.mktemp("policy"), tied=True)


@pytest.fixture(scope="module")
def scorer(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scorer")
    torch.manual_seed(0)
    save(load_scorer(policy, EXACT), folder)
    return folder


@pytest.fixture(scope="module")
def loop(policy: Path) -> TransformersSampler:
    return TransformersSampler(load_policy(policy, EXACT).model, EOS)


@pytest.fixture(scope="module")
def vllm(policy: Path):
    pytest.importorskip("vllm")
    from alpacafarm_core.vllm_engine import VLLMSampler

    engine = VLLMSampler(policy, 96, EOS, EXACT)
    yield engine
    engine.close()


@pytest.fixture(params=["loop", "vllm"])
def engine(request: pytest.FixtureRequest) -> Sampler:
    return request.getfixturevalue(request.param)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def instructions() -> pl.DataFrame:
    rows = [{"instruction": a, "input": b, "dataset": "world"} for a, b in PROMPTS]
    return frame(Instructions, rows)


def plainly(model, prompt: list[int], tokens: int) -> list[int]:
    """Greedy decoding as one would write it first: no cache, no batch, no padding."""
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + tokens and ids[-1] != EOS:
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_greedy_answers_are_those_of_plain_decoding(engine, loop):
    answers = engine.sample(IDS, GREEDY, [0] * len(IDS))
    assert [a.ids for a in answers] == [plainly(loop.model, prompt, 24) for prompt in IDS]


def test_a_sample_depends_on_its_seed_and_not_on_its_neighbours(engine):
    seeds = list(range(100, 100 + len(IDS)))
    together = engine.sample(IDS, WARM, seeds)
    backwards = engine.sample(IDS[::-1], WARM, seeds[::-1])
    alone = [
        engine.sample([prompt], WARM, [seed])[0] for prompt, seed in zip(IDS, seeds, strict=True)
    ]
    assert together == backwards[::-1] == alone
    assert engine.sample(IDS, WARM, [s + 1 for s in seeds]) != together


def test_equal_prompts_get_different_samples(engine):
    answers = engine.sample([IDS[0]] * 8, WARM, list(range(8)))
    assert len({tuple(a.ids) for a in answers}) == 8


def test_the_end_token_is_kept_and_ends_the_answer(engine):
    many = Sampling(temperature=2.0, max_tokens=64)
    answers = engine.sample([IDS[0]] * 64, many, list(range(64)))
    for answer in answers:
        assert (answer.finish_reason == "stop") == (answer.ids[-1] == EOS)
        assert EOS not in answer.ids[:-1] and len(answer.ids) <= 64
    assert {a.finish_reason for a in answers} == {"stop", "length"}


def test_new_weights_are_sampled_from_after_a_sync(vllm, policy):
    model = load_policy(policy, EXACT).model
    before = vllm.sample(IDS, GREEDY, [0] * len(IDS))
    rate = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(5):
        ids = torch.tensor([[0, 30, 31, 32, 33, 34]])
        model(input_ids=ids, labels=ids).loss.backward()
        rate.step()
        rate.zero_grad()
    vllm.sync(model)
    after = vllm.sample(IDS, GREEDY, [0] * len(IDS))
    assert after != before
    assert [a.ids for a in after] == [plainly(model, prompt, 24) for prompt in IDS]


def test_the_loop_samples_the_models_distribution():
    torch.manual_seed(0)
    logits = torch.randn(1, 12).expand(40_000, 12)
    chances = uniforms(torch.arange(40_000).numpy().astype("uint64"), 3)
    drawn = choose(logits, Sampling(temperature=0.7), chances).bincount(minlength=12) / 40_000
    expected = (logits[0] / 0.7).softmax(-1)
    torch.testing.assert_close(drawn, expected, atol=0.01, rtol=0)
    assert float(chances.mean()) == pytest.approx(0.5, abs=0.01)


def test_a_nucleus_keeps_the_fewest_tokens_that_hold_top_p():
    logits = torch.tensor([0.5, 0.1, 0.3, 0.1]).log().expand(1000, 4)
    chances = torch.arange(1000, dtype=torch.float64) / 1000
    kept = {p: choose(logits, Sampling(top_p=p, temperature=1), chances) for p in (0.4, 0.5, 0.7)}
    assert {p: set(tokens.tolist()) for p, tokens in kept.items()} == {
        0.4: {0}, 0.5: {0}, 0.7: {0, 2},
    }  # fmt: skip
    assert int((kept[0.7] == 0).sum()) == pytest.approx(625, abs=1)


def test_candidates_have_their_columns_and_their_own_ids(policy, ledger):
    rows = generate(policy, instructions(), WARM.replace(n=2, seed=3), ledger, EXACT)
    assert dict(rows.schema) == Candidates.columns
    assert rows["sample_index"].to_list() == [0, 1] * 4
    assert rows["seed"].unique().to_list() == [3] and rows["temperature"].unique().to_list() == [1]
    tokenizer = load_policy(policy, EXACT).tokenizer
    for ids, text in rows.select("output_ids", "output").iter_rows():
        assert (
            tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            == text
        )


def test_known_samples_are_not_drawn_again(policy, ledger, monkeypatch):
    asked: list[int] = []
    draw = TransformersSampler.sample

    def counting(self, prompts, sampling, seeds):
        asked.append(len(prompts))
        return draw(self, prompts, sampling, seeds)

    monkeypatch.setattr(TransformersSampler, "sample", counting)
    two = generate(policy, instructions(), WARM.replace(n=2), ledger, EXACT)
    again = generate(policy, instructions(), WARM.replace(n=2), ledger, EXACT)
    three = generate(policy, instructions(), WARM.replace(n=3), ledger, EXACT)
    assert asked == [8, 12] and again.equals(two)  # another n is another draw: no race for samples
    assert three.filter(pl.col("sample_index") < 2)["output"].equals(two["output"])


def test_best_of_keeps_the_answer_the_reward_model_likes_most(policy, scorer, ledger):
    decode = BestOf(n=4, reward=RewardModel(key="0" * 16))
    asked = (WARM.replace(n=2), decode)
    kept = best_of((policy, scorer), instructions(), asked, ledger, EXACT)
    drawn = generate(policy, instructions(), WARM.replace(n=8), ledger, EXACT)
    scores = score(scorer, drawn, EXACT)
    highest = [max(scores[i : i + 4]) for i in range(0, len(scores), 4)]
    assert kept.height == 8 and kept["sample_index"].to_list() == [0, 1] * 4
    assert kept["score"].to_list() == pytest.approx(highest, abs=1e-5)


def test_a_prompt_that_leaves_no_room_is_refused(policy, ledger):
    with pytest.raises(BadInput, match="row 0"):
        generate(policy, instructions(), Sampling(max_tokens=250), ledger, EXACT)


def test_seeds_are_the_same_in_every_process():
    assert seed_of(0, "a prompt", 1) == 107085982884010
