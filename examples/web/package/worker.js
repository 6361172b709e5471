// An engine in a worker of its own, with the methods of `Ralu`: the page's thread passes messages and does nothing else.

import { RaluError } from "./ralu.js";

/** An address as it is from this page: a worker's own is another. */
const absolute = (address) => new URL(address, globalThis.location?.href).href;

const isAddress = (value) => typeof value === "string" || value instanceof URL;

/** A model as a worker can be sent it. */
function sendable(model) {
  if (isAddress(model)) return absolute(model);
  if (model?.kind === "directory") return model;
  if (typeof model?.read === "function") {
    throw new RaluError("bad-request", "An origin of your own cannot be sent to a worker: give an address, files or a folder, or use Ralu in a worker of your own.");
  }
  return [...model].map((file) => (isAddress(file) ? absolute(file) : file));
}

export class RaluWorker {
  #worker;
  #calls = new Map();
  #last = 0;
  #listeners = {};
  /** Why it cannot be used any more. */
  #ended;
  #adapter;
  #parts;
  #memory;

  static async load(model, options = {}) {
    const { signal, onProgress = () => {}, onWarning = (text) => console.warn(text), ...rest } = options;
    signal?.throwIfAborted();
    for (const name of ["wasm", "vocabularies"]) if (rest[name] !== undefined) rest[name] = absolute(rest[name]);
    const own = new RaluWorker();
    own.#listeners = { onProgress, onWarning };
    own.#start();
    const stop = () => own.#end(signal.reason);
    signal?.addEventListener("abort", stop, { once: true });
    try {
      const { adapter, parts } = await own.#call("load", { model: sendable(model), options: rest });
      own.#adapter = adapter;
      own.#parts = parts;
      return own;
    } catch (error) {
      own.dispose();
      throw error;
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  get adapter() {
    return this.#adapter;
  }

  get parts() {
    return this.#parts;
  }

  get memory() {
    return this.#memory;
  }

  setLoraWeights(weights) {
    return this.#call("setLoraWeights", weights);
  }

  async *generate({ signal, ...request }) {
    signal?.throwIfAborted();
    const run = await this.#call("start", request);
    const cancel = () => this.#call("cancel", run).catch(() => {});
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      for (;;) {
        const event = await this.#call("next", run);
        signal?.throwIfAborted();
        if (event === undefined) return;
        yield event;
        signal?.throwIfAborted();
      }
    } catch (error) {
      throw signal?.aborted ? signal.reason : error;
    } finally {
      signal?.removeEventListener("abort", cancel);
      // Ends the run if the loop was left early.
      cancel();
    }
  }

  dispose() {
    this.#end(new RaluError("disposed", "This engine was disposed of; load the model again."));
  }

  #start() {
    this.#worker = new Worker(new URL("./worker-thread.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }) => this.#answer(data);
    this.#worker.onerror = ({ message }) => this.#end(new RaluError("fetch", `The engine's worker failed: ${message ?? "its script cannot be loaded"}`));
  }

  #end(reason) {
    this.#ended ??= reason;
    this.#worker.terminate();
    for (const { reject } of this.#calls.values()) reject(this.#ended);
    this.#calls.clear();
  }

  #call(method, argument) {
    if (this.#ended) return Promise.reject(this.#ended);
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      this.#worker.postMessage({ id, method, argument });
    });
  }

  #answer({ id, listener, value, error, memory }) {
    if (listener) return this.#listeners[listener](value);
    if (memory) this.#memory = memory;
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (error) call?.reject(error.code ? new RaluError(error.code, error.message) : Object.assign(new Error(error.message), { name: error.name }));
    else call?.resolve(value);
  }
}
