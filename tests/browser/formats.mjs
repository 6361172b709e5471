// Models in files of their own, as people have them: which is what, where tokenizers are from, and what is drawn next to the
// known answers of tests/fixtures/formats.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { caseNames, judge, readCase } from "./answers.mjs";
import { failures } from "./chromium.mjs";
import { drawNatively, floats, relativeL2 } from "./native.mjs";

/** Where the server has the cases. */
const ADDRESS = "/formats/";

/** A safetensors file, as `server.made` has it, whose tensor `table` has more rows; those that are new are zeros. */
function enlarged(file, table, rows) {
  const length = Number(file.readBigUInt64LE(0));
  const { __metadata__, ...header } = JSON.parse(file.subarray(8, 8 + length).toString("utf8"));
  const parts = [];
  let end = 0;
  const tensors = Object.entries(header).sort(([, a], [, b]) => a.data_offsets[0] - b.data_offsets[0]);
  for (const [name, info] of tensors) {
    const bytes = file.subarray(8 + length + info.data_offsets[0], 8 + length + info.data_offsets[1]);
    let size = bytes.length;
    if (name === table) {
      size = (size / info.shape[0]) * rows;
      info.shape[0] = rows;
    }
    parts.push({ at: end, bytes });
    info.data_offsets = [end, end + size];
    end += size;
  }
  if (!(table in header)) throw new Error(`there is no ${table} among ${Object.keys(header)}`);
  const text = Buffer.from(JSON.stringify(header));
  const start = Buffer.alloc(8 + text.length);
  start.writeBigUInt64LE(BigInt(text.length));
  text.copy(start, 8);
  const moved = parts.map(({ at, bytes }) => ({ at: start.length + at, bytes }));
  return { size: start.length + end, parts: [{ at: 0, bytes: start }, ...moved] };
}

/** A LoRA for blocks of the model with all parts in one file: rank 4, numbers without a pattern. */
function lora() {
  const layers = { "double_blocks.0.img_attn.qkv": [192, 64], "double_blocks.0.txt_mlp.0": [256, 64], "single_blocks.0.linear1": [448, 64] };
  const rank = 4;
  const header = {};
  const numbers = [];
  for (const [name, [outputs, inputs]] of Object.entries(layers)) {
    for (const [end, shape] of Object.entries({ lora_A: [rank, inputs], lora_B: [outputs, rank] })) {
      const start = numbers.length;
      for (let i = 0; i < shape[0] * shape[1]; i += 1) numbers.push(0.4 * Math.sin(1000 * Math.sin(numbers.length + 1)));
      header[`diffusion_model.${name}.${end}.weight`] = { dtype: "F32", shape, data_offsets: [4 * start, 4 * numbers.length] };
    }
  }
  const text = Buffer.from(JSON.stringify(header));
  const file = Buffer.alloc(8 + text.length + 4 * numbers.length);
  file.writeBigUInt64LE(BigInt(text.length));
  text.copy(file, 8);
  numbers.forEach((number, i) => file.writeFloatLE(number, 8 + text.length + 4 * i));
  return file;
}

/** A tensor that left the page, or goes there, with its bytes as base64. */
const decoded = (tensors) =>
  Object.fromEntries(Object.entries(tensors).map(([name, { shape, data }]) => [name, { shape, data: Buffer.from(data, "base64") }]));
const encoded = (tensors) =>
  Object.fromEntries(Object.entries(tensors).map(([name, { shape, data }]) => [name, { shape, data: data.toString("base64") }]));

