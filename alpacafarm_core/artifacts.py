"""Artifacts: typed receipts for finished folders in the store, and the columns of the tables.

An artifact is a kind (its class) and a key (a hash of the recipe that made it), about 60 bytes. It
is what travels between stages; the data stays in the store. `None` never stands for an empty text:
an instruction without an input has `input == ""`.
"""

from typing import ClassVar

import polars as pl
from pydantic import Field

from alpacafarm_core.values import Value

Columns = dict[str, pl.DataType]

TEXT, REAL, WHOLE, FLAG = pl.String(), pl.Float64(), pl.Int64(), pl.Boolean()
IDS = pl.List(pl.Int32())


class Artifact(Value):
    """A receipt for one finished folder `<kind>/<key>/` in the store."""

    kind: ClassVar[str]

    key: str = Field(pattern=r"^[0-9a-f]{16}$", description="Hash of the recipe")

    @property
    def folder(self) -> str:
        """Where it lies, relative to the store's root."""
        return f"{self.kind}/{self.key}"


class Table(Artifact):
    """An artifact whose content is `rows.parquet` with exactly these columns, in this order."""

    columns: ClassVar[Columns]


_PROMPT: Columns = {"instruction": TEXT, "input": TEXT, "dataset": TEXT}
_SAMPLE: Columns = {
    **_PROMPT,
    "output": TEXT,
    "output_ids": IDS,
    "tokenizer": TEXT,
    "finish_reason": TEXT,
    "generator": TEXT,
    "sample_index": WHOLE,
    "temperature": REAL,
    "top_p": REAL,
    "max_tokens": WHOLE,
    "seed": WHOLE,
}


class Instructions(Table):
    """Prompts: `instruction`, `input` ("" when none) and the `dataset` they come from."""

    kind = "instructions"
    columns: ClassVar[Columns] = _PROMPT


class Guided(Instructions):
    """Prompts with another text to sample from: `prompt`, which shows what is not trained on."""

    kind = "guided"
    columns: ClassVar[Columns] = {**_PROMPT, "prompt": TEXT}


class Interactions(Table):
    """Answers and what their users made of them, one row an answer.

    `history` is JSON of the messages before the prompt, each with role and content. `label` is SAT,
    DSAT or none, `feedback` what the user said, and `next_response` the later answer of the same
    conversation that the user accepted; texts are "" where there are none.
    """

    kind = "interactions"
    columns: ClassVar[Columns] = {
        **_PROMPT,
        "history": TEXT,
        "response": TEXT,
        "feedback": TEXT,
        "label": TEXT,
        "next_response": TEXT,
    }


class Demonstrations(Table):
    """Prompts with one answer each; `output_ids` is empty unless a policy wrote the answer."""

    kind = "demonstrations"
    columns: ClassVar[Columns] = {**_PROMPT, "output": TEXT, "output_ids": IDS, "tokenizer": TEXT}


class Graded(Demonstrations):
    """Answers to learn behind a reward token: `tag` is its number, 0 being the best."""

    kind = "graded"
    columns: ClassVar[Columns] = {**Demonstrations.columns, "tag": WHOLE}


class Candidates(Table):
    """Answers of one policy or published model, `sample_index` counting from 0 within a prompt.

    `output_ids` are the sampled tokens (the end token included when it was sampled) under the
    tokenizer whose digest is `tokenizer`; both are empty for published text.
    """

    kind = "candidates"
    columns: ClassVar[Columns] = _SAMPLE


class Pooled(Candidates):
    """Answers of several responders, `sample_index` counting those to one prompt from 0.

    `responder` is the name of who answered, `principle` what it was told to care for, and
    `principle_kind` which of the kinds that is; "" where it was told nothing.
    """

    kind = "pooled"
    columns: ClassVar[Columns] = {
        **Candidates.columns,
        "responder": TEXT,
        "principle": TEXT,
        "principle_kind": TEXT,
    }


class Scores(Table):
    """Candidates with a judge's number each."""

    kind = "scores"
    columns: ClassVar[Columns] = {**_SAMPLE, "score": REAL, "judge": TEXT}


class Clusters(Scores):
    """Scores with the `cluster` of each answer, numbered from 0 within its prompt.

    Answers of a cluster say the same; `confidence` is the share of a prompt's answers that its
    largest cluster holds.
    """

    kind = "clusters"
    columns: ClassVar[Columns] = {**Scores.columns, "cluster": WHOLE, "confidence": REAL}


class Branches(Table):
    """One layer of the search trees of every prompt: answers as far as they have grown.

    `row` is the prompt's number in its table, `root` the number of its first ancestor, `layer`
    counts from 1, `parent` is the branch's `sample_index` in the layer before (null: a root).
    `own_seed` drew the last `sampled` tokens, 0 of them where a finished branch was carried on.
    `score` is the number that `judge` gave it, `survives` and `children` say what became of it; all
    are null until known, but a branch that was carried on keeps its score.
    """

    kind = "branches"
    columns: ClassVar[Columns] = {
        **_SAMPLE,
        "row": WHOLE,
        "root": WHOLE,
        "layer": WHOLE,
        "parent": WHOLE,
        "own_seed": WHOLE,
        "sampled": WHOLE,
        "score": REAL,
        "judge": TEXT,
        "survives": FLAG,
        "children": WHOLE,
    }


