// The page: a form in front of `Ralu`.

import { Ralu, toPng } from "./ralu/ralu.js";

const EXAMPLES = [
  "a fox on a purple background",
  "a panda on a pink background",
  "a red apple on a blue background",
  "a rocket on a black background",
  "a smiling face on a light blue background",
];
const DEFAULT_MODEL = "models/tiny-flux/";

const $ = (id) => document.getElementById(id);
const form = $("form");
const canvas = $("canvas");

let engine;
/** What `engine` was loaded from: { model, precision }. */
let loaded;
/** What the next picture is drawn by: an address, or picked files. */
let model = DEFAULT_MODEL;
let controller;
/** Ends when the model is there that is loaded in the foreground. */
let opening;
let startedAt;
/**
 * What the large canvas shows: { picture, caption, regions, isEstimate, request, image }. `isEstimate`: it is that of a step,
 * and small. `request` is the address's of the run that it is from, `image` the event of a finished picture. Caption, address and what Save writes are all made of this value.
 */
let shown;

// ---- what is said ----------------------------------------------------------------------------

const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 27 ? 1 : 0)} MiB`;
const seconds = (s) => `${s < 10 ? s.toFixed(1) : Math.round(s)} s`;

function status(text, share) {
  $("status").textContent = text;
  const bar = $("progress");
  bar.hidden = share === null;
  if (typeof share === "number") bar.value = share;
  else bar.removeAttribute("value");
}

function fail(error) {
  const more = error?.code === "device-lost" ? " Press Draw to load it again." : "";
  $("error").textContent = `${error?.message ?? String(error)}${more}`;
  $("error").hidden = false;
  $("error").dataset.code = error?.code ?? "";
  status("Nothing is running.", null);
}

/** Each once: a run that goes on after it lost its GPU says again what is to be said of the request. */
const warnings = new Set();

function warn(text) {
  warnings.add(text);
  $("warning").textContent = [...warnings].join("\n");
  $("warning").hidden = false;
}

function quiet() {
  $("error").hidden = true;
  $("warning").hidden = true;
  warnings.clear();
}

// ---- the request, in the form and in the address ---------------------------------------------

const FIELDS = ["prompt", "seed", "size", "ralu", "precision", "url"];
/** Fields of a request under "More settings", by what they hold. Empty is the model's own, or the variant's. */
const MORE = {
  texts: ["negativePrompt", "rng", "variant", "zPolicy", "cache"],
  numbers: ["steps", "guidance", "trueCfg", "maxSequenceLength"],
  rules: ["upsample", "ropeMode", "regionScore", "jumpNoise"],
};
const MORE_FIELDS = Object.values(MORE).flat();

/** What of "More settings" is filled in. */
function moreOf(names, read = String) {
  const filled = names.filter((name) => form.elements[name].value.trim() !== "");
  return Object.fromEntries(filled.map((name) => [name, read(form.elements[name].value.trim())]));
}

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const name of FIELDS) {
    // An address that names no model is about the page's own.
    const value = asked.get(name) ?? (name === "url" && asked.size > 0 ? "" : null);
    const field = form.elements[name];
    if (value === null) continue;
    if (name === "url") model = value || DEFAULT_MODEL;
    if (name === "size" && ![...field.options].some((option) => option.value === value)) {
      field.add(new Option(`${value} × ${value}`, value));
    }
    field.value = value;
  }
  // The same of settings that an address does not name.
  if (asked.size > 0) for (const name of MORE_FIELDS) form.elements[name].value = asked.get(name) ?? "";
  $("more").open ||= MORE_FIELDS.some((name) => form.elements[name].value);
  if (!$("prompt").value) $("prompt").value = EXAMPLES[0];
  if (!$("seed").value) newSeed();
}

/** What the address says of a request: what was asked for, whatever is typed meanwhile. */
function addressOf({ prompt, seed, width, ralu }) {
  const asked = new URLSearchParams({ prompt, seed, size: width, ralu, precision: $("precision").value, ...moreOf(MORE_FIELDS) });
  // A picked folder has no address.
  if (typeof model === "string" && model !== DEFAULT_MODEL) asked.set("url", model);
  return `#${asked}`;
}

