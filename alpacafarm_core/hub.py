"""AlpacaFarm's own dataset and base models, fetched from the hub and kept in its cache.

The dataset's loader script no longer runs, so its raw JSON files are taken by name. HF_ENDPOINT
names another hub, HF_HOME the cache, HF_HUB_OFFLINE=1 keeps to what is cached.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alpacafarm_core.errors import BadInput, Missing

DATASET = "tatsu-lab/alpaca_farm"
NAMES = (
    "alpaca_instructions/sft",
    "alpaca_instructions/preference",
    "alpaca_instructions/unlabeled",
    "alpaca_instructions/val",
    "alpaca_human_preference",
    "alpaca_gpt4_preference",
    "alpaca_noisy_multi_preference",
    "alpaca_farm_evaluation",
)
MODEL_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def fetch(name: str, revision: str) -> Path:
    """The JSON file of one table of the dataset at a commit, downloaded once; raises BadInput."""
    if name not in NAMES:
        raise Missing(f"no table {name!r} in {DATASET}; there are {', '.join(NAMES)}")
    from huggingface_hub import hf_hub_download

    with _told(f"{name}.json of {DATASET} at {revision}"):
        file = hf_hub_download(DATASET, f"{name}.json", repo_type="dataset", revision=revision)
        return Path(file)


def commit(revision: str) -> str:
    """The commit that a branch or tag of the dataset names today; offline, when last fetched."""
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    # A file lies in the hub's cache at .../snapshots/<commit>/<folder>/<file>.
    return fetch("alpaca_instructions/val", revision).parents[1].name


def model(name: str, revision: str = "main") -> Path:
    """A folder with the weights (safetensors), tokenizer and settings of a model on the hub."""
    from huggingface_hub import snapshot_download

    with _told(f"model {name} at {revision}"):
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=MODEL_FILES))
    if not any(folder.glob("*.safetensors")):
        raise BadInput(f"model {name} has no safetensors; convert it, or name another revision")
    return folder


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn the hub's errors into one line each with the mend."""
    from huggingface_hub import errors

    gone = (
        errors.RevisionNotFoundError,
        errors.RemoteEntryNotFoundError,
        errors.RepositoryNotFoundError,
        errors.HFValidationError,
    )
    unreached = (
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        errors.HfHubHTTPError,
        errors.HTTPError,
        OSError,
    )
    try:
        yield
    except errors.GatedRepoError as error:
        raise BadInput(f"{what}: access is gated; ask for it, then set HF_TOKEN") from error
    except gone as error:
        raise Missing(f"{what}: not on the hub; check name and revision, or HF_TOKEN") from error
    except unreached as error:
        raise BadInput(
            f"{what}: the hub cannot be reached and nothing is cached; go online (unset "
            "HF_HUB_OFFLINE), set HF_ENDPOINT to a mirror, or use files of your own"
        ) from error
