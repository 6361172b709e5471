// The cache of models and its origin under Node, with a server that misbehaves: `node cache.mjs [WORD]`. Needs no browser.

import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { installBrowser } from "./opfs.mjs";
import { serve } from "./serve.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "ralu-cache-"));
/** A file of the package: its folder does not say that it has modules. */
async function load(name) {
  const module = join(folder, name.replace(".js", ".mjs"));
  copyFileSync(join(here, "../../examples/web/package", name), module);
  return import(pathToFileURL(module));
}
const { CachedOrigin, forget } = await load("cache.js");
const { HttpOrigin } = await load("origins.js");
rmSync(folder, { recursive: true });

const MIB = 2 ** 20;
const server = await serve({});
const address = `${server.url}model/`;
const CONFIG = "config.json";
const WEIGHTS = "w.safetensors";
const MARKS = [undefined, "weak", "last-modified", "none"];

// ---- tools -----------------------------------------------------------------------------------

function check(condition, message) {
  if (!condition) throw new Error(message);
}

/** Puts a file on the server: a text, or `version` as every byte of `size` after a first MiB that is always the same. */
function put(path, content) {
  const bytes =
    typeof content === "string" ? Buffer.from(content) : Buffer.concat([Buffer.alloc(MIB, 9), Buffer.alloc(content.size - MIB, content.version)]);
  server.made.set(`/model/${path}`, { size: bytes.length, parts: [{ at: 0, bytes }] });
}

/** A visit of the page. */
async function visit({ refresh = false } = {}) {
  const warnings = [];
  const warn = (text) => warnings.push(text);
  const origin = await CachedOrigin.open(new HttpOrigin(address, { warn }), { warn, refresh });
  return Object.assign(origin, { warnings });
}

/** The versions that a file's bytes are of; the size first. */
async function versions(origin, path = WEIGHTS) {
  const size = await origin.size(path);
  const bytes = await origin.read(path, 0, size);
  check(bytes.length === size, `${bytes.length} of ${size} bytes`);
  return [...new Set(bytes.subarray(MIB))].join();
}

const text = async (origin, path) => {
  const size = await origin.size(path);
  return size === undefined ? undefined : new TextDecoder().decode(await origin.read(path, 0, size));
};

async function failure(promise) {
  return promise.then(
    () => ({ name: "no error", message: "it was given" }),
    (error) => error,
  );
}

/** Bytes that the server has sent since the last time. */
function sent() {
  const bytes = server.requests.reduce((sum, request) => sum + request.bytes, 0);
  server.requests.length = 0;
  return bytes;
}

/** What was stored of the model, by path. */
const stored = (root) => root.files().filter(([path]) => /\d+-[0-9a-f]{64}$/.test(path));

// ---- tests -----------------------------------------------------------------------------------

