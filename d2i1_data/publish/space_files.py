"""A Space: the app of a pipeline, with all of our code that it needs, for the Hub to run."""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from huggingface_hub import SpaceCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

import hub_cards

from ..checkpoints.files import check_id
from ..errors import InputError

PACKAGE = "diff2in1"
GRADIO = "6.31.0"  # the version the tests ran with, see constraints.txt
ONLY_TRAINING = ("jsonargparse", "tensorboard")  # needs of the package, not of what is sent
LICENCE = "licenses/LICENSE"
DATA = ("*.jinja", "*.css", "licences.txt", "citations/*.bib")  # of hub_cards


def space_files(pipeline: str, title: str | None = None) -> dict[str, bytes | Path]:
    """What a Gradio Space of a pipeline on the Hub holds: path in the repository -> content.

    pipeline: a Hub id. title: of the page on the Hub, None is made of the id's name. The Space
    needs no package of ours and no `trust_remote_code`: the source comes along, without the
    embedded bases.
    """
    check_id(pipeline, "pipeline")
    try:
        validate_repo_id(pipeline)  # it becomes part of code and of a page
    except HFValidationError as error:
        raise InputError(f"pipeline {pipeline!r}: {error}") from error
    # a build leaves another in a checkout, without the licence and perhaps of other days
    found = (one for one in distributions(name=PACKAGE) if one.read_text(LICENCE))
    ours = next(found, None)
    if ours is None:
        raise InputError(f"{PACKAGE} is not installed, or not with its licence: install it again")
    files: dict[str, bytes | Path] = {
        "README.md": _card(pipeline, title or f"Diff-2-in-1: {pipeline.split('/')[1]}", ours),
        "LICENSE": str(ours.read_text(LICENCE)).encode(),
        "app.py": hub_cards.render("space.py.jinja", pipeline=pipeline).encode(),
        "requirements.txt": "".join(f"{need}\n" for need in needs(ours)).encode(),
    }
    for folder, patterns in ((Path(__file__).parents[1], ()), (hub_cards.FOLDER, DATA)):
        data = (file for pattern in patterns for file in sorted(folder.glob(pattern)))
        for file in (*modules(folder), *data):
            files[file.relative_to(folder.parent).as_posix()] = file
    return files


def modules(package: Path) -> Iterator[Path]:
    """The files of a package and of those in it, but nothing that only lies beside them."""
    yield from sorted(file for file in package.glob("*.py") if file.stem.isidentifier())
    for folder in sorted(package.iterdir()):
        if (folder / "__init__.py").is_file():
            yield from modules(folder)


def needs(ours: Distribution) -> list[str]:
    """The requirements of our package that the app has; gradio itself comes with the Space."""
    found = []
    for requirement in ours.requires or ():
        need, _, marker = requirement.partition(";")
        name = re.split(r"[^\w.-]", need, maxsplit=1)[0]
        if marker.strip() in ("", 'extra == "app"') and name not in ("gradio", *ONLY_TRAINING):
            found.append(need.strip())
    return found


def _card(pipeline: str, title: str, ours: Distribution) -> bytes:
    data = SpaceCardData(
        title=title,
        emoji="🪞",
        colorFrom="gray",
        colorTo="indigo",
        sdk="gradio",
        sdk_version=GRADIO,
        python_version=ours.metadata["Requires-Python"].removeprefix(">="),
        app_file="app.py",
        license="apache-2.0",
        models=[pipeline],
        tags=[PACKAGE, "image-to-image"],
        short_description="Labels images, creates labelled ones",
    )
    body = hub_cards.render("space.md.jinja", title=title, pipeline=pipeline, version=ours.version)
    return f"---\n{data.to_yaml()}\n---\n\n{body}\n".encode()
