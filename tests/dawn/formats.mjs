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

async function draws(name) {
  const one = readCase(formats, name);
  // There is no storage for pages here.
  const engine = await Ralu.load(`${server.url}formats/`, { precision: "f32", wasm, cache: false, files: one.files });
  let made;
  for await (const event of engine.generate({ ...one.request, given: asFloats(one.given) })) {
    if (event.type === "warning") console.log(event.message);
    if (event.type === "image") made = asBytes(event.tensors);
  }
  engine.dispose();
  return judge(one, made);
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
