// What a graphics adapter can do to a page in the middle of its work: be lost, or run out of memory.

import { failures } from "./chromium.mjs";

/** Keeps what the page's WebGPU gives, so that a test can take it away. */
function wrapWebGpu() {
  window.devices = [];
  const { requestDevice } = GPUAdapter.prototype;
  GPUAdapter.prototype.requestDevice = async function (descriptor) {
    const device = await requestDevice.call(this, descriptor);
    window.devices.push(device);
    return device;
  };

  // Buffers whose label matches `noRoomFor` do not fit any more. As the browser has it, a scope learns of it.
  const { createBuffer, pushErrorScope, popErrorScope } = GPUDevice.prototype;
  const scopes = new WeakMap();
  const of = (device) => {
    if (!scopes.has(device)) scopes.set(device, []);
    return scopes.get(device);
  };
  GPUDevice.prototype.pushErrorScope = function (filter) {
    of(this).push({ filter, full: false });
    return pushErrorScope.call(this, filter);
  };
  GPUDevice.prototype.popErrorScope = function () {
    const { full } = of(this).pop();
    const result = popErrorScope.call(this);
    return full ? result.then(() => new GPUOutOfMemoryError("there is no room for a buffer")) : result;
  };
  GPUDevice.prototype.createBuffer = function (descriptor) {
    if (window.noRoomFor?.test(descriptor.label ?? "")) {
      const scope = of(this).findLast(({ filter }) => filter === "out-of-memory");
      if (!scope) throw new Error(`the buffer ${descriptor.label} is made outside of all scopes`);
      scope.full = true;
      window.refused = (window.refused ?? 0) + 1;
    }
    return createBuffer.call(this, descriptor);
  };
}

/** In the page: draws until `when` says so, makes trouble, and tells how the run ends. */
async function drawInto({ request, when, trouble }) {
  const { Ralu, RaluError } = await import("/ralu/ralu.js");
  window.engine ??= await Ralu.load("/models/tiny-flux/", { precision: "f32" });
  const make = () => (trouble === "lost" ? window.devices.at(-1).destroy() : (window.noRoomFor = new RegExp(trouble)));
  try {
    if (when === "start") make();
    for await (const event of window.engine.generate(request)) {
      if (event.type === when) make();
    }
    return { drawn: true };
  } catch (error) {
    const { name, code, message } = error;
    return { name, code, message, typed: error instanceof RaluError };
  } finally {
    window.noRoomFor = undefined;
  }
}

export const trouble = ({ browser, server, check, withPage, compare, small, f32 }) => {
  const wrapped = async () => {
    const context = await browser.newContext();
    await context.addInitScript(wrapWebGpu);
    return context;
  };
  const expect = (result, code, message, what) =>
    check(
      result.typed && result.name === "RaluError" && result.code === code && message.test(result.message),
      `${what}: expected a RaluError with the code ${code}, got ${JSON.stringify(result)}`,
    );

  return {
    async "a device that is lost is a typed error, and a new engine draws"() {
      const context = await wrapped();
      try {
        await withPage(async (draw, page) => {
          // While weights are loaded, between two steps, and while nothing is done.
          for (const when of ["loading", "step", "start"]) {
            const result = await page.evaluate(drawInto, { request: small, when, trouble: "lost" });
            expect(result, "device-lost", /lost the GPU/, `lost at ${when}`);
            await draw.dispose();
          }
          compare(await draw({ ...f32, request: small }), small, ", after three lost devices");
          // What is disposed of gives its memory back at once.
          await draw.dispose();
          const reason = await page.evaluate(() => window.devices.at(-1).lost.then((info) => info.reason));
          check(reason === "destroyed", `after dispose() the device is lost for the reason ${reason}`);
        }, context);
      } finally {
        await context.close();
      }
    },

    async "full GPU memory is a typed error, and the same engine draws what fits"() {
      const context = await wrapped();
      try {
        await withPage(async (draw, page) => {
          // Weights, the upload of weights, and temporaries that all stages share.
          for (const [when, labels] of [["start", "."], ["start", "^upload"], ["encoded", "^slot"]]) {
            const result = await page.evaluate(drawInto, { request: small, when, trouble: labels });
            expect(result, "out-of-memory", /memory is full.*smaller/, `no room for ${labels}`);
          }
          check((await page.evaluate(() => window.refused)) >= 3, "nothing was refused");
          compare(await draw({ ...f32, request: small }), small, ", with the same engine");
        }, context);
      } finally {
        await context.close();
      }
    },

    async "the page says what to do about a lost device and full memory, and draws again"() {
      const context = await wrapped();
      try {
        const page = await context.newPage();
        const failure = failures(page);
        const patient = { timeout: 120_000 };
        const state = (wanted) => {
          const reached = page.waitForFunction((s) => document.body.dataset.state === s, wanted, patient);
          return Promise.race([reached, failure]);
        };
        const button = page.getByRole("button", { name: "Draw" });
        const shown = () => page.evaluate(() => {
          const { hidden, textContent, dataset } = document.getElementById("error");
          return { hidden, text: textContent, code: dataset.code };
        });
        await page.goto(`${server.url}#prompt=a+red+apple&seed=7&size=128&ralu=7x`);
        await state("done");
        const step = () => Promise.race([page.waitForFunction(() => document.querySelector("#timeline i.done"), undefined, patient), failure]);
        const failed = async (code, sentence) => {
          await state("failed");
          const error = await shown();
          console.log(`    ${error.code}: ${error.text}`);
          check(!error.hidden && error.code === code && sentence.test(error.text), `the page says ${JSON.stringify(error)}`);
        };
        await button.click();
        await step();
        await page.evaluate(() => window.devices.at(-1).destroy());
        await failed("device-lost", /lost the GPU.*Draw/s);
        // The button loads the model onto a new device.
        await button.click();
        await step();
        check((await shown()).hidden, "the error is still there");
        await page.keyboard.press("Escape");
        await state("cancelled");
        // A larger picture needs other memory.
        await page.evaluate(() => (window.noRoomFor = /./));
        await page.getByLabel("Size").selectOption("256");
        await button.click();
        await failed("out-of-memory", /memory is full.*smaller/s);
        await page.evaluate(() => (window.noRoomFor = undefined));
        await page.getByLabel("Size").selectOption("128");
        await button.click();
        await state("done");
        check((await shown()).hidden, "the error is still there");
        const caption = await page.locator("#caption").textContent();
        check(/Seed 7, 128 × 128/.test(caption), `afterwards the page shows ${caption}`);
        check((await page.evaluate(() => window.devices.length)) === 2, "the full device was not used again");
      } finally {
        await context.close();
      }
    },
  };
};
