"""Where else figures go: TensorBoard and Weights & Biases, if the environment asks for them.

`ALPACAFARM_TENSORBOARD` is a folder, `ALPACAFARM_WANDB` a project; each is a package of its own and
refused at once where it is not installed. `WANDB_MODE=offline` and its kin are heeded.
"""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from alpacafarm_core.errors import BadInput
from alpacafarm_core.following import Listener
from alpacafarm_core.train.logbook import Figures

ASKED = {"ALPACAFARM_TENSORBOARD": "tensorboard", "ALPACAFARM_WANDB": "wandb"}
"""The package, and the extra of the same name, behind each variable."""


def check() -> None:
    """Raises BadInput when a sink is asked for that is not installed or cannot be written."""
    for variable, package in ASKED.items():
        if os.environ.get(variable) and find_spec(package) is None:
            raise BadInput(
                f"{variable} is set and {package} is not installed; "
                f"`pip install 'alpacafarm[{package}]'`, or unset it"
            )
    if folder := os.environ.get("ALPACAFARM_TENSORBOARD"):
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise BadInput(
                f"ALPACAFARM_TENSORBOARD={folder}: {error.strerror}; name a folder for writing"
            ) from None


def opened(stage: str, run: str) -> list[Listener]:
    """The sinks asked for, each with a place for this run of a stage; raises as `check` does."""
    check()
    found: list[Listener] = []
    if folder := os.environ.get("ALPACAFARM_TENSORBOARD"):
        found.append(TensorBoard(Path(folder) / f"{stage}-{run}"))
    if project := os.environ.get("ALPACAFARM_WANDB"):
        found.append(WeightsAndBiases(project, stage, run))
    return found


class TensorBoard:
    """Scalars in event files of one folder."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary import Writer

        self._writer: Any = Writer(str(folder))

    def note(self, entries: Sequence[Figures]) -> None:
        """A scalar for each figure, at its step."""
        for entry in entries:
            for name, figure in _figures(entry).items():
                self._writer.add_scalar(name, figure, int(entry["step"]))
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        self._writer.close()


class WeightsAndBiases:
    """A run in a project, grouped by stage."""

    def __init__(self, project: str, stage: str, run: str) -> None:
        import wandb

        # Stages run side by side in one process, so each has a run that is not the global one.
        apart: dict[str, Any] = {"reinit": "create_new"}
        try:
            self._run: Any = wandb.init(
                project=project, group=stage, name=f"{stage}-{run}", **apart
            )
        except wandb.errors.Error as error:
            raise BadInput(
                f"ALPACAFARM_WANDB={project}: {error} Or set WANDB_MODE=offline."
            ) from error

    def note(self, entries: Sequence[Figures]) -> None:
        """One record a step."""
        for entry in entries:
            self._run.log(_figures(entry), step=int(entry["step"]))

    def close(self) -> None:
        """End the run."""
        self._run.finish()


def _figures(entry: Figures) -> Figures:
    return {name: figure for name, figure in entry.items() if name not in ("step", "steps")}
