// Debian's Chromium with its software WebGPU, driven by playwright-core.

import { existsSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { chromium } from "playwright-core";

const quiet = [
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  // On a busy machine the GPU process is slow, not hung.
  "--disable-gpu-watchdog",
];

// Without the three about Vulkan and SwiftShader, the first canvas that WebGPU draws to ends the GPU process. Without the
// last one, SwiftShader compiles the zeroing of every element of workgroup memory: 1.6 s a kernel instead of 0.08.
const webgpu = [
  "--enable-unsafe-webgpu",
  "--enable-features=Vulkan",
  "--use-vulkan=swiftshader",
  "--use-angle=swiftshader",
  "--disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension",
];

const executablePath = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
  .find((path) => path && existsSync(path));

/** What makes Vulkan's loader find Chromium's software driver, so that a native program runs on the same adapter. */
export function sameAdapter() {
  const driver = ["/usr/lib/chromium", dirname(realpathSync(executablePath))]
    .map((folder) => join(folder, "vk_swiftshader_icd.json"))
    .find((path) => existsSync(path));
  if (!driver) throw new Error(`no vk_swiftshader_icd.json was found beside ${executablePath}`);
  return { VK_DRIVER_FILES: driver, VK_ICD_FILENAMES: driver };
}

/** A browser with a new, empty profile; without WebGPU if `gpu` is false. */
export async function openChromium({ gpu = true } = {}) {
  if (!executablePath) throw new Error("no Chromium was found: install it, or say where it is with CHROMIUM=path");
  // Chromium brings its own Vulkan driver, and finds none where another one is prescribed.
  const { VK_DRIVER_FILES, VK_ICD_FILENAMES, ...env } = process.env;
  return chromium.launch({
    executablePath,
    env,
    chromiumSandbox: false,
    args: [...quiet, ...(gpu ? webgpu : [])],
  });
}

/** Fails as soon as the page throws, or its tab dies. */
export function failures(page) {
  const said = [];
  const failure = new Promise((_, reject) => {
    page.on("console", (message) => message.type() === "error" && said.push(message.text()));
    page.on("pageerror", (error) => reject(new Error([...said, error.message].join("\n"))));
    page.on("crash", () => reject(new Error([...said, "the tab crashed"].join("\n"))));
  });
  failure.catch(() => {});
  return failure;
}
