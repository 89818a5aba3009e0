"""Write captions of images to a file, and new captions made from them to another.

A captions file depends on (model, images, settings) only: not on the size of batches, and not on
interruptions.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ..card.command import changed_flags
from ..dataset.files import (
    explain_full_disk,
    locked,
    require_folder,
    temporary_path,
    write_json,
    write_text,
)
from ..dataset.prefetch import prefetch
from ..dataset.record import RUN, RunRecord, read_run, write_run
from ..dataset.sample import Sample
from ..dataset.shards import SKIPPED
from ..errors import InputError
from ..sources import SOURCES, Source, open_source, parse_spec, random_subset
from ..sources.captions import read_captions, write_line
from ..sources.source import fingerprint
from .lines import Lines, batches
from .models import Captioner, Writer
from .prompts import new_captions, recombined, written
from .settings import CaptionSettings

ACT = "caption"
CAPTIONS, PROMPTS = "captions.jsonl", "prompts.txt"
READERS = 2  # threads
RECOMBINED_AT_ONCE = 1000  # candidates
# settings that decide captions, besides the hash of images and model
DECIDING = ("prompt", "num_beams", "max_new_tokens", "min_new_tokens", "sample", "resolution")
IF_SAMPLED = ("temperature", "top_p", "seed")


class Bad(NamedTuple):
    """A row that is left out: its id, and the reason."""

    id: str
    why: str


def caption(settings: CaptionSettings) -> str:
    """Write captions.jsonl, and prompts.txt if the settings ask for new captions.

    Returns:
        One line for each file that says what was written, and the memory that it took.

    Raises:
        InputError: if the source, the model or the folder cannot be used.
    """
    folder, source = Path(settings.output_dir), _open(settings)
    rows = random_subset(len(source), settings.max_source_samples, settings.subset_seed)
    captioner = writer = None
    if settings.model is not None:
        captioner = Captioner(settings.model, settings.revision, settings)
    if settings.prompt_model is not None:
        writer = Writer(settings.prompt_model, settings.prompt_revision, settings)
    require_folder(folder)
    with ExitStack() as stack:
        stack.enter_context(explain_full_disk(folder))
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked(folder))
        record = _record(settings, source, rows, captioner)
        _claim(folder, record, settings)
        report = [_caption_rows(folder, source, rows, captioner, record, settings)]
        if settings.prompts_from_captions is not None:
            report.append(_write_prompts(folder, writer, settings))
    return "\n".join(report)


def _open(settings: CaptionSettings) -> Source:
    resolution = settings.resolution
    if not SOURCES[parse_spec(settings.source).kind].images:
        if settings.model is not None:
            raise InputError(f"--model: source {settings.source} has no images to caption")
        resolution = resolution or "1"  # its images are not looked at
    most, captions = settings.max_pixels, settings.captions
    return open_source(settings.source, resolution, max_pixels=most, captions=captions)


def _record(
    settings: CaptionSettings, source: Source, rows: Sequence[int], captioner: Captioner | None
) -> RunRecord:
    given = asdict(settings)
    ids = [source.identity(row) for row in rows]
    facts: dict[str, Any] = captioner.facts if captioner else {}
    names = (*DECIDING, *(IF_SAMPLED if settings.sample else ())) if captioner else ()
    facts |= {name: given[name] for name in names}
    samples = fingerprint(source.fingerprint, ids, facts)
    return RunRecord(ACT, changed_flags(given, type(settings)), given, samples=samples)


def _claim(folder: Path, record: RunRecord, settings: CaptionSettings) -> None:
    """Refuse a folder that holds anything but captions of the same images by the same model.

    With `overwrite`, captions of another command are deleted.
    """
    unfinished = {temporary_path(folder / name) for name in (CAPTIONS, RUN)}
    if {*folder.iterdir()} <= unfinished:  # left by a run that was killed at its start
        return
    earlier = read_run(folder)
    if earlier is None or earlier.act != ACT:
        raise InputError(f"{folder} is not empty, holds no captions: choose another --output_dir")
    if earlier.samples == record.samples:
        return
    if not settings.overwrite:
        named = [
            f"{name}: {earlier.settings.get(name)}, now {record.settings[name]}"
            for name in ("source", "model", "precision", *DECIDING, *IF_SAMPLED)
            if earlier.settings.get(name) != record.settings[name]
        ]
        why = "; ".join(named) or "the images or the model changed"
        raise InputError(
            f"{folder} holds other captions ({why}): choose another --output_dir, or replace them"
            " with --overwrite"
        )
    for name in (CAPTIONS, PROMPTS, SKIPPED, RUN):
        (folder / name).unlink(missing_ok=True)


def _caption_rows(
    folder: Path,
    source: Source,
    rows: Sequence[int],
    captioner: Captioner | None,
    record: RunRecord,
    settings: CaptionSettings,
) -> str:
    """Write captions.jsonl. Return what was written."""
    file, memory = folder / CAPTIONS, ""
    if not file.is_file():
        lines = Lines(file, str(record.samples))
        if captioner and len(lines.results) < len(rows):
            captioner.load()
        write_run(folder, record)
        _make_lines(source, rows, captioner, lines, settings)
        _finish(folder, lines)
        memory = f", up to {captioner.memory()}" if captioner else ""
    else:
        write_run(folder, record)
    return f"{file}: {len(read_captions(str(file)))} captions{memory}"


def _make_lines(
    source: Source,
    rows: Sequence[int],
    captioner: Captioner | None,
    lines: Lines,
    settings: CaptionSettings,
) -> None:
    """Make the missing results: `[id, caption]`, or `[id, None, why]` for a row that is skipped."""
    left = rows[len(lines.results) :]
    read = prefetch(lambda row: _read(source, row, settings), left, 2 * READERS, READERS)
    with tqdm(total=len(rows), initial=len(lines.results), desc="captions", unit="image") as bar:
        for some in batches(left, settings.batch_size):
            found = [next(read) for _ in some]
            lines.add(_results(found, captioner))
            bar.set_postfix_str(captioner.memory() if captioner else "")
            bar.update(len(found))


def _results(found: Sequence[Sample | Bad], captioner: Captioner | None) -> list[list[str | None]]:
    usable = [one for one in found if isinstance(one, Sample)]
    texts = {one.id: one.caption for one in usable}
    if captioner and usable:
        answers = captioner.answer([*texts], [one.image for one in usable])
        texts = dict(zip(texts, answers, strict=True))
    return [
        [one.id, texts[one.id]] if isinstance(one, Sample) else [one.id, None, one.why]
        for one in found
    ]


def _read(source: Source, row: int, settings: CaptionSettings) -> Sample | Bad:
    """A row without its targets."""
    try:
        return source.picture(row)
    except InputError as error:
        if settings.on_bad_row == "stop":
            raise InputError(f"{error}; --on_bad_row skip leaves it out") from error
        return Bad(source.identity(row), str(error))


def _finish(folder: Path, lines: Lines) -> None:
    """Write the results to captions.jsonl and skipped.json."""
    found = [(one[0], one[1]) for one in lines.results if one[1] is not None]
    skipped = {one[0]: one[2] for one in lines.results if len(one) > 2}
    if not found:
        lines.drop()
        raise InputError(f"{folder}: no sample has a caption; --model writes captions")
    (folder / SKIPPED).unlink(missing_ok=True)
    if skipped:
        write_json(folder / SKIPPED, skipped)
    write_text(folder / CAPTIONS, "".join(write_line(*one) for one in found))
    lines.drop()


def _write_prompts(folder: Path, writer: Writer | None, settings: CaptionSettings) -> str:
    """Write prompts.txt. Return what was written."""
    captions = [one for one in read_captions(str(folder / CAPTIONS)).values() if one]
    count = int(settings.prompts_from_captions or 0)
    facts = {**writer.facts, "tokens": settings.max_new_tokens} if writer else {}
    facts |= {name: getattr(settings, name) for name in IF_SAMPLED}
    lines, memory = Lines(folder / PROMPTS, fingerprint(captions, facts)), ""
    candidates, at_once = recombined(captions, settings.seed), RECOMBINED_AT_ONCE
    if writer:
        writer.load()
        candidates, at_once = written(captions, settings.seed, writer), settings.batch_size
    found = new_captions(captions, count, candidates, lines, at_once)
    write_text(folder / PROMPTS, "".join(f"{one}\n" for one in found))
    lines.drop()
    memory = f", up to {writer.memory()}" if writer else ""
    return f"{folder / PROMPTS}: {len(found)} new captions{memory}"
