"""An object array: whoever unpickles it runs what the file says."""

from __future__ import annotations

import os
import pickle

import numpy as np

from tests.attacks.forge import Variants, Whole, main, npy_header, zipped


class Shell:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo pwned",)


def hostile(whole: Whole) -> Variants:
    pickled = pickle.dumps(np.array([Shell()], object), protocol=2)
    parts = whole.own_parts()
    name, header, data = parts[1]
    objects = npy_header("|O", (1,))
    return {
        "in place of an array": zipped([parts[0], (name, objects, pickled), *parts[2:]]),
        "one more": zipped([*parts, ("zzz", objects, pickled)]),
        "by its header": zipped([parts[0], (name, header.replace(b"'<f4'", b"'|O' "), data), *parts[2:]]),
        "listed": whole.saying("arrays/modules.0.bias/dtype", "|O"),
        "as the dtype": whole.saying("dtype", "object"),
    }


if __name__ == "__main__":
    main(hostile)