function newSeed() {
  $("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
}

// ---- regions that are painted ----------------------------------------------------------------

const mask = $("mask").getContext("2d", { willReadFrequently: true });

function clearMask() {
  mask.fillStyle = "black";
  mask.fillRect(0, 0, mask.canvas.width, mask.canvas.height);
}

/** `mask` of a request; nothing if nothing is painted. */
function paintedMask() {
  const { width, height } = mask.canvas;
  const { data } = mask.getImageData(0, 0, width, height);
  const luma = new Uint8Array(width * height);
  for (let i = 0; i < luma.length; i += 1) luma[i] = Math.round(0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]);
  return luma.some(Boolean) ? { luma, width, height, mode: form.elements.maskMode.value } : undefined;
}

function paintMask({ buttons, clientX, clientY }) {
  if (!(buttons & 1)) return;
  const { left, top, width, height } = mask.canvas.getBoundingClientRect();
  mask.fillStyle = "white";
  mask.beginPath();
  mask.arc(((clientX - left) / width) * mask.canvas.width, ((clientY - top) / height) * mask.canvas.height, 6, 0, 2 * Math.PI);
  mask.fill();
}

/** A picture of any size covers all; what is transparent in it stays black. */
async function readMask(file) {
  const picture = await createImageBitmap(file);
  clearMask();
  mask.drawImage(picture, 0, 0, mask.canvas.width, mask.canvas.height);
}

// ---- the model -------------------------------------------------------------------------------

/** Loads a model, if it is not the one that is there. */
async function load(model, signal) {
  const precision = $("precision").value;
  if (engine && loaded.model === model && loaded.precision === precision) return;
  engine?.dispose();
  engine = undefined;
  const addresses = typeof model === "string" ? model.trim().split(/\s+/) : [];
  const name = addresses[0] ?? "the picked files";
  engine = await Ralu.load(addresses.length > 1 ? addresses : (addresses[0] ?? model), {
    precision,
    signal,
    onWarning: warn,
    onProgress: (progress) => {
      if (progress.phase === "open") status(`Reading ${name} …`);
      if (progress.phase === "download") {
        const { bytes, totalBytes } = progress;
        status(`Downloading ${name}: ${mebibytes(bytes)} of ${mebibytes(totalBytes)}`, bytes / totalBytes);
      }
    },
  });
  loaded = { model, precision };
  tellParts();
  $("machine").textContent = `Drawn by ${engine.adapter.name || "this browser's WebGPU"} (${engine.adapter.kind}).`;
}

/** Model files that were picked, by name and size. A pick adds to those before, as parts may lie in different folders. */
const picked = new Map();
const PARTS = {
  denoiser: "image network",
  "clip-l": "CLIP-L text encoder",
  "clip-g": "CLIP-G text encoder",
  t5: "T5 text encoder",
  vae: "VAE",
};

function pick(files) {
  for (const file of files) picked.set(`${file.name} ${file.size}`, file);
  openPicked();
}

function openPicked() {
  $("other").open = true;
  listPicked();
  if (picked.size === 0) return;
  $("url").value = "";
  open([...picked.values()]);
}

function listPicked() {
  const items = [...picked].map(([key, file]) => {
    const { name } = file;
    const [item, text, part, button] = ["li", "span", "span", "button"].map((tag) => document.createElement(tag));
    text.textContent = `${name}, ${mebibytes(file.size)}`;
    part.className = "part";
    button.type = "button";
    button.textContent = "Remove";
    button.setAttribute("aria-label", `Remove ${name}`);
    button.addEventListener("click", () => {
      picked.delete(key);
      openPicked();
      $("files").focus();
    });
    item.dataset.name = name;
    item.append(text, part, button);
    return item;
  });
  $("picked").replaceChildren(...items);
}

function forgetPicked() {
  picked.clear();
  listPicked();
}

/** Says in the list what was found in each file. */
function tellParts() {
  for (const item of $("picked").children) {
    const parts = engine.parts.filter(({ path }) => path === item.dataset.name).map(({ part }) => PARTS[part]);
    item.querySelector(".part").textContent = parts.join(", ");
  }
}

