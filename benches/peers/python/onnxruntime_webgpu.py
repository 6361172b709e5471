"""ONNX Runtime's WebGPU execution provider: Dawn over Vulkan."""

import os

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import racer
from racer import X, vector

PROVIDER = "WebGpuExecutionProvider"
FLOATS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
# Operands are constants, so that they are uploaded once, and a node is repeated inside one graph: neither may be optimised away.
KEPT = ["ConstantFolding", "CommonSubexpressionElimination"]


def session(node, operands, output, repeats):
    """A session whose graph has node (operator, attributes) repeats times. With 0, once with the whole result as output;
    else what leaves the adapter is a single number of each."""
    operator, attributes = node
    kind = FLOATS[next(iter(operands.values())).dtype.name]
    constants = [numpy_helper.from_array(value, name) for name, value in operands.items()]
    nodes = [helper.make_node(operator, list(operands), [f"y{i}"], **attributes) for i in range(max(repeats, 1))]
    name, shape = "y0", output
    if repeats:
        axes = list(range(len(output)))
        for bound, value in [("from", 0), ("to", 1)]:
            constants.append(numpy_helper.from_array(np.full(len(output), value, np.int64), bound))
        constants.append(numpy_helper.from_array(np.array(axes, np.int64), "axes"))
        nodes += [helper.make_node("Slice", [f"y{i}", "from", "to", "axes"], [f"s{i}"]) for i in range(repeats)]
        nodes.append(helper.make_node("Concat", [f"s{i}" for i in range(repeats)], ["s"], axis=0))
        name, shape = "s", [repeats] + [1] * (len(output) - 1)
    graph = helper.make_graph(nodes, "race", [], [helper.make_tensor_value_info(name, kind, shape)], constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    # What the provider cannot do must not silently run on the CPU.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.log_severity_level = 3
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=[PROVIDER], disabled_optimizers=KEPT
    )


def prepare(case):
    op, note = case["op"], ""
    shape = lambda y: y
    if op == "matmul":
        m, k, n = case["m"], case["k"], case["n"]
        operands = {"x": vector(X, m * k).reshape(m, k), "w": racer.weight(n, k).T.copy()}
        if case["weights"] == "f16":
            operands, note = {name: value.astype(np.float16) for name, value in operands.items()}, "f16 x f16"
        node, output = ("MatMul", {}), [m, n]
    elif op == "attention":
        tokens, heads, width = case["tokens"], case["heads"], case["heads"] * case["head_dim"]
        q, k, v = (a.reshape(1, tokens, width) for a in racer.attention_operands(case))
        operands = {"q": q, "k": k, "v": v}
        node = ("MultiHeadAttention", {"domain": "com.microsoft", "num_heads": heads})
        output, note = [1, tokens, width], "MultiHeadAttention"
    elif op == "conv2d":
        x, w = racer.conv_operands(case)
        operands, node = {"x": x, "w": w}, ("Conv", {"pads": [1, 1, 1, 1]})
        output = [1, case["output"], case["height"], case["width"]]
        shape = lambda y: y[0].transpose(1, 2, 0)
    else:
        raise racer.Unsupported(f"not run: no {op} of its own, a graph would have to be exported")

    sessions = {0: session(node, operands, output, 0)}

    def run(repeats):
        if repeats not in sessions:
            sessions[repeats] = session(node, operands, output, repeats)
        sessions[repeats].run(None, {})

    return run, lambda: shape(sessions[0].run(None, {})[0]), note


def open_racer():
    if PROVIDER not in ort.get_available_providers():
        raise SystemExit(f"onnxruntime {ort.__version__} has only {ort.get_available_providers()}")
    # It does not say which adapter it took: the only one that this file allows.
    drivers = os.environ.get("VK_DRIVER_FILES", "the system's Vulkan drivers")
    return f"onnxruntime-webgpu {ort.__version__}", f"Dawn on {os.path.basename(drivers)}", prepare


racer.serve(open_racer)
