"""Publish datasets, pipelines and adapters on the Hub, with cards that link to each other."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..card import Links
from ..checkpoints.files import check_id, fingerprint
from ..dataset.preview import PREVIEW
from ..diff2in1.saving import INDEX
from ..errors import InputError
from ..hub import Repository, size_of
from .checkpoint import CheckpointContent, complete_files
from .content import CARD, RepositoryContent
from .dataset import DatasetContent
from .settings import PublishSettings
from .space import SpaceContent

RUN_FOLDERS = ("pipeline", "adapter", "dataset")  # possible results in the folder of a run
RESULTS = "results.json"


def publish(settings: PublishSettings) -> str:
    """Publish everything that the settings name.

    Returns:
        The addresses of the repositories, one on each line. With `dry_run`, the files that would be
        sent.

    Raises:
        InputError: if a folder is not complete, or a repository must not be changed.
    """
    contents = repository_contents(settings)
    plans = ["\n".join(_plan(content, settings.private)) for content in contents]
    if settings.dry_run:
        return "\n\n".join(plans)
    for content in contents:  # find all errors before gigabytes are sent
        card = content.changes(content.repository.create(settings.private)).files.get(CARD)
        if isinstance(card, bytes):
            content.repository.check_card(card.decode())
    for content in contents:
        content.repository.sync(content.changes, "Publish with diff2in1")
    return "\n".join(content.repository.url for content in contents)


def repository_contents(settings: PublishSettings) -> list[RepositoryContent]:
    """The content of each repository that the settings name; datasets come first.

    Raises:
        InputError: if a folder is missing or not complete.
    """
    settings = _with_run(settings)
    model, overwrite = settings.pipeline, settings.overwrite
    local = model is not None and Path(model).expanduser().is_dir()
    if model and local:
        complete_files(Path(model).expanduser(), whole=True)
    elif model:
        _check_published(model)
    own = Repository(settings.repo_id, "model").id  # completed with the user
    adapter = f"{own}-adapter" if local else own
    links = Links(
        model=own if local else model,
        adapter=adapter if settings.adapter else None,
        dataset=own if settings.dataset else None,
        space=own if settings.space else None,
        checkpoint=fingerprint(Path(model).expanduser()) if model and local else None,
    )
    files = settings.results or []
    results = [Path(file) for file in ([files] if isinstance(files, str) else files)]
    contents: list[RepositoryContent] = []
    if settings.dataset:
        folder, named = _folder(settings.dataset, "dataset"), replace(links, name=own)
        contents.append(DatasetContent(own, folder, named, settings.append, overwrite))
    checkpoints = {adapter: settings.adapter} | ({own: model} if local else {})
    for name, place in checkpoints.items():
        if place:
            whole, named = place == model, replace(links, name=name)
            folder = _folder(place, "pipeline" if whole else "adapter")
            # results describe the pipeline, or an adapter that is published alone
            measured = results if name == own else []
            contents.append(CheckpointContent(name, folder, whole, named, measured, overwrite))
    if settings.space and links.model:
        contents.append(SpaceContent(own, links.model, overwrite, _has_preview(model, local)))
    if not contents:
        raise InputError(f"--pipeline {model}: is on the Hub already, and nothing else is named")
    return contents


def _with_run(settings: PublishSettings) -> PublishSettings:
    """The settings, completed with the results in the folder of a run."""
    if settings.run is None:
        return settings
    run = _folder(settings.run, "run")
    folders = {name: str(run / name) for name in RUN_FOLDERS if (run / name).is_dir()}
    if not folders:
        raise InputError(f"--run {run}: holds none of {', '.join(RUN_FOLDERS)}")
    given: dict[str, Any] = {n: getattr(settings, n) or folders.get(n) for n in RUN_FOLDERS}
    results = settings.results or [str(f) for f in [run / RESULTS] if f.is_file()]
    return replace(settings, run=None, results=results, **given)


def _check_published(model: str) -> None:
    """Raise InputError unless this is a pipeline on the Hub."""
    check_id(model, "pipeline")
    state = Repository(model, "model").state_if_any()
    if INDEX not in state.files:
        raise InputError(f"--pipeline {model}: neither a folder nor a pipeline on the Hub")


def _has_preview(model: str | None, local: bool) -> bool:
    """Whether a pipeline, a folder or on the Hub, has a picture."""
    if local:
        return (Path(str(model)).expanduser() / PREVIEW).is_file()
    return PREVIEW in Repository(str(model), "model").state_if_any().files


def _folder(name: str, kind: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_dir():
        raise InputError(f"--{kind} {name}: no such folder")
    return path


def _plan(content: RepositoryContent, private: bool) -> Iterator[str]:
    """List the changes to a repository, one line for each file."""
    state = content.repository.state_if_any()
    content.repository.refuse_public(state, private)
    changes = content.changes(state)
    how = "exists" if state.commit else "new, private" if private else "new"
    yield f"{content.repository} ({how}): {len(changes.files)} files, {changes.size:,} bytes"
    for name, file in changes.files.items():
        change = "replace" if name in state.files else "add"
        yield f"  {change:8}{name}  {size_of(file):,}"
    yield from (f"  {'delete':8}{name}" for name in changes.deleted)