class Uncertain(Scores):
    """Scores of a committee with the `spread` of its members', their sample standard deviation."""

    kind = "uncertain"
    columns: ClassVar[Columns] = {**Scores.columns, "spread": REAL}


class Comparisons(Table):
    """Every answer to a prompt against every answer to it, itself included.

    `index` is the answer's number among those to its prompt, `rival` that of the other, and `logit`
    the judge's log-odds that the answer beats the other when it is shown first.
    """

    kind = "comparisons"
    columns: ClassVar[Columns] = {
        **_SAMPLE,
        "index": WHOLE,
        "rival": WHOLE,
        "logit": REAL,
        "judge": TEXT,
    }


class Preferences(Table):
    """Pairs with a label: `preference` 1 (output_1 better), 2, between for graded, null for none.

    `status` is ok, tie, refused, unparsable or failed; only ok and tie carry a preference.
    `is_switched` says the judge saw output_2 first; `is_noisy` that the label is a coin flip and no
    judge was asked; `raw_completion` is the judge's own text in prompt order.
    """

    kind = "preferences"
    columns: ClassVar[Columns] = {
        **_PROMPT,
        "output_1": TEXT,
        "output_2": TEXT,
        "output_1_ids": IDS,
        "output_2_ids": IDS,
        "tokenizer": TEXT,
        "generator_1": TEXT,
        "generator_2": TEXT,
        "annotator": TEXT,
        "preference": REAL,
        "status": TEXT,
        "is_switched": FLAG,
        "is_noisy": FLAG,
        "raw_completion": TEXT,
        "prompt_digest": TEXT,
        "tokens": WHOLE,
        "price": REAL,
        "seconds": REAL,
    }


class Ranked(Preferences):
    """Pairs made from answers with a number each; `output_1` is always the preferred one.

    `gold` is a third answer to be imitated ("" where there is none), `gap` the difference of the
    pair's numbers (of pairs by agreement the share of answers that agree), `win_1` and `win_2` how
    probably each output wins against all samples of its prompt, itself included, null where none
    were compared.
    """

    kind = "ranked"
    columns: ClassVar[Columns] = {
        **Preferences.columns,
        "gold": TEXT,
        "gold_ids": IDS,
        "gap": REAL,
        "win_1": REAL,
        "win_2": REAL,
    }


class Logps(Table):
    """A policy's log-probability, in nats, of every token of every response of a table.

    `row` is the number of the response's row there and `side` 0 for the chosen or only response, 1
    for the rejected one; rows too long to be learned from are left out.
    """

    kind = "logps"
    columns: ClassVar[Columns] = {
        "row": WHOLE,
        "side": WHOLE,
        "logprobs": pl.List(pl.Float32()),
    }


class Leaderboard(Table):
    """One row a model; win rates, errors and coverage in percent, prices in US dollars."""

    kind = "leaderboard"
    columns: ClassVar[Columns] = {
        "model": TEXT,
        "win_rate": REAL,
        "standard_error": REAL,
        "n_wins": WHOLE,
        "n_wins_base": WHOLE,
        "n_draws": WHOLE,
        "n_total": WHOLE,
        "avg_length": WHOLE,
        "discrete_win_rate": REAL,
        "coverage": REAL,
        "win_rate_minus_sft": REAL,
        "paired_error": REAL,
        "utility": REAL,
        "utility_minus_sft": REAL,
        "utility_paired_error": REAL,
        "price": REAL,
    }


class Curves(Table):
    """A study of over-optimisation, one row a point: what was optimised, and what came of it.

    `x` is n, steps or beta; `kl` in nats a response; `proxy` is the reward model's mean, win rates
    are percent by the judges and by people, `utility` the known truth; errors are standard errors.
    """

    kind = "curves"
    columns: ClassVar[Columns] = {
        "series": TEXT,
        "x": REAL,
        "kl": REAL,
        "proxy": REAL,
        "proxy_error": REAL,
        "win_rate": REAL,
        "win_error": REAL,
        "human": REAL,
        "human_error": REAL,
        "utility": REAL,
        "utility_error": REAL,
    }


class Ranks(Table):
    """Win rates of methods in simulation and among people, in percent, with standard errors."""

    kind = "ranks"
    columns: ClassVar[Columns] = {
        "model": TEXT,
        "simulated": REAL,
        "simulated_error": REAL,
        "human": REAL,
        "human_error": REAL,
    }


class Changes(Table):
    """What landed in a dataset, one row a file, and what a refresh made of it.

    `landed` is when, UTC; `is_recent` says since the refresh before. Of its `rows` some are `new`,
    `known` before (`relabelled` of them with another label), `evaluated` or `alike` and so left
    out. `bought` and `from_ledger` count judged rows, `usd` is what labels were bought for. `why` a
    file was refused is "" where it was not.
    """

    kind = "changes"
    columns: ClassVar[Columns] = {
        "file": TEXT,
        "digest": TEXT,
        "landed": TEXT,
        "is_recent": FLAG,
        "rows": WHOLE,
        "new": WHOLE,
        "known": WHOLE,
        "relabelled": WHOLE,
        "evaluated": WHOLE,
        "alike": WHOLE,
        "bought": WHOLE,
        "from_ledger": WHOLE,
        "usd": REAL,
        "why": TEXT,
    }
