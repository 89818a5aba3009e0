"""A Space: the app of a pipeline, with all of our code that it needs, for the Hub to run."""

import re
from importlib.metadata import Distribution, distribution
from pathlib import Path

from huggingface_hub import SpaceCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

import hub_cards

from .errors import InputError
from .loading import check_id

PACKAGE = "diff2in1"
GRADIO = "6.31.0"  # the version the tests ran with, see constraints.txt
ONLY_TRAINING = ("jsonargparse", "tensorboard")  # needs of the package, not of what is sent
SENT = (".py", ".jinja", ".css", ".txt", ".bib")


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
    ours = distribution(PACKAGE)
    licence = ours.read_text("licenses/LICENSE")
    if licence is None:
        raise InputError(f"the installed {PACKAGE} is older than its source: install it again")
    files: dict[str, bytes | Path] = {
        "README.md": _card(pipeline, title or f"Diff-2-in-1: {pipeline.split('/')[1]}", ours),
        "LICENSE": licence.encode(),
        "app.py": hub_cards.render("space.py.jinja", pipeline=pipeline).encode(),
        "requirements.txt": "".join(f"{need}\n" for need in needs(ours)).encode(),
    }
    for folder in (Path(__file__).parent, hub_cards.FOLDER):
        for file in sorted(f for f in folder.rglob("*") if f.suffix in SENT):
            files[file.relative_to(folder.parent).as_posix()] = file
    return files


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
