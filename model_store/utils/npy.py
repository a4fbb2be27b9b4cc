"""The array in the bytes of an .npy file."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

# Version 3.0 is for names of fields that are not Latin-1: no array of numbers has them.
_READ_HEADER = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}


def read_npy(content: bytes) -> NDArray[Any]:
    """Return the array of an .npy file, which shares the memory of `content`. ValueError if it is none.

    `numpy.load` and `read_array` allocate the size that the header claims, so a small invalid file would be a
    MemoryError; `numpy.load` would also read every entry of a ZIP archive.
    """
    file = BytesIO(content)
    version = npy_format.read_magic(file)
    if version not in _READ_HEADER:
        raise ValueError(f"expected version 1.0 or 2.0, found {version[0]}.{version[1]}")
    try:
        shape, fortran_order, dtype = _READ_HEADER[version](file)
    except MemoryError as e:  # of Python's parser: a header has 10,000 characters at most
        raise ValueError("expected a header, found one that is nested too deeply") from e
    except ValueError:
        raise
    except Exception as e:  # a malformed header raises many types of exception
        raise ValueError(f"expected a header of .npy, found {type(e).__name__}: {e}") from e
    if min(shape, default=0) < 0:
        raise ValueError(f"expected a shape without negative sizes, found {shape}")
    array = np.frombuffer(content, dtype, math.prod(shape), file.tell())
    return array.reshape(shape, order="F" if fortran_order else "C")
