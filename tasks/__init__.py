"""The farm on Prefect: names every stage, nothing else."""

from tasks.annotate import annotate
from tasks.compare import compare, compare_scored
from tasks.generate import generate
from tasks.judge import score
from tasks.select import grade, labels, prefer, rank, select, share
from tasks.sources import base, demonstrations, instructions, published, recorded
from tasks.tally import tally
from tasks.train import fit_reward, look, roll_out, train, train_policy
from tasks.users import corrected, guided, interactions

__all__ = [
    "annotate",
    "base",
    "compare",
    "compare_scored",
    "corrected",
    "demonstrations",
    "fit_reward",
    "generate",
    "grade",
    "guided",
    "instructions",
    "interactions",
    "labels",
    "look",
    "prefer",
    "published",
    "rank",
    "recorded",
    "roll_out",
    "score",
    "select",
    "share",
    "tally",
    "train",
    "train_policy",
]
