// Runs the tables of tests/ops in Chromium: `node ops.mjs FOLDER [WORD]`, with the module in FOLDER. WORD: only those
// tests that have it in their name. SHARE=FOLDER: processes with this folder share them.

import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { failures, openChromium } from "./chromium.mjs";
import { chosen } from "./share.mjs";
import { serve } from "./serve.mjs";

const [folder, word = ""] = process.argv.slice(2);
const minutes = 15;

const server = await serve({ ops: folder, "": dirname(fileURLToPath(import.meta.url)) });
const browser = await openChromium();
let [ran, failed] = [0, 0];
try {
  console.log(`Chromium ${browser.version()}`);
  // Every test has a page of its own: one that has panicked is good for nothing more.
  const open = async () => {
    const page = await browser.newPage();
    const failure = failures(page);
    await page.goto(`${server.url}ops.html`);
    await Promise.race([page.evaluate(() => window.ready), failure]);
    return { page, failure };
  };
  const first = await open();
  const names = await first.page.evaluate(() => names());
  await first.page.close();
  for (const name of chosen(names, word)) {
    const { page, failure } = await open();
    const said = [];
    page.on("console", (message) => message.type() === "log" && said.push(message.text()));
    const start = performance.now();
    const late = new Promise((_, reject) => {
      setTimeout(() => reject(new Error(`not done after ${minutes} minutes`)), minutes * 60_000).unref();
    });
    const result = page.evaluate((name) => run(name), name);
    result.catch(() => {});
    const error = await Promise.race([result, failure, late]).then(() => undefined, (error) => error);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    console.log(`${error ? "FAILED" : "ok"} ${name} (${seconds} s)`);
    for (const line of said) console.log(`    ${line}`);
    if (error) console.log(error.message);
    ran += 1;
    failed += error ? 1 : 0;
    await page.close();
  }
} finally {
  await browser.close();
  server.close();
}
console.log(`${ran} tests in Chromium, ${failed} failed`);
// All tests may have gone to the others.
process.exit(failed === 0 && (ran > 0 || word || process.env.SHARE) ? 0 : 1);
