// Compiled, not run: programs that use the package by its types, and some that must not compile.

import { Ralu, RaluError, toPng, type LoadProgress, type Origin, type RaluEvent } from "../../examples/web/package/ralu.js";
import { RaluWorker } from "../../examples/web/package/worker.js";

export async function inWorker(own: Origin): Promise<void> {
  const engine = await RaluWorker.load("models/tiny-flux/");
  for await (const event of engine.generate({ prompt: "a red apple" })) if (event.type === "image") console.log(event.picture);
  await engine.setLoraWeights([1]);
  console.log(engine.memory.heapBytes);
  engine.dispose();
  // @ts-expect-error: functions cannot be sent to a worker
  await RaluWorker.load(own);
}

export async function draw(canvas: OffscreenCanvas, signal: AbortSignal): Promise<Blob | undefined> {
  const engine = await Ralu.load("models/tiny-flux/", {
    onProgress: (progress: LoadProgress) => {
      if (progress.phase === "download") console.log(progress.bytes / progress.totalBytes);
      // @ts-expect-error: only a download has bytes
      if (progress.phase === "ready") console.log(progress.bytes);
    },
    adapter: { preference: "low-power", limits: "webgpu" },
    precision: "f16",
    quantize: "q8_0:denoiser,t5",
    memoryBudget: "6GiB",
    signal,
  });
  console.log(engine.adapter.name, engine.memory.heapBytes);
  let file: Blob | undefined;
  try {
    for await (const event of engine.generate({ prompt: "a red apple", ralu: "4x", seed: 1, signal })) {
      if (event.type === "image") {
        canvas.getContext("2d")?.putImageData(event.picture, 0, 0);
        file = await toPng(event);
      }
      if (event.type === "estimate") canvas.getContext("2d")?.putImageData(event.picture, 0, 0);
      if (event.type === "regions") console.log(event.selected.length / (event.rows * event.columns));
      // @ts-expect-error: which event it is decides what it has
      console.log(event.picture);
    }
  } catch (error) {
    if (error instanceof RaluError && error.code === "out-of-memory") console.log(error.message);
    // @ts-expect-error: there is no such code
    if (error instanceof RaluError && error.code === "out of paper") console.log(error.message);
  }
  engine.setLoraWeights([0.8, [0, 0.5, 1]]);
  engine.dispose();
  return file;
}

export async function pick(folder: FileSystemDirectoryHandle, files: FileList, own: Origin): Promise<void> {
  for (const model of [folder, files, own, new URL("https://example.org/model/")]) (await Ralu.load(model)).dispose();
  const engine = await Ralu.load([files[0], "https://example.org/ae.safetensors"], { vocabularies: "/words/" });
  for (const { part, path } of engine.parts) console.log(part === "clip-l" ? path : part);
  // @ts-expect-error: there is no such part
  console.log(engine.parts[0].part === "clip");
  engine.generate({ prompt: "", given: { initial_noise: { shape: [1], data: new Float32Array(1) } } });
  // @ts-expect-error: a model is no number
  await Ralu.load(7);
  // @ts-expect-error: browsers cannot be asked for that
  await Ralu.load(own, { adapter: { preference: "software" } });
}

export async function before(): Promise<number> {
  const { files, plan } = await Ralu.inspect("models/tiny-flux/", { precision: "f16", request: { width: 512, ralu: "4x" } });
  // @ts-expect-error: nothing is loaded
  await Ralu.inspect("models/tiny-flux/", { prefetch: true });
  return files.reduce((sum, { bytes, keptBytes }) => sum + bytes - keptBytes, plan.gpuBytes);
}

export function stages(events: RaluEvent[]): number[] {
  return events.flatMap((event) => (event.type === "stage" ? [event.tokens * event.steps] : []));
}

export function requests(engine: Ralu): void {
  engine.generate({ prompt: "", ralu: { stageSteps: [1, 2, 3], stageEnds: [0.3, 0.6, 1], upRatio: 0.3 } });
  // @ts-expect-error: a request needs a prompt
  engine.generate({ width: 64 });
  // @ts-expect-error: there is no such preset
  engine.generate({ prompt: "", ralu: "9x" });
  engine.generate({ prompt: "", estimates: true });
}
