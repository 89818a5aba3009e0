"""The kinds of sources, one record each. A new kind is a new file beside this one, and a record."""

from ..errors import InputError
from ..registry import as_markdown
from .spec import SourceKind, Spec

RECORDS = (
    SourceKind(
        "rooms",
        "d2i1_data.sources.rooms:Rooms",
        "the embedded source: rendered rooms with exact labels; splits train, val, test",
    ),
    SourceKind(
        "folder",
        "d2i1_data.sources.folder:Folder",
        "your own images and labels, described by a YAML file; or a folder of images",
        place="FILE.yaml",
        is_file=True,
    ),
    SourceKind(
        "hub",
        "d2i1_data.sources.hub:Hub",
        "any data set of the Hub, described by a YAML file; or one whose description is shipped",
        place="FILE.yaml_OR_ID",
        is_file=True,
    ),
    SourceKind(
        "dataset",
        "d2i1_data.sources.dataset:Dataset",
        "a dataset in our schema, in a folder or on the Hub",
        place="PATH_OR_ID",
        quality=True,
    ),
    SourceKind(
        "text",
        "d2i1_data.sources.text:Text",
        "captions without images, one on each line of a text file",
        place="FILE",
        split=False,
        is_file=True,
        images=False,
    ),
    SourceKind(
        "nyuv2",
        "d2i1_data.sources.nyuv2:Nyuv2",
        "NYU Depth V2, the labelled part: depth, 40 or 13 classes, normals in any packing",
        place="DIR",
        origin="from cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html, which asks to cite the paper",
    ),
    SourceKind(
        "ade20k",
        "d2i1_data.sources.ade20k:Ade20k",
        "ADE20K as the scene parsing benchmark packs it: 150 classes; splits train, val",
        place="DIR",
        origin="from sceneparsing.csail.mit.edu, for non-commercial research",
    ),
    SourceKind(
        "nyud-mt",
        "d2i1_data.sources.nyud_mt:NyudMt",
        "NYUD-MT: normals, depth, 40 classes, edges, in all three packings; splits train, val",
        place="DIR",
        origin="from the README of github.com/prismformore/Multi-Task-Transformer, under the terms"
        " of NYUv2",
    ),
    SourceKind(
        "pascal-context",
        "d2i1_data.sources.pascal_context:PascalContext",
        "PASCAL-Context for several tasks: 21 classes, parts of people, saliency, normals, edges",
        place="DIR",
        origin="from the README of github.com/prismformore/Multi-Task-Transformer, under the terms"
        " of PASCAL VOC and Flickr",
    ),
    SourceKind(
        "scannet",
        "d2i1_data.sources.scannet:Scannet",
        "ScanNet: exported frames, the 25k subset, .sens files, or FrameNet's normals",
        place="DIR",
        origin="from github.com/ScanNet/ScanNet after signing its Terms of Use",
    ),
)
SOURCES = {record.name: record for record in RECORDS}


def parse_spec(text: str) -> Spec:
    """Read the text of a `--source`, such as `folder:camvid.yaml:val`.

    Raises:
        InputError: if the kind is unknown, or a file, folder or Hub id is missing.
    """
    name, _, rest = text.partition(":")
    kind = SOURCES.get(name)
    if kind is None or (kind.place and not rest.partition(":")[0]):
        raise InputError(f"source {text!r}: expected one of {source_forms()}")
    place, split = (rest, "") if kind.place else ("", rest)
    if kind.place and kind.split:
        place, _, split = rest.partition(":")
    return Spec(name, place or None, split or None)


def source_forms() -> str:
    """The forms of all specs, for help and errors."""
    return ", ".join(kind.form for kind in SOURCES.values())


def labelled_source_forms() -> str:
    """The forms of all specs whose sources can have labels, for help."""
    return ", ".join(kind.form for kind in SOURCES.values() if kind.images)


def origins() -> str:
    """Where users get the published data sets, and under which terms, for help."""
    known = (f"{kind.name} {kind.origin}" for kind in SOURCES.values() if kind.origin)
    return f"{'; '.join(known)}; see docs/datasets.md"


def source_table() -> str:
    """The table of the docs."""
    rows = ((f"`{kind.form}`", kind.help) for kind in SOURCES.values())
    return as_markdown(("source", "what it reads"), rows)


def origin_table() -> str:
    """The table of the published data sets of the docs."""
    rows = ((f"`{kind.form}`", kind.origin) for kind in SOURCES.values() if kind.origin)
    return as_markdown(("source", "where to get it, and its terms"), rows)
