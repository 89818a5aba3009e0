"""Plan of a study: its arms and baselines, and the warm-ups and datasets that they share."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from d2i1_data.creation.settings import CreateSettings, ImportSettings, LabelSettings
from d2i1_data.errors import InputError

from ..arguments import nearest, read_settings
from ..settings import SelfImproveSettings, WarmUpSettings
from .settings import StudySettings

WARM_UP, SELF_IMPROVE = "warm_up", "self_improve"
WRITERS: dict[str, type] = {  # parts that write the created dataset
    "create": CreateSettings,
    "label": LabelSettings,
    "import": ImportSettings,
}
PARTS = (WARM_UP, *WRITERS, SELF_IMPROVE)
WARM_UPS, CREATED = "warm-ups", "created"  # folders of what arms share
REAL_ONLY = "real-only"
NONE = "none"  # no created dataset
UNPERTURBED = dict.fromkeys(
    ("feature_dropout", "real_feature_dropout", "cutmix", "real_cutmix"), 0.0
)
WARMED = "warm-up"  # the line of a warm-up in a study of self-improving
# the study chooses these settings
CHOSEN = {"seed", "subset_seed", "output_dir", "pipeline", "resume_from_checkpoint", "push_to_hub"}
CHOSEN_FOR = {SELF_IMPROVE: {"created", "best_metric"}}  # scores are those of single steps
# settings that differ between seeds, or between places of a study
NOT_COMPARED = ("seed", "subset_seed", "output_dir", "pipeline", "created")

Part = dict[str, Any]
Settings = TypeVar("Settings")


class Work(NamedTuple):
    """A warm-up or a created dataset. All arms with the same settings share it.

    name: `warm_up` or one of `WRITERS`. settings: settings of the command, with its folder.
    """

    name: str
    settings: Any

    @property
    def folder(self) -> Path:
        """Where the command writes."""
        return Path(self.settings.output_dir)

    @property
    def done(self) -> Path:
        """A file beside the folder. It is written when the folder is complete."""
        return self.folder.with_name(f"{self.folder.name}.json")


class Cell(NamedTuple):
    """One arm with one seed.

    folder: folder of its results. created: None if it trains without created samples.
    self_improve: None if the warm-up itself is scored. group: the first arm with this warm-up.
    built_in: whether it stands beside the arms without being asked for.
    """

    arm: str
    seed: int
    folder: Path
    warm_up: Work
    created: Work | None
    self_improve: SelfImproveSettings | None
    group: str
    built_in: bool

    def facts(self, study: StudySettings) -> dict[str, Any]:
        """All settings that decide its results, without places."""
        names = ("test", "test_samples", "subset_seed")
        facts: Part = {name: getattr(study, name) for name in names}
        works = [self.warm_up, *([self.created] if self.created else [])]
        facts |= {work.name: compared(work.settings) for work in works}
        if self.self_improve:
            facts |= {SELF_IMPROVE: compared(self.self_improve), "curve_steps": study.curve_steps}
        else:
            facts["generation_samples"] = study.generation_samples
        as_stored: Part = json.loads(json.dumps(facts))
        return as_stored


class Plan(NamedTuple):
    """Everything that a study computes. two_stages: whether it trains beyond warm-ups."""

    cells: list[Cell]
    two_stages: bool

    def shared(self, kind: str) -> list[Work]:
        """The distinct warm-ups (`warm-ups`) or created datasets (`created`)."""
        found = [cell.warm_up if kind == WARM_UPS else cell.created for cell in self.cells]
        return list({work.folder: work for work in found if work}.values())

    def pairs(self) -> list[tuple[Cell, list[Cell]]]:
        """Each trained cell with its baselines of the same seed. The last of the baselines is also
        compared with the first."""
        trained = [cell for cell in self.cells if cell.self_improve]
        found = []
        for place, cell in enumerate(trained):
            same = [
                one for one in trained[:place] if (one.group, one.seed) == (cell.group, cell.seed)
            ]
            if baselines := [one for one in same if one.built_in]:
                found.append((cell, baselines))
        return found


@dataclass
class Arm:
    """One arm without its seeds."""

    name: str
    warm_up: WarmUpSettings
    writer: tuple[str, Any] | None
    self_improve: SelfImproveSettings | None
    group: str = ""
    built_in: bool = False


def make_plan(settings: StudySettings) -> Plan:
    """Read the settings of all arms, add the baselines, and name all folders.

    Raises:
        InputError: if a part or a setting is wrong, or arms do not fit together.
    """
    common = _checked_parts(settings.common, "common")
    arms = []
    for name, own in settings.arms.items():
        _check_name(name)
        arms.append(_read_arm(name, _merged(common, _checked_parts(own, name), name), settings))
    _check_together(arms)
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        groups.setdefault(_digest(WARM_UP, compared(arm.warm_up)), []).append(arm)
    for group in groups.values():
        for arm in group:
            arm.group = group[0].name
    two_stages = arms[0].self_improve is not None
    built_in = []
    if two_stages:
        built_in = [one for group in groups.values() for one in _baselines(group, common, settings)]
    for arm in built_in:
        if len(groups) > 1:
            arm.name = f"{arm.name} of {arm.group}"
        if arm.name in settings.arms:
            raise InputError(f"study: an arm cannot be called {arm.name!r}, which is built in")
    place = Path(settings.output_dir)
    cells = [_cell(arm, seed, place) for arm in built_in + arms for seed in settings.seeds]
    return Plan(cells, two_stages)


def _check_together(arms: list[Arm]) -> None:
    """Refuse arms that cannot be in one study."""
    stages = {arm.self_improve is not None for arm in arms}
    for arm in arms:
        if arm.self_improve is None and True in stages:
            raise InputError(f"study: arm {arm.name}: no {SELF_IMPROVE}, but other arms have it")
        if arm.writer and arm.self_improve is None:
            raise InputError(f"study: arm {arm.name}: {arm.writer[0]} needs {SELF_IMPROVE}")
    precisions = {s.mixed_precision for arm in arms for s in (arm.warm_up, arm.self_improve) if s}
    if len(precisions) > 1:  # a process can have only one
        raise InputError("study: arms differ in mixed_precision; compare those in two studies")


def compared(settings: Any) -> Part:
    """The settings that decide what arms share."""
    return {name: one for name, one in asdict(settings).items() if name not in NOT_COMPARED}


def _digest(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _check_name(name: str) -> None:
    if name in (WARM_UPS, CREATED) or "/" in name or not name.strip(". "):
        raise InputError(f"study: an arm cannot be called {name!r}, because it names a folder")


def _checked_parts(parts: Any, where: str) -> dict[str, Part]:
    """The parts of `common` or of an arm, if they are well-formed."""
    if not isinstance(parts, Mapping):
        raise InputError(f"study: {where}: expected {{PART: {{SETTING: value}}}}, got {parts!r}")
    for name, part in parts.items():
        if name not in PARTS:
            raise InputError(f"study: {where}: unknown part {name!r}{nearest(str(name), PARTS)}")
        if not isinstance(part, Mapping):
            raise InputError(f"study: {where}: {name}: expected {{SETTING: value}}, got {part!r}")
        if chosen := sorted((CHOSEN | CHOSEN_FOR.get(str(name), set())) & part.keys()):
            raise InputError(
                f"study: {where}: {name}: {', '.join(chosen)} cannot be set for an arm"
            )
    if len(both := [name for name in WRITERS if name in parts]) > 1:
        raise InputError(f"study: {where}: expected one of {' and '.join(both)}")
    return {name: dict(part) for name, part in parts.items()}


def _merged(common: dict[str, Part], own: dict[str, Part], arm: str) -> dict[str, Part]:
    """The parts of an arm. An arm that writes its dataset in another way than `common` does takes
    nothing of that part."""
    other = {name for name in WRITERS if any(w in own for w in WRITERS) and name not in own}
    parts = {name: {**common.get(name, {}), **own.get(name, {})} for name in {*common, *own}}
    if WARM_UP not in parts:
        raise InputError(f"study: arm {arm}: expected settings of {WARM_UP}")
    return {name: part for name, part in parts.items() if name not in other}


def _read_arm(name: str, parts: dict[str, Part], study: StudySettings) -> Arm:
    """Read the settings of all parts of an arm with the same checks as the commands."""
    given = {"report_to": "none", "output_dir": study.output_dir, **parts[WARM_UP]}
    warm_up = _saves_once(_read(WarmUpSettings, name, WARM_UP, given), parts[WARM_UP])
    writer: tuple[str, Any] | None = None
    for kind in WRITERS.keys() & parts.keys():
        given = {"output_dir": study.output_dir}
        if kind == "create":  # from the labelled images, if nothing else is said
            given |= _rows(warm_up) | {"max_source_samples": warm_up.max_train_samples}
        if kind != "import":
            given["pipeline"] = study.output_dir
        writer = kind, _read(WRITERS[kind], name, kind, given | parts[kind])
    self_improve = None
    if SELF_IMPROVE in parts:
        created = study.output_dir if writer else NONE
        self_improve = _read_self_improve(name, warm_up, created, parts[SELF_IMPROVE], study)
    return Arm(name, warm_up, writer, self_improve)


def _read_self_improve(
    arm: str, warm_up: WarmUpSettings, created: str, own: Part, study: StudySettings
) -> SelfImproveSettings:
    """Read the settings of self-improving. The real samples are those of the warm-up, if nothing
    else is said."""
    place = study.output_dir
    given = {"report_to": "none", "output_dir": place, "pipeline": place, "created": created}
    given |= _rows(warm_up) | {"max_train_samples": warm_up.max_train_samples}
    return _saves_once(_read(SelfImproveSettings, arm, SELF_IMPROVE, given | own), own)


def _rows(warm_up: WarmUpSettings) -> Part:
    """The settings of a warm-up that choose and read its rows."""
    names = ("source", "resolution", "on_bad_row")
    return {name: getattr(warm_up, name) for name in names}


def _baselines(group: list[Arm], common: dict[str, Part], study: StudySettings) -> list[Arm]:
    """The lines that stand beside the arms of one warm-up: the warm-up, and real-only training."""
    first, own = group[0], common.get(SELF_IMPROVE, {})
    taught = [arm.self_improve for arm in group if arm.self_improve and arm.writer]
    dropout = {"real_feature_dropout": max((one.feature_dropout for one in taught), default=0.0)}
    cutmix = {"real_cutmix": max((one.cutmix for one in taught), default=0.0)}
    perturbations: dict[str, Part] = {REAL_ONLY: {}}
    if any(dropout.values()):
        perturbations[f"{REAL_ONLY}, dropout"] = dropout
    if any(cutmix.values()):
        perturbations[f"{REAL_ONLY}, dropout and CutMix"] = dropout | cutmix
    arms = [Arm(WARMED, first.warm_up, None, None, first.group, built_in=True)]
    for name, perturbed in perturbations.items():
        read = _read_self_improve(name, first.warm_up, NONE, own | UNPERTURBED | perturbed, study)
        arms.append(Arm(name, first.warm_up, None, read, first.group, built_in=True))
    return arms


def _cell(arm: Arm, seed: int, study: Path) -> Cell:
    """An arm with a seed, with the folders of everything that it needs."""
    digest = _digest(WARM_UP, compared(arm.warm_up))
    draws: Part = {"seed": seed, "subset_seed": seed}
    place = study / WARM_UPS / digest / f"seed-{seed}"
    warm_up = Work(WARM_UP, replace(arm.warm_up, output_dir=str(place), **draws))
    pipeline, created = str(place / "pipeline"), None
    if arm.writer:
        name, written = arm.writer
        paths: Part = {"output_dir": ""}
        if name != "import":
            paths["pipeline"] = pipeline
        own = _digest(name, compared(written), digest if "pipeline" in paths else None)
        paths["output_dir"] = str(study / CREATED / own / f"seed-{seed}")
        known = {field.name for field in fields(written)}
        used = {key: value for key, value in draws.items() if key in known}
        created = Work(name, replace(written, **paths, **used))
    folder, trained = study / arm.name / f"seed-{seed}", None
    if arm.self_improve:
        places: Part = draws | {"pipeline": pipeline, "output_dir": str(folder)}
        places["created"] = str(created.folder) if created else NONE
        trained = replace(arm.self_improve, **places)
    return Cell(arm.name, seed, folder, warm_up, created, trained, arm.group, arm.built_in)


def _read(kind: type[Settings], arm: str, part: str, given: Part) -> Settings:
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items()}
    try:
        return read_settings(kind, [f"--{name}={value}" for name, value in texts.items()])
    except InputError as error:
        raise InputError(f"study: {arm}: {part}: {error}") from error


def _saves_once(settings: Any, given: Part) -> Any:
    """Write only the last checkpoint, if nothing else is said."""
    if "checkpointing_steps" in given:
        return settings
    return replace(settings, checkpointing_steps=settings.max_train_steps)
