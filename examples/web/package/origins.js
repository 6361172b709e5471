// Where a model's bytes come from: a web server, or files that the user has picked. See `Origin` in ralu.d.ts. This file
// imports nothing, so that tests can run it under Node.

/** Bytes of a weight file that are asked for together with its size: its header is there. */
const FIRST_BYTES = 64 << 10;

/**
 * A model on a web server, by the address of its folder. Large files are read in ranges.
 *
 * All answers about a file have to be about one version of it: a later one with another mark or length is a
 * `ChangedError`, never a mixture. Conditional requests would need more permissions (CORS) and say no more.
 */
export class HttpOrigin {
  #base;
  /** What follows `?` in the address of every file. */
  #search;
  #warn;
  #signal;
  /** Path to the bytes of small files, the beginnings of large ones, or whole files as Blobs. */
  #known = new Map();
  /** Path to the version that was seen first: { mark, size }, each undefined where the server does not say. */
  #versions = new Map();
  /** Paths of all files that there are; undefined if nobody has said. */
  #paths;

  constructor(url, { warn = () => {}, signal } = {}) {
    this.#base = new URL(url, globalThis.location?.href);
    this.#search = this.#base.search;
    this.#base.search = this.#base.hash = "";
    if (!this.#base.pathname.endsWith("/")) this.#base.pathname += "/";
    this.#warn = warn;
    this.#signal = signal;
  }

  get name() {
    return this.#base.href;
  }

  get paths() {
    return this.#paths && [...this.#paths];
  }

  /** Others than these are not asked for. */
  knowPaths(paths) {
    this.#paths = new Set(paths);
  }

  async size(path) {
    return (await this.stat(path))?.size;
  }

  /**
   * A file's length, and as its mark what the server says of its version: ETag, else Last-Modified, else undefined.
   * Undefined if there is no such file. If `stored`, an earlier answer, still holds, no content is transferred.
   */
  async stat(path, stored) {
    if (this.#paths?.has(path) === false) return undefined;
    if (isMark(stored?.mark) && (await this.#confirms(path, stored))) return this.#seen(path, stored);
    return isWeights(path) ? this.#statLarge(path) : this.#statSmall(path);
  }

  async read(path, start, end) {
    if (!this.#known.has(path) && !isWeights(path)) {
      // Whole, as `stat` asks for it: the mark of a part may be another one, as it is never compressed.
      if (!(await this.#statSmall(path))) throw this.#gone(path);
    }
    const known = this.#known.get(path);
    if (known instanceof Blob) return new Uint8Array(await known.slice(start, end).arrayBuffer());
    if (known && end <= known.length) return known.slice(start, end);
    const response = await this.#get(path, start, end);
    if (!response) throw this.#gone(path);
    // It ends before what was asked for.
    if (response.status === 416) throw this.#changed(path);
    if (response.status !== 206) {
      if (!(await this.#whole(path, response))) throw this.#gone(path);
      return this.read(path, start, end);
    }
    this.#seen(path, { mark: markOf(response), size: totalOf(response) });
    const bytes = new Uint8Array(await this.#body(path, response.arrayBuffer()));
    if (bytes.length !== end - start) {
      throw new Error(
        `the server sent ${bytes.length} of the ${end - start} bytes from ${start} on: the file there is shorter than it said, or the connection broke; try again, or upload the file again`,
      );
    }
    return bytes;
  }

  async #statSmall(path) {
    const response = await this.#get(path);
    if (!response) return undefined;
    const bytes = new Uint8Array(await this.#body(path, response.arrayBuffer()));
    if (isPage(bytes)) return undefined;
    const version = this.#seen(path, { mark: markOf(response), size: bytes.length });
    this.#known.set(path, bytes);
    return version;
  }

  async #statLarge(path) {
    const response = await this.#get(path, 0, FIRST_BYTES);
    if (!response) return undefined;
    // A file without a single byte has no ranges.
    if (response.status === 416) return this.#seen(path, { mark: markOf(response), size: 0 });
    if (response.status !== 206) return this.#whole(path, response);
    const bytes = new Uint8Array(await this.#body(path, response.arrayBuffer()));
    if (isPage(bytes)) return undefined;
    // A server of another origin may hide this header; then a second request must do.
    const size = totalOf(response) ?? (await this.#length(path, markOf(response)));
    const version = this.#seen(path, { mark: markOf(response), size });
    this.#known.set(path, bytes);
    return version;
  }

  /** The server ignores ranges: the browser keeps the whole file, outside of the engine's memory. */
  async #whole(path, response) {
    const mark = markOf(response);
    this.#warn(
      `${this.#base.host} does not serve parts of files, so ${path} is downloaded whole before anything is drawn; a server that answers range requests starts sooner`,
    );
    const blob = await this.#body(path, response.blob());
    if (isPage(new Uint8Array(await blob.slice(0, 64).arrayBuffer()))) return undefined;
    const version = this.#seen(path, { mark, size: blob.size });
    this.#known.set(path, blob);
    return version;
  }

  /** Whether the server says, without sending the file, that it is still the stored one. */
  async #confirms(path, { mark, size }) {
    const response = await this.#fetch(path, { method: "HEAD" });
    const length = response.headers.get("content-length");
    // The length may be that of a compressed answer: what is not confirmed here is asked for in full.
    const fits = length === null || Number(length) === size;
    return response.status === 200 && !isHtml(response) && markOf(response) === mark && fits;
  }

  async #length(path, mark) {
    const response = await this.#fetch(path, { method: "HEAD" });
    const length = Number(response.headers.get("content-length"));
    if (!response.ok || !length) {
      throw new Error("the server does not say how long it is (Content-Range and Content-Length are missing)");
    }
    if (otherMark(mark, markOf(response))) throw this.#changed(path);
    return length;
  }

  /** Takes note of a file's version. Fails if another one was seen before. */
  #seen(path, { mark, size }) {
    const before = this.#versions.get(path) ?? {};
    const otherSize = before.size !== undefined && size !== undefined && before.size !== size;
    if (otherMark(before.mark, mark) || otherSize) throw this.#changed(path);
    const version = { mark: before.mark ?? mark, size: before.size ?? size };
    this.#versions.set(path, version);
    return version;
  }

  #changed(path) {
    const message = `${path} was replaced on ${this.#base.host} while the model was read; load the model again`;
    return Object.assign(new Error(message), { name: "ChangedError" });
  }

  #gone(path) {
    return new Error(`the server no longer has ${path}`);
  }

  /** `undefined` if there is no such file. */
  async #get(path, start, end) {
    const headers = start === undefined ? {} : { range: `bytes=${start}-${end - 1}` };
    const response = await this.#fetch(path, { headers });
    // Some servers answer every address with their start page.
    if (response.status === 404 || response.status === 410 || (response.ok && isHtml(response))) {
      await response.body?.cancel();
      return undefined;
    }
    if (!response.ok && !(response.status === 416 && start !== undefined)) {
      throw new Error(`the server answered ${response.status} ${response.statusText}`.trim());
    }
    return response;
  }

  async #fetch(path, options) {
    const url = new URL(path.split("/").map(encodeURIComponent).join("/"), this.#base);
    url.search = this.#search;
    try {
      // What the browser itself has kept of it is used only if the server says that it still holds.
      return await fetch(url, { cache: "no-cache", ...options, signal: this.#signal });
    } catch (error) {
      if (this.#signal?.aborted) throw this.#signal.reason;
      throw Object.assign(new Error(`${reachable(url)} (${error.message})`), { unreachable: true });
    }
  }

  async #body(path, promise) {
    try {
      return await promise;
    } catch (error) {
      if (this.#signal?.aborted) throw this.#signal.reason;
      throw new Error(`the connection broke while ${path} arrived; try again (${error.message})`);
    }
  }
}

/** What tells one version of a file from others. Pages may read ETag only if the server allows it (CORS). */
function markOf({ headers }) {
  const [tag, modified] = [headers.get("etag"), headers.get("last-modified")];
  return tag ? `etag ${tag}` : modified ? `last-modified ${modified}` : undefined;
}

/** Length of the file that a range is from, if the server says it. */
function totalOf({ headers }) {
  const total = /\/(\d+)$/.exec(headers.get("content-range") ?? "")?.[1];
  return total === undefined ? undefined : Number(total);
}

function isMark(mark) {
  return /^(etag|last-modified) /.test(mark ?? "");
}

/** Whether two marks are of different versions: both are known and of one kind, but not the same. */
function otherMark(a, b) {
  return isMark(a) && isMark(b) && a.split(" ", 1)[0] === b.split(" ", 1)[0] && a !== b;
}

function isHtml({ headers }) {
  return headers.get("content-type")?.trim().toLowerCase().startsWith("text/html") ?? false;
}

/** Whether it is a web page in place of a file, whatever type the server gives it. */
function isPage(bytes) {
  return /^\s*<(!doctype\s+html|html)[\s>]/i.test(new TextDecoder().decode(bytes.subarray(0, 64)));
}

/** Browsers do not say why a request failed; these are the reasons there are. */
function reachable(url) {
  return url.origin === globalThis.location?.origin
    ? `${url.host} cannot be reached; is the server running, and is this device online?`
    : `${url.host} cannot be reached or does not allow this page to read its files (CORS): check the address and the connection, and let that server send Access-Control-Allow-Origin`;
}

/**
 * Files that the user has picked, or a folder of them, or addresses of single files on web servers; also both together.
 * Without a `model_index.json` among them they are no folder: `list` has all their paths, and the engine finds out by their
 * contents which is what.
 */
export class FilesOrigin {
  /** Path to a File, or to { origin, path }. */
  #files = new Map();
  /** Address of a folder to the origin of what lies there. */
  #remotes = new Map();
  name = "the picked folder";
  /** Paths of files that are no folder; undefined for a folder. */
  list;

  /**
   * From `<input type="file" multiple>` or `webkitdirectory`, a drop, `showDirectoryPicker()`, or addresses. `remote` makes the
   * origin of a folder's address.
   */
  static async open(files, { remote = (url) => new HttpOrigin(url) } = {}) {
    const origin = new FilesOrigin();
    if (files?.kind === "directory") {
      origin.name = files.name;
      await origin.#walk(files, "");
    } else {
      for (const file of files) {
        if (typeof file === "string" || file instanceof URL) await origin.#addAddress(file, remote);
        else origin.#add(file.webkitRelativePath || file.name, file);
      }
      if (origin.#remotes.size > 0) origin.name = "the given files";
      else if (![...origin.#files.keys()].some((path) => path.includes("/"))) origin.name = "the picked files";
    }
    // The folder with model_index.json is the model, wherever it lies in what was picked.
    const paths = [...origin.#files.keys()];
    const index = paths.filter((path) => /(^|\/)model_index\.json$/.test(path)).sort((a, b) => a.length - b.length)[0];
    if (index === undefined) {
      origin.list = paths;
      return origin;
    }
    const root = index.slice(0, -"model_index.json".length);
    if (root) origin.name = root.replace(/\/$/, "");
    const inside = [...origin.#files].filter(([path]) => path.startsWith(root));
    origin.#files = new Map(inside.map(([path, file]) => [path.slice(root.length), file]));
    return origin;
  }

  async #walk(folder, prefix) {
    for await (const [name, handle] of folder.entries()) {
      if (handle.kind === "directory") await this.#walk(handle, `${prefix}${name}/`);
      else this.#add(prefix + name, await handle.getFile());
    }
  }

  /** Two files of one name get different paths: they may come from different folders. */
  #add(path, file) {
    // What no path of a model may have in it, and names of files may.
    const plain = path.replace(/[\\:]/g, "_");
    let free = plain;
    for (let i = 2; this.#files.has(free); i += 1) free = `${i}/${plain}`;
    this.#files.set(free, file);
  }

  async #addAddress(address, remote) {
    const url = new URL(address, globalThis.location?.href);
    const folder = new URL(".", url);
    folder.search = url.search;
    const name = decodeURIComponent(url.pathname.slice(folder.pathname.length));
    if (!this.#remotes.has(folder.href)) this.#remotes.set(folder.href, await remote(folder));
    this.#add(name, { origin: this.#remotes.get(folder.href), path: name });
  }

  /** Bytes that came over the network; undefined if none of the files does, or nothing counts them. */
  get fetchedBytes() {
    const counts = [...this.#remotes.values()].map((origin) => origin.fetchedBytes).filter((bytes) => bytes !== undefined);
    return counts.length > 0 ? counts.reduce((a, b) => a + b) : undefined;
  }

  get paths() {
    return [...this.#files.keys()];
  }

  /** Bytes of a file that are on this device. */
  async keptBytes(path) {
    const file = this.#files.get(path);
    return (file?.origin ? await file.origin.keptBytes?.(file.path) : file?.size) ?? 0;
  }

  async size(path) {
    const file = this.#files.get(path);
    return file?.origin ? file.origin.size(file.path) : file?.size;
  }

  async read(path, start, end) {
    const file = this.#files.get(path);
    if (file.origin) return file.origin.read(file.path, start, end);
    try {
      return new Uint8Array(await file.slice(start, end).arrayBuffer());
    } catch (error) {
      throw new Error(`it cannot be read any more; pick it again (${error.message})`);
    }
  }

  /** Downloads what is missing of those of `paths` that are kept in the browser: see `CachedOrigin.download`. */
  async download(paths, progress = () => {}, signal) {
    const kept = paths.map((path) => this.#files.get(path)).filter((file) => file?.origin?.download);
    const sizes = await Promise.all(kept.map(({ origin, path }) => origin.size(path)));
    const total = sizes.reduce((sum, size) => sum + (size ?? 0), 0);
    let before = 0;
    for (const [i, { origin, path }] of kept.entries()) {
      await origin.download([path], (bytes) => progress(before + bytes, total), signal);
      before += sizes[i] ?? 0;
    }
  }
}

/** Whether a file holds weights: large, and read in parts. */
export function isWeights(path) {
  return /\.(safetensors|sft|gguf)$/i.test(path);
}
