// A page's surroundings under Node, as far as the engine wants them: WebGPU is Dawn, the implementation in Chromium, on
// this machine's Vulkan. `node dawn.mjs` says what it draws on.
//
// Node must be started so that Vulkan's loader finds a driver that Dawn takes: see scripts/lanes/dawn-node.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { create, globals } from "webgpu";

/** What the engine's kernels can make use of; a device without one of them would check less than it seems to. */
const NEEDED = ["shader-f16", "subgroups"];

/** The last device that was opened. */
let opened;

Object.assign(globalThis, globals);
// Kept alive by this: Dawn ends when it is collected.
const gpu = create([]);
// What this has for keys() is an array, and wgpu reads the iterator of a set.
Object.defineProperty(gpu, "wgslLanguageFeatures", { value: new Set(gpu.wgslLanguageFeatures) });
Object.defineProperty(globalThis, "navigator", { value: { gpu }, configurable: true });
// Where there is neither this nor a Window, wgpu does not ask for navigator.gpu.
globalThis.WorkerGlobalScope ??= class WorkerGlobalScope {};
globalThis.ImageData ??= class ImageData {
  constructor(data, width, height) {
    Object.assign(this, { data, width, height });
  }
};

// wgpu 30 asks a browser for shader-f16, but has no name for subgroups: they are added here. The engine uses those of a
// device that has them.
const { requestDevice } = globals.GPUAdapter.prototype;
globals.GPUAdapter.prototype.requestDevice = async function (descriptor = {}) {
  const requiredFeatures = [...new Set([...(descriptor.requiredFeatures ?? []), "subgroups"])];
  opened = await requestDevice.call(this, { ...descriptor, requiredFeatures });
  const lacks = NEEDED.filter((feature) => !opened.features.has(feature));
  if (lacks.length > 0) throw new Error(`the device was opened without ${lacks}`);
  return opened;
};

/** What the last device can do, in words, if one was opened. */
export function features() {
  if (!opened) return undefined;
  const { subgroupMinSize: least, subgroupMaxSize: most } = opened.adapterInfo;
  const sizes = least === most ? `${least}` : `${least} to ${most}`;
  const names = [...opened.features].filter((name) => name !== "core-features-and-limits").sort();
  return names.map((name) => (name === "subgroups" ? `subgroups of ${sizes}` : name)).join(", ");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const adapter = await navigator.gpu.requestAdapter();
  const { version } = JSON.parse(readFileSync(new URL("node_modules/webgpu/package.json", import.meta.url), "utf8"));
  if (adapter) console.log(`adapter\t${adapter.info.description}\ndriver\tDawn under Node ${process.version}, npm webgpu ${version}`);
  else console.log("Dawn finds no adapter that it takes");
  process.exit(adapter ? 0 : 1);
}
