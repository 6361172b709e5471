// The cases of tests/fixtures/formats: how the package loads them, what it is asked, and how far its answer is from theirs.

import { readFileSync, readdirSync } from "node:fs";
import { join, posix } from "node:path";
import { floats, relativeL2 } from "./native.mjs";

/**
 * As in tests/pipeline/formats.rs: relative L2, and dB of the picture at least. The smallest mistake in a map of names moves
 * the latents by 7e-4, weights rounded to f16 by 3e-4.
 */
const LIMITS = { embeddings: 1e-4, sigmas: 1e-6, latents: 2e-4, decibels: 50 };

const IDS = ["clip_ids", "t5_ids"];
const EMBEDDINGS = ["prompt_embeds", "pooled_prompt_embeds", "negative_prompt_embeds", "negative_pooled_prompt_embeds"];

/** What the package's `files` calls the options of the command line. */
const FILES = {
  "--model": "model",
  "--diffusion-model": "diffusionModel",
  "--clip-l": "clipL",
  "--clip-g": "clipG",
  "--t5xxl": "t5xxl",
  "--vae": "vae",
  "--clip-tokenizer": "clipTokenizer",
  "--t5-tokenizer": "t5Tokenizer",
};

/** Names of all cases in the folder `formats`. */
export function caseNames(formats) {
  const folders = readdirSync(formats, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const names = folders.map(({ name }) => name).filter((name) => readdirSync(join(formats, name)).includes("case.json"));
  if (names.length === 0) throw new Error(`${formats} has no cases`);
  return names.sort();
}

/**
 * A case: `files` with paths relative to `formats`, all these paths as `paths` (of a tokenizer that of its tokenizer.json),
 * the `request` with its `given` noise, and `expected`, tensors with their bytes in `data`.
 */
export function readCase(formats, name) {
  const json = JSON.parse(readFileSync(join(formats, name, "case.json"), "utf8"));
  const files = {};
  for (let i = 0; i < json.model_args.length; i += 2) {
    const option = FILES[json.model_args[i]];
    if (!option) throw new Error(`${name}: the option ${json.model_args[i]} is not known here`);
    files[option] = posix.join(name, json.model_args[i + 1]);
  }
  const paths = Object.entries(files).map(([option, path]) => (option.endsWith("Tokenizer") ? `${path}/tokenizer.json` : path));
  const expected = readTensors(readFileSync(join(formats, name, "expected.safetensors")));
  const request = {
    prompt: json.prompt,
    width: json.width,
    height: json.height,
    steps: json.steps,
    guidance: json.guidance,
    trueCfg: json.true_cfg,
    negativePrompt: json.negative_prompt,
    maxSequenceLength: json.max_sequence_length,
    ralu: "off",
    tensors: true,
  };
  return { name, files, paths, request, given: { initial_noise: expected.initial_noise }, expected };
}

/** All tensors of a safetensors file: { dtype, shape, data }. */
function readTensors(file) {
  const length = Number(file.readBigUInt64LE(0));
  const { __metadata__, ...header } = JSON.parse(file.subarray(8, 8 + length).toString("utf8"));
  const tensor = ({ dtype, shape, data_offsets: [start, end] }) => ({
    dtype,
    shape,
    data: file.subarray(8 + length + start, 8 + length + end),
  });
  return Object.fromEntries(Object.entries(header).map(([name, info]) => [name, tensor(info)]));
}

/** How far what a run made, tensors with their bytes in `data`, is from a case's answer, in words; fails beyond the limits. */
export function judge({ name, expected }, made) {
  const said = [];
  const wrong = [];
  const note = (text, right) => {
    said.push(text);
    if (!right) wrong.push(text);
  };
  const numbers = (tensor) => floats(tensor?.data ?? Buffer.alloc(0));
  const near = (name, answer, limit) => {
    const distance = relativeL2(numbers(made[name]), numbers(expected[answer]));
    note(`${name} ${distance.toExponential(1)}`, distance <= limit);
  };
  const ids = IDS.filter((ids) => expected[ids]);
  const equal = ids.filter((ids) => made[ids] && expected[ids].data.equals(made[ids].data));
  if (ids.length > 0) note(`${equal.length} of ${ids.length} texts of ids equal`, equal.length === ids.length);
  for (const embeddings of EMBEDDINGS.filter((name) => expected[name])) near(embeddings, embeddings, LIMITS.embeddings);
  near("sigmas", "base_sigmas", LIMITS.sigmas);
  near("latents", "base_latents", LIMITS.latents);
  const [picture, answer] = [made.image, expected.base_image].map(numbers);
  const squares = answer.reduce((sum, value, i) => sum + (value - picture[i]) ** 2, 0);
  const decibels = picture.length === answer.length ? -10 * Math.log10(squares / answer.length) : NaN;
  note(`image ${decibels.toFixed(1)} dB`, decibels >= LIMITS.decibels);
  if (wrong.length > 0) throw new Error(`${name}: beyond the limits: ${wrong.join(", ")}; in all: ${said.join(", ")}`);
  return said.join(", ");
}
