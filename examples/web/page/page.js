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
const context = canvas.getContext("2d");

let engine;
/** What `engine` was loaded from. */
let loaded;
let controller;
let startedAt;
/** The last finished picture's event. */
let drawn;

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
  $("error").textContent = error?.message ?? String(error);
  $("error").hidden = false;
  $("error").dataset.code = error?.code ?? "";
  status("Nothing is running.", null);
}

function warn(text) {
  $("warning").textContent = text;
  $("warning").hidden = false;
}

function quiet() {
  $("error").hidden = true;
  $("warning").hidden = true;
}

// ---- the request, in the form and in the address ---------------------------------------------

const FIELDS = ["prompt", "seed", "size", "ralu", "precision", "url"];

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const name of FIELDS) {
    const value = asked.get(name);
    const field = form.elements[name];
    if (value === null) continue;
    if (name === "size" && ![...field.options].some((option) => option.value === value)) {
      field.add(new Option(`${value} × ${value}`, value));
    }
    field.value = value;
  }
  if (!$("prompt").value) $("prompt").value = EXAMPLES[0];
  if (!$("seed").value) newSeed();
}

function writeAddress() {
  const asked = new URLSearchParams();
  for (const name of FIELDS) {
    const { value } = form.elements[name];
    if (value) asked.set(name, value);
  }
  history.replaceState(null, "", `#${asked}`);
}

function newSeed() {
  $("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
}

// ---- the model -------------------------------------------------------------------------------

/** Loads a model, if it is not the one that is there. */
async function load(model, signal) {
  const precision = $("precision").value;
  const key = typeof model === "string" ? `${model} ${precision}` : model;
  if (engine && loaded === key) return;
  engine?.dispose();
  engine = undefined;
  const name = typeof model === "string" ? model : "the picked folder";
  engine = await Ralu.load(model, {
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
  loaded = key;
  $("machine").textContent = `Drawn by ${engine.adapter.name || "this browser's WebGPU"} (${engine.adapter.kind}).`;
}

let model = DEFAULT_MODEL;

/** Loads in the foreground: the form waits, everything else does not. */
async function open(next) {
  model = next;
  await busy(async (signal) => {
    await load(model, signal);
    status("Ready.", null);
  });
}

// ---- drawing ---------------------------------------------------------------------------------

function show(picture, caption) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  context.putImageData(picture, 0, 0);
  $("caption").textContent = caption;
  canvas.setAttribute("aria-label", `${caption} Prompt: ${$("prompt").value}`);
}

/** Outlines of the chosen regions, over the estimate that they were chosen by. */
function outline({ rows, columns, selected }) {
  const chosen = new Set(selected);
  const [w, h] = [canvas.width / columns, canvas.height / rows];
  const is = (row, column) => row >= 0 && row < rows && column >= 0 && column < columns && chosen.has(row * columns + column);
  context.fillStyle = "rgb(0 0 0 / 45%)";
  context.strokeStyle = "#ffc400";
  context.lineWidth = Math.max(1, canvas.width / 256);
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

/** The timeline's items, by stage. */
let stages = [];

function addStage({ stage, of, tokens, steps }) {
  const item = document.createElement("li");
  item.innerHTML = `<div class="bar"><i></i></div><b></b><span></span><span></span>`;
  const [bar, title, size, time] = item.querySelectorAll("i, b, span");
  title.textContent = of === 1 ? "All steps" : `Stage ${stage} of ${of}`;
  size.textContent = `${tokens} tokens, ${steps} steps`;
  item.style.flexGrow = tokens * steps;
  $("timeline").append(item);
  stages[stage] = { bar, time, seconds: 0, tokens };
}

function step({ stage, step, of, seconds: took, done, sigma }) {
  const item = stages[stage];
  item.seconds += took;
  item.bar.style.width = `${(100 * step) / of}%`;
  const perSecond = Math.round((item.tokens * step) / item.seconds);
  item.time.textContent = `${seconds(item.seconds)}, ${perSecond} tokens/s`;
  status(`Step ${step} of ${of}, noise ${sigma.toFixed(2)}, after ${seconds((performance.now() - startedAt) / 1000)}`, done);
}

async function draw(signal) {
  await load(model, signal);
  const size = Number($("size").value);
  const request = {
    prompt: $("prompt").value,
    seed: Number($("seed").value || 0),
    width: size,
    height: size,
    ralu: $("ralu").value,
    signal,
  };
  writeAddress();
  $("timeline").replaceChildren();
  stages = [];
  startedAt = performance.now();
  let regions;
  for await (const event of engine.generate(request)) {
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
      case "regions":
        regions = event;
        outline(event);
        $("caption").textContent = `Stage 1's estimate; the ${event.selected.length} outlined patches are refined first.`;
        break;
      case "stagePicture":
        if (event.kind === "estimate") {
          show(event.picture, `Estimate after stage ${event.stage}.`);
          if (regions && event.stage === 1) outline(regions);
        }
        break;
      case "image":
        show(event.picture, `Seed ${event.seed}, ${event.picture.width} × ${event.picture.height}, ${seconds(event.seconds)}.`);
        drawn = event;
        $("save").disabled = false;
        status(`Done in ${seconds((performance.now() - startedAt) / 1000)}.`, null);
        break;
    }
  }
}

// ---- buttons ---------------------------------------------------------------------------------

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
  busy(draw);
});
$("cancel").addEventListener("click", () => controller?.abort());
$("dice").addEventListener("click", newSeed);
$("load").addEventListener("click", () => open($("url").value || DEFAULT_MODEL));
$("folder").addEventListener("change", (event) => event.target.files.length > 0 && open(event.target.files));
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    form.requestSubmit();
  }
});
$("save").addEventListener("click", async () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await toPng(drawn));
  link.download = `ralu-${drawn.seed}.png`;
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

readAddress();
open($("url").value || DEFAULT_MODEL);
