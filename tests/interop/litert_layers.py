"""Small TFLite models, written tensor by tensor with the schema that comes with LiteRT (PyPI ai-edge-litert), and LiteRT's CPU
kernels to run them."""
import flatbuffers
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

MODEL_VERSION = 3


class LayerModel:
    """A TFLite model that grows tensor by tensor."""

    def __init__(self):
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators, self.graph.name = [], [], "main"
        self.model = schema.ModelT()
        self.model.version, self.model.description = MODEL_VERSION, "layers"
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []

    def tensor(self, name, kind, shape, scales=None, data=None):
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.shape, tensor.hasRank = name, getattr(schema.TensorType, kind), list(shape), True
        if scales is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [float(scale) for scale in scales]
            tensor.quantization.zeroPoint = [0] * len(scales)
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = data
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, name, inputs, output, version=1, options=None):
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self.model.operatorCodes) - 1, inputs, [output]
        if options is not None:
            operator.builtinOptionsType, operator.builtinOptions = options
        self.graph.operators.append(operator)

    def linear(self, x, weight, y):
        options = schema.FullyConnectedOptionsT()
        options.keepNumDims = True
        self.operator("FULLY_CONNECTED", [x, weight, -1], y, 4, (schema.BuiltinOptions.FullyConnectedOptions, options))

    def finish(self, inputs, y):
        self.graph.inputs, self.graph.outputs, self.model.subgraphs = inputs, [y], [self.graph]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def run_client(model, *inputs):
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    for facts, values in zip(interpreter.get_input_details(), inputs):
        interpreter.set_tensor(facts["index"], values)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
