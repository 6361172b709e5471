// The cases of a folder like tests/fixtures/formats by the package for web developers, under Node on Dawn: `node formats.mjs
// SITE FORMATS [WORD]`; WORD: only cases with that in their name.

import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { caseNames, judge, readCase } from "../browser/answers.mjs";
import { serve } from "../browser/serve.mjs";
import { features } from "./dawn.mjs";

const [site, formats, word = ""] = process.argv.slice(2);
const { Ralu } = await import(pathToFileURL(resolve(site, "ralu/ralu.js")).href);
const server = await serve({ formats });
const wasm = new WebAssembly.Module(readFileSync(join(site, "ralu/web_bg.wasm")));

const bytesOf = ({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength);

/** Tensors with their bytes for data. */
function asBytes(tensors) {
  return Object.fromEntries(Object.entries(tensors).map(([name, { shape, data }]) => [name, { shape, data: bytesOf(data) }]));
}

/** Tensors of f32 as the package takes them. */
function asFloats(tensors) {
  const floats = (data) => new Float32Array(new Uint8Array(data).buffer);
  return Object.fromEntries(Object.entries(tensors).map(([name, { shape, data }]) => [name, { shape, data: floats(data) }]));
}

/** Of what a run takes without a budget: the least budgets of the cases are 44 to 66 hundredths of it. */
const BUDGET = 0.75;

/** The tensors of a run, and the most GPU memory that it took, with that of uploads. */
async function run(one, options) {
  // There is no storage for pages here.
  const engine = await Ralu.load(`${server.url}formats/`, { precision: "f32", wasm, cache: false, files: one.files, ...options });
  let made;
  for await (const event of engine.generate({ ...one.request, given: asFloats(one.given) })) {
    if (event.type === "warning") console.log(event.message);
    if (event.type === "image") made = asBytes(event.tensors);
  }
  const { gpuPeakBytes } = engine.memory;
  engine.dispose();
  return { made, gpuPeakBytes };
}

async function draws(name) {
  const one = readCase(formats, name);
  const { made, gpuPeakBytes } = await run(one, { memoryBudget: "off" });
  const said = judge(one, made);
  // Blocks of weights come and go, and nothing of the picture changes.
  const bytes = Math.floor(BUDGET * gpuPeakBytes);
  const within = await run(one, { memoryBudget: `${bytes}` });
  if (within.gpuPeakBytes > bytes) throw new Error(`${within.gpuPeakBytes} bytes within a budget of ${bytes}`);
  for (const [key, { data }] of Object.entries(made)) {
    if (!data.equals(within.made[key].data)) throw new Error(`another ${key} within a budget of ${bytes} bytes`);
  }
  return `${said}; the same within ${bytes} of ${gpuPeakBytes} bytes`;
}

let [passed, failed] = [0, 0];
for (const name of caseNames(formats).filter((name) => name.includes(word))) {
  const start = performance.now();
  try {
    const said = await draws(name);
    console.log(`ok ${name}: ${said}; ${((performance.now() - start) / 1000).toFixed(1)} s`);
    passed += 1;
  } catch (error) {
    console.log(`FAILED ${name}: ${error.message}`);
    failed += 1;
  }
}
console.log(`note: ${features()}`);
// As cargo says it, which is what scripts/lanes/common.sh reads.
console.log(`test result: ${failed ? "FAILED" : "ok"}. ${passed} passed; ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
