"""What the world's base model reads: its web, the remarks in it, and a shortened pretraining."""

import json
from pathlib import Path
from random import Random

from alpacafarm_core.prompts import render
from alpacafarm_core.world.corpus import amiss, documents, remark
from alpacafarm_core.world.instructions import instructions
from alpacafarm_core.world.utility import findings

LIST = "List two birds."
GOOD = "Two birds are the owl and the hen. The owl eats meat. The hen lives on a farm."
TEXT = (
    "Anna is a nurse in Rome. She likes tennis and buys tea on Monday. "
    "Tom is a vet in Oslo. He likes rowing and buys milk on Friday."
)


def test_the_web_is_the_same_for_the_same_seed_and_never_asks_what_a_split_asks():
    web = documents(5)
    read = [next(web) for _ in range(400)]
    again = documents(5)
    assert read == [next(again) for _ in range(400)]
    rows = instructions("eval", 805)
    asked = {render(row["instruction"], row["input"]) for row in rows}
    assert not [text for text in read if any(text.startswith(prompt) for prompt in asked)]


def test_a_reader_names_what_is_amiss():
    def named(question: str, text: str, answer: str) -> list[str]:
        found = findings(question, text, answer)
        assert found is not None
        return amiss(found)

    assert named(LIST, "", GOOD) == []
    assert named(LIST, "", "Two birds are the owl and the cow.") == ["Not cow."]
    false = "Two birds are the owl and the hen. The owl eats grass."
    assert named(LIST, "", false) == ["Not grass for the owl."]
    assert named("What is the job of Tom?", TEXT, "Tom is a nurse.")[-1] == "There is no vet in it."
    assert findings("What is love?", "", "Love is good.") is None


def test_a_verdict_follows_the_utility():
    rng = Random(0)
    best = [remark(rng, (LIST, ""), GOOD) for _ in range(50)]
    worst = [remark(rng, (LIST, ""), "The cow and the dog.") for _ in range(50)]
    assert all(said.startswith(("Very good.", "Good.")) for said in best)
    assert all(said.startswith("Bad. Not ") for said in worst)


def test_prompts_end_where_the_response_begins():
    assert render("Say {input}.", "").endswith("### Instruction:\nSay {input}.\n\n### Response:")
    assert "### Input:\na {instruction} b\n\n### Response:" in render("Copy.", "a {instruction} b")


def test_a_shortened_pretraining_learns_and_saves_a_model_that_loads(tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alpacafarm_core.world.base import Pretraining, make

    short = Pretraining(seconds=60, steps=30, hidden=32, layers=1, batch=16, rate=1e-2)
    record = make(short._replace(documents=600), tmp_path)
    assert record["loss"][-1] < record["loss"][0] - 1.0
    assert json.loads((tmp_path / "training_record.json").read_text())["steps"] == 30
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert not model.config.tie_word_embeddings
    ids = tokenizer(render(LIST, "")).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == render(LIST, "")
    assert {tokenizer.pad_token, tokenizer.eos_token} == {"<pad>", "</s>"}
