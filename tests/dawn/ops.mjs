// Runs the tables of tests/ops under Node on Dawn: `node ops.mjs FOLDER [WORD...]`, with the module in FOLDER. WORDs: only
// those tests that have one of them in their name.

import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { features } from "./dawn.mjs";

const [folder, ...words] = process.argv.slice(2);
const module = new WebAssembly.Module(readFileSync(join(folder, "browser_ops_bg.wasm")));
const address = pathToFileURL(resolve(folder, "browser_ops.js")).href;

/** The module once more: one that has panicked is good for nothing. */
let instances = 0;
async function instance() {
  instances += 1;
  const fresh = await import(`${address}?${instances}`);
  await fresh.default({ module_or_path: module });
  return fresh;
}

// A panic ends the task that it happens in, and the test's promise is never settled.
let fail;
process.on("uncaughtException", (error) => fail?.(error));
process.on("unhandledRejection", (error) => fail?.(error));

const names = (await instance()).names().filter((name) => words.length === 0 || words.some((word) => name.includes(word)));
let [passed, failed] = [0, 0];
for (const name of names) {
  const failure = new Promise((_, reject) => {
    fail = reject;
  });
  const { run } = await instance();
  console.log(`${name}:`);
  const start = performance.now();
  const error = await Promise.race([run(name), failure]).then(() => undefined, (error) => error);
  if (error) failed += 1;
  else passed += 1;
  console.log(`${error ? "FAILED" : "ok"} ${name} (${((performance.now() - start) / 1000).toFixed(1)} s)`);
  if (error) console.log(error.message);
}
console.log(`note: ${features()}`);
// As cargo says it, which is what scripts/lanes/common.sh reads.
console.log(`test result: ${failed ? "FAILED" : "ok"}. ${passed} passed; ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
