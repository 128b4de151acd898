"""The store: complete or absent, checked by digest, one maker a key."""

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest

from alpacafarm_core.artifacts import Instructions, Preferences
from alpacafarm_core.errors import BadInput, Damaged, Missing, StoreNotWritable
from alpacafarm_core.lineage import changes
from alpacafarm_core.recipe import Recipe, digest, key_of
from alpacafarm_core.settings import Sampling
from alpacafarm_core.setup import Pretrained
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


def test_rows_may_come_in_parts_and_be_read_by_column(store):
    store.write(ONE, Made(iter([ROWS, ROWS.head(0), ROWS])), RECIPE, time.time())
    assert store.read(ONE).equals(pl.concat([ROWS, ROWS]))
    assert store.scan(ONE).select("dataset").collect()["dataset"].to_list() == ["toy"] * 2
    assert store.manifest(ONE).rows == 2 and store.manifest(ONE).columns["input"] == "String"
    assert store.rows(ONE) == store.path(ONE) / "rows.parquet"
    pairs = Preferences(key="2" * 16)
    held = pl.DataFrame(
        {name: [None] for name in Preferences.columns}, schema=Preferences.columns
    ).with_columns(output_1_ids=pl.Series([[1, 2]], dtype=pl.List(pl.Int32)))
    store.write(pairs, Made(iter([held])), RECIPE, time.time())
    assert store.read(pairs).equals(held) and store.read(pairs).schema == held.schema


def test_a_wrong_column_in_a_part_leaves_nothing(store):
    with pytest.raises(BadInput, match="lack columns"):
        store.write(ONE, Made(iter([ROWS, ROWS.drop("input")])), RECIPE, time.time())
    assert not store.has(ONE)


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
    with pytest.raises(Damaged, match=r"rows.parquet is damaged"):
        store.scan(ONE)
    assert store.damage(ONE) == ["rows.parquet"]


def test_changed_weights_are_not_used(store):
    policy, folder = Policy(key="c" * 16), store.scratch()
    (folder / "model.safetensors").write_bytes(b"weights")
    store.write(policy, Made(folder), RECIPE, time.time())
    assert store.weights(policy) == store.path(policy)
    (store.path(policy) / "model.safetensors").write_bytes(b"other")
    with pytest.raises(Damaged, match=r"model.safetensors is damaged"):
        Store(store.root).weights(policy)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{}", b"["])
def test_a_manifest_that_cannot_be_read_is_damaged_and_named(store, content):
    laid(store)
    (store.path(ONE) / "manifest.json").write_bytes(content)
    assert store.all() == [] and store.damage(ONE) == ["manifest.json"]


def test_a_manifest_of_another_artifact_is_damaged(store):
    laid(store)
    file = store.path(ONE) / "manifest.json"
    file.write_text(file.read_text().replace(ONE.key, "f" * 16))
    assert store.damage(ONE) == ["manifest.json"]


def test_a_folder_that_is_none_of_the_stores_is_passed_over(store):
    laid(store)
    (store.root / "policy" / "mine").mkdir(parents=True)
    (store.root / "policy" / "mine" / "manifest.json").write_text("{}")
    assert store.receipts() == [ONE]


def test_a_line_cut_off_by_a_kill_costs_no_other(store):
    store.note({"artifact": "a"})
    with (store.root / "journal.jsonl").open("a") as journal:
        journal.write('{"artifact": "b')
    store.note({"artifact": "c"})
    with (store.root / "journal.jsonl").open("ab") as journal:
        journal.write(b"123\n\xff\n")
    assert [event["artifact"] for event in store.journal()] == ["a", "c"]


def test_threads_open_a_new_store_at_the_same_time(tmp_path):
    barrier = threading.Barrier(8)

    def opened(number: int) -> Store:
        barrier.wait()
        return Store(tmp_path / str(number // 8))

    with ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(opened, range(80)))) == 80


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
    recipe = Recipe.of("generate", 1, {"policy": four})
    assert recipe.settings["policy"]["decode"]["n"] == 4
    sixteen = policy.replace(decode=BestOf(n=16, reward=reward))
    differs = changes(recipe, Recipe.of("generate", 1, {"policy": sixteen}))
    assert differs == ["settings.policy.decode.n: 4 -> 16"]


def test_where_a_model_lies_is_no_part_of_a_key_and_what_it_is_is():
    def key(name: str, digest: str) -> str:
        return key_of("base", 1, {"model": Pretrained(name=name, digest=digest)})

    assert key("./model", "d") == key("/elsewhere/model/", "d") != key("./model", "e")


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