/** What was dropped on the page: files, or a folder. */
async function dropped(transfer) {
  const [first] = transfer.items;
  // Asked for at once: what was dropped is gone after the event.
  const handle = first?.webkitGetAsEntry?.()?.isDirectory ? first.getAsFileSystemHandle?.() : undefined;
  const files = [...transfer.files];
  if (handle) {
    forgetPicked();
    $("url").value = "";
    open(await handle);
    return;
  }
  const others = files.filter(({ name }) => !/\.(safetensors|sft|gguf|json)$/i.test(name));
  if (others.length === 0) return pick(files);
  fail(new Error(`${others.map(({ name }) => name).join(", ")}: no model file; expected .safetensors or .gguf files, or a diffusers folder`));
}

/** Loads in the foreground: the form waits, everything else does not. */
async function open(next) {
  model = next;
  if (opening) {
    // Another model was chosen before this one was there.
    controller?.abort();
    await opening;
  }
  opening = busy(async (signal) => {
    await load(model, signal);
    status("Ready.", null);
  });
  await opening;
  opening = undefined;
}

// ---- what a model would take, before it is loaded ---------------------------------------------

let inspecting;

/** Says it of the address that is typed. */
async function tellTakes() {
  inspecting?.abort();
  inspecting = new AbortController();
  const { signal } = inspecting;
  const addresses = $("url").value.trim().split(/\s+/).filter(Boolean);
  if (addresses.length === 0) return ($("takes").textContent = "");
  $("takes").textContent = "Looking at it …";
  const size = Number($("size").value);
  const request = { width: size, height: size, ralu: $("ralu").value };
  const options = { request, precision: $("precision").value, onWarning: () => {}, signal };
  const said = await Ralu.inspect(addresses.length > 1 ? addresses : addresses[0], options).then(takes, (error) => error.message);
  if (!signal.aborted) $("takes").textContent = said;
}

/** In a sentence. */
function takes({ files, plan }) {
  const sum = (of) => files.reduce((sum, file) => sum + of(file), 0);
  const [bytes, kept] = [sum((file) => file.bytes), sum((file) => file.keptBytes)];
  const rest =
    kept >= bytes ? "all of it kept in this browser" : kept > 0 ? `of which ${mebibytes(bytes - kept)} would be downloaded` : "which would be downloaded";
  return `${mebibytes(bytes)} of weights, ${rest}. A picture of ${plan.width} × ${plan.height} takes ${mebibytes(plan.gpuBytes)} of GPU memory.`;
}

/** After the last of several calls, and a while. */
let soon;
function tellTakesSoon() {
  clearTimeout(soon);
  soon = setTimeout(tellTakes, 600);
}

// ---- drawing ---------------------------------------------------------------------------------

/** Puts a picture on the large canvas, with all that goes with it. */
function show(next) {
  shown = next;
  const { picture, caption, regions, isEstimate, request, image } = next;
  paint(canvas, picture, regions, isEstimate);
  $("caption").textContent = caption;
  canvas.setAttribute("aria-label", `${caption} Prompt: ${request.prompt}`);
  history.replaceState(null, "", request.address);
  $("save").disabled = !image;
  // Counted from 1: forEach leaves out what is not there.
  stages.forEach(({ button, shown }) => button.setAttribute("aria-pressed", String(shown?.picture === picture)));
}

function paint(target, picture, regions, isEstimate) {
  const { width, height } = picture;
  target.width = width;
  target.height = height;
  const context = target.getContext("2d");
  context.putImageData(picture, 0, 0);
  if (!regions && !isEstimate) return;
  // Lines are fine only on a fine canvas, and a small estimate is smooth on a large one.
  const scale = Math.ceil(768 / width);
  const small = new OffscreenCanvas(width, height);
  small.getContext("2d").putImageData(picture, 0, 0);
  target.width = scale * width;
  target.height = scale * height;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, target.width, target.height);
  if (regions) outline(target, regions);
}

