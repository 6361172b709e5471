// What a graphics adapter can do to a page in the middle of its work: be lost, or run out of memory.

import { failures } from "./chromium.mjs";

/** Keeps what the page's WebGPU gives, so that a test can take it away. */
function wrapWebGpu() {
  window.devices = [];
  const { requestDevice } = GPUAdapter.prototype;
  GPUAdapter.prototype.requestDevice = async function (descriptor) {
    const device = await requestDevice.call(this, descriptor);
    window.devices.push(device);
    if (window.lostForEver) setTimeout(() => device.destroy(), 100);
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

/**
 * In the page: draws, makes trouble at the first event called `when` (or at all of them), and tells how the run ends.
 * Trouble is "lost", for the device, or an expression for labels of buffers that do not fit.
 */
async function drawInto({ request, when, trouble, always }) {
  const { Ralu, RaluError } = await import("/ralu/ralu.js");
  window.engine ??= await Ralu.load("/models/tiny-flux/", { precision: "f32" });
  let made = 0;
  const make = () => {
    if (made > 0 && !always) return;
    made += 1;
    if (trouble === "lost") window.devices.at(-1).destroy();
    else window.noRoomFor = new RegExp(trouble);
  };
  const warnings = [];
  let picture;
  try {
    if (when === "start") make();
    for await (const event of window.engine.generate(request)) {
      if (event.type === "warning") warnings.push(event.message);
      if (event.type === "image") picture = event.picture.data;
      if (event.type === when) make();
    }
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", picture));
    return { picture: digest.toHex?.() ?? digest.join(), made, warnings };
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
    async "a run whose device is lost goes on to the same picture, and one that loses it for ever is a typed error"() {
      const context = await wrapped();
      try {
        await withPage(async (draw, page) => {
          const whole = await page.evaluate(drawInto, { request: small, when: "never" });
          // Between two steps, while nothing is done, and while weights are loaded for a new engine.
          for (const [when, place] of [["step", /after step \d of stage 1/], ["start", /from the start/], ["loading", /from the start/]]) {
            if (when === "loading") await draw.dispose();
            const result = await page.evaluate(drawInto, { request: small, when, trouble: "lost" });
            const said = result.warnings?.filter((text) => /lost the GPU.*opened again/.test(text)) ?? [];
            check(
              result.picture === whole.picture && result.made === 1 && said.length === 1 && place.test(said[0]),
              `lost at ${when}: ${JSON.stringify(result)} instead of the picture ${whole.picture}`,
            );
          }
          await draw.dispose();
          const result = await page.evaluate(drawInto, { request: small, when: "loading", trouble: "lost", always: true });
          expect(result, "device-lost", /lost the GPU/, "lost for ever");
          await draw.dispose();
          compare(await draw({ ...f32, request: small }), small, ", after all lost devices");
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
          for (const [when, labels] of [["start", "."], ["start", "^an upload"], ["encoded", "^slot"]]) {
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
        // Once: the page says so, and goes on.
        await page.evaluate(() => window.devices.at(-1).destroy());
        await state("done");
        const warning = await page.locator("#warning").textContent();
        check(/lost the GPU.*opened again/.test(warning), `the page warns: ${warning}`);
        const cards = await page.locator("#timeline li").count();
        check(cards === 3, `the timeline has ${cards} stages`);
        // For ever: the button loads the model onto a new device.
        await page.evaluate(() => (window.lostForEver = true));
        await button.click();
        await page.evaluate(() => window.devices.at(-1).destroy());
        await failed("device-lost", /lost the GPU.*Draw/s);
        await page.evaluate(() => (window.lostForEver = false));
        await button.click();
        await step();
        check((await shown()).hidden, "the error is still there");
        await page.keyboard.press("Escape");
        await state("cancelled");
        const devices = await page.evaluate(() => window.devices.length);
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
        const opened = await page.evaluate(() => window.devices.length);
        check(opened === devices, `the full device was not used again: ${opened} were opened, ${devices} before`);
      } finally {
        await context.close();
      }
    },
  };
};
