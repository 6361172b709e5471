// Pictures from text in a browser: FLUX and Stable Diffusion 3 under RALU, on WebGPU. Types are in ralu.d.ts.

import { CachedOrigin, forget } from "./cache.js";
import { escape } from "./escape.js";
import { FilesOrigin, HttpOrigin, isWeights } from "./origins.js";
import { toPng } from "./png.js";
import init, { Engine } from "./web.js";

export { CachedOrigin, FilesOrigin, HttpOrigin, toPng };

/** What to do, by an error's code. */
const ADVICE = {
  "no-webgpu":
    "This browser does not offer WebGPU to this page. Use a current Chrome, Edge, Firefox or Safari, and open the page over https or from localhost.",
  "no-adapter":
    "This browser has WebGPU but finds no graphics adapter for it. Check that hardware acceleration is on in the browser's settings and that the graphics driver is current; chrome://gpu says more.",
  "adapter-unusable": "The graphics adapter cannot do what the engine needs. Another browser or a newer driver may help.",
  "out-of-memory":
    "The GPU's memory is full. Make the picture smaller, close other tabs that use the GPU, or load the model in 16 bits (precision: 'f16').",
  "too-large": "This picture needs larger buffers than this adapter has. Make it smaller.",
  "device-lost":
    "The browser lost the GPU again and again: a driver update, sleep, or too long a piece of work does that. Load the model again; if that does not help, make the picture smaller.",
  "not-finite":
    "The network's numbers overflowed, so there is no picture. Load the model with precision 'f32', or download it again.",
  gpu: "The browser refused a piece of GPU work. This is a bug: please report it with the message below.",
};

/** An error with a `code`, and in `message` what happened and what to do. */
export class RaluError extends Error {
  constructor(code, message, options) {
    super(message, options);
    this.name = "RaluError";
    this.code = code;
  }
}

/** The options of `Ralu.load` that are one of a few words. */
const WORDS = {
  precision: ["auto", "f32", "f16", "int8"],
  cache: [true, false, "refresh"],
  "adapter.preference": ["high-performance", "low-power"],
  "adapter.limits": ["adapter", "webgpu"],
};
const OPTIONS = ["onProgress", "onWarning", "signal", "adapter", "files", "precision", "quantize", "memoryBudget", "cache", "prefetch", "wasm", "vocabularies"];

/** Refuses what is no option, or no value of one, before anything is fetched. */
function checkOptions(options) {
  const refuse = (reason) => {
    throw new RaluError("bad-request", `Ralu.load's options are not valid: ${reason}`);
  };
  const known = (object, names, prefix) => {
    if (object === null || typeof object !== "object") refuse(`${prefix || "they"} should be an object, not ${JSON.stringify(object)}`);
    for (const name of Object.keys(object)) {
      if (!names.includes(name)) refuse(`there is no ${prefix}${prefix && "."}${name}, only ${names.join(", ")}`);
    }
  };
  const { adapter = {} } = options;
  known(options, OPTIONS, "");
  known(adapter, ["preference", "limits"], "adapter");
  for (const [path, words] of Object.entries(WORDS)) {
    const value = path.split(".").reduce((object, name) => object?.[name], options);
    const allowed = words.map((word) => JSON.stringify(word)).join(", ");
    if (value !== undefined && !words.includes(value)) refuse(`${path} is ${JSON.stringify(value)}; it can be ${allowed}`);
  }
}

/** The module's errors, worded for a page; others as they are. */
function worded(error) {
  if (error?.name !== "RaluError" || error instanceof RaluError) return error;
  const advice = ADVICE[error.code];
  return new RaluError(error.code, advice ? `${advice} (${error.message})` : error.message);
}

let ready;

export class Ralu {
  #engine;
  #origin;
  #generation;
  #wasm;

  constructor(engine, origin, wasm) {
    this.#engine = engine;
    this.#origin = origin;
    this.#wasm = wasm;
  }

  static async load(model, options = {}) {
    checkOptions(options);
    const { onProgress = () => {}, onWarning = (text) => console.warn(text), signal } = options;
    const { cache = true, prefetch = true, wasm, adapter = {}, files, precision = "auto", quantize, memoryBudget } = options;
    const { vocabularies = new URL(/* @vite-ignore */ "vocabularies/", import.meta.url) } = options;
    if (!globalThis.navigator?.gpu) throw new RaluError("no-webgpu", ADVICE["no-webgpu"]);
    signal?.throwIfAborted();
    // Once for all engines: they share the module and its memory.
    ready ??= init(wasm === undefined ? undefined : { module_or_path: wasm });
    const exports = await ready.catch((error) => {
      ready = undefined;
      throw new RaluError("fetch", `The engine's module cannot be loaded: ${error.message}`);
    });
    const open = { model, onProgress, onWarning, signal, cache, prefetch, adapter, files, precision, quantize, memoryBudget, vocabularies, exports };
    try {
      const first = await openEngine(open);
      if (first.engine) return first.engine;
      onWarning(`${first.changed} (done now)`);
      const second = await openEngine(open);
      if (second.engine) return second.engine;
      throw new RaluError("fetch", `The model changes while it is loaded: ${second.changed}`);
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw worded(error);
    }
  }