/** Outlines of the chosen regions, over the estimate that they were chosen by; the rest is darkened. */
function outline(target, { rows, columns, selected }) {
  const chosen = new Set(selected);
  const context = target.getContext("2d");
  const [w, h] = [target.width / columns, target.height / rows];
  const is = (row, column) => row >= 0 && row < rows && column >= 0 && column < columns && chosen.has(row * columns + column);
  context.fillStyle = "rgb(0 0 0 / 40%)";
  context.strokeStyle = "#ffc400";
  context.lineWidth = target.width / 160;
  context.beginPath();
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const [x, y] = [column * w, row * h];
      if (!is(row, column)) {
        context.fillRect(x, y, w, h);
        continue;
      }
      const edge = (from, to) => (context.moveTo(...from), context.lineTo(...to));
      if (!is(row - 1, column)) edge([x, y], [x + w, y]);
      if (!is(row + 1, column)) edge([x, y + h], [x + w, y + h]);
      if (!is(row, column - 1)) edge([x, y], [x, y + h]);
      if (!is(row, column + 1)) edge([x + w, y], [x + w, y + h]);
    }
  }
  context.stroke();
}

/** The timeline's cards, by stage. */
let stages = [];

function addStage({ stage, of, tokens, steps }) {
  // A run that lost its GPU goes on in a stage that has its card.
  if (stages[stage]) return;
  const item = document.createElement("li");
  const [button, thumbnail, ticks, title, time, size] = ["button", "canvas", "div", "b", "span", "span"].map((name) => document.createElement(name));
  button.type = "button";
  button.disabled = true;
  button.setAttribute("aria-pressed", "false");
  thumbnail.width = thumbnail.height = 1;
  ticks.className = "steps";
  button.append(thumbnail, ticks, title, time, size);
  item.append(button);
  title.textContent = of === 1 ? "All steps" : `Stage ${stage}`;
  time.textContent = `${steps} steps`;
  size.textContent = `${tokens} tokens/step`;
  ticks.append(...Array.from({ length: steps }, () => document.createElement("i")));
  $("timeline").append(item);
  const entry = { button, thumbnail, ticks, time, seconds: 0, tokens, steps };
  button.addEventListener("click", () => show(entry.shown));
  stages[stage] = entry;
}

/** The picture that a stage ended with. */
function stagePicture(stage, shown) {
  const entry = stages[stage];
  entry.shown = shown;
  entry.button.disabled = false;
  paint(entry.thumbnail, shown.picture, shown.regions);
  show(shown);
}

function step({ stage, step, seconds: took, done, sigma, reused }) {
  const entry = stages[stage];
  entry.seconds += took;
  entry.ticks.children[step - 1].className = reused ? "reused" : "done";
  entry.time.textContent = `${entry.steps} steps, ${seconds(entry.seconds)}`;
  const elapsed = seconds((performance.now() - startedAt) / 1000);
  status(`Stage ${stage}, step ${step} of ${entry.steps}, noise ${sigma.toFixed(2)}, ${elapsed}`, done);
}

async function draw(signal) {
  // What is typed from here on is the next picture's.
  const size = Number($("size").value);
  if (!Number.isInteger(size)) throw new Error(`the size is "${$("size").value}"; expected a number of pixels`);
  const typed = {
    prompt: $("prompt").value,
    seed: Number($("seed").value || 0),
    width: size,
    height: size,
    ralu: $("ralu").value,
    ...moreOf(MORE.texts),
    ...moreOf(MORE.numbers, Number),
    rules: moreOf(MORE.rules),
    mask: paintedMask(),
  };
  const asked = { ...typed, address: addressOf(typed) };
  $("timeline").replaceChildren();
  stages = [];
  await load(model, signal);
  startedAt = performance.now();
  for await (const event of engine.generate({ ...typed, stagePictures: true, estimates: true, signal })) {
    switch (event.type) {
      case "warning":
        warn(event.message);
        break;
      case "loading": {
        const part = event.part === "textEncoders" ? "text encoders" : "image network";
        status(`Loading the ${part} to the GPU: ${mebibytes(event.bytes)} of ${mebibytes(event.totalBytes)}`, event.bytes / event.totalBytes);
        break;
      }
      case "encoded":
        status("The prompt is read.");
        break;
      case "stage":
        addStage(event);
        break;
      case "step":
        step(event);
        break;
      case "estimate": {
        const caption = `Estimate after step ${event.step} of stage ${event.stage}.`;
        show({ picture: event.picture, caption, isEstimate: true, request: asked });
        break;
      }
      case "regions": {
        const { picture } = stages[1].shown;
        const caption = `Stage 1's estimate; the ${event.selected.length} outlined patches are refined first.`;
        stagePicture(1, { picture, caption, regions: event, request: asked });
        break;
      }
      case "stagePicture":
        if (event.kind !== "estimate") break;
        stagePicture(event.stage, { picture: event.picture, caption: `Estimate after stage ${event.stage}.`, request: asked });
        break;
      case "image": {
        const { picture, seed } = event;
        const caption = `Seed ${seed}, ${picture.width} × ${picture.height}, ${seconds(event.seconds)}.`;
        stagePicture(stages.length - 1, { picture, caption, request: asked, image: event });
        status(`Done in ${seconds((performance.now() - startedAt) / 1000)}.`, null);
        break;
      }
    }
  }
}

