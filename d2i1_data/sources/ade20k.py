"""The source `ade20k:`: ADE20K as the scene parsing benchmark packs it, 150 classes.

    DIR/images/training/ADE_train_00000001.jpg
    DIR/annotations/training/ADE_train_00000001.png      0 is unlabelled, class k is k + 1

DIR may also be the folder above, which holds `ADEChallengeData2016`. Source: Zhou et al. 2017;
github.com/CSAILVision/sceneparsing (names, colours).
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..tasks import SEMSEG
from .official import Official
from .source import fingerprint

FOLDERS = {"train": "training", "val": "validation"}
# one of the names of each class in objectInfo150.txt, without the blanks that some have there
NAMES = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa,
shelf, house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp,
bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter, sand,
sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table,
pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower,
book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar,
arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight,
booth, television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator,
ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer,
plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven,
ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen,
blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen,
plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""
# two classes may have one colour: road and skyscraper
COLOURS = """
787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d
787846 08ff33 ff0652 8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0
0907e6 dcdcdc ff095c 7009ff 08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06
ffc207 ff7a08 00ff14 ff0829 ff0599 0633ff eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00
ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff 0bc8c8 ff5200 00fff5 003dff 00ff70
00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29 00ffad 0a00ff adff00 00ff99
ff5c00 ff00ff ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2 00ff52
000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00
08b8aa 8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff
9900ff 47ff00 ff00a3 ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 0abed4 d6ff00
00ccff 1400ff ffff00 0099ff 0029ff 00ffcc 2900ff 29ff00 ad00ff 00f5ff 4700ff 7a00ff 00ffb8
005cff b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff
"""


class Ade20k(Official):
    """ADE20K with 150 classes; other objects are unknown.

    Args:
        place: the folder `ADEChallengeData2016`, or the one above it.
        choice: the split, `train` or `val`.

    Raises:
        InputError: if a folder is missing or holds something else.
    """

    name = "ade20k"
    splits: ClassVar[tuple[str, ...]] = ("train", "val")

    def __init__(self, place: str, choice: str | None = None) -> None:
        super().__init__(place, choice)
        self.enter("ADEChallengeData2016")
        names = [name.strip() for name in " ".join(NAMES.split()).split(",")]
        self.tasks = {
            SEMSEG.name: SEMSEG.with_classes(names, [*map(bytes.fromhex, COLOURS.split())])
        }
        images, labels = self._list("images", ".jpg"), self._list("annotations", ".png")
        self.ids = images
        self.strays = {
            i: f"{self._file('annotations', i, '.png')}: a label without an image"
            for i in sorted({*labels} - {*images})
        }
        self.fingerprint = fingerprint(self.name, self.split, self.ids)

    def _list(self, kind: str, suffix: str) -> list[str]:
        folder = self.root / kind / FOLDERS[self.split]
        ids = sorted(file.stem for file in folder.glob(f"ADE_*{suffix}"))
        if not ids:
            raise InputError(
                f"ade20k: expected files such as {folder}/ADE_{self.split}_00000001{suffix}"
            )
        return ids

    def _file(self, kind: str, identity: str, suffix: str) -> Path:
        return self.root / kind / FOLDERS[self.split] / f"{identity}{suffix}"

    def file(self, column: str, index: int) -> Path:
        kind, suffix = ("images", ".jpg") if column == "image" else ("annotations", ".png")
        return self._file(kind, self.ids[index], suffix)

    def image(self, index: int) -> NDArray[np.uint8]:
        return self.rgb(self.file("image", index), self.ids[index])

    def target(self, task: str, index: int, size: tuple[int, int]) -> NDArray[np.generic]:
        """Class ids from 0. In the file 0 is unlabelled; 0 - 1 is 255, which is unknown here."""
        return self.class_numbers(self.file(task, index), 150) - np.uint8(1)
