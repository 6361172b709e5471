import type { GenerateRequest, LoadOptions, Ralu, RaluEvent } from "./ralu.js";

/**
 * An engine in a worker of its own, with the methods of `Ralu`. The page's thread is free all the time. Models are addresses,
 * files or folders; an `Origin` of your own cannot be sent to a worker.
 */
export class RaluWorker {
  private constructor();
  static load(model: Exclude<Parameters<typeof Ralu.load>[0], { read: unknown }>, options?: LoadOptions): Promise<RaluWorker>;
  readonly adapter: Ralu["adapter"];
  readonly parts: Ralu["parts"];
  /** As it was after the last answer. */
  readonly memory: Ralu["memory"];
  setLoraWeights(weights: Parameters<Ralu["setLoraWeights"]>[0]): Promise<void>;
  generate(request: GenerateRequest): AsyncGenerator<RaluEvent, void, void>;
  dispose(): void;
}
