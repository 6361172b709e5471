// The package and the page in Chromium: `node web.mjs SITE MODELS OUT WORD RALU…`, RALU… being the command of the native
// program, with whose pictures theirs are compared. Screenshots go to OUT. WORD: only those tests that have it in their name.
// SHARE=FOLDER: processes with this folder share them.
// `formats` draws all cases of models in files of their own; FORMATS is a folder with others.

import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { archive } from "./archive.mjs";
import { failures, openChromium, sameAdapter } from "./chromium.mjs";
import { formats } from "./formats.mjs";
import { watchHolds } from "./holds.mjs";
import { largeTokenizers } from "./large.mjs";
import { drawNatively, floats, greyPng, psnr, readPng, readTexts, relativeL2 } from "./native.mjs";
import { options } from "./options.mjs";
import { before } from "./before.mjs";
import { chosen } from "./share.mjs";
import { serve } from "./serve.mjs";
import { together } from "./together.mjs";
import { trouble } from "./trouble.mjs";

const [site, models, out, word, ...program] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
mkdirSync(out, { recursive: true });

const fixtures = join(here, "../fixtures");
const cases = process.env.FORMATS ?? join(fixtures, "formats");
const server = await serve({ "": site, models, tests: here, fixtures, formats: cases });
const browser = await openChromium();
const weights = "/models/tiny-flux/transformer/diffusion_pytorch_model.safetensors";

// ---- tools -----------------------------------------------------------------------------------

function check(condition, message) {
  if (!condition) throw new Error(message);
}

/** A page that uses the package; closed after `use`. */
async function withPage(use, context) {
  const own = context ?? (await browser.newContext());
  const page = await own.newPage();
  const failure = failures(page);
  try {
    await page.goto(`${server.url}tests/blank.html`);
    await page.waitForFunction(() => window.ready);
    const draw = (options) => Promise.race([page.evaluate((o) => window.draw(o), options), failure]);
    draw.dispose = () => page.evaluate(() => window.dispose());
    return await use(draw, page);
  } finally {
    await page.close();
    if (!context) await own.close();
  }
}

const native = new Map();
/** The native picture of a request, drawn once. */
function reference(request) {
  const key = JSON.stringify(request);
  if (!native.has(key)) {
    const { prompt, ralu, rules, mask, ...rest } = request;
    const args = [prompt, "--model", join(models, "tiny-flux"), "--precision", "f32"];
    const own = typeof ralu === "string" ? { ralu } : { ralu: "custom", ...ralu };
    if (mask) {
      const file = join(out, `mask-${native.size}.png`);
      writeFileSync(file, greyPng(mask));
      args.push("--regions", file, ...(mask.mode === "add" ? ["--regions-add"] : []));
    }
    for (const [name, value] of Object.entries({ ...own, ...rest, ...rules })) {
      // As the command line spells it.
      const option = name === "variant" ? "ralu-variant" : name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
      if (value !== undefined) args.push(`--${option}=${value}`);
    }
    native.set(key, drawNatively(program, out, `native-${native.size}`, args.map(String)));
  }
  return native.get(key);
}

/** A result of `draw` without an error, as close to the native picture as the same numbers should be. */
function compare(result, request, note = "") {
  check(!result.error, `failed: ${JSON.stringify(result.error)}`);
  const expected = reference(request);
  const latents = floats(Buffer.from(result.latents.data, "base64"));
  const distance = relativeL2(latents, expected.latents.data);
  const decibels = psnr(Buffer.from(result.rgba, "base64"), expected.rgb);
  console.log(`    latents ${distance.toExponential(2)} from the native run's (relative L2), picture ${decibels.toFixed(1)} dB, ${result.seconds.toFixed(1)} s${note}`);
  check(distance <= 1e-3, `the latents are ${distance} from the native run's, more than 1e-3`);
  check(decibels >= 45, `the picture has ${decibels} dB to the native one, less than 45`);
  return distance;
}

/** What the event loop may wait for: 50 ms on a core of its own. */
const MOST_JOBS = 25;
const f32 = { load: { precision: "f32" } };
const small = { prompt: "a red apple on a blue background", width: 64, height: 64, seed: 7, ralu: "off", steps: 2 };
const medium = { ...small, width: 128, height: 128 };

