"""What the racers in Python share: operands, and the harness's protocol (src/protocol.rs has the other end)."""

import json
import os
import resource
import sys
import time

import numpy as np

X, W, V = 1, 2, 3
QUERY_SCALE = np.float32(1.75)


def vector(operand, n, scale=1.0):
    """The first n numbers of an operand, uniform in [-1, 1), times scale; src/numbers.rs has the same."""
    with np.errstate(over="ignore"):
        h = np.arange(n, dtype=np.uint32) * np.uint32(0x9E3779B1)
        h ^= np.uint32(operand * 0x85EBCA77 & 0xFFFFFFFF)
        h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
        h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
        h ^= h >> np.uint32(16)
    return ((h >> np.uint32(8)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)) * np.float32(scale)


def weight(n, k):
    """[N, K], as numbers of about 1 / sqrt(K)."""
    return vector(W, n * k, np.float32(1) / np.sqrt(np.float32(k))).reshape(n, k)


def attention_operands(case):
    """Queries, keys and values, [tokens, heads, head_dim]."""
    shape = case["tokens"], case["heads"], case["head_dim"]
    n = int(np.prod(shape))
    return [vector(o, n, s).reshape(shape) for o, s in [(X, QUERY_SCALE), (W, QUERY_SCALE), (V, 1.0)]]


def conv_operands(case):
    """The picture [1, C, H, W] and the weight [N, C, 3, 3]."""
    h, w, c, n = case["height"], case["width"], case["input"], case["output"]
    x = vector(X, h * w * c).reshape(1, h, w, c).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x), weight(n, 9 * c).reshape(n, c, 3, 3)


class Unsupported(Exception):
    """What a racer does not do, with the reason."""


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measured(run, repeats):
    wall, cpu = time.perf_counter(), cpu_seconds()
    run(repeats)
    return {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}


def serve(open_racer):
    """Serves the harness. open_racer() gives (version, device, prepare); prepare(case) gives
    (run(repeats), result() -> the last result, note)."""
    # Libraries print to the standard output; the protocol keeps it for itself.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def send(message):
        out.write(json.dumps(message) + "\n")
        out.flush()

    version, device, prepare = open_racer()
    send({"version": version, "device": device})
    state = None
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            if ask["do"] == "prepare":
                state = None
                state = prepare(ask["case"])
                run, result, note = state
                run(1)
                values = np.asarray(result(), dtype=np.float32).reshape(-1)[ask["positions"]]
                answer = {**measured(run, 1), "note": note}
                # NaN and infinity are no JSON: a number that is as wrong stands in.
                answer["values"] = np.nan_to_num(values, nan=3e38, posinf=3e38, neginf=-3e38).tolist()
            elif ask["do"] == "run":
                if state is None:
                    raise Unsupported("nothing is prepared")
                answer = measured(state[0], ask["repeats"])
            else:
                state = None
                answer = {}
        except Exception as error:  # A peer's failure is a line of the table.
            state = None
            answer = {"error": f"{type(error).__name__}: {error}" if not isinstance(error, Unsupported) else str(error)}
        send(answer)
