"""MATLAB files: version 7.3 is HDF5 and read by h5py, older ones by scipy (the extra `import`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .mat5 import uncompressed


@contextmanager
def needed(library: str, file: Path) -> Iterator[None]:
    """Say which extra a file needs, if an import inside fails.

    Args:
        library: the name of the library.
        file: the file that needs it.

    Raises:
        InputError: if it is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise InputError(f"{file} needs {library}: pip install 'diff2in1[import]'") from error


def read_mat(file: Path, name: str) -> NDArray[Any]:
    """A variable of a MATLAB file up to version 7, such as an array, a cell or a struct.

    Raises:
        InputError: if there is no such file or variable, or it cannot be read.
    """
    if not file.is_file():
        raise InputError(f"no such file: {file}")
    with needed("scipy", file):
        from scipy.io import loadmat
    try:
        content = loadmat(BytesIO(uncompressed(file.read_bytes())), variable_names=[name])
    except Exception as error:  # damaged files raise errors of many kinds
        why = " ".join(str(error).split())
        raise InputError(f"{file}: not readable as a MATLAB file up to version 7: {why}") from error
    if name not in content:
        raise InputError(f"{file}: has no variable {name!r}")
    value: NDArray[Any] = content[name]
    return value


def whole_numbers(array: NDArray[Any], file: Path) -> NDArray[np.int64]:
    """An array of a file as integers.

    Raises:
        InputError: if it is empty or holds something else.
    """
    if (
        array.dtype.kind in "uif"
        and array.size
        and (np.abs(array.astype(np.float64)) < 2**31).all()
    ):
        numbers = array.astype(np.int64)
        if (numbers == array).all():
            return numbers
    raise InputError(f"{file}: expected whole numbers, got {array.dtype} of shape {array.shape}")


class Hdf5:
    """A MATLAB file of version 7.3. It is opened for each reading, so that processes can share it.

    MATLAB stores columns first: what is `height x width x 3 x count` there is `count x 3 x width x
    height` here.

    Args:
        file: the file.

    Raises:
        InputError: if there is no such file, or h5py is not installed.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise InputError(f"no such file: {file}")
        with needed("h5py", file):
            import h5py  # noqa: F401
        self.file = file

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a variable, the last dimension of MATLAB first.

        Raises:
            InputError: if it cannot be read.
        """
        shape: tuple[int, ...] = self._read(name, lambda stored, _: stored.shape)
        return shape

    def item(self, name: str, index: int) -> NDArray[Any]:
        """One item along the last dimension of MATLAB, in MATLAB's order: height before width.

        Raises:
            InputError: if it cannot be read.
        """
        item: NDArray[Any] = self._read(name, lambda stored, _: np.asarray(stored[index]).T)
        return item

    def texts(self, name: str, indices: list[int]) -> list[str]:
        """Some of the texts of a cell array.

        Raises:
            InputError: if they cannot be read.
        """

        def read(stored: Any, file: Any) -> list[str]:
            references = np.asarray(stored).ravel()
            return ["".join(map(chr, file[references[i]][()].ravel())) for i in indices]

        texts: list[str] = self._read(name, read)
        return texts

    def _read(self, name: str, take: Any) -> Any:
        import h5py

        try:
            with h5py.File(self.file, "r") as file:
                if name not in file:
                    raise InputError(f"{self.file}: has no variable {name!r}")
                return take(file[name], file)
        except InputError:
            raise
        except Exception as error:  # damaged files raise errors of many kinds
            why = " ".join(str(error).split())
            raise InputError(
                f"{self.file}: {name} not readable as MATLAB 7.3 (HDF5): {why}"
            ) from error
