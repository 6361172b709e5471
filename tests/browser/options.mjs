// What the types promise: each option does what it says, or is refused in words.

import { join } from "node:path";
import { failures } from "./chromium.mjs";

/** Notes what the page asks WebGPU for. */
function noteRequests() {
  window.asked = [];
  const { requestAdapter } = GPU.prototype;
  GPU.prototype.requestAdapter = function (options) {
    window.asked.push(options?.powerPreference);
    return requestAdapter.call(this, options);
  };
}

/** In the page: loads with `options`, and tells what was asked for and what came of it. */
async function loadWith(options) {
  const { Ralu } = await import("/ralu/ralu.js");
  window.asked = [];
  try {
    const engine = await Ralu.load("/models/tiny-flux/", { prefetch: false, ...options });
    const { adapter, memory } = engine;
    engine.dispose();
    return { asked: window.asked, adapter, memory };
  } catch ({ name, code, message }) {
    return { asked: window.asked, error: { name, code, message } };
  }
}

export const options = ({ browser, server, models, check, withPage, compare, small, f32 }) => ({
  async "options of the adapter reach the browser, and wrong ones are refused"() {
    const context = await browser.newContext();
    await context.addInitScript(noteRequests);
    try {
      await withPage(async (_, page) => {
        for (const preference of [undefined, "high-performance", "low-power"]) {
          const { asked, error } = await page.evaluate(loadWith, { adapter: { preference } });
          check(!error, `${preference}: ${JSON.stringify(error)}`);
          const right = JSON.stringify(asked) === JSON.stringify([preference ?? "high-performance"]);
          check(right, `${preference} asks for ${JSON.stringify(asked)}`);
        }
        const own = await page.evaluate(loadWith, { adapter: { limits: "adapter" } });
        const least = await page.evaluate(loadWith, { adapter: { limits: "webgpu" } });
        // What the standard guarantees.
        check(least.adapter?.maxBindingBytes === 128 << 20 && least.adapter.maxBufferBytes === 256 << 20, JSON.stringify(least));
        check(own.adapter?.maxBindingBytes > 128 << 20, JSON.stringify(own));
        const wrong = [
          [{ adapter: { preference: "fast" } }, /adapter\.preference.*"fast".*high-performance.*low-power/],
          [{ adapter: { limits: "none" } }, /adapter\.limits.*"none".*adapter.*webgpu/],
          [{ precision: "f8" }, /precision.*"f8".*auto.*f32.*f16/],
          [{ quantize: "q9" }, /q9.*number format.*q8_0/],
          [{ memoryBudget: "six" }, /budget of memory.*auto, off/],
          [{ adapter: { preferense: "low-power" } }, /adapter\.preferense/],
          [{ adapter: "low-power" }, /adapter.*object/],
          [{ cashe: false }, /cashe/],
          [{ cache: "never" }, /cache.*"never".*refresh/],
        ];
        for (const [options, message] of wrong) {
          const { error, asked } = await page.evaluate(loadWith, options);
          check(error?.name === "RaluError" && error.code === "bad-request" && message.test(error.message), `${JSON.stringify(options)}: ${JSON.stringify(error)}`);
          check(asked.length === 0, `${JSON.stringify(options)} went as far as asking for an adapter`);
          console.log(`    ${error.message}`);
        }
      }, context);
    } finally {
      await context.close();
    }
  },

  async "every field of a request means what it means natively"() {
    const requests = [
      // Two branches of guidance, PyTorch's noise, a short text, and a second picture with the next seed.
      [{ ...small, steps: 2, negativePrompt: "a fox", trueCfg: 2, guidance: 3, maxSequenceLength: 16, rng: "torch", count: 2 }, { seed: small.seed + 1 }],
      // Stages of one's own by the official rules, some steps of which a cache leaves out.
      [{ ...small, steps: undefined, ralu: { stageSteps: [2, 1, 2], stageEnds: [0.4, 0.6, 1], upRatio: 0.3 }, variant: "official", cache: "fora" }, {}],
      // Single rules, the strength of the noise, and painted regions: the left half of the picture.
      [{ ...small, steps: undefined, ralu: "7x", rules: { upsample: "latent", regionScore: "latent-gradient", jumpNoise: "fresh", ropeMode: "official" }, zPolicy: "fixed=6", mask: { luma: Array.from({ length: 16 }, (_, i) => (i % 4 < 2 ? 255 : 0)), width: 4, height: 4, mode: "replace" } }, {}],
    ];
    await withPage(async (draw) => {
      for (const [request, last] of requests) {
        const result = await draw({ ...f32, request });
        compare(result, { ...request, count: 1, ...last });
        const seeds = result.events.filter(({ type }) => type === "image").map(({ seed }) => Number(seed));
        const expected = Array.from({ length: request.count ?? 1 }, (_, i) => request.seed + i);
        check(JSON.stringify(seeds) === JSON.stringify(expected), `pictures with the seeds ${seeds}`);
        const reused = result.events.some((event) => event.type === "step" && event.reused);
        check(reused === Boolean(request.cache), `steps are ${reused ? "" : "not "}reused`);
      }
    });
  },

  async "a wrong field of a request is named as the page spells it"() {
    const wrong = [
      [{ negativPrompt: "a fox" }, /negativPrompt.*negativePrompt/],
      [{ negative_prompt: "a fox" }, /negative_prompt.*negativePrompt/],
      [{ width: "wide" }, /width.*"wide"/],
      [{ estimates: "all" }, /estimates: expected true or false/],
      [{ prompt: undefined }, /prompt/],
      [{ ralu: "9x" }, /ralu.*9x.*7x/],
      [{ ralu: { stageSteps: [1, 2, 3], stageEnds: [0.3, 0.6, 1] } }, /ralu.*upRatio/],
      [{ ralu: { stageSteps: [1, 2], stageEnds: [0.3, 1], upRatio: 0.3 } }, /stage steps are 2 numbers, expected three/],
      [{ rules: { ropeMode: "other" } }, /rules\.ropeMode.*other.*crpa/],
      [{ zPolicy: "loud" }, /zPolicy.*loud.*min-noise/],
      [{ cache: "attic" }, /cache.*attic.*teacache/],
      [{ mask: { luma: [1, 2], width: 1, height: 1, mode: "instead" } }, /mask\.mode.*instead.*replace/],
    ];
    await withPage(async (draw) => {
      for (const [fields, message] of wrong) {
        const { error } = await draw({ ...f32, request: { ...small, ...fields } });
        check(error?.code === "bad-request" && message.test(error.message), `${JSON.stringify(fields)}: ${JSON.stringify(error)}`);
        console.log(`    ${error?.message}`);
      }
    });
  },

  async "weights take half the memory in f16"() {
    // The bundled ones are stored in 16 bits, these in 32.
    const model = "/fixtures/flux-a/model/";
    const request = { prompt: "a red apple", width: 64, height: 64, ralu: "off", steps: 2 };
    await withPage(async (draw) => {
      const bytes = {};
      for (const precision of ["f32", "f16"]) {
        const { error, memory } = await draw({ model, load: { precision }, request });
        check(!error, `${precision}: ${JSON.stringify(error)}`);
        bytes[precision] = memory.gpuBytes;
        await draw.dispose();
      }
      console.log(`    ${JSON.stringify(bytes)}`);
      check(bytes.f16 < 0.8 * bytes.f32, `GPU memory ${JSON.stringify(bytes)}`);
    });
  },

  async "loading can be aborted, refreshed, forgotten, and given its module"() {
    await withPage(async (_, page) => {
      const told = await page.evaluate(async () => {
        const { Ralu } = await import("/ralu/ralu.js");
        const url = "/models/tiny-flux/";
        const fetched = async (options) => {
          const engine = await Ralu.load(url, options);
          const { fetchedBytes } = engine.memory;
          engine.dispose();
          return fetchedBytes;
        };
        const failed = (promise) => promise.then(() => "no error", ({ name, code }) => (name === "RaluError" ? code : name));
        const wrongModule = await failed(Ralu.load(url, { wasm: "/ralu/nothing.wasm" }));
        const controller = new AbortController();
        const phases = [];
        const onProgress = ({ phase, bytes }) => {
          if (phases.at(-1) !== phase) phases.push(phase);
          if (phase === "download" && bytes > 8 << 20) controller.abort();
        };
        const wasm = new URL("/ralu/web_bg.wasm", location.href);
        const aborted = await failed(Ralu.load(url, { wasm, onProgress, signal: controller.signal }));
        const before = await failed(Ralu.load(url, { signal: AbortSignal.abort() }));
        const rest = await fetched({});
        const again = await fetched({});
        const refreshed = await fetched({ cache: "refresh" });
        await Ralu.forget(url);
        const afterForget = await fetched({});
        await Ralu.forget();
        const afterAll = await fetched({});
        return { wrongModule, aborted, before, phases, rest, again, refreshed, afterForget, afterAll };
      });
      console.log(`    ${JSON.stringify(told)}`);
      const { wrongModule, aborted, before, phases, rest, again, refreshed, afterForget, afterAll } = told;
      check(wrongModule === "fetch", `a module that is not there: ${wrongModule}`);
      check(aborted === "AbortError" && before === "AbortError", `aborted loads end with ${aborted} and ${before}`);
      check(JSON.stringify(phases) === '["open","download"]', `phases ${phases}`);
      check(again === 0 && rest > 0 && rest < refreshed, `${rest} bytes after the aborted load, then ${again}`);
      check(refreshed === afterForget && refreshed === afterAll && refreshed > 40e6, `${refreshed}, ${afterForget} and ${afterAll} bytes fetched anew`);
    });
  },

  async "a picked folder and an origin of one's own"() {
    await withPage(async (draw, page) => {
      const result = await draw({ origin: true, ...f32, request: small });
      compare(result, small, ", from an origin of the page's own");
      const asked = await page.evaluate(() => window.originAsked);
      check(asked.includes("model_index.json") && asked.length > 10, `the origin was asked for ${asked}`);
    });
    const context = await browser.newContext();
    try {
      const page = await context.newPage();
      const failure = failures(page);
      const state = (wanted) =>
        Promise.race([page.waitForFunction((s) => document.body.dataset.state === s, wanted, { timeout: 120_000 }), failure]);
      server.requests.length = 0;
      server.faults = { refusedUnder: "/models/" };
      await page.goto(`${server.url}#prompt=a+red+apple&seed=7&size=128&ralu=7x`);
      await state("failed");
      await page.getByText("Another model").click();
      await page.locator("#folder").setInputFiles(join(models, "tiny-flux"));
      await state("done");
      await page.getByRole("button", { name: "Draw" }).click();
      await Promise.race([page.waitForFunction(() => document.querySelector("#timeline i.done"), undefined, { timeout: 120_000 }), failure]);
      check((await page.locator("#error").isHidden()) && server.requests.every(({ path, bytes }) => bytes === 0 || !path.startsWith("/models/")), "the page shows an error, or the server was asked");
    } finally {
      server.faults = {};
      await context.close();
    }
  },
});
