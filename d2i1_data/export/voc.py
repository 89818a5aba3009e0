"""PASCAL VOC: images, pictures of class ids with a palette, and lists of names for each split."""

import io
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from ..dataset.schema import decode_rgb
from ..dataset.shards import write_id2label
from .entries import Selection, write_new

ROOT = "VOCdevkit/VOC2012"  # where readers such as torchvision look
QUALITY = 95  # of JPEG, the only format of images that these readers know
LABELS = "labelmap.txt"  # names and colours of the classes, as CVAT and Datumaro read them


def write_voc(folder: Path, selection: Selection) -> None:
    """Write JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/SPLIT.txt.

    trainval.txt lists the images of train and val.

    Args:
        folder: an empty folder.
        selection: the samples, with one task that has classes.
    """
    (task,) = selection.tasks.values()
    place, names = folder / ROOT, {split: list[str]() for split in selection.splits}
    for entry in selection.entries:
        names[entry.split].append(entry.name)
        file, image = io.BytesIO(), Image.fromarray(decode_rgb(entry.image))
        image.save(file, "JPEG", quality=QUALITY, subsampling="4:4:4")
        write_new(place / "JPEGImages" / f"{entry.name}.jpg", file.getvalue())
        ids = task.family.to_png(entry.classes(task))  # with a palette, whoever stored it
        write_new(place / "SegmentationClass" / f"{entry.name}.png", ids)
    names["trainval"] = [name for split in ("train", "val") for name in names.get(split, ())]
    for split, own in names.items():
        text = "".join(f"{name}\n" for name in own)
        write_new(place / "ImageSets/Segmentation" / f"{split}.txt", text.encode())
    kinds = zip(task.family.names, task.family.palette, strict=True)
    lines = [f"{_word(name)}:{','.join(map(str, colour))}::" for name, colour in kinds]
    header = "# label:color_rgb:parts:actions"
    write_new(place / LABELS, "\n".join([header, *lines, ""]).encode())
    write_id2label(folder, selection.tasks)


def _word(name: str) -> str:
    """A name of a class, with percent-encoding of what would end it in the list of labels."""
    return "".join(c if c.isprintable() and c not in ":#%" else quote(c) for c in name)
