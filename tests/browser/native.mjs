// The native program's answers, and how far a browser's are from them.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { deflateSync, inflateSync } from "node:zlib";

/** Runs `ralu generate` in `folder`; gives its latents, pixels and events. `program` is the command and its arguments. */
export function drawNatively(program, folder, name, args, env = {}) {
  const tensors = join(folder, `${name}.safetensors`);
  const png = join(folder, `${name}.png`);
  const [command, ...rest] = program;
  const out = execFileSync(
    command,
    [...rest, "generate", ...args, "--save-tensors", tensors, "-o", png, "--events", "json", "--quiet"],
    { encoding: "utf8", maxBuffer: 1 << 28, stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, ...env } },
  );
  const events = out.trim().split("\n").map((line) => JSON.parse(line));
  const file = readFileSync(png);
  return { latents: readTensor(readFileSync(tensors), "latents"), rgb: readPng(file), texts: readTexts(file), events };
}

/** A tensor of a safetensors file in f32. */
function readTensor(file, name) {
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + length).toString("utf8"));
  const { dtype, shape, data_offsets: [start, end] } = header[name];
  if (dtype !== "F32") throw new Error(`${name} is ${dtype}`);
  const bytes = file.subarray(8 + length + start, 8 + length + end);
  return { shape, data: floats(bytes) };
}

/** Little-endian f32 numbers. */
export function floats(bytes) {
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
}

/** The chunks of a PNG, kind and content. */
function* chunks(file) {
  for (let at = 8; at < file.length; ) {
    const length = file.readUInt32BE(at);
    const named = file.subarray(at + 4, at + 8 + length);
    if (crc32(named) !== file.readUInt32BE(at + 8 + length)) throw new Error("a PNG's chunk has a wrong CRC");
    yield [named.toString("latin1", 0, 4), named.subarray(4)];
    at += 12 + length;
  }
}

/** As PNG defines it. */
function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** Keywords and texts of a PNG's text chunks. */
export function readTexts(file) {
  const texts = [];
  for (const [kind, body] of chunks(file)) {
    const end = body.indexOf(0);
    const keyword = body.toString("latin1", 0, end);
    if (kind === "tEXt") texts.push([keyword, body.toString("latin1", end + 1)]);
    // Behind the keyword: not compressed, no method, no language, no translation.
    if (kind === "iTXt") texts.push([keyword, body.toString("utf8", end + 5)]);
  }
  return texts;
}

/** The pixels of an 8-bit RGB PNG without interlacing, which is what ralu writes. */
export function readPng(file) {
  const parts = [];
  let [width, height] = [0, 0];
  for (const [kind, body] of chunks(file)) {
    if (kind === "IHDR") {
      [width, height] = [body.readUInt32BE(0), body.readUInt32BE(4)];
      if (body[8] !== 8 || body[9] !== 2 || body[12] !== 0) throw new Error("not an 8-bit RGB PNG");
    }
    if (kind === "IDAT") parts.push(body);
  }
  const raw = inflateSync(Buffer.concat(parts));
  const stride = width * 3;
  const pixels = Buffer.alloc(height * stride);
  for (let y = 0; y < height; y += 1) {
    const filter = raw[y * (stride + 1)];
    for (let x = 0; x < stride; x += 1) {
      const left = x >= 3 ? pixels[y * stride + x - 3] : 0;
      const up = y > 0 ? pixels[(y - 1) * stride + x] : 0;
      const corner = x >= 3 && y > 0 ? pixels[(y - 1) * stride + x - 3] : 0;
      const paeth = () => {
        const p = left + up - corner;
        const [a, b, c] = [left, up, corner].map((v) => Math.abs(p - v));
        return a <= b && a <= c ? left : b <= c ? up : corner;
      };
      const guess = [() => 0, () => left, () => up, () => (left + up) >> 1, paeth][filter]();
      pixels[y * stride + x] = raw[y * (stride + 1) + 1 + x] + guess;
    }
  }
  return { width, height, pixels };
}

/** A grey PNG of 8 bits: `luma` row by row. */
export function greyPng({ luma, width, height }) {
  const chunk = (kind, body) => {
    const named = Buffer.concat([Buffer.from(kind, "latin1"), body]);
    const [length, crc] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(body.length);
    crc.writeUInt32BE(crc32(named));
    return Buffer.concat([length, named, crc]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header[8] = 8;
  const rows = Array.from({ length: height }, (_, y) => [0, ...luma.slice(y * width, (y + 1) * width)]);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", deflateSync(Buffer.from(rows.flat()))), chunk("IEND", Buffer.alloc(0))]);
}

/** `|a - b| / |b|`, Euclidean. */
export function relativeL2(a, b) {
  if (a.length !== b.length) return Infinity;
  let [error, size] = [0, 0];
  for (let i = 0; i < b.length; i += 1) {
    error += (a[i] - b[i]) ** 2;
    size += b[i] ** 2;
  }
  return Math.sqrt(error / size);
}

/** Peak signal-to-noise ratio in dB of RGBA pixels to RGB ones. */
export function psnr(rgba, { pixels }) {
  if ((rgba.length / 4) * 3 !== pixels.length) return -Infinity;
  let error = 0;
  for (let i = 0; i < pixels.length / 3; i += 1) {
    for (let c = 0; c < 3; c += 1) error += (rgba[4 * i + c] - pixels[3 * i + c]) ** 2;
  }
  return error === 0 ? Infinity : 10 * Math.log10((255 ** 2 * pixels.length) / error);
}