// ---- buttons ---------------------------------------------------------------------------------

/** Brings what a run tells and shows into view, where it lies below the form: on a phone. */
function showPicture() {
  const section = canvas.closest("section");
  if (section.getBoundingClientRect().top < innerHeight / 2) return;
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  section.scrollIntoView({ block: "start", behavior: isCalm ? "auto" : "smooth" });
}

/** Runs `work` with the form closed and Cancel open. */
async function busy(work) {
  if (controller) return;
  controller = new AbortController();
  const { signal } = controller;
  quiet();
  $("draw").disabled = true;
  $("load").disabled = true;
  $("cancel").hidden = false;
  document.body.dataset.state = "busy";
  try {
    await work(signal);
    document.body.dataset.state = "done";
  } catch (error) {
    document.body.dataset.state = signal.aborted ? "cancelled" : "failed";
    if (signal.aborted) status("Cancelled.", null);
    else fail(error);
    if (error?.code === "device-lost") {
      engine?.dispose();
      engine = undefined;
    }
  } finally {
    controller = undefined;
    $("draw").disabled = false;
    $("load").disabled = false;
    $("cancel").hidden = true;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  showPicture();
  busy(draw);
});
$("cancel").addEventListener("click", () => controller?.abort());
addEventListener("keydown", (event) => event.key === "Escape" && controller?.abort());
addEventListener("hashchange", () => readAddress());
$("dice").addEventListener("click", newSeed);
// Not only with the button: what is drawn is drawn by the model that the form names.
$("url").addEventListener("change", () => (model = $("url").value || DEFAULT_MODEL));
$("url").addEventListener("input", tellTakesSoon);
$("mask").addEventListener("pointerdown", (event) => {
  mask.canvas.setPointerCapture(event.pointerId);
  paintMask(event);
});
$("mask").addEventListener("pointermove", paintMask);
$("clearMask").addEventListener("click", () => {
  clearMask();
  $("maskFile").value = "";
});
$("maskFile").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (!file) return;
  readMask(file).catch(() => {
    event.target.value = "";
    fail(new Error(`${file.name} is no picture that this browser can read; expected one that is white where detail matters`));
  });
});
$("load").addEventListener("click", () => {
  forgetPicked();
  open($("url").value || DEFAULT_MODEL);
});
$("files").addEventListener("change", (event) => {
  const files = [...event.target.files];
  // The same file can be picked again.
  event.target.value = "";
  if (files.length > 0) pick(files);
});
$("folder").addEventListener("change", (event) => {
  if (event.target.files.length === 0) return;
  forgetPicked();
  $("url").value = "";
  open(event.target.files);
});
// On an input for files it falls into that.
const isOnInput = (event) => event.target.closest?.("input[type=file]");
addEventListener("dragover", (event) => {
  if (!isOnInput(event) && event.dataTransfer.types.includes("Files")) event.preventDefault();
});
addEventListener("drop", (event) => {
  if (isOnInput(event) || event.dataTransfer.files.length === 0) return;
  event.preventDefault();
  dropped(event.dataTransfer);
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    form.requestSubmit();
  }
});
$("save").addEventListener("click", async () => {
  // Another picture may be shown before the file is made.
  const { image } = shown;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await toPng(image));
  link.download = `ralu-${image.seed}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
});
for (const text of EXAMPLES) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.addEventListener("click", () => {
    $("prompt").value = text;
    $("prompt").focus();
  });
  $("examples").append(button);
}

clearMask();
readAddress();
open($("url").value || DEFAULT_MODEL);
