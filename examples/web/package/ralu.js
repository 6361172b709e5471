// Pictures from text in a browser: FLUX and Stable Diffusion 3 under RALU, on WebGPU. Types are in ralu.d.ts.

import { CachedOrigin, forget } from "./cache.js";
import { hashModel, modelFiles } from "./hash.js";
import { ModelOrigin, addressOf, isFile, vocabulariesOf } from "./model-origin.js";
import { FilesOrigin, HttpOrigin } from "./origins.js";
import { toPng } from "./png.js";
import init, { Engine, inspect } from "./web.js";

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

const INSPECT_OPTIONS = ["onWarning", "signal", "files", "precision", "quantize", "memoryBudget", "cache", "wasm", "vocabularies", "request"];

/** Refuses what is no option of `method`, or no value of one, before anything is fetched. */
function checkOptions(options, allowed, method) {
  const refuse = (reason) => {
    throw new RaluError("bad-request", `Ralu.${method}'s options are not valid: ${reason}`);
  };
  const known = (object, names, prefix) => {
    if (object === null || typeof object !== "object") refuse(`${prefix || "they"} should be an object, not ${JSON.stringify(object)}`);
    for (const name of Object.keys(object)) {
      if (!names.includes(name)) refuse(`there is no ${prefix}${prefix && "."}${name}, only ${names.join(", ")}`);
    }
  };
  const { adapter = {} } = options;
  known(options, allowed, "");
  known(adapter, ["preference", "limits"], "adapter");
  for (const [path, words] of Object.entries(WORDS)) {
    const value = path.split(".").reduce((object, name) => object?.[name], options);
    const choices = words.map((word) => JSON.stringify(word)).join(", ");
    if (value !== undefined && !words.includes(value)) refuse(`${path} is ${JSON.stringify(value)}; it can be ${choices}`);
  }
}

/** The module's errors, worded for a page; others as they are. */
function worded(error) {
  if (error?.name !== "RaluError" || error instanceof RaluError) return error;
  const advice = ADVICE[error.code];
  return new RaluError(error.code, advice ? `${advice} (${error.message})` : error.message);
}

function withDefaults({ wasm, ...options }) {
  const vocabularies = new URL(/* @vite-ignore */ "vocabularies/", import.meta.url);
  const functions = { onProgress: () => {}, onWarning: (text) => console.warn(text) };
  const own = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  return { ...functions, cache: true, prefetch: true, adapter: {}, precision: "auto", vocabularies, ...own };
}

let ready;

/** The module, once for all engines: they share it and its memory. */
function openModule(wasm) {
  ready ??= init(wasm === undefined ? undefined : { module_or_path: wasm });
  return ready.catch((error) => {
    ready = undefined;
    throw new RaluError("fetch", `The engine's module cannot be loaded: ${error.message}`);
  });
}

export class Ralu {
  #engine;
  #origin;
  #generation;
  #wasm;
  /** Counts the hash that pictures carry, while its signal lasts; undefined where there is none. */
  #hash;
  /** Resolves when the engine knows it. */
  #named;
  #disposing = new AbortController();

  constructor(engine, origin, wasm, hash) {
    this.#engine = engine;
    this.#origin = origin;
    this.#wasm = wasm;
    this.#hash = hash;
  }

  static async load(model, options = {}) {
    checkOptions(options, OPTIONS, "load");
    const { signal } = options;
    if (!globalThis.navigator?.gpu) throw new RaluError("no-webgpu", ADVICE["no-webgpu"]);
    signal?.throwIfAborted();
    const exports = await openModule(options.wasm);
    const open = { model, ...withDefaults(options), exports };
    try {
      const first = await openEngine(open);
      if (first.engine) return first.engine;
      open.onWarning(`${first.changed} (done now)`);
      const second = await openEngine(open);
      if (second.engine) return second.engine;
      throw new RaluError("fetch", `The model changes while it is loaded: ${second.changed}`);
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw worded(error);
    }
  }

  static async inspect(model, options = {}) {
    checkOptions(options, INSPECT_OPTIONS, "inspect");
    const { signal, request = {} } = options;
    signal?.throwIfAborted();
    await openModule(options.wasm);
    const { vocabularies, files, precision, quantize, memoryBudget, ...rest } = withDefaults(options);
    try {
      const origin = await ModelOrigin.open({ model, files, ...rest, store: false });
      const { source, list } = origin;
      const settings = { precision, quantize, memoryBudget, files, list };
      const asked = { prompt: "", ...request, signal: undefined };
      const plan = await inspect(origin.name, origin, vocabulariesOf(vocabularies, origin.remote), settings, asked);
      const parts = origin.weights.map(async (path) => ({ path, bytes: await source.size(path), keptBytes: (await source.keptBytes?.(path)) ?? 0 }));
      return { name: origin.name, files: await Promise.all(parts), plan };
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
    // Only for a model that is drawn with, and not after it was disposed of: reading may store again what was forgotten. That it
    // cannot be counted is no error: pictures name the model all the same.
    const { signal: disposed } = this.#disposing;
    this.#named ??= this.#hash?.(disposed).then((hash) => this.#engine?.setModelHash(hash)).catch(() => {});
    await this.#named;
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
    this.#disposing.abort();
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
  const { onProgress, onWarning, signal, prefetch, adapter, files, precision, quantize, memoryBudget, exports } = options;
  const origin = await ModelOrigin.open(options);
  const { source, list } = origin;
  let engine;
  try {
    onProgress({ phase: "open" });
    const vocabularies = vocabulariesOf(options.vocabularies, origin.remote);
    engine = await Engine.open(origin.name, origin, vocabularies, { precision, quantize, memoryBudget, adapter, files, list });
    for (const note of engine.notes) onWarning(note);
    const isKept = prefetch && (source instanceof CachedOrigin || source instanceof FilesOrigin);
    // What pictures say of the model is of all its files, also of those that nothing else reads.
    const all = isKept && source.paths ? modelFiles(engine.paths, source.paths) : [];
    if (isKept) {
      const progress = (bytes, totalBytes) => onProgress({ phase: "download", bytes, totalBytes });
      await origin.noted(() => source.download([...new Set([...origin.weights, ...all])], progress, signal)).catch((error) => {
        throw new RaluError("fetch", `The model cannot be downloaded: ${error.message}`, { cause: error });
      });
    }
    signal?.throwIfAborted();
    onProgress({ phase: "ready" });
    // Where nothing is kept, or nobody knows all files, there is none.
    const hash = all.length > 0 ? (signal) => hashModel(source, all, signal) : undefined;
    return { engine: new Ralu(engine, source, exports, hash) };
  } catch (error) {
    engine?.close();
    engine?.free();
    if (origin.changed && !signal?.aborted) return { changed: origin.changed };
    throw error;
  }
}
