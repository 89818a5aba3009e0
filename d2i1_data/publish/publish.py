"""Publishing: datasets, pipelines and adapters on the Hub, with cards that name one another."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..card import Links
from ..checkpoints.files import check_id, fingerprint
from ..errors import InputError
from ..hub import Repository, size_of
from .checkpoint import INDEX, Checkpoint, complete_files
from .dataset import Dataset
from .parcel import CARD, Parcel
from .settings import PublishSettings
from .space import Space

OF_A_RUN = ("pipeline", "adapter", "dataset")  # folders that publishing knows
RESULTS = "results.json"


def publish(settings: PublishSettings) -> str:
    """Send what the settings name and say where it is; with `dry_run`, say what would be sent."""
    wanted = parcels(settings)
    plans = ["\n".join(_plan(parcel, settings.private)) for parcel in wanted]
    if settings.dry_run:
        return "\n\n".join(plans)
    for parcel in wanted:  # all that may be wrong, before gigabytes are sent
        card = parcel.changes(parcel.repository.create(settings.private)).files.get(CARD)
        if isinstance(card, bytes):
            parcel.repository.check_card(card.decode())
    for parcel in wanted:
        parcel.repository.bring(parcel.changes, "Publish with diff2in1")
    return "\n".join(parcel.repository.url for parcel in wanted)


def parcels(settings: PublishSettings) -> list[Parcel]:
    """What the settings name, data first, each with a card that links to the others."""
    settings = _found(settings)
    model, overwrite = settings.pipeline, settings.overwrite
    here = model is not None and Path(model).expanduser().is_dir()
    if model and here:
        complete_files(Path(model).expanduser(), whole=True)
    elif model:
        _check_published(model)
    own = Repository(settings.repo_id, "model").id  # with its user
    adapter = f"{own}-adapter" if here else own
    links = Links(
        model=own if here else model,
        adapter=adapter if settings.adapter else None,
        dataset=own if settings.dataset else None,
        space=own if settings.space else None,
        checkpoint=fingerprint(Path(model).expanduser()) if model and here else None,
    )
    given = settings.results or []
    figures = [Path(file) for file in ([given] if isinstance(given, str) else given)]
    found: list[Parcel] = []
    if settings.dataset:
        folder = _folder(settings.dataset, "dataset")
        found.append(Dataset(own, folder, replace(links, name=own), settings.append, overwrite))
    checkpoints = {adapter: settings.adapter} | ({own: model} if here else {})
    for name, place in checkpoints.items():
        if place:
            # figures are of the pipeline, unless the adapter comes alone
            results = figures if name == own else []
            whole, named = place == model, replace(links, name=name)
            folder = _folder(place, "pipeline" if whole else "adapter")
            found.append(Checkpoint(name, folder, whole, named, results, overwrite))
    if settings.space and links.model:
        found.append(Space(own, links.model, overwrite))
    if not found:
        raise InputError(f"--pipeline {model}: is on the Hub already, and nothing else was named")
    return found


def _found(settings: PublishSettings) -> PublishSettings:
    """The settings with what lies in the folder of a run, unless they name another."""
    if settings.run is None:
        return settings
    run = _folder(settings.run, "run")
    there = {name: str(run / name) for name in OF_A_RUN if (run / name).is_dir()}
    if not there:
        raise InputError(f"--run {run}: holds none of {', '.join(OF_A_RUN)}")
    given: dict[str, Any] = {n: getattr(settings, n) or there.get(n) for n in OF_A_RUN}
    results = settings.results or [str(f) for f in [run / RESULTS] if f.is_file()]
    return replace(settings, run=None, results=results, **given)


def _check_published(model: str) -> None:
    """Refuse what is neither a folder nor a pipeline on the Hub."""
    check_id(model, "pipeline")
    held = Repository(model, "model").held_if_any()
    if INDEX not in held.files:
        raise InputError(f"--pipeline {model}: neither a folder nor a pipeline on the Hub")


def _folder(name: str, kind: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_dir():
        raise InputError(f"--{kind} {name}: no such folder")
    return path


def _plan(parcel: Parcel, private: bool) -> Iterator[str]:
    """What would be sent, a line a file."""
    held = parcel.repository.held_if_any()
    parcel.repository.refuse_public(held, private)
    changes = parcel.changes(held)
    state = "as it is" if held.commit else "new, private" if private else "new"
    yield f"{parcel.repository} ({state}): {len(changes.files)} files, {changes.size:,} bytes"
    for name, content in changes.files.items():
        what = "replace" if name in held.files else "add"
        yield f"  {what:8}{name}  {size_of(content):,}"
    yield from (f"  {'delete':8}{name}" for name in changes.gone)
