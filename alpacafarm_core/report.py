"""Reports: one page that stands alone, for a leaderboard, a ranking or an over-optimisation study.

Pure: evidence in, HTML out, and every text that comes from data is escaped (`markup`).
"""

from pathlib import Path

from alpacafarm_core import board_page, exhibits, study_page
from alpacafarm_core.evidence import EVALUATION, Evidence
from alpacafarm_core.markup import Markup, page, tag

STYLE = Path(__file__).with_name("report.css")
TITLES = {
    "leaderboard": "Leaderboard",
    "ranks": "Simulation beside people",
    "curves": "Over-optimisation",
}
PARTS = {
    "leaderboard": board_page.parts,
    "ranks": study_page.of_ranks,
    "curves": study_page.of_curves,
}


def report(evidence: Evidence) -> str:
    """The page."""
    kind = evidence.manifest.kind
    sections = [
        *PARTS[kind](evidence),
        exhibits.cards(evidence),
        exhibits.prices(evidence),
        exhibits.changed(evidence),
        exhibits.lineage(evidence),
    ]
    title = f"{TITLES[kind]} {evidence.manifest.key}"
    return page(title, STYLE.read_text(), _header(evidence), sections)


def _header(evidence: Evidence) -> list[Markup]:
    made = evidence.manifest
    judges = dict.fromkeys(each.panel for each in evidence.labels if each.purpose == EVALUATION)
    facts = [
        f"made {exhibits.when(made)} UTC",
        f"judged by {', '.join(judges)}" if judges else "",
        f"${evidence.dollars:,.2f} of judgements",
    ]
    said = "".join(f" · {fact}" for fact in facts if fact)
    key = tag("span", made.artifact.folder, class_="key")
    return [tag("h1", TITLES[made.kind]), tag("p", key, said, class_="soft")]
