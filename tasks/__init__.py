"""The farm on Prefect: names every stage, nothing else."""

from tasks.annotate import annotate
from tasks.cluster import cluster, cluster_read, cluster_told
from tasks.compare import compare, compare_scored
from tasks.generate import generate
from tasks.judge import score
from tasks.pool import adopt, draw, gather, mix, write
from tasks.select import grade, labels, prefer, rank, select, share, unite
from tasks.soup import soup, soup_rewards
from tasks.sources import base, demonstrations, instructions, published, recorded
from tasks.tally import tally
from tasks.train import fit_reward, look, roll_out, train, train_policy
from tasks.users import corrected, guided, interactions

__all__ = [
    "adopt",
    "annotate",
    "base",
    "cluster",
    "cluster_read",
    "cluster_told",
    "compare",
    "compare_scored",
    "corrected",
    "demonstrations",
    "draw",
    "fit_reward",
    "gather",
    "generate",
    "grade",
    "guided",
    "instructions",
    "interactions",
    "labels",
    "look",
    "mix",
    "prefer",
    "published",
    "rank",
    "recorded",
    "roll_out",
    "score",
    "select",
    "share",
    "soup",
    "soup_rewards",
    "tally",
    "train",
    "train_policy",
    "unite",
    "write",
]
