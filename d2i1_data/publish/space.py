"""A Space that shows a pipeline: the app and the code that it needs."""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from huggingface_hub import SpaceCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

import hub_cards

from ..card.text import address
from ..checkpoints.files import check_id
from ..dataset.preview import PREVIEW
from ..errors import InputError
from ..hub import Changes, Content, RemoteState
from .content import CARD, RepositoryContent

PACKAGE = "diff2in1"
GRADIO = "6.31.0"  # the version that the tests run with, see constraints.txt
TRAINING_ONLY = ("jsonargparse",)  # requirements that the app does not need
LICENCE = "licenses/LICENSE"
CARD_FILES = ("*.jinja", "*.css", "licences.txt", "citations/*.bib")  # of hub_cards
SENT_PACKAGES = ("d2i1_data/", "hub_cards/")  # old files in these folders are deleted


class SpaceContent(RepositoryContent):
    """The app, its code, and a card that names the pipeline."""

    kind, marker = "space", "d2i1_data/publish/space.py"

    def __init__(
        self, repo_id: str, pipeline: str, overwrite: bool, has_preview: bool = False
    ) -> None:
        """Collect the files.

        Args:
            repo_id: `user/name`, or a name alone.
            pipeline: Hub id of the pipeline to show.
            overwrite: also publish into a repository that holds something else.
            has_preview: whether the pipeline has a picture, which becomes the thumbnail.
        """
        super().__init__(repo_id, overwrite)
        files = space_files(pipeline, has_preview=has_preview)
        self.files: dict[str, Content] = {n: f for n, f in files.items() if n != CARD}
        self.files[CARD] = files[CARD]

    def difference(self, state: RemoteState) -> Changes:
        """Files to send because they differ, and old files of our packages to delete."""
        files = {name: file for name, file in self.files.items() if not state.has(name, file)}
        ours = [name for name in state.files if name.startswith(SENT_PACKAGES)]
        return Changes(files, [name for name in ours if name not in self.files])


def space_files(
    pipeline: str, title: str | None = None, has_preview: bool = False
) -> dict[str, bytes | Path]:
    """The files of a Gradio Space that shows a pipeline.

    The Space contains our source code without the embedded bases. So it need not install our
    package and does not use `trust_remote_code`.

    Args:
        pipeline: Hub id of the pipeline.
        title: title of the page on the Hub. None makes one from the pipeline's name.
        has_preview: whether the pipeline has a picture, which becomes the thumbnail.

    Returns:
        Path in the repository -> content.

    Raises:
        InputError: if the pipeline is not a Hub id, or our package is not installed.
    """
    check_id(pipeline, "pipeline")
    try:
        validate_repo_id(pipeline)  # it becomes part of code and of a page
    except HFValidationError as error:
        raise InputError(f"pipeline {pipeline!r}: {error}") from error
    # a build can leave old metadata without a licence in a checkout
    installed = (dist for dist in distributions(name=PACKAGE) if dist.read_text(LICENCE))
    ours = next(installed, None)
    if ours is None:
        raise InputError(f"{PACKAGE} is not installed, or not with its licence: install it again")
    files: dict[str, bytes | Path] = {
        "README.md": _card(
            pipeline,
            title or f"Diff-2-in-1: {pipeline.split('/')[1]}",
            ours,
            address(pipeline, "", PREVIEW) if has_preview else None,
        ),
        "LICENSE": str(ours.read_text(LICENCE)).encode(),
        "app.py": hub_cards.render("space.py.jinja", pipeline=pipeline).encode(),
        "requirements.txt": "".join(f"{line}\n" for line in requirements(ours)).encode(),
    }
    for folder, patterns in ((Path(__file__).parents[1], ()), (hub_cards.FOLDER, CARD_FILES)):
        data = (file for pattern in patterns for file in sorted(folder.glob(pattern)))
        for file in (*modules(folder), *data):
            files[file.relative_to(folder.parent).as_posix()] = file
    return files


def modules(package: Path) -> Iterator[Path]:
    """The Python files of a package and its subpackages, without any other file."""
    yield from sorted(file for file in package.glob("*.py") if file.stem.isidentifier())
    for folder in sorted(package.iterdir()):
        if (folder / "__init__.py").is_file():
            yield from modules(folder)


def requirements(ours: Distribution) -> list[str]:
    """The requirements of the app without gradio, which every Space has."""
    needed = []
    for line in ours.requires or ():
        requirement, _, marker = line.partition(";")
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        if marker.strip() in ("", 'extra == "app"') and name not in ("gradio", *TRAINING_ONLY):
            needed.append(requirement.strip())
    return needed


def _card(pipeline: str, title: str, ours: Distribution, thumbnail: str | None) -> bytes:
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
        thumbnail=thumbnail,
        short_description="Labels images, creates labelled ones",
    )
    values = {"version": ours.version, "repository": hub_cards.REPOSITORY}
    body = hub_cards.render("space.md.jinja", title=title, pipeline=pipeline, **values)
    return f"---\n{data.to_yaml()}\n---\n\n{body}\n".encode()
