"""Protocols: how published programs score one task, so that metrics compare with theirs."""

from dataclasses import dataclass

from ..errors import InputError
from ..registry import as_markdown, find
from .depth import DEPTH
from .normals import NORMALS
from .task import Task

EIGEN_CROP = "45:471,41:601"  # Eigen et al. 2014, of images of 480 x 640


@dataclass(frozen=True)
class Protocol:
    """How one task is scored.

    Args:
        name: its name in flags and results.
        task: the task that is scored.
        about: the programs that score so, and what they do.
        crop: rows, then columns, that are scored; None scores all pixels.
        farthest: distance in metres beyond which truth is unknown, and to which predictions are
            clipped; None has no such limit.
        average: `pixels` pools the pixels of all images, `images` averages metrics of images.
    """

    name: str
    task: Task
    about: str
    crop: str | None = None
    farthest: float | None = None
    average: str = "pixels"


RECORDS = (
    Protocol(
        "nyu-depth",
        DEPTH,
        "BTS, VPD and iDisc on NYUv2, with measured depth (`depth=raw`)",
        crop=EIGEN_CROP,
        farthest=10,
        average="images",
    ),
    Protocol("bae-normals", NORMALS, "Bae et al. and DSINE; all known pixels"),
    Protocol(
        "idisc-normals",
        NORMALS,
        "iDisc; what it prints as 11.25° is `under_11.5` here",
        average="images",
    ),
    Protocol(
        "geonet-normals",
        NORMALS,
        "GeoNet on NYUv2; the rows and columns of MATLAB begin at 1",
        crop="44:471,40:601",
    ),
    Protocol("marigold-normals", NORMALS, "Marigold; all known pixels", average="images"),
)
PROTOCOLS = {record.name: record for record in RECORDS}


def find_protocol(name: str, common: dict[str, Task]) -> Protocol:
    """Find a protocol for the tasks of an evaluation.

    Args:
        name: its name.
        common: the tasks that a pipeline and a source have in common.

    Raises:
        InputError: if there is no such protocol, or its task is not among the tasks.
    """
    protocol = find(PROTOCOLS, name, "--protocol")
    if protocol.task.name not in common:
        raise InputError(
            f"--protocol {name}: scores {protocol.task.name}; pipeline and source have in common"
            f" {', '.join(common)}"
        )
    return protocol


def protocol_table() -> str:
    """The table of the docs."""
    rows = (
        (
            f"`{one.name}`",
            one.about,
            f"`{one.crop}`" if one.crop else "all",
            f"{one.farthest:g} m" if one.farthest else "",
            one.average,
        )
        for one in RECORDS
    )
    return as_markdown(("protocol", "used by", "rows and columns", "farthest", "average"), rows)
