// A picture of the bundled model by the package for web developers, under Node on Dawn: `node draw.mjs SITE MODELS FILE LOAD
// REQUEST`. LOAD and REQUEST are what Ralu.load and generate are given, as JSON; FILE gets the run's tensors, as
// `ralu generate --save-tensors` has them.

import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { serve } from "../browser/serve.mjs";
import { features } from "./dawn.mjs";

const [site, models, file, load, request] = process.argv.slice(2);

/** A safetensors file. */
function safetensors(tensors) {
  const dtypes = { Float32Array: "F32", BigInt64Array: "I64" };
  const header = {};
  const parts = [];
  let at = 0;
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype: dtypes[data.constructor.name], shape, data_offsets: [at, at + data.byteLength] };
    parts.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
    at += data.byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, ...parts]);
}

const { Ralu } = await import(pathToFileURL(resolve(site, "ralu/ralu.js")).href);
// Node fetches no files, so they come from a server, as they do in a browser.
const server = await serve({ models });
const wasm = new WebAssembly.Module(readFileSync(join(site, "ralu/web_bg.wasm")));
// There is no storage for pages here.
const engine = await Ralu.load(`${server.url}models/tiny-flux/`, { ...JSON.parse(load), wasm, cache: false });
const start = performance.now();
for await (const event of engine.generate({ ...JSON.parse(request), tensors: true })) {
  if (event.type === "step") console.log(`stage ${event.stage}, step ${event.step}: ${event.seconds.toFixed(2)} s`);
  if (event.type === "warning") console.log(event.message);
  if (event.type === "image") writeFileSync(file, safetensors(event.tensors));
}
console.log(`${((performance.now() - start) / 1000).toFixed(1)} s on ${features()}`);
process.exit(0);
