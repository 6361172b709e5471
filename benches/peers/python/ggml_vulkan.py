"""ggml's Vulkan backend, which stable-diffusion.cpp and llama.cpp run on: the libraries that cyllama-vulkan's wheel holds,
called through ggml's C interface as stable-diffusion.cpp calls it."""

import ctypes
import glob
import importlib.metadata
import os

import numpy as np

# A device that is a processor is hidden from users who do not name it. On one, arithmetic in f16 and emulated matrix cores
# make ggml slower (attention 2.7 times, on Mesa 26.1.6) or hang it, so it runs without; FORCED says otherwise.
FORCED = os.environ.get("RACE_GGML_AS_IS")
os.environ.setdefault("GGML_VK_VISIBLE_DEVICES", "0")
if not FORCED:
    os.environ["GGML_VK_DISABLE_COOPMAT2"] = os.environ["GGML_VK_DISABLE_F16"] = "1"

import racer
from racer import X, vector

F32, F16 = 0, 1
p, i32, i64, f32, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float, ctypes.c_size_t


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", size), ("mem_buffer", p), ("no_alloc", ctypes.c_bool)]


# Name: (result, arguments); ggml.h, ggml-backend.h, ggml-vulkan.h.
BASE = {
    "ggml_version": (ctypes.c_char_p, []),
    "ggml_init": (p, [InitParams]),
    "ggml_free": (None, [p]),
    "ggml_tensor_overhead": (size, []),
    "ggml_graph_overhead_custom": (size, [size, ctypes.c_bool]),
    "ggml_new_graph_custom": (p, [p, size, ctypes.c_bool]),
    "ggml_build_forward_expand": (None, [p, p]),
    "ggml_new_tensor_4d": (p, [p, i32, i64, i64, i64, i64]),
    "ggml_nbytes": (size, [p]),
    "ggml_mul_mat": (p, [p, p, p]),
    "ggml_flash_attn_ext": (p, [p, p, p, p, p, f32, f32, f32]),
    "ggml_conv_2d": (p, [p, p, p] + [i32] * 6),
    "ggml_conv_2d_direct": (p, [p, p, p] + [i32] * 6),
    "ggml_backend_alloc_ctx_tensors": (p, [p, p]),
    "ggml_backend_buffer_free": (None, [p]),
    "ggml_backend_tensor_set": (None, [p, p, size, size]),
    "ggml_backend_tensor_get": (None, [p, p, size, size]),
    "ggml_backend_graph_compute": (i32, [p, p]),
    "ggml_backend_supports_op": (ctypes.c_bool, [p, p]),
    "ggml_gallocr_new": (p, [p]),
    "ggml_gallocr_alloc_graph": (ctypes.c_bool, [p, p]),
    "ggml_gallocr_free": (None, [p]),
    "ggml_backend_get_default_buffer_type": (p, [p]),
}
VULKAN = {
    "ggml_backend_vk_init": (p, [size]),
    "ggml_backend_vk_get_device_count": (i32, []),
    "ggml_backend_vk_get_device_description": (None, [i32, ctypes.c_char_p, size]),
}


def load():
    wheel = importlib.metadata.distribution("cyllama-vulkan")
    folder = os.path.join(wheel.locate_file(""), "cyllama_vulkan.libs")
    found = {}
    for stem in ["ggml-base", "ggml-cpu", "ggml-vulkan"]:
        (path,) = glob.glob(os.path.join(folder, f"lib{stem}-*.so*"))
        found[stem] = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    for library, functions in [(found["ggml-base"], BASE), (found["ggml-vulkan"], VULKAN)]:
        for name, (result, arguments) in functions.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            globals()[name] = function
    return wheel.version


NODES = 64


