"""The compilers of modules, by exact type: a subclass, whose passes may differ, is compiled generically."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from model_store.nn import Array, Module
from training.tracer import Call, call_into

CompileBackward = Callable[[Array, bool], tuple[Array, list[Call]]]


class CompiledModule(NamedTuple):
    """A module compiled for a batch that always lies in the same array.

    outputs: the array that the forward calls fill.
    backward: given the array of `∂E/∂Y` and whether `∂E/∂X` is needed, returns the array of `∂E/∂X` and the calls that
        fill it and set the gradients. They overwrite gradients instead of adding to them, and may overwrite `∂E/∂Y`.
    """

    outputs: Array
    forward: list[Call]
    backward: CompileBackward


Compiler = Callable[[Any, Array], CompiledModule]  # of a module and the array of its inputs
AnyCompiler = TypeVar("AnyCompiler", bound=Compiler)

COMPILERS: dict[type[Module], Compiler] = {}
FEATURE_MAJOR_TYPES: set[type[Module]] = set()  # whose compilers take batches that are stored feature by feature, too


def register_compiler(*kinds: type[Module], feature_major: bool = False) -> Callable[[AnyCompiler], AnyCompiler]:
    """Register a compiler for modules of exactly these types."""

    def register(compiler: AnyCompiler) -> AnyCompiler:
        COMPILERS.update(dict.fromkeys(kinds, compiler))
        if feature_major:
            FEATURE_MAJOR_TYPES.update(kinds)
        return compiler

    return register


def compile_module(module: Module, inputs: Array) -> CompiledModule:
    """Compile `module` for batches in `inputs`, whose content is arbitrary at this time."""
    return COMPILERS.get(type(module), compile_generic)(module, inputs)


def compile_generic(module: Module, inputs: Array) -> CompiledModule:
    """Compile any module: call its `forward` and `backward` and copy what they return."""
    # A copy finds the shape of the outputs, so that running statistics and generators stay as they are.
    outputs = copy.deepcopy(module).forward(np.zeros_like(inputs)).copy()

    def backward(output_grad: Array, _: bool) -> tuple[Array, list[Call]]:
        input_grad = np.zeros_like(inputs)
        clear: list[Call] = [(gradient.fill, (0,)) for gradient in module.gradients()]
        return input_grad, [*clear, call_into(input_grad, module.backward, output_grad)]

    return CompiledModule(outputs, [call_into(outputs, module.forward, inputs)], backward)