  static forget(url) {
    return forget(url === undefined ? undefined : new HttpOrigin(isFile(url) ? new URL(".", addressOf(url)) : url).name);
  }

  get adapter() {
    return this.#open().adapter;
  }

  get parts() {
    return this.#open().parts;
  }

  get memory() {
    return {
      ...this.#open().memory,
      heapBytes: this.#wasm.memory.buffer.byteLength,
      fetchedBytes: this.#origin.fetchedBytes,
    };
  }

  setLoraWeights(weights) {
    try {
      this.#open().setLoraWeights(weights);
    } catch (error) {
      throw worded(error);
    }
  }

  async *generate({ signal, ...request }) {
    signal?.throwIfAborted();
    let generation;
    try {
      generation = this.#open().start(request);
    } catch (error) {
      throw worded(error);
    }
    this.#generation = generation;
    const abort = () => generation.cancel();
    signal?.addEventListener("abort", abort, { once: true });
    try {
      for (;;) {
        const event = await generation.next();
        signal?.throwIfAborted();
        if (event === undefined) return;
        yield event;
        signal?.throwIfAborted();
      }
    } catch (error) {
      throw worded(error);
    } finally {
      signal?.removeEventListener("abort", abort);
      // Ends the run if the loop was left early.
      generation.cancel();
      generation.free();
      if (this.#generation === generation) this.#generation = undefined;
    }
  }

  dispose() {
    this.#generation?.cancel();
    this.#engine?.close();
    this.#engine?.free();
    this.#engine = undefined;
  }

  #open() {
    if (!this.#engine) throw new RaluError("disposed", "This engine was disposed of; load the model again.");
    return this.#engine;
  }
}

/** Opens a model: gives its `engine`, or in `changed` what was replaced on the server meanwhile. */
async function openEngine(options) {
  const { model, onProgress, onWarning, signal, cache, prefetch, adapter, files, precision, quantize, memoryBudget, exports } = options;
  const warn = (text) => onWarning(escape(text));
  const remote = async (url) => {
    const origin = new HttpOrigin(url, { warn, signal });
    return cache ? CachedOrigin.open(origin, { warn, refresh: cache === "refresh" }) : origin;
  };
  const origin = await originOf(model, remote);
  const asked = new Set();
  let changed;
  // Names of files and what servers say go into messages.
  const noted = async (ask) => {
    try {
      return await ask();
    } catch (error) {
      const message = escape(error?.message ?? error);
      if (error?.name === "ChangedError") changed = message;
      throw new Error(message, { cause: error });
    }
  };
  const seen = {
    size: async (path) => {
      const size = await noted(() => origin.size(path));
      if (size !== undefined) asked.add(path);
      return size;
    },
    read: (path, start, end) => noted(() => origin.read(path, start, end)),
  };
  let engine;
  try {
    onProgress({ phase: "open" });
    const { list } = origin instanceof FilesOrigin && files === undefined ? origin : {};
    engine = await Engine.open(origin.name, seen, vocabulariesOf(options.vocabularies, remote), { precision, quantize, memoryBudget, adapter, files, list });
    for (const note of engine.notes) onWarning(note);
    if (prefetch && (origin instanceof CachedOrigin || origin instanceof FilesOrigin)) {
      const weights = [...asked].filter(isWeights);
      const progress = (bytes, totalBytes) => onProgress({ phase: "download", bytes, totalBytes });
      await noted(() => origin.download(weights, progress, signal)).catch((error) => {
        throw new RaluError("fetch", `The model cannot be downloaded: ${error.message}`, { cause: error });
      });
    }
    signal?.throwIfAborted();
    onProgress({ phase: "ready" });
    return { engine: new Ralu(engine, origin, exports) };
  } catch (error) {
    engine?.close();
    engine?.free();
    if (changed && !signal?.aborted) return { changed };
    throw error;
  }
}

function originOf(model, remote) {
  if (isFile(model)) return FilesOrigin.open([model], { remote });
  if (typeof model === "string" || model instanceof URL) return remote(model);
  if (typeof model?.read === "function" && typeof model?.size === "function") return model;
  return FilesOrigin.open(model, { remote });
}

/** Whether a model is the address of a single file rather than of a folder. */
function isFile(model) {
  return (typeof model === "string" || model instanceof URL) && isWeights(addressOf(model).pathname);
}

function addressOf(url) {
  return new URL(url, globalThis.location?.href);
}

/** CLIP's and T5's vocabularies, for models without tokenizers. Nothing is asked for before one of them is needed. */
function vocabulariesOf(place, remote) {
  let origin;
  const open = () => (origin ??= remote(place));
  return {
    name: "vocabularies",
    size: async (path) => {
      const size = await (await open()).size(path);
      if (size !== undefined) return size;
      throw new Error(`the model has no tokenizer of its own, and ${addressOf(place).href} has no ${path}: serve the whole package, or say where its vocabularies are (the option vocabularies)`);
    },
    read: async (path, start, end) => (await open()).read(path, start, end),
  };
}
