"""Answers of a policy."""

from alpacafarm_core.artifacts import Candidates, Instructions
from alpacafarm_core.machine import Machine
from alpacafarm_core.settings import Sampling
from alpacafarm_core.store import Made
from alpacafarm_core.train.job import call
from alpacafarm_core.weights import BestOf, Policy
from tasks.stage import ledger, stage, store


@stage(Candidates, version=1)
def generate(policy: Policy, instructions: Instructions, sampling: Sampling) -> Made:
    """Sample a policy as it decodes; answers known to the ledger are not drawn again."""
    rows, folder, machine = store().read(instructions), store().path(policy), Machine.here()
    if isinstance(policy.decode, BestOf):
        models = (folder, store().path(policy.decode.reward))
        asked = (sampling, policy.decode)
        drawn = call("generate:best_of", models, rows, asked, ledger(), machine=machine)
        return Made(drawn.drop("score"))
    return Made(call("generate:generate", folder, rows, sampling, ledger(), machine=machine))
