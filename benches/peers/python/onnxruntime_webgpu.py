"""ONNX Runtime's WebGPU execution provider: Dawn over Vulkan."""

import os

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import racer
from racer import X, vector

PROVIDER = "WebGpuExecutionProvider"
FLOATS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
# A relative error beyond this is no rounding; src/expected.rs has the same.
WRONG = 5e-3
# Operands are constants, so that they are uploaded once, and a node is repeated in one graph: neither may be optimised away.
KEPT = ["ConstantFolding", "CommonSubexpressionElimination"]


def session(way, operands, output, repeats):
    """A session whose graph has the nodes of way repeats times: (operator, inputs, attributes) in a row, where _ is the
    result of the one before. With 0, once with the whole result as output; else what leaves the adapter is a single number
    of each."""
    kind = FLOATS[next(iter(operands.values())).dtype.name]
    constants = [numpy_helper.from_array(value, name) for name, value in operands.items()]
    nodes = []
    for i in range(max(repeats, 1)):
        names = [f"t{i}.{j}" for j in range(len(way) - 1)] + [f"y{i}"]
        for j, (operator, inputs, attributes) in enumerate(way):
            inputs = [names[j - 1] if name == "_" else name for name in inputs]
            nodes.append(helper.make_node(operator, inputs, [names[j]], **attributes))
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


class Case:
    """The sessions over a case by number of repeats. layout brings a result into the case's."""

    def __init__(self, way, operands, output, layout=lambda y: y, note=""):
        self.way, self.operands, self.output, self.layout, self.note = way, operands, output, layout, note
        self.sessions = {}

    def session(self, repeats):
        if repeats not in self.sessions:
            self.sessions[repeats] = session(self.way, self.operands, self.output, repeats)
        return self.sessions[repeats]

    def run(self, repeats):
        self.session(repeats).run(None, {})

    def result(self):
        return self.layout(self.session(0).run(None, {})[0])


def prepare(case):
    op = case["op"]
    if op == "matmul":
        m, k, n = case["m"], case["k"], case["n"]
        operands, note = {"x": vector(X, m * k).reshape(m, k), "w": racer.weight(n, k).T.copy()}, ""
        if case["weights"] == "f16":
            operands, note = {name: value.astype(np.float16) for name, value in operands.items()}, "f16 x f16"
        made = Case([("MatMul", ["x", "w"], {})], operands, [m, n], note=note)
    elif op == "attention":
        made = attention(case)
    elif op == "conv2d":
        x, w = racer.conv_operands(case)
        output = [1, case["output"], case["height"], case["width"]]
        way = [("Conv", ["x", "w"], {"pads": [1, 1, 1, 1]})]
        made = Case(way, {"x": x, "w": w}, output, lambda y: y[0].transpose(1, 2, 0))
    else:
        raise racer.Unsupported(f"not run: no {op} of its own, a graph would have to be exported")
    return made.run, made.result, made.note


def attention(case):
    """The faster of two ways; one that is wrong (on software Vulkan the fused one is) only if there is no other."""
    tokens, heads, d = case["tokens"], case["heads"], case["head_dim"]
    q, k, v = racer.attention_operands(case)
    rows = q[:: max(1, tokens // 16)].astype(np.float64)
    scores = np.einsum("mhd,nhd->hmn", rows, k.astype(np.float64)) / np.sqrt(d)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("hmn,nhd->mhd", weights / weights.sum(-1, keepdims=True), v.astype(np.float64))

    flat = {name: value.reshape(1, tokens, heads * d) for name, value in [("q", q), ("k", k), ("v", v)]}
    fused = [("MultiHeadAttention", ["q", "k", "v"], {"domain": "com.microsoft", "num_heads": heads})]
    by_head = {
        "q": q.transpose(1, 0, 2)[None] / np.float32(np.sqrt(d)),
        "k": k.transpose(1, 2, 0)[None],
        "v": v.transpose(1, 0, 2)[None],
    }
    by_head = {name: np.ascontiguousarray(value) for name, value in by_head.items()}
    formula = [("MatMul", ["q", "k"], {}), ("Softmax", ["_"], {"axis": -1}), ("MatMul", ["_", "v"], {})]
    ways = [
        Case(fused, flat, [1, tokens, heads * d], note="MultiHeadAttention"),
        Case(formula, by_head, [1, heads, tokens, d], lambda y: y[0].transpose(1, 0, 2), "MatMul, Softmax, MatMul"),
    ]
    judged, failed = [], []
    for i, way in enumerate(ways):
        try:
            way.run(1)
            found = way.result().reshape(tokens, heads, d)[:: max(1, tokens // 16)]
            error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
            judged.append((error > WRONG, racer.measured(way.run, 1)["cpu"], i, way))
            if error > WRONG:
                failed.append(way)
                way.note += f", off by {error:.1e}"
        except Exception as error:
            failed.append(way)
            way.note += f", failed: {error}"
    if not judged:
        raise racer.Unsupported("; ".join(way.note for way in ways))
    best = min(judged, key=lambda each: each[:3])[-1]
    best.note = "; ".join([best.note] + [way.note for way in ways if way in failed and way is not best])
    return best


def open_racer():
    if PROVIDER not in ort.get_available_providers():
        raise SystemExit(f"onnxruntime {ort.__version__} has only {ort.get_available_providers()}")
    # It does not say which adapter it took: the only one that this file allows.
    drivers = os.environ.get("VK_DRIVER_FILES", "the system's Vulkan drivers")
    return f"onnxruntime-webgpu {ort.__version__}", f"Dawn on {os.path.basename(drivers)}", prepare


racer.serve(open_racer)
