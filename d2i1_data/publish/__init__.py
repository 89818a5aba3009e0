"""Publishing: datasets, pipelines and adapters on the Hub, with cards that name one another."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..card import Links
from ..errors import InputError
from ..hub import Repository, size_of
from ..loading import fingerprint
from ..settings import PublishSettings
from .checkpoint import Checkpoint, check_model
from .dataset import Dataset
from .parcel import CARD, Parcel
from .space import Space

__all__ = ["check_model", "publish"]

OF_A_RUN = ("pipeline", "adapter", "dataset")  # folders that publishing knows
RESULTS = "results.json"


def publish(settings: PublishSettings) -> str:
    """Send what the settings name and say where it is; with `dry_run`, say what would be sent."""
    wanted = parcels(settings)
    plans = ["\n".join(_plan(parcel, settings.private)) for parcel in wanted]
    if settings.dry_run:
        return "\n\n".join(plans)
    for parcel in wanted:
        send(parcel, settings.private)
    return "\n".join(parcel.repository.url for parcel in wanted)


def send(parcel: Parcel, private: bool, quiet: bool = False) -> None:
    """Make a repository hold a parcel; interrupted and called again, it continues."""
    repository = parcel.repository
    repository.create(private)
    card = parcel.changes(repository.held()).files.get(CARD)
    if isinstance(card, bytes):
        repository.check_card(card.decode())  # before gigabytes are sent
    repository.bring(parcel.changes, "Publish with diff2in1", quiet)


def parcels(settings: PublishSettings) -> list[Parcel]:
    """What the settings name, data first, each with a card that links to the others."""
    settings = _found(settings)
    model = settings.pipeline
    own = Repository(settings.repo_id, "model").id  # with its user
    here = model is None or Path(model).expanduser().is_dir()
    adapter = f"{own}-adapter" if model and settings.adapter else own
    links = Links(
        model=(own if here else model) if model else None,
        adapter=adapter if settings.adapter else None,
        dataset=own if settings.dataset else None,
        space=own if settings.space else None,
        checkpoint=fingerprint(_folder(model, "pipeline")) if model and here else None,
    )
    found: list[Parcel] = []
    append, overwrite = settings.append, settings.overwrite
    if settings.dataset:
        folder = _folder(settings.dataset, "dataset")
        found.append(Dataset(own, folder, replace(links, name=own), append, overwrite))
    places = {adapter: settings.adapter, own: model} if model and here else {own: settings.adapter}
    for name, place in places.items():
        if place:
            # figures are of the pipeline, unless the adapter comes alone
            results = [Path(file) for file in settings.results] if name == own else []
            folder, named = _folder(place, "pipeline"), replace(links, name=name)
            found.append(Checkpoint(name, folder, named, results, overwrite))
    if settings.space and links.model:
        found.append(Space(own, links.model, overwrite))
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
    return replace(settings, results=results, **given)


def _folder(name: str, kind: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_dir():
        raise InputError(f"--{kind} {name}: no such folder")
    return path


def _plan(parcel: Parcel, private: bool) -> Iterator[str]:
    """What would be sent, a line a file."""
    held = parcel.repository.held_if_any()
    changes = parcel.changes(held)
    state = "as it is" if held.commit else f"new, {'private' if private else 'public'}"
    total = sum(map(size_of, changes.files.values()))
    yield f"{parcel.repository} ({state}): {len(changes.files)} files, {total:,} bytes"
    for name, content in changes.files.items():
        what = "replace" if name in held.files else "add"
        yield f"  {what:8}{name}  {size_of(content):,}"
    yield from (f"  {'delete':8}{name}" for name in changes.gone)
