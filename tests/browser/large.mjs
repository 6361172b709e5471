// The bundled model with tokenizers as large as FLUX.1's: 49408 tokens and as many merges, 32100 pieces. What is added is
// made of capital letters with scores below all others, so that prompts in small letters have the same tokens as before.

import { readFileSync } from "node:fs";
import { join } from "node:path";

const [CLIP_TOKENS, T5_PIECES] = [49408, 32100];

/** Different texts of capital letters, always the same ones. */
function* words(least, most) {
  let state = 1;
  const random = (n) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % n;
  };
  const seen = new Set();
  for (;;) {
    const length = least + random(most - least + 1);
    const word = Array.from({ length }, () => String.fromCharCode(65 + random(26))).join("");
    if (seen.has(word)) continue;
    seen.add(word);
    yield word;
  }
}

function clipTokenizer(text) {
  const file = JSON.parse(text);
  const { vocab, merges } = file.model;
  let id = Object.keys(vocab).length;
  // Each word's beginning is a token before it is.
  const grow = (word) => {
    if (word in vocab) return;
    grow(word.slice(0, -1));
    merges.push([word.slice(0, -1), word.at(-1)]);
    vocab[word] = id;
    id += 1;
  };
  for (const word of words(2, 6)) {
    if (id >= CLIP_TOKENS - 8) break;
    grow(word);
  }
  return JSON.stringify(file);
}

function t5Tokenizer(text) {
  const file = JSON.parse(text);
  const { vocab } = file.model;
  for (const word of words(2, 10)) {
    if (vocab.length >= T5_PIECES) break;
    vocab.push([vocab.length % 2 ? word : `▁${word}`, -90.5 - vocab.length / 1e4]);
  }
  return JSON.stringify(file);
}

/** A checkpoint whose token table has `rows` rows: zeros behind those it had. */
function checkpoint(file, table, rows) {
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + length).toString("utf8"));
  const data = file.subarray(8 + length);
  const { dtype, shape, data_offsets } = header[table];
  // Nobody asks for the old one, which stays where it is.
  header.unused = { dtype, shape, data_offsets };
  const bytes = ((data_offsets[1] - data_offsets[0]) / shape[0]) * rows;
  header[table] = { dtype, shape: [rows, shape[1]], data_offsets: [data.length, data.length + bytes] };
  const text = Buffer.from(JSON.stringify(header));
  const start = Buffer.alloc(8 + text.length);
  start.writeBigUInt64LE(BigInt(text.length));
  text.copy(start, 8);
  const size = start.length + data.length + bytes;
  const parts = [
    { at: 0, bytes: start },
    { at: start.length, bytes: data },
    { at: start.length + data.length, bytes: data.subarray(...data_offsets) },
  ];
  return { size, parts };
}

/** What to serve in place of the bundled model's files: paths below it, and what `server.made` wants. */
export function largeTokenizers(model) {
  const read = (path) => readFileSync(join(model, path));
  const whole = (text) => ({ size: Buffer.byteLength(text), parts: [{ at: 0, bytes: Buffer.from(text) }] });
  const config = (path, vocab_size) => whole(JSON.stringify({ ...JSON.parse(read(path).toString("utf8")), vocab_size }));
  const clip = "text_model.embeddings.token_embedding.weight";
  return {
    "tokenizer/tokenizer.json": whole(clipTokenizer(read("tokenizer/tokenizer.json").toString("utf8"))),
    "tokenizer_2/tokenizer.json": whole(t5Tokenizer(read("tokenizer_2/tokenizer.json").toString("utf8"))),
    "text_encoder/config.json": config("text_encoder/config.json", CLIP_TOKENS),
    "text_encoder_2/config.json": config("text_encoder_2/config.json", T5_PIECES),
    "text_encoder/model.safetensors": checkpoint(read("text_encoder/model.safetensors"), clip, CLIP_TOKENS),
    "text_encoder_2/model.safetensors": checkpoint(read("text_encoder_2/model.safetensors"), "shared.weight", T5_PIECES),
  };
}
