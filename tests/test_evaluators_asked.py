"""Evaluators of alpaca_eval's format asked over HTTP: each parser's labels, whatever the order."""

import json
import math
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from alpacafarm_core.annotate import annotate, pair
from alpacafarm_core.artifacts import Candidates
from alpacafarm_core.client import openai_ask
from alpacafarm_core.ledger import Ledger
from alpacafarm_core.panel import Panel, load

PROMPT = """<|im_start|>user
# {instruction}
<first>{output_1}</first>
<second>{output_2}</second>
<|im_end|>"""
BARE = {"outputs_to_match": {1: r"(?:^|\n)\(a\)", 2: r"(?:^|\n)\(b\)"}}


class Server(ThreadingHTTPServer):
    """A judge that prefers the output with "good" in it and says so as `replies` has it."""

    def __init__(self, replies: dict[str, dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = replies
        self.seen: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    """Looks at the one example shown, and answers with one choice."""

    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(body)
        shown = body["messages"][-1]["content"].split("</first>")
        better = "neither" if "same" in shown[0] else "first" if "good" in shown[0] else "second"
        choice = {"index": 0, "finish_reason": "stop"} | self.server.replies[better]
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        text = json.dumps({"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield served
        served.shutdown()


def text(said: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": said}}


def tool(arguments: object) -> dict[str, Any]:
    function = {"name": "rank", "arguments": json.dumps(arguments)}
    call = {"id": "1", "type": "function", "function": function}
    return {"message": {"role": "assistant", "content": None, "tool_calls": [call]}}


def tokens(**probabilities: float) -> dict[str, Any]:
    top = [{"token": t, "logprob": math.log(p), "bytes": []} for t, p in probabilities.items()]
    return text(top[0]["token"]) | {"logprobs": {"content": [{**top[0], "top_logprobs": top}]}}


def ranked(first: str, second: str) -> list[dict[str, object]]:
    return [{"model": first, "rank": 1}, {"model": second, "rank": 2}]


REGEX = {"first": text("(a)"), "second": text("So:\n(b)"), "neither": text("Hm.")}
RANKING = {
    "first": text(repr(ranked("model_1", "model_2"))),
    "second": text(repr(ranked("model_2", "model_1"))),
    "neither": text("[{'model': 'model_1', 'rank': 1.5}]"),
}
JSON = {
    "first": text('{"why": "so", "best": 1}'),
    "second": text('Well.\n```json\n{"best": 2}\n```'),
    "neither": text('{"best": "none"}'),
}
SCORES = {"first": text("8 3\nso"), "second": text("3,8"), "neither": text("5 5")}
WEIGHTED = {
    "first": tokens(m=0.6, M=0.2),
    "second": tokens(M=0.6, m=0.2),
    "neither": tokens(other=0.9),
}
PIPELINE = {
    "first": tool({"ordered_models": ranked("m", "M")}),
    "second": tool({"ordered_models": ranked("M", "m")}),
    "neither": tool({"models": []}),
}
LITERAL = {"first": text("[1]"), "second": text("2"), "neither": text("1.5")}
ORDERED = {
    "json_parser": {"annotation_key": "ordered_models"},
    "ranking_parser": {"model_1_name": "m"},
}
TOP = {"logprobs": True, "top_logprobs": 5}
TOKENS = {"numerator_token": "m", "denominator_tokens": ["m", "M"]}


@pytest.mark.parametrize(
    ("server", "parser", "arguments", "labels"),
    [
        # The labels where output_1 is good, where output_2 is, and where neither is.
        (REGEX, "regex_parser", BARE, [1, 2, None]),
        (RANKING, "ranking_parser", {}, [1, 2, None]),
        (JSON, "json_parser", {"annotation_key": "best"}, [1, 2, None]),
        (SCORES, "lmsys_parser", {}, [1, 2, 1.5]),
        (WEIGHTED, "logprob_parser", TOKENS, [1, 2, None]),
        (WEIGHTED, "logprob_parser", TOKENS | {"is_binarize": False}, [1.25, 1.75, None]),
        (PIPELINE, "pipeline_meta_parser", {"parsers_to_kwargs": ORDERED}, [1, 2, None]),
        (LITERAL, "eval_parser", {}, [1, 2, 1.5]),
    ],
    indirect=["server"],
)
def test_a_parser_labels_by_its_rules(
    tmp_path: Path,
    server: Server,
    parser: str,
    arguments: dict[str, Any],
    labels: list[float | None],
) -> None:
    is_weighted = parser == "logprob_parser"
    asked: dict[str, Any] = {
        "model_name": "gpt-4",
        "client_kwargs": {"base_url": f"http://127.0.0.1:{server.server_port}/v1"},
    }
    judge = {
        "prompt_template": PROMPT,
        "fn_completion_parser": parser,
        "completion_parser_kwargs": arguments,
        "completion_key": "completions_all" if is_weighted else "completions",
        "completions_kwargs": asked
        | ({"logprobs": True, "top_logprobs": 5} if is_weighted else {}),
    }
    (tmp_path / "configs.yaml").write_text(yaml.safe_dump({"mine": judge}, sort_keys=False))
    panel = load(tmp_path)
    labelled = judged(panel, tmp_path)
    for name, label in zip(("first", "second", "same"), labels, strict=True):
        found = labelled.filter(pl.col("instruction").str.starts_with(name))["preference"]
        assert found.to_list() == [label and pytest.approx(label)] * 12
    assert labelled["is_switched"].n_unique() == 2
    assert {body.get("top_logprobs") for body in server.seen} == {5 if is_weighted else None}


OUTPUTS = {"first": ("good", "bad"), "second": ("bad", "good"), "same": ("same 1", "same 2")}


def judged(panel: Panel, folder: Path) -> pl.DataFrame:
    """Labels of 36 pairs: a third where output_1 is good, output_2 is, and neither is."""
    sides = [
        [
            (f"{name} {n}", "", "d", outputs[side], [], "", "stop", "g", 0, 1.0, 1.0, 300, 0)
            for name, outputs in OUTPUTS.items()
            for n in range(12)
        ]
        for side in (0, 1)
    ]
    schema = pl.Schema(Candidates.columns)
    rivals, candidates = (pl.DataFrame(side, schema=schema, orient="row") for side in sides)
    with closing(openai_ask(panel.endpoint)) as ask:
        return annotate(pair(candidates, rivals), panel, ask, Ledger(folder / "ledger.sqlite"))
