// The engine in a worker, drawing on a canvas that the page handed over.

import { Ralu } from "/ralu/ralu.js";

self.onmessage = async ({ data: { canvas, request } }) => {
  try {
    const engine = await Ralu.load("/models/tiny-flux/", { precision: "f32" });
    for await (const event of engine.generate(request)) {
      if (event.type !== "image") continue;
      canvas.width = event.picture.width;
      canvas.height = event.picture.height;
      canvas.getContext("2d").putImageData(event.picture, 0, 0);
    }
    engine.dispose();
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    self.postMessage({ rgba: data });
  } catch (error) {
    self.postMessage({ error: error.message });
  }
};