class Graph:
    """count times the node that build(context, operands) makes, in one graph."""

    def __init__(self, backend, operands, build, count):
        overhead = (NODES * 8) * ggml_tensor_overhead() + ggml_graph_overhead_custom(NODES * 8, False)
        self.backend, self.context = backend, ggml_init(InitParams(overhead, None, True))
        self.graph = ggml_new_graph_custom(self.context, NODES * 8, False)
        for _ in range(count):
            self.y = build(self.context, *operands)
            ggml_build_forward_expand(self.graph, self.y)
        self.supported = ggml_backend_supports_op(backend, self.y)
        self.allocator = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend))
        if not ggml_gallocr_alloc_graph(self.allocator, self.graph):
            raise MemoryError("ggml could not allocate the graph's memory")

    def run(self):
        status = ggml_backend_graph_compute(self.backend, self.graph)
        if status != 0:
            raise RuntimeError(f"ggml_backend_graph_compute: {status}")

    def read(self):
        y = np.empty(ggml_nbytes(self.y) // 4, np.float32)
        ggml_backend_tensor_get(self.y, y.ctypes.data, 0, y.nbytes)
        return y

    def close(self):
        ggml_gallocr_free(self.allocator)
        ggml_free(self.context)


class Case:
    """Operands on the adapter, and the graphs over them by number of repeats."""

    def __init__(self, backend, arrays, build, note):
        self.backend, self.note = backend, note
        self.context = ggml_init(InitParams(8 * ggml_tensor_overhead(), None, True))
        self.operands = []
        for array in arrays:
            kind = {"float32": F32, "float16": F16}[array.dtype.name]
            # ggml counts dimensions from the innermost.
            sizes = (list(array.shape[::-1]) + [1] * 4)[:4]
            self.operands.append(ggml_new_tensor_4d(self.context, kind, *sizes))
        self.buffer = ggml_backend_alloc_ctx_tensors(self.context, backend)
        if not self.buffer:
            raise MemoryError("ggml could not allocate the operands")
        for tensor, array in zip(self.operands, arrays):
            array = np.ascontiguousarray(array)
            ggml_backend_tensor_set(tensor, array.ctypes.data, 0, array.nbytes)
        self.build, self.graphs = build, {}

    def graph(self, repeats):
        if repeats not in self.graphs:
            self.graphs[repeats] = Graph(self.backend, self.operands, self.build, repeats)
        return self.graphs[repeats]

    def run(self, repeats):
        for first in range(0, repeats, NODES):
            self.graph(min(NODES, repeats - first)).run()

    def close(self):
        for graph in self.graphs.values():
            graph.close()
        ggml_backend_buffer_free(self.buffer)
        ggml_free(self.context)


def fastest(cases):
    """Of several ways the one that needs least processor time, after a run to warm up."""
    timed = []
    for case in cases:
        if not case.graph(1).supported:
            case.close()
            continue
        case.run(1)
        timed.append((racer.measured(case.run, 1)["cpu"], len(timed), case))
    if not timed:
        raise racer.Unsupported("ggml's Vulkan backend does not support the operation on this adapter")
    timed.sort()
    for _, _, case in timed[1:]:
        case.close()
    return timed[0][2]


def open_racer():
    version = load()
    backend = ggml_backend_vk_init(0)
    if not backend:
        raise SystemExit("ggml found no Vulkan device")
    name = ctypes.create_string_buffer(256)
    ggml_backend_vk_get_device_description(0, name, 256)
    state = {}

    def prepare(case):
        if "case" in state:
            state.pop("case").close()
        op = case["op"]
        result = lambda made: made.graph(1).read()
        if op == "matmul":
            m, k, n = case["m"], case["k"], case["n"]
            w = racer.weight(n, k).astype(np.float16 if case["weights"] == "f16" else np.float32)
            arrays = [w, vector(X, m * k).reshape(m, k)]
            made = fastest([Case(backend, arrays, ggml_mul_mat, "")])
        elif op == "attention":
            q, k, v = (a.transpose(1, 0, 2) for a in racer.attention_operands(case))
            scale = 1 / np.sqrt(case["head_dim"])
            build = lambda context, q, k, v: ggml_flash_attn_ext(context, q, k, v, None, scale, 0.0, 0.0)
            made = fastest(
                [
                    # As stable-diffusion.cpp calls it; its conversion of k and v is left out here.
                    Case(backend, [q, k.astype(np.float16), v.astype(np.float16)], build, "flash_attn_ext, k and v f16"),
                    Case(backend, [q, k, v], build, "flash_attn_ext"),
                ]
            )
        elif op == "conv2d":
            x, w = racer.conv_operands(case)
            h, wide, n = case["height"], case["width"], case["output"]
            ways = [("conv_2d_direct", ggml_conv_2d_direct), ("conv_2d, im2col", ggml_conv_2d)]
            made = fastest(
                [
                    Case(
                        backend,
                        [w.astype(np.float16), x],
                        lambda context, w, x, conv=conv: conv(context, w, x, 1, 1, 1, 1, 1, 1),
                        f"{name}, f16 weights",
                    )
                    for name, conv in ways
                ]
            )
            result = lambda made: made.graph(1).read().reshape(n, h, wide).transpose(1, 2, 0)
        else:
            raise racer.Unsupported("not run: stable-diffusion.cpp reads no model with tiny-flux's widths and no single block")
        state["case"] = made
        return made.run, lambda: result(made), made.note

    return f"ggml {ggml_version().decode()} (cyllama-vulkan {version})", f"{name.value.decode()}, Vulkan", prepare


racer.serve(open_racer)
