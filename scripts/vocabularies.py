#!/usr/bin/env python3
"""Packs the vocabularies that are built into the library, src/text/vocabularies (see builtin.rs for the format).

    scripts/vocabularies.py MERGES TOKENIZER_JSON

MERGES is CLIP's list of merges: merges.txt of any repository with CLIP ViT-L/14, or OpenAI's
clip/bpe_simple_vocab_16e6.txt.gz (github.com/openai/CLIP). TOKENIZER_JSON is T5 v1.1's tokenizer.json (for example that of
google/t5-v1_1-xxl, or tokenizer_2/tokenizer.json of a FLUX.1 repository). Needs the package zopfli.
"""

import base64
import gzip
import json
import pathlib
import struct
import sys

import zopfli.zlib

MERGES = 48_894
PIECES = 32_100


def planes(words: bytes) -> bytes:
    """The first bytes of all 4-byte words, then the second ones, and so on: they compress better."""
    return b"".join(words[i::4] for i in range(4))


def clip(path: str) -> bytes:
    data = pathlib.Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    lines = data.decode().split("\n")[1 : MERGES + 1]
    assert len(lines) == MERGES and lines[-1] == "jeky ll</w>", lines[-1]
    return "".join(line + "\n" for line in lines).encode()


def t5(path: str) -> bytes:
    whole = json.loads(pathlib.Path(path).read_text())
    vocab = whole["model"]["vocab"]
    assert len(vocab) == PIECES and vocab[0][0] == "<pad>" and vocab[-1][0] == "<extra_id_0>"
    pieces = "".join(piece + "\n" for piece, _ in vocab).encode()
    assert pieces.count(b"\n") == PIECES
    scores = b"".join(struct.pack("<f", score) for _, score in vocab)
    assert all(struct.unpack_from("<f", scores, 4 * i)[0] == score for i, (_, score) in enumerate(vocab))
    normalizer = whole["normalizer"]
    all_of_them = normalizer.get("normalizers", [normalizer])
    charsmap = next(one["precompiled_charsmap"] for one in all_of_them if one["type"] == "Precompiled")
    charsmap = base64.b64decode(charsmap)
    n_trie = struct.unpack_from("<I", charsmap)[0]
    trie, replacements = charsmap[4 : 4 + n_trie], charsmap[4 + n_trie :]
    head = struct.pack("<IIII", PIECES, len(pieces), len(trie), len(replacements))
    return head + pieces + planes(scores) + planes(trie) + replacements


def main() -> None:
    folder = pathlib.Path(__file__).parent.parent / "src/text/vocabularies"
    for name, data in (("clip.zlib", clip(sys.argv[1])), ("t5.zlib", t5(sys.argv[2]))):
        packed = zopfli.zlib.compress(data, numiterations=15)
        (folder / name).write_bytes(packed)
        print(f"{name}: {len(data)} bytes, {len(packed)} packed")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main()
