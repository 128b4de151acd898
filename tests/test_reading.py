"""What is learned from, read in parts: the same rows, the same sides of the split."""

import random
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from alpacafarm_core.train.reading import Instructions, Reader, held_out, in_parts
from tests.tiny import demonstrations, preferences


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alpacafarm_core.train.reading.PART", 3)


@pytest.fixture
def on_disk(tmp_path: Path):
    """Lays rows into a file."""

    def lay(rows: pl.DataFrame) -> Path:
        rows.write_parquet(tmp_path / "rows.parquet")
        return tmp_path / "rows.parquet"

    return lay


def test_rows_come_in_parts_from_a_frame_or_a_file(on_disk):
    rows = preferences(2)
    for source in (rows, on_disk(rows)):
        parts = list(in_parts(source, ["output_1", "output_1_ids", "preference"]))
        assert [part.height for part in parts] == [3, 3, 2]
        assert pl.concat(parts).equals(rows.select("output_1", "output_1_ids", "preference"))


def test_a_reader_leaves_undecided_pairs_out_and_knows_the_numbers_of_the_others(on_disk):
    rows = preferences(2).with_columns(preference=pl.Series([1.0, None, 2, 1.5, 1, 1, 2, 0]))
    for source in (rows, on_disk(rows)):
        reader = Reader(source, of_pairs=True)
        read = pl.concat(reader)
        assert list(reader.numbers) == read["row"].to_list() == [0, 2, 4, 5, 6]
        assert (reader.undecided, reader.height) == (3, 8)
        assert read["output_2"].to_list() == rows["output_2"].gather([0, 2, 4, 5, 6]).to_list()
        told = Instructions(source, [6, 0])
        assert [*told, *told[1:]] == [rows["instruction"][at] for at in (6, 0, 0)]


def test_demonstrations_are_all_read():
    reader = Reader(demonstrations(2), of_pairs=False)
    assert pl.concat(reader).height == reader.height == 8 and not reader.undecided


def test_pairs_to_test_on_are_whole_prompts_drawn_by_the_seed(on_disk):
    draw = random.Random(1)
    rows = pl.concat([preferences(8)] * 3).with_columns(
        instruction=pl.Series([f"{draw.choice('aäbß€😀')}{draw.randrange(9)}" for _ in range(96)]),
        preference=pl.Series([draw.choice([1.0, 2.0, 1.5, None]) for _ in range(96)]),
    )
    decided = rows.filter(pl.col("preference").is_in([1.0, 2.0]))
    prompts = decided.select("instruction", "input").rows()
    sizes = Counter(prompts)
    order = sorted(sizes)
    random.Random(7).shuffle(order)
    room, tested = len(prompts) // 10, set()
    for prompt in order:
        if sizes[prompt] <= room:
            tested.add(prompt)
            room -= sizes[prompt]
    expected = [at for at, prompt in enumerate(prompts) if prompt in tested]
    assert expected and held_out(rows, 500, 7) == held_out(on_disk(rows), 500, 7) == expected
    assert len(held_out(rows, 2, 7)) <= 2 and held_out(rows, 0, 7) == []
