// What happens before a model is there: nothing is asked for that is not, and what it would take is said.

import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { readCase } from "./answers.mjs";
import { failures } from "./chromium.mjs";

const CONFIG = "/models/tiny-flux/model_index.json";

/** In the page: loads a model and frees it. */
async function load({ model, options }) {
  const { Ralu } = await import("/ralu/ralu.js");
  const engine = await Ralu.load(model, options);
  engine.dispose();
}

/** In the page: what is said of a model. */
async function look({ model, options }) {
  const { Ralu } = await import("/ralu/ralu.js");
  return Ralu.inspect(model, options).catch(({ code, message }) => ({ error: { code, message } }));
}

/** Answers for the hub, from a folder on this machine: its list, and its files as another origin serves them. */
async function playHub(context, folder, asked) {
  const files = ["", ...readdirSync(folder)].flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? readdirSync(path).map((file) => (name ? `${name}/${file}` : file)) : [];
  });
  const list = files.filter((path) => statSync(join(folder, path)).isFile()).map((path) => ({ type: "file", path, size: statSync(join(folder, path)).size }));
  await context.route("https://huggingface.co/**", async (route) => {
    const request = route.request();
    const url = new URL(request.url());
    const headers = { "access-control-allow-origin": "*", "access-control-allow-headers": "range", "access-control-expose-headers": "content-range, etag", etag: '"1"' };
    const answer = (status, body, more) => {
      asked.push({ path: url.pathname, status });
      return route.fulfill({ status, headers: { ...headers, ...more }, body });
    };
    if (request.method() === "OPTIONS") return answer(204);
    if (url.pathname === "/api/models/a/b/tree/main") return answer(200, JSON.stringify(list));
    const path = decodeURIComponent(url.pathname.slice("/a/b/resolve/main/".length));
    if (!files.includes(path)) return answer(404);
    const file = readFileSync(join(folder, path));
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers().range ?? "") ?? [];
    if (from === undefined) return answer(200, file);
    const part = file.subarray(Number(from), Number(to) + 1);
    return answer(206, part, { "content-range": `bytes ${from}-${Number(from) + part.length - 1}/${file.length}` });
  });
}

export const before = ({ browser, server, models, cases, program, check, withPage, small, f32 }) => ({
  async "a first load asks for nothing that is not there"() {
    const missing = () => server.requests.filter(({ status }) => status >= 400).map(({ path }) => path);
    const context = await browser.newContext();
    try {
      // The page with the bundled model, which lists its files.
      const page = await context.newPage();
      const failure = failures(page);
      server.requests.length = 0;
      await page.goto(server.url);
      const ready = page.waitForFunction(() => document.body.dataset.state === "done", undefined, { timeout: 120_000 });
      await Promise.race([ready, failure]);
      check(server.requests.some(({ path }) => path === CONFIG) && missing().length === 0, `missing: ${missing()}`);
      console.log(`    ${server.requests.length} requests for the page and its model`);
      await page.close();
      // A folder of the hub, which lists it; and files by their addresses.
      const asked = [];
      await playHub(context, join(models, "../tests/fixtures/sd3-calm/model"), asked);
      await withPage(async (_, page) => {
        await page.evaluate(load, { model: "https://huggingface.co/a/b/resolve/main/", options: f32.load });
        const refused = asked.filter(({ status }) => status >= 400).map(({ path }) => path);
        check(asked.some(({ path }) => path.startsWith("/api/")) && asked.length > 8 && refused.length === 0, `missing: ${refused}`);
        server.requests.length = 0;
        // With its tokenizers, as it has a small vocabulary.
        const model = readCase(cases, "flux-aio-fp8").paths.map((path) => `/formats/${path}`);
        await page.evaluate(load, { model, options: f32.load });
        check(server.requests.length > 0 && missing().length === 0, `missing: ${missing()}`);
      }, context);
    } finally {
      await context.close();
    }
  },

  async "the bundled model lists its files"() {
    const folder = join(models, "tiny-flux");
    const { _files: listed } = JSON.parse(readFileSync(join(folder, "model_index.json"), "utf8"));
    const entries = readdirSync(folder).flatMap((name) => {
      const path = join(folder, name);
      return statSync(path).isDirectory() ? readdirSync(path).map((file) => `${name}/${file}`) : [name];
    });
    const read = entries.filter((path) => /\.(gguf|json|model|safetensors|txt)$/.test(path) && path !== "model_index.json");
    const there = Object.fromEntries(read.sort().map((path) => [path, statSync(join(folder, path)).size]));
    check(JSON.stringify(listed) === JSON.stringify(there), `it lists ${JSON.stringify(listed)}, and has ${JSON.stringify(there)}: run scripts/list-files models/tiny-flux`);
  },

  async "what a model would take is said before it is loaded"() {
    await withPage(async (draw, page) => {
      const { prompt, ...request } = { ...small, width: 256, height: 256, ralu: "7x", steps: undefined };
      const options = ["--width=256", "--height=256", "--ralu=7x", "--precision=f32", "--json", "--model", join(models, "tiny-flux")];
      const native = JSON.parse(execFileSync(program[0], [...program.slice(1), "plan", prompt, ...options], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }));
      server.requests.length = 0;
      const asked = { model: "/models/tiny-flux/", options: { precision: "f32", request } };
      const first = await page.evaluate(look, asked);
      check(!first.error, JSON.stringify(first.error));
      const fetched = server.requests.reduce((sum, { path, bytes }) => sum + (path.startsWith("/models/") ? bytes : 0), 0);
      const sizes = first.files.map(({ path, bytes, keptBytes }) => bytes === statSync(join(models, "tiny-flux", path)).size && keptBytes === 0);
      check(first.files.length === 4 && sizes.every(Boolean), JSON.stringify(first.files));
      check(fetched < 1e6, `${fetched} bytes were fetched to say it`);
      const told = [first.plan.gpuBytes, first.plan.tflops, first.plan.stages.map(({ tokens, steps }) => [tokens, steps])];
      const expected = [native.memory.peak_bytes, native.tflops.with_attention, native.stages.map(({ tokens, steps }) => [tokens, steps])];
      check(JSON.stringify(told) === JSON.stringify(expected), `it says ${JSON.stringify(told)}, natively ${JSON.stringify(expected)}`);
      check((await draw(f32)).error === undefined, "the model cannot be loaded");
      const second = await page.evaluate(look, asked);
      check(second.files.every(({ bytes, keptBytes }) => bytes === keptBytes), JSON.stringify(second.files));
      console.log(`    ${JSON.stringify(first.plan)}, said after ${fetched} bytes`);
      const wrong = await page.evaluate(look, { model: "/nothing/here/", options: {} });
      check(wrong.error?.code === "bad-model" && /model_index\.json/.test(wrong.error.message), JSON.stringify(wrong));
      const odd = await page.evaluate(look, { model: "/models/tiny-flux/", options: { prefetch: true } });
      check(odd.error?.code === "bad-request" && /prefetch/.test(odd.error.message), JSON.stringify(odd));
    });
  },

  async "what a model does not know is said before it draws"() {
    await withPage(async (draw) => {
      const { error, events } = await draw({ ...f32, request: { ...small, prompt: "a wyvern and a red apple" } });
      check(!error, JSON.stringify(error));
      const said = events.flatMap(({ type, message }) => (type === "warning" ? [message] : []));
      check(events[0].type === "warning" && said.some((text) => /knows pictures of 128 x 128/.test(text)), `it says ${said}`);
      check(said.some((text) => /never seen wyvern,/.test(text)), `it says ${said}`);
      console.log(`    ${said.join("; ")}`);
    });
  },
});
