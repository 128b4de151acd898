"""The leaderboard, and the tables and plot of it on the run's page."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from alpacafarm_core import exhibits, findings, plots
from alpacafarm_core import tally as core
from alpacafarm_core.artifacts import Leaderboard
from alpacafarm_core.evidence import Evidence, gather
from alpacafarm_core.farm import Evaluation
from alpacafarm_core.store import Made
from tasks.previews import Post, post
from tasks.stage import in_flow_run, stage, store

SAMPLES = 12
PLOT, CSV = "leaderboard.png", "leaderboard.csv"


@stage(Leaderboard, version=1)
def tally(evaluations: Mapping[str, Evaluation]) -> Made:
    """Count wins against the reference, one row a model; a plot and a CSV beside the rows."""
    board = core.board(
        {
            model: (
                store().scan(judged.preferences),
                None if judged.truth is None else store().scan(judged.truth),
            )
            for model, judged in evaluations.items()
        }
    )
    return Made(board, files={PLOT: plots.leaderboard(board), CSV: board.write_csv().encode()})


def publish(board: Leaderboard, evaluations: Mapping[str, Evaluation]) -> None:
    """Show a board, its plot and answers side by side on the page of a flow run."""
    if not in_flow_run():
        return
    rows = store().read(board).to_dicts()
    plot = base64.b64encode(plots.small((store().path(board) / PLOT).read_bytes())).decode()
    picture = f"{charted(rows)}\n\n![win rates](data:image/png;base64,{plot})"
    posts = [
        Post("leaderboard", rows, "Against the reference"),
        Post("leaderboard-plot", picture, "Win rates with standard errors"),
        *(Post(key, table, told) for key, (told, table) in tables(gather(store(), board)).items()),
        Post("samples", samples(evaluations), "Answers side by side"),
    ]
    post(posts)


def tables(evidence: Evidence) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """The report's tables beside the board, each with what it is."""
    judged = evidence.judged()
    rewards: list[dict[str, Any]] = [
        {"model": row["model"], "win_rate": row["win_rate"], "utility": row["utility"]}
        | {
            judge: found[row["model"]].mean
            for judge, found in evidence.scores.items()
            if row["model"] in found
        }
        for row in evidence.rows.to_dicts()
    ]
    lengths = [{"model": m} | findings.lengths(rows)._asdict() for m, rows in judged.items()]
    prices = [
        {"labels of": name} | found._asdict() | {"per_1000": found.per_1000}
        for name, (found, _) in exhibits.priced(evidence).items()
    ]
    return {
        "pairwise": ("Row minus column, points ± standard error", findings.matrix(judged)),
        "rewards": ("Win rate beside true utility and rewards", rewards),
        "lengths": ("Characters, and win rates by length", lengths),
        "judge-card": ("What kind of judges wrote the labels", plain(evidence)),
        "prices": ("What labels took, US dollars", prices),
    }


def plain(evidence: Evidence) -> list[dict[str, str]]:
    """The judge card in plain text."""
    return [
        {name: str(held) for name, held in row.items()} for row in exhibits.judge_card(evidence)
    ]


def charted(rows: Sequence[Mapping[str, Any]]) -> str:
    """Win rates as a Mermaid chart: the new UI draws these and leaves embedded pictures out."""
    judged = [row for row in rows if row["win_rate"] is not None]
    names = ", ".join(json.dumps(row["model"]) for row in judged)
    rates = ", ".join(f"{row['win_rate']:.1f}" for row in judged)
    lines = ["```mermaid", "xychart-beta", '  title "Win rate against the reference, percent"']
    lines += [f"  x-axis [{names}]", "  y-axis 0 --> 100", f"  bar [{rates}]", "```"]
    return "\n".join(lines)


def samples(evaluations: Mapping[str, Evaluation]) -> list[dict[str, str]]:
    """The first prompts with every model's answer and whether it beat the reference's."""
    shown: dict[tuple[str, str], dict[str, str]] = {}
    for model, judged in evaluations.items():
        for row in store().scan(judged.preferences).head(SAMPLES).collect().to_dicts():
            prompt = (row["instruction"], row["input"])
            first = {"instruction": prompt[0], "input": prompt[1], "reference": row["output_1"]}
            entry = shown.setdefault(prompt, first)
            entry[model] = f"{_mark(row['preference'])} {row['output_2']}"
    return list(shown.values())


def _mark(preference: float | None) -> str:
    if preference is None:
        return "?"
    return "=" if preference == 1.5 else "+" if preference > 1.5 else "-"
