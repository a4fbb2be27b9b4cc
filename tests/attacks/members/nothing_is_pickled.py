"""An object array: unpickling it runs code from the file."""

from __future__ import annotations

import os
import pickle

import numpy as np

from tests.attacks.forge import ValidArtifact, Variants, build_zip, main, npy_header


class Shell:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo pwned",)


def hostile(artifact: ValidArtifact) -> Variants:
    pickled = pickle.dumps(np.array([Shell()], object), protocol=2)
    parts = artifact.original_parts()
    name, header, data = parts[1]
    objects = npy_header("|O", (1,))
    return {
        "in place of an array": build_zip([parts[0], (name, objects, pickled), *parts[2:]]),
        "one more": build_zip([*parts, ("zzz", objects, pickled)]),
        "by its header": build_zip([parts[0], (name, header.replace(b"'<f4'", b"'|O' "), data), *parts[2:]]),
        "listed": artifact.with_manifest_value("arrays/modules.0.bias/dtype", "|O"),
        "as the dtype": artifact.with_manifest_value("dtype", "object"),
    }


if __name__ == "__main__":
    main(hostile)
