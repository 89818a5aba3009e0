"""The camera of a source."""

from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class Camera:
    """The camera that took the images of a source, in pixels of the images.

    focal: focal length, horizontal and vertical. centre: the pixel on the optical axis, from the
    left and from the top; None is the middle of the image.
    """

    focal: list[float]
    centre: list[float] | None = None

    def checked(self, file: str) -> "Camera":
        """This camera.

        Args:
            file: the YAML file, for the error.

        Raises:
            InputError: if it is not two numbers above 0, and two numbers.
        """
        pairs = [self.focal, *([] if self.centre is None else [self.centre])]
        if any(len(pair) != 2 for pair in pairs) or not min(self.focal) > 0:
            raise InputError(
                f"{file}: camera: got focal {self.focal}, centre {self.centre}, expected two"
                " numbers of pixels each, horizontal and vertical"
            )
        return self
