// One of the tables of tests/ops on Dawn, or the names of all: `node op.mjs FOLDER [NAME]`, with the module in FOLDER.

import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { features } from "./dawn.mjs";

const [folder, name] = process.argv.slice(2);
const ops = await import(pathToFileURL(resolve(folder, "browser_ops.js")).href);
await ops.default({ module_or_path: new WebAssembly.Module(readFileSync(join(folder, "browser_ops_bg.wasm"))) });
if (name === undefined) {
  console.log(ops.names().join("\n"));
} else {
  // A panic ends the task that it happens in, and Node with it.
  await ops.run(name);
  // Some need none.
  if (features()) console.log(`device: ${features()}`);
}
process.exit(0);
