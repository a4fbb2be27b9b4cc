"""MLServer: a custom runtime with onnxruntime, over the Open Inference Protocol."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from session import load


class Runtime(MLModel):
    async def load(self) -> bool:
        self.forward = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        answers = NumpyCodec.encode_output("answers", self.forward(rows))
        return InferenceResponse(model_name=self.name, outputs=[answers])
