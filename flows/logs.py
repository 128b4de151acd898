"""How much a flow run says on its page: ALPACAFARM_LOG_LEVEL."""

import logging
import os

from alpacafarm_core.errors import BadInput

VARIABLE = "ALPACAFARM_LOG_LEVEL"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def heed_level() -> None:
    """Let our loggers say as much as the environment asks for; raises BadInput for no level.

    Prefect sends on what these loggers let through, and by themselves they let through warnings.
    """
    level = os.environ.get(VARIABLE, "INFO").upper()
    if level not in LEVELS:
        raise BadInput(f"{VARIABLE}={level!r} is no level; give one of {', '.join(LEVELS)}")
    logging.getLogger("alpacafarm").setLevel(level)
    # A line a step is a row of the server's database each.
    steps = level if level == "DEBUG" else "WARNING"
    logging.getLogger("alpacafarm.training").setLevel(steps)
