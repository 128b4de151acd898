"""The store: complete or absent, checked by digest, one maker a key."""

import multiprocessing
import time

import polars as pl
import pytest

from alpacafarm_core.artifacts import Instructions, Preferences
from alpacafarm_core.errors import BadInput, Damaged, Missing, StoreNotWritable
from alpacafarm_core.recipe import Recipe, digest, key_of
from alpacafarm_core.settings import Sampling
from alpacafarm_core.store import Made, Store
from alpacafarm_core.weights import BestOf, Policy, RewardModel

ROWS = pl.DataFrame({"instruction": ["Sort 3 1 2"], "input": [""], "dataset": ["toy"]})
ONE = Instructions(key="0" * 15 + "1")
RECIPE = Recipe.of("instructions", 1, {"size": 1})


def laid(store, artifact=ONE, rows=ROWS):
    return store.write(artifact, Made(rows), RECIPE, time.time())


def test_what_is_written_is_read(store):
    laid(store)
    assert store.read(ONE).equals(ROWS)
    assert store.manifest(ONE).rows == 1
    assert store.all() == [store.manifest(ONE)]


def test_an_artifact_without_a_manifest_does_not_exist(store):
    laid(store)
    (store.path(ONE) / "manifest.json").unlink()
    assert not store.has(ONE)
    with pytest.raises(Missing):
        store.read(ONE)


def test_a_changed_byte_is_noticed_and_named(store):
    laid(store)
    file = store.path(ONE) / "rows.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(Damaged, match=r"rows.parquet is damaged.*forget 0{15}1"):
        store.read(ONE)
    assert store.damage(ONE) == ["rows.parquet"]


def test_prefects_record_is_no_part_of_an_artifact(store):
    laid(store)
    (store.path(ONE) / "prefect.json").write_text("{}")
    assert store.damage(ONE) == []


def test_a_wrong_column_fails_where_it_is_written_and_leaves_nothing(store):
    with pytest.raises(BadInput, match=r"lack columns .'dataset'."):
        laid(store, rows=ROWS.drop("dataset"))
    assert not store.has(ONE) and store.receipts() == []


def test_forgetting_removes_just_that_one(store):
    laid(store)
    other = Instructions(key="f" * 16)
    laid(store, other)
    store.forget(ONE)
    assert store.receipts() == [other]
    with pytest.raises(Missing):
        store.forget(ONE)


def test_a_key_may_be_shortened_while_it_is_unique(store):
    laid(store)
    laid(store, Preferences(key="0" * 15 + "2"), pl.DataFrame(schema=Preferences.columns))
    assert store.find("instructions/0") == ONE
    assert store.find("0" * 15 + "1") == ONE
    with pytest.raises(BadInput, match="not unique"):
        store.find("0")
    with pytest.raises(Missing):
        store.find("abc")


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreNotWritable, match="--store"):
        Store(tmp_path / "file" / "store")


def test_a_key_is_the_recipe_not_the_bytes():
    one = key_of("generate", 1, {"sampling": Sampling(seed=0)})
    assert one == key_of("generate", 1, {"sampling": Sampling()})
    assert one != key_of("generate", 1, {"sampling": Sampling(seed=1)})
    assert one != key_of("generate", 2, {"sampling": Sampling()})
    assert one != key_of("annotate", 1, {"sampling": Sampling()})


def test_how_a_policy_decodes_is_part_of_what_is_made_from_it():
    policy, reward = Policy(key="a" * 16), RewardModel(key="b" * 16)
    four = policy.replace(decode=BestOf(n=4, reward=reward))
    assert key_of("generate", 1, {"policy": policy}) != key_of("generate", 1, {"policy": four})
    assert Recipe.of("generate", 1, {"policy": four}).inputs == {
        "policy": ["policy/" + "a" * 16, "reward_model/" + "b" * 16]
    }


def test_nan_has_no_key():
    with pytest.raises(ValueError, match="Out of range"):
        digest({"x": float("nan")})


def _make(root, order):
    store = Store(root)
    with store.lock(ONE):
        if not store.has(ONE):
            time.sleep(0.2)
            laid(store)
            order.put("made")


def test_two_processes_that_want_one_key_do_the_work_once(tmp_path):
    order = multiprocessing.get_context("spawn").Queue()
    both = [
        multiprocessing.get_context("spawn").Process(target=_make, args=(tmp_path, order))
        for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert order.get(timeout=5) == "made" and order.empty()
