"""The farm on Prefect: names every stage, nothing else."""

from tasks.annotate import annotate
from tasks.arrivals import fresh, label
from tasks.cluster import cluster, cluster_read, cluster_told
from tasks.compare import compare, compare_in_pairs, compare_scored
from tasks.generate import generate as sample
from tasks.judge import agree, penalise, residual
from tasks.judge import score as score_alone
from tasks.judge import score_by as score
from tasks.pool import adopt, draw, gather, mix, write
from tasks.rate import criticise, critique, rate, repair, tag
from tasks.select import grade, labels, prefer, rank, select, share, unite
from tasks.soup import soup, soup_rewards
from tasks.sources import base, demonstrations, instructions, published, recorded
from tasks.synthesis import (
    admit,
    collect,
    follow_up,
    invent,
    keep,
    neighbours,
    sift,
    synthesise,
)
from tasks.tally import tally
from tasks.train import fit_pairwise, look, roll_out, train, train_policy
from tasks.train import fit_reward as fit_alone
from tasks.train import fit_rewards as fit_reward
from tasks.trees import choose, generate, grow, leaves, prune, weigh
from tasks.users import corrected, guided, interactions

__all__ = [
    "admit",
    "adopt",
    "agree",
    "annotate",
    "base",
    "choose",
    "cluster",
    "cluster_read",
    "cluster_told",
    "collect",
    "compare",
    "compare_in_pairs",
    "compare_scored",
    "corrected",
    "criticise",
    "critique",
    "demonstrations",
    "draw",
    "fit_alone",
    "fit_pairwise",
    "fit_reward",
    "follow_up",
    "fresh",
    "gather",
    "generate",
    "grade",
    "grow",
    "guided",
    "instructions",
    "interactions",
    "invent",
    "keep",
    "label",
    "labels",
    "leaves",
    "look",
    "mix",
    "neighbours",
    "penalise",
    "prefer",
    "prune",
    "published",
    "rank",
    "rate",
    "recorded",
    "repair",
    "residual",
    "roll_out",
    "sample",
    "score",
    "score_alone",
    "select",
    "share",
    "sift",
    "soup",
    "soup_rewards",
    "synthesise",
    "tag",
    "tally",
    "train",
    "train_policy",
    "unite",
    "weigh",
    "write",
]
