"""The compiler of networks: their modules, one after the other."""

from __future__ import annotations

from model_store.nn import Array, Flatten, Sequential
from training.engine.compiled.compilers import FEATURE_MAJOR_TYPES, CompiledModule, compile_module, register_compiler
from training.engine.compiled.layout import row_major
from training.tracer import Call


@register_compiler(Sequential, feature_major=True)
def compile_sequential(network: Sequential, inputs: Array) -> CompiledModule:
    outputs, forward, backwards = inputs, [], []
    if network.input_shape is not None and len(network.input_shape) > 1:
        outputs = inputs.reshape(-1, *network.input_shape)
    for module in network.modules:
        if type(module) not in FEATURE_MAJOR_TYPES:
            outputs, calls = row_major(outputs)
            forward += calls
        compiled = compile_module(module, outputs)
        outputs = compiled.outputs
        forward += compiled.forward
        backwards.append(compiled.backward)
    outputs, calls = row_major(outputs)
    forward += calls
    has_parameters = [bool(module.parameters()) for module in network.modules]

    def backward(output_grad: Array, needed: bool) -> tuple[Array, list[Call]]:
        """Skip the gradient with respect to the input of the first module with parameters unless it is needed."""
        grad, calls = output_grad, []
        for i in reversed(range(len(backwards))):
            if not needed and not any(has_parameters[: i + 1]):
                break
            grad, more = backwards[i](grad, needed or any(has_parameters[:i]))
            calls += more
        return grad.reshape(inputs.shape) if needed else inputs, calls

    return CompiledModule(outputs, forward, backward)


@register_compiler(Flatten)
def compile_flatten(layer: Flatten, inputs: Array) -> CompiledModule:
    return CompiledModule(layer(inputs), [], lambda output_grad, _: (layer.backward(output_grad), []))