// ---- tests -----------------------------------------------------------------------------------

const tests = {
  async "the module is small"() {
    const wasm = readFileSync(join(site, "ralu/web_bg.wasm"));
    const [gzip, brotli] = [gzipSync(wasm, { level: 9 }), brotliCompressSync(wasm)].map((bytes) => bytes.length / 1e6);
    console.log(`    ${(wasm.length / 1e6).toFixed(2)} MB, gzip ${gzip.toFixed(2)}, brotli ${brotli.toFixed(2)}`);
    check(wasm.length <= 3.4e6 && gzip <= 1.38, `the module has ${wasm.length} bytes, ${gzip} MB gzipped; allowed are 3.4 and 1.38 MB`);
  },

  async "a plain picture is the native one"() {
    const request = { ...medium, steps: 4 };
    await withPage(async (draw) => {
      const result = await draw({ ...f32, request });
      compare(result, request);
      console.log(`    ${JSON.stringify(result.adapter)}`);
      console.log(`    ${JSON.stringify(result.memory)}`);
      check(result.memory.heapBytes < 128 << 20, `the heap grew to ${result.memory.heapBytes} bytes`);
      const steps = result.events.filter((event) => event.type === "step");
      check(steps.length === 4, `${steps.length} step events`);
      // A second prompt on the same engine.
      const other = { ...small, prompt: "a fox on a purple background" };
      compare(await draw({ request: other }), other, ", second prompt");
    });
  },

  async "RALU 7x is the native picture, and the event loop has its turn while a large model is loaded and draws"() {
    // Tokenizers as FLUX.1 has them, which hold longest.
    for (const [path, file] of Object.entries(largeTokenizers(join(models, "tiny-flux")))) {
      server.made.set(`/models/tiny-flux/${path}`, file);
    }
    try {
      await withPage(async (draw, page) => {
        const seen = await watchHolds(browser, page);
        const load = { precision: "f32", cache: false };
        const plain = await draw({ load, request: small });
        const ralu = { prompt: "a fox on a purple background", width: 192, height: 192, seed: 5, ralu: "7x" };
        const upscaled = await draw({ request: { ...ralu, stagePictures: true } });
        const { tasks, holds } = await seen();
        compare(plain, small, ", with large tokenizers");
        compare(upscaled, ralu, ", RALU 7x");
        const kinds = new Set(upscaled.events.map((event) => event.type));
        for (const kind of ["stage", "step", "stageEnd", "regions", "stagePicture", "image"]) {
          check(kinds.has(kind), `no event ${kind}`);
        }
        const stages = upscaled.events.filter((event) => event.type === "stage").map((event) => event.tokens);
        check(stages.length === 3 && stages[0] < stages[1] && stages[1] < stages[2], `stages of ${stages} tokens`);
        const longest = holds.slice(0, 5).map(({ at, work, jobs }) => `${work.toFixed(1)} ms (${jobs.toFixed(1)} jobs, at ${(at / 1000).toFixed(1)} s)`);
        const byClock = Math.max(...holds.map(({ wall }) => wall));
        console.log(`    of ${tasks} tasks of the page's thread the longest worked for ${longest.join(", ")}; by the clock ${byClock.toFixed(0)} ms at most, with waiting for the GPU process and for a core`);
        check(holds[0].jobs < MOST_JOBS, `the event loop waited for the work of ${holds[0].jobs} jobs; allowed are ${MOST_JOBS}`);
      });
    } finally {
      server.made.clear();
    }
  },

  async "a second visit downloads nothing and needs no network"() {
    const context = await browser.newContext();
    try {
      server.requests.length = 0;
      await withPage(async (draw) => check(!(await draw(f32)).error, "the model cannot be loaded"), context);
      const bytes = server.requests.filter(({ path }) => path.startsWith("/models/")).reduce((sum, r) => sum + r.bytes, 0);
      for (const faults of [{}, { refusedUnder: "/models/" }]) {
        server.requests.length = 0;
        server.faults = faults;
        await withPage(async (draw) => {
          const request = faults.refusedUnder ? small : undefined;
          // In three quarters of the memory: blocks come from the storage in every step.
          const load = { ...f32.load, memoryBudget: "22MiB" };
          const result = await draw({ load, request });
          check(!result.error, JSON.stringify(result.error));
          if (request) compare(result, request, ", from storage");
          check(result.memory.gpuPeakBytes <= 22 << 20, `the GPU held ${result.memory.gpuPeakBytes} bytes`);
          check(result.memory.fetchedBytes === 0, `${result.memory.fetchedBytes} bytes were fetched`);
          const warned = result.warnings.filter((said) => /cannot be found out, so what is stored of it is used/.test(said));
          check(warned.length === (faults.refusedUnder ? 1 : 0), `warnings: ${result.warnings}`);
        }, context);
        const again = server.requests.filter(({ path, bytes }) => path.startsWith("/models/") && bytes > 0);
        check(again.length === 0, `the second visit downloaded ${again.map((r) => r.path)}`);
      }
      console.log(`    ${(bytes / 1e6).toFixed(1)} MB at the first visit, none at the second`);
    } finally {
      server.faults = {};
      await context.close();
    }
  },

  async "a broken download goes on where it ended"() {
    const context = await browser.newContext();
    try {
      server.faults = { failAfter: { [weights]: 20_000_000 } };
      await withPage(async (draw) => {
        const { error } = await draw({ ...f32, request: small });
        check(error?.code === "fetch", `expected a fetch error, got ${JSON.stringify(error)}`);
        console.log(`    ${error.message}`);
      }, context);
      server.faults = {};
      server.requests.length = 0;
      await withPage(async (draw) => compare(await draw({ ...f32, request: small }), small), context);
      const again = server.requests.filter(({ path }) => path === weights).reduce((sum, r) => sum + r.bytes, 0);
      const whole = statSync(join(models, weights.slice("/models/".length))).size;
      console.log(`    ${(again / 1e6).toFixed(1)} of ${(whole / 1e6).toFixed(1)} MB at the second try`);
      check(again < whole - 15_000_000, "the download began anew");
    } finally {
      server.faults = {};
      await context.close();
    }
  },

  async "damaged storage is noticed and fetched again"() {
    const context = await browser.newContext();
    try {
      await withPage(async (draw, page) => {
        const { error } = await draw(f32);
        check(!error, JSON.stringify(error));
        const damaged = await page.evaluate(async () => {
          const models = await (await navigator.storage.getDirectory()).getDirectoryHandle("ralu-models");
          let count = 0;
          for await (const model of models.values()) {
            for await (const folder of model.values()) {
              if (folder.kind !== "directory" || !folder.name.includes("transformer")) continue;
              for await (const block of folder.values()) {
                const writable = await block.createWritable({ keepExistingData: true });
                await writable.write({ type: "write", position: 1000, data: new Uint8Array(64).fill(77) });
                await writable.close();
                count += 1;
              }
            }
          }
          return count;
        });
        check(damaged > 0, "nothing was stored");
      }, context);
      await withPage(async (draw) => {
        const result = await draw({ ...f32, request: small });
        compare(result, small, ", after damage");
        check(result.memory.fetchedBytes > 1_000_000, `${result.memory.fetchedBytes} bytes were fetched again`);
      }, context);
    } finally {
      await context.close();
    }
  },

  async "a server without ranges"() {
    server.faults = { ranges: false };
    try {
      await withPage(async (draw) => {
        const result = await draw({ load: { precision: "f32", cache: false }, request: small });
        compare(result, small);
        check(result.warnings.some((text) => text.includes("does not serve parts of files")), `warnings: ${result.warnings}`);
      });
    } finally {
      server.faults = {};
    }
  },

  async "a checkpoint of more than 4 GiB"() {
    // The bundled one, with its weights behind 4 GiB that nobody asks for.
    const file = readFileSync(join(models, weights.slice("/models/".length)));
    const length = Number(file.readBigUInt64LE(0));
    const header = JSON.parse(file.subarray(8, 8 + length).toString("utf8"));
    const [piece, pieces] = [2 ** 29, 9];
    const gap = piece * pieces;
    for (const [name, { data_offsets }] of Object.entries(header)) {
      if (name !== "__metadata__") header[name].data_offsets = data_offsets.map((offset) => offset + gap);
    }
    for (let i = 0; i < pieces; i += 1) {
      header[`unused.${i}`] = { dtype: "U8", shape: [piece], data_offsets: [i * piece, (i + 1) * piece] };
    }
    const moved = Buffer.from(JSON.stringify(header));
    const start = Buffer.alloc(8 + moved.length);
    start.writeBigUInt64LE(BigInt(moved.length));
    moved.copy(start, 8);
    const data = file.subarray(8 + length);
    const at = start.length + gap;
    server.made.set(weights, { size: at + data.length, parts: [{ at: 0, bytes: start }, { at, bytes: data }] });
    server.requests.length = 0;
    try {
      await withPage(async (draw) => {
        const result = await draw({ load: { precision: "f32", prefetch: false }, request: small });
        compare(result, small, ", from behind 4 GiB");
        const asked = server.requests.filter(({ path }) => path === weights).reduce((sum, r) => sum + r.bytes, 0);
        console.log(`    ${(asked / 1e6).toFixed(1)} MB of ${((at + data.length) / 1e9).toFixed(2)} GB were asked for, heap ${(result.memory.heapBytes / 2 ** 20).toFixed(0)} MiB`);
        check(result.memory.heapBytes < 256 << 20, `the heap grew to ${result.memory.heapBytes} bytes`);
      });
    } finally {
      server.made.clear();
    }
  },

  async "storage that is full"() {
    const context = await browser.newContext();
    try {
      await withPage(async (draw, page) => {
        // What the browser says when there is no room, and what it does when there was some.
        for (const [quota, warning, request] of [[10e6, /offers/], [1e12, /full/, small]]) {
          await page.evaluate((quota) => {
            navigator.storage.estimate = async () => ({ quota, usage: 0 });
            FileSystemWritableFileStream.prototype.write = async () => {
              throw new DOMException("no room", "QuotaExceededError");
            };
          }, quota);
          const result = await draw({ ...f32, request });
          check(!result.error, JSON.stringify(result.error));
          if (request) compare(result, request, ", without storage");
          check(result.warnings.some((text) => warning.test(text)), `warnings: ${result.warnings}`);
          await draw.dispose();
        }
      }, context);
    } finally {
      await context.close();
    }
  },

  async "truncated and missing files, wrong addresses"() {
    const cases = [
      ["a truncated checkpoint", { truncated: { [weights]: 2_000_000 } }, {}, "bad-model", /truncated|ends/],
      ["a file that ends while it is read", { endsAt: { [weights]: 2_000_000 } }, { cache: false }, "fetch", /shorter|broke/],
      ["a missing checkpoint", { status: { [weights]: 404 } }, {}, "bad-model", /no weights/],
      ["a server that fails", { status: { "/models/tiny-flux/model_index.json": 503 } }, {}, "fetch", /503/],
      ["no model there", {}, {}, "bad-model", /model_index\.json/, "/nothing/here/"],
      ["no server there", {}, {}, "fetch", /CORS/, "http://127.0.0.1:9/model/"],
    ];
    for (const [name, faults, load, code, message, model] of cases) {
      server.faults = faults;
      try {
        await withPage(async (draw) => {
          const { error } = await draw({ model, load, request: small });
          check(error?.code === code && message.test(error.message), `${name}: ${JSON.stringify(error)}`);
          console.log(`    ${name}: ${error.message.slice(0, 200)}`);
        });
      } finally {
        server.faults = {};
      }
    }
  },

  async "an aborted run ends within a step, bad requests, two runs at once, a disposed engine"() {
    await withPage(async (draw, page) => {
      const cases = [
        [{ ...small, width: 100_000 }, /width/],
        [{ ...small, ralu: "9x" }, /9x/],
        [{ ...small, colour: "red" }, /colour/],
        [{ width: 128 }, /prompt/],
      ];
      for (const [request, message] of cases) {
        const { error } = await draw({ ...f32, request });
        check(error?.code === "bad-request" && message.test(error.message), JSON.stringify(error));
      }
      for (const abortMs of [undefined, 30]) {
        const result = await draw({ request: { ...small, steps: 28 }, abortAfter: 2, abortMs });
        check(result.error?.name === "AbortError", `not aborted: ${JSON.stringify(result.error)}`);
        console.log(`    ended ${result.afterAbort.toFixed(0)} ms after abort()`);
        check(result.afterAbort < 1000, `it took ${result.afterAbort} ms to end`);
      }
      compare(await draw({ request: small }), small, ", after two aborted runs");
      const codes = await page.evaluate(async (request) => {
        const first = window.engine.generate(request);
        await first.next();
        const code = (run) => run.next().then(() => undefined, (error) => error.code);
        const codes = [await code(window.engine.generate(request))];
        await first.return();
        const after = window.engine.generate(request);
        codes.push(await code(after));
        await after.return();
        window.engine.dispose();
        codes.push(await code(window.engine.generate(request)));
        return codes;
      }, small);
      check(JSON.stringify(codes) === JSON.stringify(["busy", null, "disposed"]), JSON.stringify(codes));
    });
  },

  async "in a worker, on a canvas that was handed over"() {
    await withPage(async (draw, page) => {
      const result = await page.evaluate(
        (request) =>
          new Promise((done) => {
            const canvas = document.createElement("canvas");
            document.body.append(canvas);
            const offscreen = canvas.transferControlToOffscreen();
            const worker = new Worker("/tests/worker.mjs", { type: "module" });
            worker.onmessage = ({ data }) => done(data);
            worker.onerror = (event) => done({ error: event.message });
            worker.postMessage({ canvas: offscreen, request }, [offscreen]);
          }),
        small,
      );
      check(!result.error, result.error);
      const decibels = psnr(result.rgba, reference(small).rgb);
      console.log(`    the worker's canvas has ${decibels.toFixed(1)} dB to the native picture`);
      check(decibels >= 45, `${decibels} dB`);
    });
  },

  async "an engine in a worker of its own"() {
    await withPage(async (_, page) => {
      const result = await page.evaluate(async (request) => {
        const { RaluWorker } = await import("/ralu/worker.js");
        const seen = [];
        const engine = await RaluWorker.load("../models/tiny-flux/", { precision: "f32", onProgress: ({ phase }) => seen.push(phase) });
        const draw = async (more) => {
          let picture;
          try {
            for await (const event of engine.generate({ ...request, ...more })) if (event.type === "image") picture = event.picture;
          } catch ({ name, code }) {
            return { name, code };
          }
          return { rgba: [...picture.data] };
        };
        const controller = new AbortController();
        const aborted = draw({ steps: 50, signal: controller.signal });
        setTimeout(() => controller.abort(), 500);
        const results = { aborted: await aborted, wrong: await draw({ widht: 64 }), whole: await draw() };
        const { adapter, memory } = engine;
        engine.dispose();
        return { ...results, disposed: await draw(), seen, adapter, memory };
      }, small);
      check(result.aborted.name === "AbortError", `an aborted run ends with ${JSON.stringify(result.aborted)}`);
      check(result.wrong.code === "bad-request", `a wrong field is ${JSON.stringify(result.wrong)}`);
      check(result.disposed.code === "disposed", `after dispose() a run is ${JSON.stringify(result.disposed)}`);
      check(result.seen.at(-1) === "ready" && result.adapter && result.memory.heapBytes > 0, JSON.stringify(result));
      const decibels = psnr(result.whole.rgba, reference(small).rgb);
      check(decibels >= 45, `${decibels} dB to the native picture`);
    });
  },

  async "the page draws what is typed, and what it saves says how"() {
    const context = await browser.newContext({ viewport: { width: 1180, height: 900 }, deviceScaleFactor: 1 });
    const page = await context.newPage();
    const failure = failures(page);
    const patient = { timeout: 300_000 };
    /** Waits for a state of the page, or for what went wrong. */
    const state = async (wanted) => {
      const reached = page.waitForFunction((s) => [s, "failed"].includes(document.body.dataset.state), wanted, patient);
      await Promise.race([reached, failure]);
      const error = await page.locator("#error:not([hidden])").allTextContents();
      check(error.length === 0, `the page says: ${error}`);
    };
    const seen = (condition) => Promise.race([page.waitForFunction(condition, undefined, patient), failure]);
    try {
      await page.goto(server.url);
      // The form is there before the model is.
      await page.getByLabel("Prompt", { exact: true }).fill("a fox on a purple background");
      await page.getByLabel("Seed", { exact: true }).fill("5");
      await page.getByLabel("Size").selectOption("128");
      await page.getByLabel("Speed-up").selectOption("7x");
      await page.getByLabel("Precision").selectOption("f32");
      await state("done");
      await page.getByRole("button", { name: "Draw" }).click();
      await seen(() => document.querySelectorAll("#timeline li").length === 2);
      await page.screenshot({ path: join(out, "regions.png") });
      await state("done");
      await page.screenshot({ path: join(out, "desktop.png") });
      const pixels = await page.evaluate(() => {
        const canvas = document.getElementById("canvas");
        return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
      });
      const request = { prompt: "a fox on a purple background", width: 128, height: 128, seed: 5, ralu: "7x" };
      const expected = reference(request);
      const decibels = psnr(pixels, expected.rgb);
      console.log(`    ${decibels.toFixed(1)} dB to the native picture`);
      check(decibels >= 45, `the page's picture has ${decibels} dB to the native one`);
      check(page.url().includes("seed=5"), `the address is ${page.url()}`);
      const told = await page.evaluate(() => [...document.querySelectorAll("#timeline li")].map((item) => item.innerText));
      check(told.length === 3 && told.every((text) => /\d steps, [\d.]+ s\s+\d+ tokens\/step/.test(text)), `the timeline says ${JSON.stringify(told)}`);

      // What is saved has the native program's texts, and draws the picture again.
      const downloads = page.waitForEvent("download");
      await page.getByRole("button", { name: "Save PNG" }).click();
      const download = await downloads;
      check(download.suggestedFilename() === "ralu-5.png", `the PNG is called ${download.suggestedFilename()}`);
      const saved = join(out, "saved.png");
      await download.saveAs(saved);
      const texts = readTexts(readFileSync(saved));
      const toldBy = (text) => {
        const { adapter, ...rest } = JSON.parse(text);
        return rest;
      };
      const same = isDeepStrictEqual(
        texts.map(([keyword, text]) => [keyword, keyword === "ralu" ? toldBy(text) : text]),
        expected.texts.map(([keyword, text]) => [keyword, keyword === "ralu" ? toldBy(text) : text]),
      );
      check(same && texts.some(([, text]) => /"model_hash"/.test(text)), `the PNG says ${JSON.stringify(texts)}, a native one ${JSON.stringify(expected.texts)}`);
      const again = drawNatively(program, out, "again", ["--from", saved, "--model", join(models, "tiny-flux")]);
      const loss = psnr(pixels, again.rgb);
      console.log(`    drawn again from the saved PNG: ${loss.toFixed(1)} dB`);
      check(loss >= 45, `what the saved PNG draws has ${loss} dB to it`);
      const own = psnr(pixels, readPng(readFileSync(saved)));
      check(own === Infinity, `the saved pixels have ${own} dB to those of the page`);

      // What another model would take is said before it is loaded, and so is what a model has never seen.
      await page.getByText("Another model").click();
      await page.getByLabel(/Address of a diffusers folder/).fill("models/tiny-flux/");
      await seen(() => /all of it kept .* of GPU memory/.test(document.getElementById("takes").textContent));
      console.log(`    ${await page.locator("#takes").textContent()}`);
      await page.getByText("Another model").click();

      // By keyboard: draw, cancel, draw again, on a phone in the dark.
      await page.getByLabel("Prompt", { exact: true }).press("Enter");
      await seen(() => document.querySelectorAll("#timeline i.done").length > 0);
      await page.keyboard.press("Escape");
      await state("cancelled");
      await page.setViewportSize({ width: 390, height: 844 });
      await page.emulateMedia({ colorScheme: "dark" });
      await page.getByLabel("Prompt", { exact: true }).press("Enter");
      await state("done");
      const inView = await page.evaluate(() => document.getElementById("canvas").getBoundingClientRect().bottom <= innerHeight);
      check(inView, "on a phone the picture is not in view after it was drawn");
      await page.screenshot({ path: join(out, "phone-drawn.png") });
      await page.screenshot({ path: join(out, "phone.png"), fullPage: true });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
      check(!wide, "the page is wider than a phone");

      // The address holds the request.
      const other = await context.newPage();
      await other.goto(page.url());
      const fields = await other.evaluate(() => Object.fromEntries(new FormData(document.getElementById("form"))));
      check(fields.seed === "5" && fields.size === "128" && fields.ralu === "7x", `the link opens ${JSON.stringify(fields)}`);
    } finally {
      await context.close();
    }
  },

  async "a browser without WebGPU gets a sentence"() {
    const other = await openChromium({ gpu: false });
    try {
      const page = await other.newPage();
      const failure = failures(page);
      await page.goto(server.url);
      const shown = page.waitForFunction(() => document.body.dataset.state === "failed");
      await Promise.race([shown, failure]);
      const { code, text } = await page.evaluate(() => ({
        code: document.getElementById("error").dataset.code,
        text: document.getElementById("error").textContent,
      }));
      console.log(`    ${code}: ${text}`);
      check(["no-webgpu", "no-adapter"].includes(code), `code ${code}`);
    } finally {
      await other.close();
    }
  },
};

