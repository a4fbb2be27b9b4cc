"""NaN and infinity among the weights: every prediction would be NaN, which JSON cannot represent."""

from __future__ import annotations

import numpy as np

from tests.attacks.forge import ValidArtifact, Variants, main


def hostile(artifact: ValidArtifact) -> Variants:
    def with_value(name: str, value: float) -> bytes:
        array = artifact.arrays[name].copy()
        array.flat[-1] = value
        return artifact.with_array(name, array)

    return {
        "NaN": with_value("modules.0.weights", np.nan),
        "infinity": with_value("modules.0.weights", np.inf),
        "minus infinity": with_value("modules.2.bias", -np.inf),
        "in the golden outputs": with_value("golden.outputs", np.nan),
    }


if __name__ == "__main__":
    main(hostile)
