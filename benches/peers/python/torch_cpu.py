"""torch on the CPU, and diffusers on top of it: the floor of what the processor can do, and the reference."""

import platform

import numpy as np
import torch
import torch.nn.functional as F

import racer
from racer import V, W, X, vector


def of(array):
    return torch.from_numpy(np.ascontiguousarray(array))


def prepare(case):
    state = {}

    def repeat(once):
        def run(repeats):
            with torch.inference_mode():
                for _ in range(repeats):
                    state["y"] = once()

        return run

    def result():
        return state["y"].float().numpy()

    op = case["op"]
    note = ""
    if op == "matmul":
        m, k, n = case["m"], case["k"], case["n"]
        x, w = of(vector(X, m * k).reshape(m, k)), of(racer.weight(n, k))
        if case["weights"] == "f16":
            x, w, note = x.half(), w.half(), "f16 x f16"
        once = lambda: F.linear(x, w)
    elif op == "attention":
        q, k, v = (of(a).transpose(0, 1)[None].contiguous() for a in racer.attention_operands(case))
        once = lambda: F.scaled_dot_product_attention(q, k, v)
        result = lambda: state["y"][0].transpose(0, 1).numpy()
    elif op == "conv2d":
        x, w = (of(a).contiguous(memory_format=torch.channels_last) for a in racer.conv_operands(case))
        once = lambda: F.conv2d(x, w, padding=1)
        result = lambda: state["y"][0].permute(1, 2, 0).numpy()
    elif op == "blocks":
        once, note = blocks(case)
    elif op == "picture":
        once, note = picture(case)
    else:
        raise racer.Unsupported(f"no {op} here")
    return repeat(once), result, note


def blocks(case):
    from diffusers import FluxTransformer2DModel

    # Weights are bf16 in the file; torch computes fastest in what it is given.
    model = FluxTransformer2DModel.from_pretrained(case["folder"], dtype=torch.float32).eval()
    config, rows, cols, text = model.config, case["image_rows"], case["image_cols"], case["text"]
    number = lambda operand, *shape: of(vector(operand, int(np.prod(shape))).reshape(1, *shape))
    ids = torch.zeros(rows, cols, 3)
    ids[..., 1] = torch.arange(rows)[:, None]
    ids[..., 2] = torch.arange(cols)[None]
    inputs = {
        "hidden_states": number(X, rows * cols, config.in_channels),
        "encoder_hidden_states": number(W, text, config.joint_attention_dim),
        "pooled_projections": number(V, config.pooled_projection_dim),
        "timestep": torch.tensor([0.5]),
        "guidance": torch.tensor([3.5]),
        "img_ids": ids.reshape(-1, 3),
        "txt_ids": torch.zeros(text, 3),
    }
    return lambda: model(**inputs, return_dict=False)[0], "diffusers, f32"


def picture(case):
    import json
    import os

    from diffusers import FluxPipeline

    pipe = FluxPipeline.from_pretrained(case["folder"], dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    with open(os.path.join(case["folder"], "generation_config.json")) as file:
        settings = json.load(file)
    settings.update(width=case["width"], height=case["height"], num_inference_steps=case["steps"])

    def once():
        generator = torch.Generator("cpu").manual_seed(case["seed"])
        image = pipe(case["prompt"], generator=generator, output_type="np", **settings).images[0]
        return torch.from_numpy(np.round(image * 255))

    return once, "diffusers, f32"


def open_racer():
    threads = torch.get_num_threads()
    try:
        import diffusers

        version = f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    except ImportError:
        version = f"torch {torch.__version__}"
    return version, f"CPU ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()}), {threads} threads", prepare


racer.serve(open_racer)