// A measurement, not a test: only if it is asked for by name, as it says nothing while the machine does other things.
const measurements = {
  async "the speed of steps beside the native program's on the same adapter"() {
    // The least time of a step: the machine may be busy now and then.
    const least = (events) => Math.min(...events.map(({ seconds }) => seconds));
    const request = { ...medium, steps: 6 };
    await withPage(async (draw) => {
      let [here, there] = [Infinity, Infinity];
      for (let round = 0; round < 2; round += 1) {
        const args = [request.prompt, "--model", join(models, "tiny-flux"), "--width", 128, "--height", 128, "--seed", 7]
          .concat(["--ralu", "off", "--steps", 6, "--precision", "f32", "--no-tune", "--adapter", "SwiftShader"]);
        const native = drawNatively(program, out, "speed", args.map(String), sameAdapter());
        there = Math.min(there, least(native.events.filter(({ event }) => event === "step")));
        const result = await draw({ ...f32, request });
        check(!result.error, JSON.stringify(result.error));
        here = Math.min(here, least(result.events.filter(({ type }) => type === "step")));
      }
      console.log(`    ${here.toFixed(2)} s a step, native ${there.toFixed(2)} s: ${(there / here).toFixed(2)} of the native speed`);
      check(Number.isFinite(here) && Number.isFinite(there), `steps took ${here} s, native ones ${there} s`);
    });
  },
};

const tools = { browser, server, site, models, cases, out, program, check, withPage, compare, reference, small, f32 };
const files = formats(tools);
Object.assign(tests, before(tools), trouble(tools), options(tools), together(tools), archive(tools), files.tests, word ? { ...measurements, ...files.large } : {});
// All cases take minutes: only if they are asked for.
if (word.startsWith("formats")) Object.assign(tests, files.every);

// ---- the run ---------------------------------------------------------------------------------

console.log(`Chromium ${browser.version()}`);
let failed = 0;
let ran = 0;
for (const name of chosen(Object.keys(tests), word)) {
  const test = tests[name];
  const start = performance.now();
  let error;
  try {
    await test();
  } catch (caught) {
    error = caught;
  }
  ran += 1;
  failed += error ? 1 : 0;
  console.log(`${error ? "FAILED" : "ok"} ${name} (${((performance.now() - start) / 1000).toFixed(1)} s)`);
  if (error) console.log(error.message);
}
await browser.close();
server.close();
console.log(`${ran} tests of the package and the page in Chromium, ${failed} failed`);
// All tests may have gone to the others.
process.exit(failed === 0 && (ran > 0 || word || process.env.SHARE) ? 0 : 1);
