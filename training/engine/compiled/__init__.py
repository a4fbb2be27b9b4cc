"""Compiled training steps: forward, loss and backward as NumPy calls on arrays that never move.

In a network of a few small layers most of a step is Python that finds methods and NumPy that finds memory. A compiled
step finds both once; the training loop only makes the calls. They compute what the modules' `forward` and `backward`
compute; a module that has no compiler is compiled generically, to calls of these two.
"""

from training.engine.compiled import activations, conv, embeddings, linear, normalization, sequential
from training.engine.compiled.compilers import COMPILERS, CompiledModule, compile_module
from training.engine.compiled.losses import LOSS_COMPILERS
from training.engine.compiled.step import CompiledStep

__all__ = [
    "COMPILERS",
    "LOSS_COMPILERS",
    "CompiledModule",
    "CompiledStep",
    "activations",
    "compile_module",
    "conv",
    "embeddings",
    "linear",
    "normalization",
    "sequential",
]
