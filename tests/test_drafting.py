"""Instructions drawn from the text before a user's turn: what a policy learned of them, and which
draws are kept when more are wanted.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl
import pytest
import torch

from alpacafarm_core import drafting
from alpacafarm_core.drafting import drafts, followed
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.machine import Machine
from alpacafarm_core.prompts import alpaca
from alpacafarm_core.sampler import Batch, Sample
from alpacafarm_core.settings import Sampling
from alpacafarm_core.synthesis import Drafts, Following, Inventing, Shard, Synthetic
from alpacafarm_core.train.models import Loaded, load_policy, load_tokenizer, save
from tests.tiny import frame, tiny_model

EXACT = Machine(device="cpu", precision="float32", engine="transformers")
BEFORE = alpaca()["prompt_noinputs"].partition("{instruction}")[0]
EIGHT = ["The sky", "A red fruit", "Plums", "Bananas", "Cherries", "An apple", "Tomatoes", "Blue"]
SHORT = Inventing(max_tokens=8, words=())


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


class Uniform:
    """An engine that writes one of the eight instructions, by its seed; counts what it draws."""

    def __init__(self, tokenizer) -> None:
        self.texts = [tokenizer(text).input_ids for text in EIGHT]
        self.ends, self.never, self.drawn, self.calls = {1}, [], 0, []

    def stream(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[list[Sample]]:
        for prompts, seeds in batches:
            yield self.sample(prompts, sampling, seeds)

    def sample(self, prompts, sampling: Sampling, seeds: Sequence[int]) -> list[Sample]:
        self.drawn += len(seeds)
        self.calls.append((sampling.temperature, sampling.max_tokens, list(self.never)))
        found = [(*self.texts[seed % 8], 1)[: sampling.max_tokens] for seed in seeds]
        return [Sample(list(ids), "stop" if ids[-1] == 1 else "length") for ids in found]

    def close(self) -> None:
        pass


@pytest.fixture
def engine(policy, monkeypatch) -> Uniform:
    opened = Uniform(load_tokenizer(policy))
    monkeypatch.setattr(drafting, "open_sampler", lambda *_: opened)
    return opened


def drawn(policy: Path, inventing: Inventing, ledger: Ledger) -> pl.DataFrame:
    return pl.concat(drafts(policy, inventing, ledger, EXACT))


def distance(rows: pl.DataFrame, shares: dict[str, float]) -> float:
    """Total variation between what was drawn and a distribution."""
    found, names = Counter(rows["asked"]), {*rows["asked"], *shares}
    return sum(abs(found[n] / rows.height - shares.get(n, 0.0)) for n in names) / 2


def test_what_a_policy_would_ask_is_recovered_from_its_draws(policy, ledger, engine):
    rows = drawn(policy, SHORT.replace(shards=(Shard(count=2000),)), ledger)
    assert rows["status"].unique().to_list() == ["ok"]
    assert distance(rows, dict.fromkeys(EIGHT, 1 / 8)) < 0.05  # 0.024 is to be expected


def test_one_more_wanted_is_one_more_drawn(policy, ledger, engine):
    before = drawn(policy, SHORT.replace(shards=(Shard(count=20),)), ledger)
    after = drawn(policy, SHORT.replace(shards=(Shard(count=21),)), ledger)
    assert after[:20].equals(before) and engine.drawn == 21


def test_a_further_shard_leaves_the_others_and_is_no_echo_of_them(policy, ledger, engine):
    one, warm = Shard(count=40), Shard(count=40, temperature=1.2)
    before = drawn(policy, SHORT.replace(shards=(one,)), ledger)
    after = drawn(policy, SHORT.replace(shards=(one, warm)), ledger)
    assert after[:40].equals(before) and engine.drawn == 80
    assert after["shard"].to_list() == [0] * 40 + [1] * 40
    assert after["temperature"].unique().to_list() == [1.0, 1.2]
    assert after[40:]["seed"].is_in(before["seed"].implode()).sum() == 0


def test_no_engine_is_opened_for_draws_that_are_known(policy, ledger, engine, monkeypatch):
    asked = SHORT.replace(shards=(Shard(count=5),))
    before = drawn(policy, asked, ledger)
    monkeypatch.setattr(drafting, "open_sampler", None)
    assert drawn(policy, asked, ledger).equals(before)


def test_drafts_have_their_columns_and_say_how_they_were_drawn(policy, ledger, engine):
    rows = drawn(policy, SHORT.replace(shards=(Shard(count=3),), seed=7), ledger)
    assert set(rows.columns) == set(Drafts.columns)
    assert rows["prompt"][0] == BEFORE + rows["asked"][0] + "\n\n### Response:"
    assert rows["number"].to_list() == [0, 1, 2] and rows["history"].unique().to_list() == ["[]"]


def test_the_first_token_may_be_warmer_and_some_never_drawn_first(policy, ledger, engine):
    asked = SHORT.replace(
        shards=(Shard(count=4),), first_temperature=1.2, never_first=("#",), max_tokens=6
    )
    rows = drawn(policy, asked, ledger)
    hash_sign = load_tokenizer(policy).get_vocab()["#"]
    assert engine.calls == [(1.2, 1, [hash_sign]), (1.0, 5, [])]
    assert rows.height == 4


def test_a_next_question_is_drawn_after_all_that_was_said(policy, ledger, engine):
    said = {"instruction": "Name a fruit.", "asked": "Name a fruit.", "input": "red or blue",
            "output": "A plum.", "history": "[]"}  # fmt: skip
    following = Following(system="The user asks on.\n\n")
    rows = pl.concat(followed(policy, frame(Synthetic, [said]), (SHORT, following), ledger, EXACT))
    told = "Name a fruit.\n\nred or blue\n\n### Response:A plum.\n\n### Instruction:\n"
    asked = rows["asked"][0]
    assert asked in EIGHT and rows["instruction"][0] == told + asked
    assert rows["prompt"][0] == f"{BEFORE}{told}{asked}\n\n### Response:"
    assert [each["role"] for each in json.loads(rows["history"][0])] == ["user", "assistant"]
    for column in ("instruction", "prompt", "history", "raw"):
        assert following.system.strip() not in rows[column][0]


def test_nothing_said_asks_nothing_on(policy, ledger, engine):
    assert not list(followed(policy, frame(Synthetic, []), (SHORT, Following()), ledger, EXACT))


def taught(folder: Path, texts: Sequence[str], out: Path, asks: bool, steps: int = 40) -> Path:
    """The model trained on prompts with answers: on all of it, or on answers alone."""
    model, tokenizer = load_policy(folder, EXACT)
    before, answer = tokenizer(BEFORE).input_ids, [*tokenizer("### Response:Blue.").input_ids, 1]
    asked = [tokenizer(f"{text}\n").input_ids for text in texts]
    rows = [[*before, *each, *answer] for each in asked]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [2] * (longest - len(row)) for row in rows])
    labels = torch.where(ids == 2, -100, ids)
    for row, each in enumerate(asked):
        labels[row, : len(before) + (0 if asks else len(each))] = -100
    model.train()
    learner = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(steps):
        learner.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        model(input_ids=ids, labels=labels).loss.backward()
        learner.step()
        learner.zero_grad()
    save(Loaded(model, tokenizer), out)
    return out


def test_who_learns_answers_alone_asks_as_before(policy, tmp_path):
    """The mechanism: a base that read questions asks them; training on answers leaves that."""
    asked = SHORT.replace(shards=(Shard(count=400),))
    skewed = [EIGHT[0]] * 8
    with torch.random.fork_rng():
        base = taught(policy, EIGHT, tmp_path / "base", asks=True, steps=100)
        masked = taught(base, skewed, tmp_path / "masked", asks=False)
        whole = taught(base, skewed, tmp_path / "whole", asks=True)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    found = {each: drawn(each, asked, ledger) for each in (base, masked, whole)}
    one = {EIGHT[0]: 1.0}
    assert distance(found[base], dict.fromkeys(EIGHT, 1 / 8)) < 0.25
    assert distance(found[whole], one) < 0.1
    assert distance(found[masked], one) > 0.6  # the base's is 0.875
