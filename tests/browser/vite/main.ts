// The least that a project does with the package: one picture on a canvas. vite.mjs builds it and opens it.

import { Ralu, type GenerateRequest } from "ralu";

const request: GenerateRequest = JSON.parse(decodeURIComponent(location.hash.slice(1)));
try {
  const engine = await Ralu.load("/models/tiny-flux/", { precision: "f32" });
  for await (const event of engine.generate(request)) {
    if (event.type !== "image") continue;
    const canvas = document.querySelector("canvas")!;
    canvas.width = event.width;
    canvas.height = event.height;
    canvas.getContext("2d")!.putImageData(event.picture, 0, 0);
  }
  engine.dispose();
  document.title = "done";
} catch (error) {
  document.title = `failed: ${error}`;
}
