// What belongs together stays together: the picture that is shown and what is said and saved of it, runs at the same time,
// and the files of a model that changes.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { failures } from "./chromium.mjs";
import { psnr, readPng, readTexts } from "./native.mjs";

const CONFIG = "/models/tiny-flux/model_index.json";

/** In the page: draws all requests at once, each on the engine of that number, and tells what came of them. */
async function drawAtOnce({ requests, engines }) {
  const { Ralu } = await import("/ralu/ralu.js");
  const loaded = [];
  for (let i = 0; i < engines; i += 1) loaded.push(await Ralu.load("/models/tiny-flux/", { precision: "f32" }));
  const draw = async (request, i) => {
    try {
      let picture;
      for await (const event of loaded[i % engines].generate(request)) {
        if (event.type === "image") picture = event.picture.data;
      }
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", picture));
      return [...digest].map((byte) => byte.toString(16)).join("");
    } catch (error) {
      return { name: error.name, code: error.code };
    }
  };
  const alone = [];
  for (const [i, request] of requests.entries()) alone.push(await draw(request, i));
  const together = await Promise.all(requests.map(draw));
  const after = await draw(requests[0], 0);
  for (const engine of loaded) engine.dispose();
  return { alone, together, after };
}

export const together = ({ browser, server, models, out, check, withPage, compare, small, f32 }) => ({
  async "what the page saves is what it shows, while it draws and after a cancelled run too"() {
    const context = await browser.newContext();
    const page = await context.newPage();
    const failure = failures(page);
    const patient = { timeout: 300_000 };
    const until = (condition, argument) => Promise.race([page.waitForFunction(condition, argument, patient), failure]);
    const state = (wanted) => until((s) => document.body.dataset.state === s, wanted);
    const save = page.getByRole("button", { name: "Save PNG" });
    const type = (name, text) => page.getByLabel(name, { exact: true }).fill(text);
    /** What is shown, in one moment. */
    const shown = () =>
      page.evaluate(() => {
        const canvas = document.getElementById("canvas");
        const { width, height } = canvas;
        return {
          caption: document.getElementById("caption").textContent,
          label: canvas.getAttribute("aria-label"),
          address: Object.fromEntries(new URLSearchParams(location.hash.slice(1))),
          canSave: !document.getElementById("save").disabled,
          pixels: [...canvas.getContext("2d").getImageData(0, 0, width, height).data],
        };
      });
    /** Checks that all that is said of the picture, and what is saved, is of this request; undefined: it cannot be saved. */
    const is = async (when, { seed, prompt }, canSave) => {
      const seen = await shown();
      check(seen.address.seed === seed && seen.address.prompt === prompt, `${when}: the address is of ${JSON.stringify(seen.address)}`);
      check(seen.label.includes(`Prompt: ${prompt}`), `${when}: the canvas is called ${seen.label}`);
      check(seen.canSave === canSave, `${when}: Save is ${seen.canSave ? "enabled" : "disabled"}, the caption says ${seen.caption}`);
      if (!canSave) return;
      check(seen.caption.includes(`Seed ${seed},`), `${when}: the caption says ${seen.caption}`);
      const [download] = await Promise.all([page.waitForEvent("download"), save.click()]);
      check(download.suggestedFilename() === `ralu-${seed}.png`, `${when}: it is saved as ${download.suggestedFilename()}`);
      const file = join(out, "shown.png");
      await download.saveAs(file);
      const png = readFileSync(file);
      check(psnr(seen.pixels, readPng(png)) === Infinity, `${when}: another picture than the one shown is saved`);
      const made = JSON.parse(readTexts(png).find(([keyword]) => keyword === "ralu")[1]);
      check(String(made.seed) === seed && made.prompt === prompt, `${when}: the saved picture says ${JSON.stringify(made)}`);
    };
    const [one, two, three] = [
      { seed: "5", prompt: "a fox on a purple background" },
      { seed: "6", prompt: "a red apple on a blue background" },
      { seed: "8", prompt: "a rocket on a black background" },
    ];
    const ask = async ({ seed, prompt }) => {
      await type("Seed", seed);
      await type("Prompt", prompt);
    };
    try {
      await page.goto(`${server.url}#size=128&ralu=7x`);
      await state("done");
      check(await save.isDisabled(), "Save is enabled before anything is drawn");
      await ask(one);
      await page.getByRole("button", { name: "Draw" }).click();
      await state("done");
      // What is typed for the next picture changes nothing.
      await ask(two);
      await is("after a run", one, true);
      // A stage's estimate is no picture to save; the finished one can be looked at, and saved, again.
      await page.locator("#timeline button").first().click();
      await is("with stage 1 shown", one, false);
      await page.locator("#timeline button").last().click();
      await is("with the picture shown again", one, true);

      // Before the next run shows something, the last picture is there.
      await page.getByRole("button", { name: "Draw" }).click();
      await type("Prompt", three.prompt);
      await until(() => document.getElementById("caption").textContent.startsWith("Stage 1's estimate"));
      await page.keyboard.press("Escape");
      await state("cancelled");
      await is("after a run that was cancelled with an estimate shown", two, false);

      // Until a run shows its first estimate, what was shown stays, and stays what it is.
      await ask(one);
      await page.getByRole("button", { name: "Draw" }).click();
      await state("done");
      await ask(three);
      await page.getByLabel("Speed-up").selectOption("off");
      await page.getByRole("button", { name: "Draw" }).click();
      await until(() => document.querySelector("#timeline li"));
      const seen = await shown();
      if (!seen.caption.startsWith("Estimate")) await is("while a run has shown nothing yet", one, true);
      await until(() => document.getElementById("caption").textContent.startsWith("Estimate after step"));
      await is("while a run shows an estimate", three, false);
      await page.keyboard.press("Escape");
      await state("cancelled");
      await is("after a run that was cancelled with a step's estimate shown", three, false);
    } finally {
      await context.close();
    }
  },

  async "two runs at once give the right pictures or say that the engine is busy"() {
    await withPage(async (_, page) => {
      const requests = [small, { ...small, prompt: "a fox on a purple background", seed: 8 }];
      // One engine: the second run is refused, and does the first no harm.
      const shared = await page.evaluate(drawAtOnce, { requests, engines: 1 });
      check(shared.alone[0] !== shared.alone[1], "both requests give one picture");
      check(shared.together[0] === shared.alone[0], `the first of two runs gives ${JSON.stringify(shared.together[0])} instead of ${shared.alone[0]}`);
      const second = shared.together[1];
      check(second === shared.alone[1] || (second.name === "RaluError" && second.code === "busy"), `the second gives ${JSON.stringify(second)}`);
      check(shared.after === shared.alone[0], "a run after them gives another picture");
      // Two engines draw both.
      const own = await page.evaluate(drawAtOnce, { requests, engines: 2 });
      check(JSON.stringify(own.together) === JSON.stringify(shared.alone), `two engines give ${JSON.stringify(own)}`);
    });
  },

  async "a model that the server lacked, or that has changed, is read again"() {
    const context = await browser.newContext();
    const config = readFileSync(join(models, "tiny-flux/model_index.json"));
    try {
      server.faults = { pages: { [CONFIG]: "text/html" } };
      await withPage(async (draw) => {
        const { error } = await draw({ ...f32, request: small });
        check(error?.code === "bad-model" && /model_index\.json/.test(error.message), JSON.stringify(error));
      }, context);
      server.faults = {};
      await withPage(async (draw) => compare(await draw({ ...f32, request: small }), small, ", at the second visit"), context);
      // Another version of one file: all of the model is downloaded again.
      const bytes = Buffer.concat([config, Buffer.from("\n")]);
      server.made.set(CONFIG, { size: bytes.length, parts: [{ at: 0, bytes }] });
      await withPage(async (draw) => {
        const result = await draw(f32);
        check(!result.error, JSON.stringify(result.error));
        check(result.warnings.some((said) => /model_index\.json has changed/.test(said)), `warnings: ${result.warnings}`);
        check(result.memory.fetchedBytes > 40e6, `${result.memory.fetchedBytes} bytes were fetched`);
      }, context);
      // Replaced in the middle of a download: it begins again by itself.
      await withPage(async (_, page) => {
        await page.exposeFunction("replace", () => server.made.set(CONFIG, { size: config.length, parts: [{ at: 0, bytes: config }] }));
        const told = await page.evaluate(async () => {
          const { Ralu } = await import("/ralu/ralu.js");
          const url = "/models/tiny-flux/";
          await Ralu.forget(url);
          const warnings = [];
          let replaced;
          const onProgress = ({ phase }) => phase === "download" && (replaced ??= window.replace());
          const engine = await Ralu.load(url, { precision: "f32", onProgress, onWarning: (text) => warnings.push(text) });
          engine.dispose();
          return warnings;
        });
        check(told.some((said) => /model_index\.json was replaced/.test(said)), `warnings: ${told}`);
      }, context);
    } finally {
      server.faults = {};
      server.made.clear();
      await context.close();
    }
  },

  async "names in a model's files are shown, not obeyed"() {
    const name = "diffusion\u001b]0;title\u0007\u202e<img src=x onerror=alert(1)>.safetensors";
    const map = Buffer.from(JSON.stringify({ metadata: {}, weight_map: { "x_embedder.weight": name } }));
    const index = "/models/tiny-flux/transformer/diffusion_pytorch_model.safetensors.index.json";
    server.made.set(index, { size: map.length, parts: [{ at: 0, bytes: map }] });
    // The bundled model's own list has no index.
    const { _files, ...rest } = JSON.parse(readFileSync(join(models, "tiny-flux/model_index.json"), "utf8"));
    const config = Buffer.from(JSON.stringify(rest));
    server.made.set(CONFIG, { size: config.length, parts: [{ at: 0, bytes: config }] });
    server.faults = { status: { "/models/tiny-flux/transformer/diffusion_pytorch_model.safetensors": 404 } };
    const context = await browser.newContext();
    try {
      const page = await context.newPage();
      const failure = failures(page);
      await page.goto(server.url);
      const failed = page.waitForFunction(() => document.body.dataset.state === "failed", undefined, { timeout: 120_000 });
      await Promise.race([failed, failure]);
      const { text, html } = await page.evaluate(() => ({
        text: document.getElementById("error").textContent,
        html: document.getElementById("error").querySelector("*") !== null,
      }));
      console.log(`    ${text}`);
      check(!/[\p{Cc}\u202e]/u.test(text) && !html, `the page shows ${JSON.stringify(text)}`);
      check(text.includes("\\u{1b}") && text.includes("<img"), `the name is not shown: ${text}`);
    } finally {
      server.faults = {};
      server.made.clear();
      await context.close();
    }
  },
});
