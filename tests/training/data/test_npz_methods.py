"""An .npz file is stored or deflated, as NumPy writes it."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from training.data.readers import read_npz
from training.errors import DataError


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_array_with_another_method_than_deflate_is_refused(method: int, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    array = io.BytesIO()
    np.save(array, np.zeros((4, 2)))
    with zipfile.ZipFile(path, "w", method) as archive:
        for key in ("x", "y"):
            archive.writestr(f"{key}.npy", array.getvalue())
    with pytest.raises(DataError, match="x: expected an array stored or deflated, found ZIP method"):
        read_npz(path)
