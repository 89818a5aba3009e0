"""Classes of NYUv2: from the 894 labels of the file to the 40 and 13 classes of benchmarks."""

import numpy as np
from numpy.typing import NDArray

LABELS = 894  # names in the file; 0 is unlabelled
# class -> the only label that belongs to it (Gupta et al. 2013, classMapping40.mat)
ONE_LABEL = {
    **{"wall": 21, "floor": 11, "cabinet": 3, "bed": 157, "chair": 5, "sofa": 83, "table": 19},
    **{"door": 28, "window": 59, "bookshelf": 88, "picture": 64, "counter": 7, "blinds": 80},
    **{"desk": 36, "shelves": 42, "curtain": 89, "dresser": 169, "pillow": 119, "mirror": 122},
    **{"floor mat": 143, "clothes": 141, "ceiling": 4, "books": 85, "refridgerator": 17},
    **{"television": 172, "paper": 15, "towel": 135, "shower curtain": 123, "box": 26},
    **{"whiteboard": 45, "person": 331, "night stand": 158, "toilet": 124, "sink": 24},
    **{"lamp": 144, "bathtub": 136, "bag": 55},
}
OTHER_STRUCTURE = (
    *(8, 25, 33, 38, 51, 53, 57, 58, 62, 65, 79, 94, 104, 112, 134, 153, 215, 216, 223, 225, 238),
    *(241, 242, 256, 295, 301, 339, 342, 354, 363, 372, 380, 392, 408, 412, 453, 456, 463, 477),
    *(497, 541, 550, 553, 567, 573, 582, 591, 609, 612, 615, 642, 645, 657, 658, 659, 663, 667),
    *(668, 686, 700, 702, 777, 778, 782, 850, 861, 868, 874),
)
OTHER_FURNITURE = (
    *(12, 43, 48, 50, 87, 106, 111, 161, 163, 174, 183, 204, 214, 219, 221, 224, 236, 262, 278),
    *(291, 298, 313, 343, 344, 356, 359, 373, 393, 401, 414, 418, 419, 430, 443, 444, 447, 448),
    *(457, 458, 460, 462, 475, 479, 485, 486, 493, 494, 498, 499, 509, 510, 515, 521, 524, 540),
    *(549, 551, 554, 556, 558, 576, 580, 608, 625, 703, 734, 770, 772, 797, 800, 803, 804, 813),
    *(814, 815, 820, 829, 835, 858, 863, 882, 892),
)
NAMES_40 = (*ONE_LABEL, "otherstructure", "otherfurniture", "otherprop")
NAMES_13 = (
    *("bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa"),
    *("table", "tv", "wall", "window"),
)
# for each of the 40 classes its number among the 13, from 1 (class13Mapping.mat)
TO_13 = (
    *(12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5, 7, 3, 2, 6, 11, 7, 7, 7),
    *(7, 7, 7, 6, 7, 7, 7, 7, 7, 7, 6, 7),
)
NAMES = {"40": NAMES_40, "13": NAMES_13}


def from_894(classes: str) -> NDArray[np.uint8]:
    """The class of each of the labels 0 to 894, [895]. 0 is unlabelled, so it becomes 255.

    Args:
        classes: how many classes: `40` or `13`.
    """
    numbers = np.full(LABELS + 1, 40, np.uint8)
    numbers[0] = 0
    numbers[list(ONE_LABEL.values())] = np.arange(1, len(ONE_LABEL) + 1)
    numbers[[*OTHER_STRUCTURE]], numbers[[*OTHER_FURNITURE]] = 38, 39
    return from_40(classes)[numbers]


def from_40(classes: str = "40") -> NDArray[np.uint8]:
    """The class of each of the numbers 0 to 40, [41]. 0 is unlabelled, so it becomes 255.

    Args:
        classes: how many classes: `40` or `13`.
    """
    numbers = range(1, 41) if classes == "40" else TO_13
    return np.array([255, *(number - 1 for number in numbers)], np.uint8)