const tests = {
  async "a file that the server lacked is asked for again at the next visit"() {
    for (const faults of [{}, { pages: { "/model/config.json": "text/html; charset=utf-8" } }, { pages: { "/model/config.json": "application/json" } }]) {
      await forget();
      server.made.clear();
      server.faults = faults;
      const size = await (await visit()).size(CONFIG);
      check(size === undefined, `a file that is not there has ${size} bytes`);
      server.faults = {};
      put(CONFIG, "{}");
      const late = await text(await visit(), CONFIG);
      check(late === "{}", `at the second visit it is ${late}, with ${JSON.stringify(faults)}`);
    }
  },

  async "a model that was replaced is never a mixture"() {
    for (const marks of MARKS) {
      await forget();
      server.faults = { marks };
      put(WEIGHTS, { size: 12 * MIB, version: 1 });
      const first = await visit();
      await first.size(WEIGHTS);
      await first.read(WEIGHTS, 0, 2 * MIB);
      // The same length, and the same beginning.
      put(WEIGHTS, { size: 12 * MIB, version: 2 });
      const seen = await versions(await visit());
      check(seen === "2", `with the marks ${marks} it has bytes of the versions ${seen}`);
      const again = await versions(await visit());
      check(again === "2", `with the marks ${marks} it is stored with bytes of the versions ${again}`);
    }
  },

  async "what has changed drops all of the model"(root) {
    for (const marks of MARKS) {
      await forget();
      server.faults = { marks };
      put(WEIGHTS, { size: 8 * MIB, version: 1 });
      put(CONFIG, '{"a":1}');
      const first = await visit();
      check((await text(first, CONFIG)) === '{"a":1}' && (await versions(first)) === "1", "the first visit");
      const old = stored(root).map(([path]) => path);
      check(old.length === 3, `${old.length} blocks are stored`);
      // The same length.
      put(CONFIG, '{"a":2}');
      const second = await visit();
      check((await text(second, CONFIG)) === '{"a":2}', `with the marks ${marks} the old configuration is used`);
      check(second.warnings.some((said) => /config\.json has changed/.test(said)), `warnings: ${second.warnings}`);
      const left = stored(root).filter(([path]) => path.includes("w.safetensors"));
      check(left.length === 0, `with the marks ${marks} ${left.length} blocks of the weights were left`);
      put(CONFIG, '{"a":12345}');
      check((await (await visit()).size(CONFIG)) === 11, "the old length is used");
    }
  },

  async "what is replaced within a visit is an error, stored or not, and the next visit has the new one"() {
    for (const marks of [undefined, "weak", "last-modified"]) {
      await forget();
      server.faults = { marks };
      for (const open of [visit, async () => new HttpOrigin(address)]) {
        put(WEIGHTS, { size: 12 * MIB, version: 1 });
        const origin = await open();
        await origin.size(WEIGHTS);
        await origin.read(WEIGHTS, 0, 2 * MIB);
        put(WEIGHTS, { size: 12 * MIB, version: 2 });
        const error = await failure(origin.read(WEIGHTS, 8 * MIB, 9 * MIB));
        check(error.name === "ChangedError" && /w\.safetensors was replaced.*load the model again/.test(error.message), `${error.name}: ${error.message}`);
      }
      check((await versions(await visit())) === "2", "a part of the old version is used");
    }
    // Another length tells, too.
    server.faults = { marks: "none" };
    put(WEIGHTS, { size: 12 * MIB, version: 1 });
    const origin = new HttpOrigin(address);
    await origin.size(WEIGHTS);
    put(WEIGHTS, { size: 11 * MIB, version: 2 });
    const error = await failure(origin.read(WEIGHTS, 8 * MIB, 9 * MIB));
    check(error.name === "ChangedError", `${error.name}: ${error.message}`);
    // A small file's content and a large one's beginning are compared when a download ends.
    for (const path of [CONFIG, WEIGHTS]) {
      await forget();
      put(CONFIG, "one");
      put(WEIGHTS, { size: 12 * MIB, version: 1 });
      const cached = await visit();
      for (const path of [CONFIG, WEIGHTS]) await cached.size(path);
      const replace = (bytes) => bytes > 8 * MIB && server.made.set(`/model/${path}`, path === CONFIG ? { size: 3, parts: [{ at: 0, bytes: Buffer.from("two") }] } : { size: 12 * MIB, parts: [] });
      const { name, message } = await failure(cached.download([WEIGHTS], replace));
      check(name === "ChangedError" && message.includes(path), `${path}: ${name}: ${message}`);
    }
  },

  async "a second visit transfers nothing, and none is needed"() {
    for (const marks of [undefined, "weak", "last-modified"]) {
      await forget();
      server.faults = { marks };
      put(WEIGHTS, { size: 9 * MIB, version: 1 });
      put(CONFIG, "{}");
      const all = async (origin) => {
        check((await origin.size("lacking.json")) === undefined, "what is lacking is there");
        check((await text(origin, CONFIG)) === "{}" && (await versions(origin)) === "1", "it is wrong");
        return origin.warnings;
      };
      await all(await visit());
      sent();
      check((await all(await visit())).length === 0, "it warns");
      check(sent() === 0, `with the marks ${marks} the second visit transfers content`);
      // Neither a server that fails nor one that is not there, nor HEAD that is refused.
      for (const faults of [{ refusedUnder: "/model/" }, { noHead: true }]) {
        server.faults = { marks, ...faults };
        const warnings = await all(await visit());
        const expected = faults.noHead ? 0 : 1;
        check(warnings.length === expected && warnings.every((said) => /cannot be found out.*is used/.test(said)), `${warnings}`);
      }
      const { fetch } = globalThis;
      let asked = 0;
      globalThis.fetch = async () => {
        asked += 1;
        throw new TypeError("Failed to fetch");
      };
      const warnings = await all(await visit());
      globalThis.fetch = fetch;
      check(warnings.length === 1 && asked === 1, `${asked} times it was asked; warnings: ${warnings}`);
    }
  },

  async "a file that is gone for one visit stays stored"() {
    await forget();
    put(CONFIG, "{}");
    put(WEIGHTS, { size: 9 * MIB, version: 1 });
    await versions(await visit());
    for (const faults of [{ status: { "/model/w.safetensors": 404 } }, { pages: { "/model/w.safetensors": "text/html" } }]) {
      server.faults = faults;
      const gone = await (await visit()).size(WEIGHTS);
      check(gone === undefined, `it has ${gone} bytes`);
    }
    server.faults = {};
    sent();
    check((await versions(await visit())) === "1" && sent() === 0, "it was downloaded again");
  },

  async "a broken download goes on where it ended, if its version is known"() {
    for (const marks of MARKS) {
      await forget();
      put(WEIGHTS, { size: 40 * MIB, version: 1 });
      server.faults = { marks, failAfter: { "/model/w.safetensors": 21 * MIB } };
      const first = await visit();
      await first.size(WEIGHTS);
      const error = await failure(first.download([WEIGHTS]));
      check(/reached/.test(error.message), `${error.message}`);
      server.faults = { marks };
      sent();
      const second = await visit();
      await second.size(WEIGHTS);
      await second.download([WEIGHTS]);
      const bytes = sent();
      const [least, most] = marks === "none" ? [40, 41] : [20, 21];
      check(bytes >= least * MIB && bytes <= most * MIB, `with the marks ${marks} ${bytes} bytes were sent again`);
      const warned = second.warnings.some((said) => /neither ETag nor Last-Modified/.test(said));
      check(warned === (marks === "none"), `warnings: ${second.warnings}`);
      check((await versions(second)) === "1", "it is wrong");
    }
  },

  async "a damaged block is fetched again, and refused if the server has another one"(root) {
    for (const marks of MARKS) {
      for (const replaced of [false, true]) {
        await forget();
        server.faults = { marks };
        put(WEIGHTS, { size: 12 * MIB, version: 1 });
        await versions(await visit());
        // As a tab leaves it that was closed while it wrote.
        const block = stored(root).find(([path]) => /\/2-[0-9a-f]{64}$/.test(path));
        block[1].data = new Uint8Array();
        const origin = await visit();
        await origin.read(WEIGHTS, 0, 2 * MIB);
        if (replaced) put(WEIGHTS, { size: 12 * MIB, version: 2 });
        const result = await versions(origin).catch((error) => error.name);
        check(result === (replaced ? "ChangedError" : "1"), `with the marks ${marks}, replaced ${replaced}: ${result}`);
        check((await versions(await visit())) === (replaced ? "2" : "1"), "the next visit is wrong");
      }
    }
  },

  async "refresh downloads again, and loses nothing without a network"(root) {
    await forget();
    put(WEIGHTS, { size: 9 * MIB, version: 1 });
    put(CONFIG, "{}");
    await versions(await visit());
    const blocks = stored(root).length;
    server.faults = { refusedUnder: "/model/" };
    const error = await failure((await visit({ refresh: true })).size(WEIGHTS));
    check(/503/.test(error.message) && stored(root).length === blocks, `${error.message}; ${stored(root).length} of ${blocks} blocks`);
    server.faults = {};
    sent();
    check((await versions(await visit({ refresh: true }))) === "1", "it is wrong");
    const bytes = sent();
    check(bytes >= 9 * MIB, `${bytes} bytes were sent`);
  },

  async "what another layout or a damaged index has stored is removed"(root) {
    await forget();
    put(WEIGHTS, { size: 8 * MIB, version: 2 });
    await versions(await visit());
    const models = root.inside.get("ralu-models");
    const [model] = models.inside.values();
    for (const [name, content] of [["sizes.json", '{"w.safetensors":8388608}'], ["index.json", "{"], ["index.json", '{"layout":3,"files":{}}'], ["index.json", '{"layout":2,"files":{"w.safetensors":{"size":"8"}}}']]) {
      model.inside.delete("index.json");
      const file = await model.getFileHandle(name, { create: true });
      file.data = new TextEncoder().encode(content);
      const old = await model.getDirectoryHandle("w.safetensors", { create: true });
      await old.getFileHandle(`0-${"0".repeat(64)}`, { create: true });
      sent();
      check((await versions(await visit())) === "2", "it is wrong");
      check(sent() >= 8 * MIB, `${content}: what cannot be known is used`);
      check(!model.inside.has("w.safetensors") && !model.inside.has("sizes.json"), `${content}: ${[...model.inside.keys()]} are left`);
    }
  },

  async "two tabs at once fill one store"() {
    for (const marks of MARKS) {
      await forget();
      server.faults = { marks };
      put(WEIGHTS, { size: 20 * MIB, version: 1 });
      put(CONFIG, "{}");
      const tabs = await Promise.all([visit(), visit()]);
      sent();
      const load = async (tab) => {
        for (const path of [CONFIG, WEIGHTS, "lacking.json"]) await tab.size(path);
        await tab.download([WEIGHTS]);
        return `${await versions(tab)} ${await text(tab, CONFIG)}`;
      };
      const seen = await Promise.all(tabs.map(load));
      check(seen.every((one) => one === "1 {}"), `${seen}`);
      const bytes = sent();
      // Without marks each tab has its own, as nobody can say whether they are the same.
      if (marks !== "none") check(bytes < 21 * MIB, `with the marks ${marks} ${bytes} bytes were sent`);
      const third = await visit();
      check((await versions(third)) === "1" && (await text(third, CONFIG)) === "{}", "the next visit is wrong");
      // One of them finds a new version while the other reads the old one.
      put(WEIGHTS, { size: 20 * MIB, version: 2 });
      put(CONFIG, '{"a":1}');
      const [old, fresh] = [third, await visit()];
      check((await text(fresh, CONFIG)) === '{"a":1}' && (await versions(fresh)) === "2", "the new version is not there");
      const result = await versions(old).catch((error) => error.name);
      check(["1", "ChangedError"].includes(result), `the tab with the old version has ${result}`);
      check((await versions(await visit())) === "2", "the new version was spoilt");
    }
  },
};

// ---- the run ---------------------------------------------------------------------------------

let [ran, failed] = [0, 0];
for (const [name, test] of Object.entries(tests)) {
  if (!name.includes(process.argv[2] ?? "")) continue;
  const root = installBrowser();
  server.made.clear();
  server.faults = {};
  server.requests.length = 0;
  ran += 1;
  try {
    await test(root);
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED ${name}\n${error.stack}`);
  }
}
server.close();
server.closeAllConnections();
console.log(`${ran} tests of the cache under Node, ${failed} failed`);
process.exit(failed === 0 && (ran > 0 || process.argv[2]) ? 0 : 1);
