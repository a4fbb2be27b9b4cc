"""Write the handwritten digits of digits.npz as a folder of PNG files: `python examples/digit_pictures.py [FOLDER]`.

The folder is digit-pictures beside this file by default, where digit-pictures.toml reads it. A digit of 8 by 8 pixels
becomes a picture of 32 by 32, dark ink on white paper. Needs Pillow, the extra `images`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def main(folder: Path) -> None:
    digits = np.load(Path(__file__).parent / "digits.npz")
    for number, (ink, digit) in enumerate(zip(digits["x"], digits["y"], strict=True)):
        paper = np.rint(255 - ink * (255 / 16)).astype(np.uint8)
        picture = Image.fromarray(paper).resize((32, 32), Image.Resampling.BICUBIC)
        path = folder / str(digit) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("digit-pictures"))
