"""Check the shards of a folder: each must be complete, and made from the plan of the folder."""

from pathlib import Path

from tqdm import tqdm

from ..dataset.shards import (
    ShardRecord,
    check_content,
    dataset_shards,
    read_shard_record,
)
from ..errors import InputError
from .plan import Plan, missing_shards, plan_sha256

APPENDED = "plan-*.json"  # plans of shards that `publish --append` added to a repository
AWAY = "move it to another folder, and repeat the command"


def broken_shards(plan: Plan, folder: Path) -> dict[Path, str]:
    """Read every shard of a folder, and find those that are not as they were written.

    Args:
        plan: the plan of the folder.
        folder: folder of a dataset.

    Returns:
        Each shard of the plan that is broken -> why.

    Raises:
        InputError: for a shard of another plan, and for one that the plan does not have.
    """
    own = plan.shard_paths(folder)
    sha256, appended = (
        plan_sha256(folder),
        [plan_sha256(folder, file.name) for file in folder.glob(APPENDED)],
    )
    broken = {}
    for shard in tqdm(dataset_shards(folder), "check shards", unit="shard", leave=False, delay=1):
        record, why = ShardRecord(), ""
        try:
            record = read_shard_record(shard)
            check_content(shard)
        except InputError as error:
            why = str(error)
        if record.plan in appended and not why:
            continue
        if shard not in own:
            raise InputError(f"{shard} is none of the {len(own)} shards of {folder}: {AWAY}")
        if record.plan not in (None, sha256):
            raise InputError(f"{shard} was made from another plan: {AWAY}")
        if record.shard not in (None, own.index(shard)):
            raise InputError(f"{shard} holds shard {record.shard} of its plan: {AWAY}")
        if why:
            broken[shard] = why
    return broken


def require_complete(plan: Plan, folder: Path) -> None:
    """Check that a folder holds the shards of its plan, as they were written, and no other.

    Raises:
        InputError: if it does not; the message names the first wrong shard.
    """
    for shard, why in broken_shards(plan, folder).items():
        raise InputError(f"{why}; repeat the command that made {shard.name}")
    paths = plan.shard_paths(folder)
    for index in missing_shards(plan, folder):
        raise InputError(f"{paths[index]}: no such file; repeat the command that made the dataset")
