// Where a model's bytes come from: a web server, or files that the user has picked. See `Origin` in ralu.d.ts.

/** Bytes of a weight file that are asked for together with its size: its header is there. */
const FIRST_BYTES = 64 << 10;

/** A model on a web server, by the address of its folder. Large files are read in ranges. */
export class HttpOrigin {
  #base;
  #warn;
  #signal;
  /** Path to the bytes of small files, the beginnings of large ones, or whole files as Blobs. */
  #known = new Map();

  constructor(url, { warn = () => {}, signal } = {}) {
    this.#base = new URL(url, globalThis.location?.href);
    if (!this.#base.pathname.endsWith("/")) this.#base.pathname += "/";
    this.#warn = warn;
    this.#signal = signal;
  }

  get name() {
    return this.#base.href;
  }

  async size(path) {
    if (!isWeights(path)) {
      const response = await this.#get(path);
      if (!response) return undefined;
      const bytes = new Uint8Array(await this.#body(path, response.arrayBuffer()));
      this.#known.set(path, bytes);
      return bytes.length;
    }
    const response = await this.#get(path, 0, FIRST_BYTES);
    if (!response) return undefined;
    if (response.status !== 206) return this.#whole(path, response);
    const bytes = new Uint8Array(await this.#body(path, response.arrayBuffer()));
    // A server of another origin may hide this header; then a second request must do.
    const total = /\/(\d+)$/.exec(response.headers.get("content-range") ?? "")?.[1];
    const size = total === undefined ? await this.#length(path) : Number(total);
    this.#known.set(path, bytes);
    return size;
  }

  async read(path, start, end) {
    const known = this.#known.get(path);
    if (known instanceof Blob) return new Uint8Array(await known.slice(start, end).arrayBuffer());
    if (known && end <= known.length) return known.slice(start, end);
    const response = await this.#get(path, start, end);
    if (!response) throw new Error("the server no longer has it");
    if (response.status !== 206) {
      await this.#whole(path, response);
      return this.read(path, start, end);
    }
    const bytes = new Uint8Array(await this.#body(path, response.arrayBuffer()));
    if (bytes.length !== end - start) {
      throw new Error(
        `the server sent ${bytes.length} of the ${end - start} bytes from ${start} on: the file there is shorter than it said, or the connection broke; try again, or upload the file again`,
      );
    }
    return bytes;
  }

  /** The server ignores ranges: the browser keeps the whole file, outside of the engine's memory. */
  async #whole(path, response) {
    this.#warn(
      `${this.#base.host} does not serve parts of files, so ${path} is downloaded whole before anything is drawn; a server that answers range requests starts sooner`,
    );
    const blob = await this.#body(path, response.blob());
    this.#known.set(path, blob);
    return blob.size;
  }

  async #length(path) {
    const response = await this.#fetch(path, { method: "HEAD" });
    const length = Number(response.headers.get("content-length"));
    if (!response.ok || !length) {
      throw new Error("the server does not say how long it is (Content-Range and Content-Length are missing)");
    }
    return length;
  }

  /** `undefined` if there is no such file. */
  async #get(path, start, end) {
    const headers = start === undefined ? {} : { range: `bytes=${start}-${end - 1}` };
    const response = await this.#fetch(path, { headers });
    // Some servers answer every address with their start page.
    const page = response.headers.get("content-type")?.startsWith("text/html") ?? false;
    if (response.status === 404 || response.status === 410 || (response.ok && page)) {
      await response.body?.cancel();
      return undefined;
    }
    if (!response.ok) {
      throw new Error(`the server answered ${response.status} ${response.statusText}`.trim());
    }
    return response;
  }

  async #fetch(path, options) {
    const url = new URL(path.split("/").map(encodeURIComponent).join("/"), this.#base);
    try {
      return await fetch(url, { ...options, signal: this.#signal });
    } catch (error) {
      if (this.#signal?.aborted) throw this.#signal.reason;
      throw new Error(`${reachable(url)} (${error.message})`);
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

/** Browsers do not say why a request failed; these are the reasons there are. */
function reachable(url) {
  return url.origin === globalThis.location?.origin
    ? `${url.host} cannot be reached; is the server running, and is this device online?`
    : `${url.host} cannot be reached or does not allow this page to read its files (CORS): check the address and the connection, and let that server send Access-Control-Allow-Origin`;
}

/** A model folder that the user has picked: a list of files, or a folder's handle. */
export class FilesOrigin {
  #files = new Map();
  name = "the picked folder";

  /** From `<input type="file" webkitdirectory>`, a drop, or `showDirectoryPicker()`. */
  static async open(files) {
    const origin = new FilesOrigin();
    if (files?.kind === "directory") {
      origin.name = files.name;
      await origin.#walk(files, "");
    } else {
      const list = [...files].map((file) => [file.webkitRelativePath || file.name, file]);
      // The folder with model_index.json is the model, wherever it lies in what was picked.
      const index = list.map(([path]) => path).filter((path) => /(^|\/)model_index\.json$/.test(path));
      const root = index.sort((a, b) => a.length - b.length)[0]?.slice(0, -"model_index.json".length) ?? "";
      if (root) origin.name = root.replace(/\/$/, "");
      for (const [path, file] of list) {
        if (path.startsWith(root)) origin.#files.set(path.slice(root.length), file);
      }
    }
    return origin;
  }

  async #walk(folder, prefix) {
    for await (const [name, handle] of folder.entries()) {
      if (handle.kind === "directory") await this.#walk(handle, `${prefix}${name}/`);
      else this.#files.set(prefix + name, await handle.getFile());
    }
  }

  async size(path) {
    return this.#files.get(path)?.size;
  }

  async read(path, start, end) {
    const file = this.#files.get(path);
    try {
      return new Uint8Array(await file.slice(start, end).arrayBuffer());
    } catch (error) {
      throw new Error(`it cannot be read any more; pick the folder again (${error.message})`);
    }
  }
}

/** Whether a file holds weights: large, and read in parts. */
export function isWeights(path) {
  return path.endsWith(".safetensors");
}