export const formats = ({ browser, server, cases: folder, out, program, check, withPage }) => {
  const at = (path) => ADDRESS + path;

  /** Draws a case's request by what `how` loads, and says how far that is from the answer. */
  const draws = (name, how) =>
    withPage(async (draw) => {
      const one = readCase(folder, name);
      const load = { precision: "f32", cache: false };
      const { request, given } = one;
      const result = await draw({ load, ...how(one), request, given: encoded(given), all: true });
      check(!result.error, `${name}: ${JSON.stringify(result.error)}`);
      console.log(`    ${name}: ${judge(one, decoded(result.tensors))}; ${result.seconds.toFixed(1)} s`);
    });
  const byFiles = ({ files }) => ({ model: ADDRESS, load: { precision: "f32", cache: false, files } });

  const tests = {
    async "files that are picked, in GGUF, draw the known picture"() {
      // T5's file has its own vocabulary.
      const wanted = (path) => !path.startsWith("tokenizers/t5");
      await draws("flux-gguf", ({ paths }) => ({ picked: paths.filter(wanted).map(at).reverse() }));
    },

    async "a LoRA that is picked draws the native picture, and with another weight, too"() {
      const { paths, files, request } = readCase(folder, "flux-aio-fp8");
      const file = lora();
      const path = join(out, "cats.safetensors");
      writeFileSync(path, file);
      server.made.set("/made/cats.safetensors", { size: file.length, parts: [{ at: 0, bytes: file }] });
      const asked = { ...request, steps: 2, seed: 7 };
      const native = (name, weight) => {
        const { prompt, width, height, steps, guidance, seed, maxSequenceLength } = asked;
        const options = { width, height, steps, guidance, seed, "max-sequence-length": maxSequenceLength, ralu: "off", precision: "f32" };
        const tokenizers = ["clipTokenizer", "t5Tokenizer"].map((name) => join(folder, files[name]));
        const args = [prompt, "--model", join(folder, files.model), "--clip-tokenizer", tokenizers[0], "--t5-tokenizer", tokenizers[1]];
        for (const [name, value] of Object.entries(options)) args.push(`--${name}`, String(value));
        return drawNatively(program, out, name, [...args, ...(weight === undefined ? [] : ["--lora", `${path}:${weight}`])]).latents.data;
      };
      const plain = native("without", undefined);
      try {
        await withPage(async (draw) => {
          const picked = [...paths.map(at), "/made/cats.safetensors"];
          for (const weight of [1, -0.5]) {
            const result = await draw({ load: { precision: "f32", cache: false }, picked, request: asked, loraWeights: [weight] });
            check(!result.error, JSON.stringify(result.error));
            const made = floats(Buffer.from(result.latents.data, "base64"));
            const expected = native(`with ${weight}`, weight);
            const [off, effect] = [relativeL2(made, expected), relativeL2(expected, plain)];
            console.log(`    weight ${weight}: ${off.toExponential(1)} off, an effect of ${effect.toFixed(3)}`);
            check(off <= 2e-4 && effect > 1e-2, `weight ${weight}: ${off} off, an effect of ${effect}`);
          }
          const wrong = await draw({ request: asked, loraWeights: [1, 2] });
          check(/as many as/.test(wrong.error?.message), JSON.stringify(wrong.error));
        });
      } finally {
        server.made.clear();
      }
    },

    async "a file with all parts, by its address, draws the known picture"() {
      await draws("flux-aio-fp8", ({ paths }) => ({ model: paths.map((path) => `${server.url}${at(path).slice(1)}?download=true`) }));
    },

    async "vocabularies are fetched for models without tokenizers, once, and for no others"() {
      const made = {
        "clip_l.safetensors": [enlarged(readFileSync(join(folder, "common/clip_l.safetensors")), "text_model.embeddings.token_embedding.weight", 49_408), "clip.zlib"],
        "t5xxl_fp16.safetensors": [enlarged(readFileSync(join(folder, "common/t5xxl_fp16.safetensors")), "shared.weight", 32_128), "t5.zlib"],
      };
      for (const [name, [file]] of Object.entries(made)) server.made.set(`/made/${name}`, file);
      const alone = ["flux-bfl-bf16/flux1-dev.safetensors", "common/ae.safetensors"].map(at);
      const files = [...alone, ...Object.keys(made).map((name) => `/made/${name}`)];
      const [clip, t5] = ["clip", "t5"].map((name) => at(`tokenizers/${name}/tokenizer.json`));
      const context = await browser.newContext();
      /** What is fetched of the vocabularies when `model` is loaded. */
      const fetched = async (model, options = {}) => {
        server.requests.length = 0;
        const result = await withPage((draw) => draw({ model, load: { precision: "f32", ...options } }), context);
        const asked = server.requests.filter(({ path, bytes }) => path.startsWith("/ralu/vocabularies/") && bytes > 0);
        return { ...result, vocabularies: asked.map(({ path }) => path.split("/").at(-1)).sort().join(" ") };
      };
      const right = ({ error, vocabularies }, expected, what) =>
        check(!error && vocabularies === expected, `${what}: ${JSON.stringify(error)}; fetched "${vocabularies}", expected "${expected}"`);
      try {
        right(await fetched(undefined), "", "a folder with tokenizers");
        // The encoders are those of the small vocabularies.
        const small = ["common/clip_l.safetensors", "common/t5xxl_fp16.safetensors"].map(at);
        right(await fetched([...alone, ...small, clip, t5]), "", "files with tokenizers");
        const first = await fetched(files);
        right(first, "clip.zlib t5.zlib", "files without");
        const parts = first.parts.map(({ part, path }) => `${part} ${path}`).sort().join(", ");
        check(parts === "clip-l clip_l.safetensors, denoiser flux1-dev.safetensors, t5 t5xxl_fp16.safetensors, vae ae.safetensors", parts);
        right(await fetched(files), "", "the second visit");
        const nowhere = await fetched(files, { vocabularies: "/nothing/" });
        check(nowhere.error?.code === "fetch" && /no tokenizer.*\/nothing\/ has no clip\.zlib/.test(nowhere.error.message), JSON.stringify(nowhere.error));
        console.log(`    ${nowhere.error.message}`);
        // A vocabulary belongs to encoders of its size.
        const other = await fetched([...alone, ...small, clip]);
        check(other.error?.code === "bad-model" && /embeddings.*32100 to 32128/.test(other.error.message), JSON.stringify(other.error));
        console.log(`    ${other.error.message}`);
      } finally {
        server.made.clear();
        await context.close();
      }
    },

    async "the page takes files, says what is missing, and what each of them is"() {
      const context = await browser.newContext();
      const { paths } = readCase(folder, "flux-bfl-bf16");
      const files = (...words) => paths.filter((path) => words.some((word) => path.includes(word))).map((path) => join(folder, path));
      try {
        const page = await context.newPage();
        const failure = failures(page);
        const state = (wanted) =>
          Promise.race([page.waitForFunction((s) => document.body.dataset.state === s, wanted, { timeout: 120_000 }), failure]);
        const error = () => page.locator("#error").textContent();
        await page.goto(server.url);
        await page.getByText("Another model").click();
        // While the first model is on its way.
        const input = page.getByLabel("or model files on this device");
        await input.setInputFiles(files("flux1-dev", "clip_l"));
        await state("failed");
        const missing = await error();
        console.log(`    ${missing}`);
        check(/T5 text encoder \(usually t5xxl.*VAE \(usually ae\.safetensors/.test(missing), missing);
        await input.setInputFiles(files("t5xxl"));
        await state("failed");
        check(!/T5/.test(await error()) && /VAE/.test(await error()), await error());
        // The rest is dropped anywhere.
        const rest = files("ae.safetensors", "tokenizer").map((path) => [path.split("/").slice(-2).join("-"), readFileSync(path).toString("base64")]);
        await page.evaluate((rest) => {
          const transfer = new DataTransfer();
          for (const [name, text] of rest) {
            transfer.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name));
          }
          for (const type of ["dragover", "drop"]) {
            document.body.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: transfer }));
          }
        }, rest);
        await state("done");
        const told = await page.locator("#picked li").allInnerTexts();
        console.log(`    ${told.map((text) => text.replaceAll("\n", " ")).join("; ")}`);
        for (const part of ["flux1-dev[^]*image network", "clip_l[^]*CLIP-L", "t5xxl[^]*T5", "ae[^]*VAE"]) {
          check(told.some((text) => new RegExp(part).test(text)), `no ${part} in ${told}`);
        }
        check(server.requests.every(({ method }) => method !== "POST" && method !== "PUT"), "something was sent to the server");
        // By keyboard alone: a part less, and the page says which.
        await page.getByRole("button", { name: "Remove common-ae.safetensors" }).focus();
        await page.keyboard.press("Enter");
        await state("failed");
        check(/VAE \(usually/.test(await error()), await error());
        check(await input.evaluate((element) => element === document.activeElement), "the focus is lost");
      } finally {
        await context.close();
      }
    },
  };
  /** In the page: loads what its input has, draws one step, and says when which memory was taken. */
  const measureLarge = async ({ request, options }) => {
    const { Ralu } = await import("/ralu/ralu.js");
    const input = document.getElementById("files");
    const start = performance.now();
    const told = [];
    const tell = (what) => {
      const { heapBytes, gpuBytes, stagingBytes } = engine.memory;
      const mebibytes = [heapBytes, gpuBytes, stagingBytes].map((bytes) => Math.round(bytes / 2 ** 20));
      told.push(`${((performance.now() - start) / 1000).toFixed(1)} s ${what}: heap ${mebibytes[0]}, GPU ${mebibytes[1]}, staging ${mebibytes[2]} MiB`);
    };
    const engine = await Ralu.load(input.files, options);
    tell("open");
    let before;
    for await (const event of engine.generate(request)) {
      const what = event.type === "loading" ? `loading ${event.part}` : event.type;
      if (what !== before || event.bytes === event.totalBytes) {
        tell(what);
        console.log(told.at(-1));
      }
      before = what;
    }
    const { heapBytes, gpuPeakBytes } = engine.memory;
    engine.dispose();
    return { told, heapBytes, gpuPeakBytes };
  };

  const large = {
    async "a model of 6.7 GB is loaded and drawn from with little memory of its own"() {
      const { LARGE, LARGE_BUDGET: memoryBudget } = process.env;
      check(LARGE, "LARGE has to name a folder that scripts/large-model has filled");
      const files = ["flux1-dev-Q4_K.gguf", "clip_l.safetensors", "t5xxl_fp16.safetensors", "ae.safetensors"].map((name) => join(LARGE, name));
      await withPage(async (_, page) => {
        page.on("console", (message) => console.log(`    ${message.text()}`));
        page.setDefaultTimeout(0);
        await page.evaluate(() => document.body.append(Object.assign(document.createElement("input"), { type: "file", id: "files", multiple: true })));
        await page.locator("#files").setInputFiles(files);
        const request = { prompt: "a blue house", width: 64, height: 64, steps: 1, maxSequenceLength: 16, ralu: "off" };
        const options = memoryBudget ? { memoryBudget } : {};
        const { heapBytes, gpuPeakBytes } = await page.evaluate(measureLarge, { request, options });
        const [heap, gpu] = [heapBytes, gpuPeakBytes].map((bytes) => (bytes / 2 ** 20).toFixed(0));
        console.log(`    at most ${heap} MiB of heap and ${gpu} MiB on the GPU`);
        check(heapBytes < 128 << 20, `the heap grew to ${heapBytes} bytes`);
      });
    },
  };
  const every = Object.fromEntries(
    caseNames(folder).map((name) => [`formats: ${name} draws the known picture`, () => draws(name, byFiles)]),
  );
  return { tests, large, every };
};
