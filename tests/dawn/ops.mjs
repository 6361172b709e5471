// Runs the tables of tests/ops on Dawn: `node ops.mjs FOLDER WORDS NODE...`, with the module in FOLDER and NODE... being the
// command that starts a Node with Dawn. WORDS: only those tests that have one of them in their name.
//
// Every test has a process of its own, so that one that crashes spoils no other. Most of their time goes into compiling,
// on one thread each, so as many run at once as there are processors.

import { spawn } from "node:child_process";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";

const [folder, words, command, ...rest] = process.argv.slice(2);
const script = fileURLToPath(new URL("op.mjs", import.meta.url));
const minutes = 15;

/** What `op.mjs` says, and how it ended if not well. */
async function op(...args) {
  const child = spawn(command, [...rest, script, folder, ...args], { timeout: minutes * 60_000 });
  const said = { out: "", all: "" };
  child.stdout.on("data", (text) => (said.out += text));
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (said.all += text));
  const [code, signal] = await new Promise((done, refused) => {
    child.on("error", refused);
    child.on("close", (...how) => done(how));
  });
  return { ...said, failure: code === 0 ? undefined : `ended with ${signal ?? code}` };
}

const list = await op();
if (list.failure) throw new Error(`${list.all}\nthe list of tests ${list.failure}`);
const wanted = words.split(" ").filter(Boolean);
const names = list.out.trim().split("\n");
const queue = names.filter((name) => wanted.length === 0 || wanted.some((word) => name.includes(word)));
const devices = new Set();
let [passed, failed] = [0, 0];

async function work() {
  for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
    const start = performance.now();
    const { out, all, failure } = await op(name);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    console.log(`${failure ? "FAILED" : "ok"} ${name} (${seconds} s)`);
    const lines = failure ? [...all.trim().split("\n"), failure] : out.trim().split("\n");
    for (const line of lines) console.log(`    ${line}`);
    const device = /^device: (.*)$/m.exec(out)?.[1];
    if (device) devices.add(device);
    if (failure) failed += 1;
    else passed += 1;
  }
}
await Promise.all(cpus().map(work));
console.log(`note: ${[...devices].join("; ")}`);
// As cargo says it, which is what scripts/lanes/common.sh reads.
console.log(`test result: ${failed ? "FAILED" : "ok"}. ${passed} passed; ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
