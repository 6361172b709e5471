// A static file server on 127.0.0.1 with ranges. `node serve.mjs PORT =FOLDER NAME=FOLDER …` serves the first folder, and
// others under their names. For tests it remembers requests and can misbehave on demand.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const types = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".png": "image/png",
  ".svg": "image/svg+xml",
  ".ts": "text/plain; charset=utf-8",
  ".wasm": "application/wasm",
};

/**
 * Serves `folders`, a map from the first part of a path to a folder (`""` for everything else).
 *
 * What `server.faults` holds applies to later requests: `ranges: false` answers every request with the whole file, as
 * some servers do; `truncated: { path: bytes }` pretends that a file is so short; `endsAt: { path: bytes }` says its true
 * length but has no bytes from there on; `failAfter: { path: bytes }` breaks every connection that wants bytes behind
 * that; `status: { path: 500 }` refuses, `refusedUnder: "/models/"` whatever lies there; `pages: { path: "text/html" }`
 * gives the start page in place of a file, as that type; `noHead: true` refuses HEAD.
 *
 * Answers have an ETag and Last-Modified; with the fault `marks`, "weak" the first is a weak one, "last-modified" there is
 * only the other, "none" neither.
 *
 * `server.made`, a map from paths to `{ size, parts: [{ at, bytes }] }`, has files that are nowhere: zeros but for their
 * parts. A new object is another version.
 *
 * `server.requests` lists `{ path, method, range, status, bytes }`.
 */
export async function serve(folders, port = 0) {
  const server = createServer((request, response) => {
    answer(server, folders, request, response).catch((error) => {
      if (!response.headersSent) response.writeHead(500);
      response.end(String(error));
    });
  });
  server.faults = {};
  server.made = new Map();
  server.requests = [];
  server.versions = new WeakMap();
  await new Promise((done, refused) => server.once("error", refused).listen(port, "127.0.0.1", done));
  server.url = `http://127.0.0.1:${server.address().port}/`;
  return server;
}

async function answer(server, folders, request, response) {
  const { faults } = server;
  const asked = normalize(decodeURIComponent(new URL(request.url, server.url).pathname));
  const path = asked.endsWith("/") ? `${asked}index.html` : asked;
  const entry = { path, method: request.method, range: request.headers.range, bytes: 0 };
  server.requests.push(entry);
  const refuse = (status) => {
    entry.status = status;
    response.writeHead(status);
    response.end();
  };
  if (faults.status?.[path]) return refuse(faults.status[path]);
  if (faults.noHead && request.method === "HEAD") return refuse(405);
  if (faults.pages?.[path]) {
    response.writeHead(200, { "content-type": faults.pages[path] });
    return response.end("<!doctype html>\n<title>the start page</title>");
  }
  if (faults.refusedUnder && path.startsWith(faults.refusedUnder)) return refuse(503);
  const first = path.split("/")[1];
  const mapped = first in folders ? join(folders[first], path.slice(first.length + 1)) : undefined;
  const file = mapped ?? (folders[""] && join(folders[""], path));
  const made = server.made.get(path);
  const found = made ?? (file && (await stat(file).catch(() => undefined)));
  if (!made && !found?.isFile()) return refuse(404);

  const size = Math.min(found.size, faults.truncated?.[path] ?? Infinity);
  const headers = { "content-type": types[extname(path)] ?? "application/octet-stream", "cache-control": "no-store" };
  Object.assign(headers, marks(server, found));
  let [from, to] = [0, size];
  let status = 200;
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  if (faults.ranges !== false) {
    headers["accept-ranges"] = "bytes";
    if (range) {
      from = Number(range[1]);
      to = Math.min(range[2] === "" ? size : Number(range[2]) + 1, size);
      if (from >= to) {
        response.writeHead(416, { "content-range": `bytes */${size}` });
        return response.end();
      }
      status = 206;
      headers["content-range"] = `bytes ${from}-${to - 1}/${size}`;
    }
  }
  if (to > (faults.failAfter?.[path] ?? Infinity)) return response.destroy();
  to = Math.max(from, Math.min(to, faults.endsAt?.[path] ?? Infinity));
  entry.status = status;
  response.writeHead(status, { ...headers, "content-length": to - from });
  if (request.method === "HEAD" || to === from) return response.end();
  entry.bytes = to - from;
  if (made) return response.end(makeBytes(made, from, to));
  createReadStream(file, { start: from, end: to - 1 }).pipe(response);
}

/** What tells versions of a file apart. */
function marks({ faults, versions }, found) {
  if (!versions.has(found) && found.parts) versions.set(found, (versions.count = (versions.count ?? 0) + 1));
  const version = found.parts ? versions.get(found) : `${found.size}-${Math.round(found.mtimeMs)}`;
  const tag = `${faults.marks === "weak" ? "W/" : ""}"${version}"`;
  const modified = found.parts ? new Date(1.7e12 + 1000 * versions.get(found)) : found.mtime;
  const all = { etag: tag, "last-modified": modified.toUTCString() };
  if (faults.marks === "none") return {};
  return faults.marks === "last-modified" ? { "last-modified": all["last-modified"] } : all;
}

/** Bytes `from` to `to` of a file that is made up. */
function makeBytes({ parts }, from, to) {
  const bytes = Buffer.alloc(to - from);
  for (const part of parts) {
    const start = Math.max(from, part.at);
    const end = Math.min(to, part.at + part.bytes.length);
    if (start < end) part.bytes.copy(bytes, start - from, start - part.at, end - part.at);
  }
  return bytes;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [port, ...folders] = process.argv.slice(2);
  const server = await serve(Object.fromEntries(folders.map((folder) => folder.split("="))), Number(port));
  console.log(server.url);
}
