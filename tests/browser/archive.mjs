// The package as npm packs it, in a project of somebody else's: TypeScript checks it, Vite builds it, and what comes out draws.

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { failures } from "./chromium.mjs";
import { psnr } from "./native.mjs";
import { serve } from "./serve.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const tools = join(here, "node_modules");

/** Makes the project in `folder`, with the package of `site` as its only dependency. Gives the names of the package's files. */
function makeProject(folder, site) {
  rmSync(folder, { recursive: true, force: true });
  cpSync(join(here, "vite"), folder, { recursive: true });
  const modules = join(folder, "node_modules");
  mkdirSync(modules);
  const run = (command, args, cwd) => execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  const [{ filename, files }] = JSON.parse(run("npm", ["pack", "--json", "--pack-destination", modules], resolve(site, "ralu")));
  run("tar", ["-xzf", filename], modules);
  run("mv", ["package", "ralu"], modules);
  symlinkSync(join(tools, "vite"), join(modules, "vite"));
  run(process.execPath, [join(tools, "typescript/bin/tsc"), "-p", "."], folder);
  run(process.execPath, [join(tools, "vite/bin/vite.js"), "build", "--logLevel", "warn"], folder);
  return files.map(({ path }) => path);
}

export const archive = ({ browser, site, models, out, check, small, reference }) => ({
  async "the packed archive draws in a project that Vite has built"() {
    const folder = join(resolve(out), "vite");
    const files = makeProject(folder, site);
    for (const name of ["LICENSE-MIT", "LICENSE-APACHE", "README.md", "ralu.d.ts"]) {
      check(files.includes(name), `the archive has no ${name}, only ${files.join(", ")}`);
    }
    const { license, repository, exports } = JSON.parse(readFileSync(join(folder, "node_modules/ralu/package.json"), "utf8"));
    check(license && repository?.url && exports?.["."]?.types, `package.json says ${JSON.stringify({ license, repository, exports })}`);
    const server = await serve({ "": join(folder, "dist"), models });
    const context = await browser.newContext();
    const page = await context.newPage();
    try {
      const failure = failures(page);
      await page.goto(`${server.url}#${encodeURIComponent(JSON.stringify(small))}`);
      await Promise.race([page.waitForFunction(() => document.title !== "drawing", undefined, { timeout: 300_000 }), failure]);
      const title = await page.title();
      check(title === "done", title);
      const pixels = await page.evaluate(() => {
        const { width, height } = document.querySelector("canvas");
        return [...document.querySelector("canvas").getContext("2d").getImageData(0, 0, width, height).data];
      });
      const loss = psnr(pixels, reference(small).rgb);
      console.log(`    ${loss.toFixed(1)} dB to the native picture`);
      check(loss >= 45, `the picture has ${loss} dB to the native one`);
    } finally {
      await context.close();
      server.close();
    }
  },
});
