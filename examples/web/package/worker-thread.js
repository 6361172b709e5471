// What `RaluWorker` starts: does what messages ask of `Ralu`, and answers each.

import { Ralu } from "./ralu.js";

let engine;
let lastRun = 0;
/** Runs that are not over: their events, and how to cancel them. */
const runs = new Map();

const listen = (listener) => (value) => postMessage({ listener, value });

const methods = {
  async load({ model, options }) {
    engine = await Ralu.load(model, { ...options, onProgress: listen("onProgress"), onWarning: listen("onWarning") });
    const { adapter, parts } = engine;
    return { adapter, parts };
  },
  setLoraWeights(weights) {
    engine.setLoraWeights(weights);
  },
  start(request) {
    const controller = new AbortController();
    const events = engine.generate({ ...request, signal: controller.signal });
    runs.set(++lastRun, { events, controller });
    return lastRun;
  },
  async next(run) {
    const { value, done } = (await runs.get(run)?.events.next()) ?? { done: true };
    if (!done) return value;
    runs.delete(run);
    return undefined;
  },
  async cancel(run) {
    const { controller, events } = runs.get(run) ?? {};
    runs.delete(run);
    controller?.abort();
    await events?.return();
  },
};

onmessage = async ({ data: { id, method, argument } }) => {
  try {
    const value = await methods[method](argument);
    postMessage({ id, value, memory: engine?.memory });
  } catch ({ name, code, message }) {
    // An AbortError's code is a number.
    postMessage({ id, error: { name, code: typeof code === "string" ? code : undefined, message } });
  }
};
