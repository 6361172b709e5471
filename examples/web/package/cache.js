// Keeps what was downloaded in the browser's own file system (OPFS), block by block, so that a broken download goes on
// where it ended and the next visit needs no network.

const BLOCK_BYTES = 4 << 20;
const FOLDER = "ralu-models";

/**
 * An origin that asks `origin` only for what is not stored yet.
 *
 * A block is a file that has its SHA-256 in its name: one that was damaged is noticed when it is first read, and
 * fetched again. Where storage is not to be had, or full, everything works as without.
 */
export class CachedOrigin {
  #origin;
  #folder;
  #warn;
  /** Path to size, or null for a file that the origin lacks. */
  #sizes;
  /** Path to its folder and its blocks: number to { hash, checked }. */
  #stored = new Map();
  #writing = true;
  #fetched = 0;

  constructor(origin, folder, sizes, warn) {
    this.#origin = origin;
    this.#folder = folder;
    this.#sizes = sizes;
    this.#warn = warn;
  }

  /** `origin` itself where nothing can be stored. */
  static async open(origin, { warn = () => {}, refresh = false } = {}) {
    try {
      const folder = await (await root(true)).getDirectoryHandle(await key(origin.name), { create: true });
      if (refresh) await clear(folder);
      const sizes = await readJson(folder, "sizes.json");
      return new CachedOrigin(origin, folder, new Map(Object.entries(sizes ?? {})), warn);
    } catch (error) {
      warn(`the browser stores nothing for this page, so the model is downloaded at every visit (${error.message})`);
      return origin;
    }
  }

  get name() {
    return this.#origin.name;
  }

  /** Bytes that came from the origin. */
  get fetchedBytes() {
    return this.#fetched;
  }

  async size(path) {
    if (this.#sizes.has(path)) return this.#sizes.get(path) ?? undefined;
    const size = await this.#origin.size(path);
    this.#sizes.set(path, size ?? null);
    if (this.#writing) {
      await this.#store(() => writeFile(this.#folder, "sizes.json", JSON.stringify(Object.fromEntries(this.#sizes))));
    }
    return size;
  }

  async read(path, start, end) {
    const bytes = new Uint8Array(end - start);
    for (let block = Math.floor(start / BLOCK_BYTES); block * BLOCK_BYTES < end; block += 1) {
      const first = block * BLOCK_BYTES;
      const from = Math.max(start, first);
      const to = Math.min(end, first + BLOCK_BYTES);
      bytes.set(await this.#part(path, block, from - first, to - first), from - start);
    }
    return bytes;
  }

  /** Downloads what is still missing of `paths`. `progress(bytes, total)` counts what is stored, too. */
  async download(paths, progress = () => {}, signal) {
    const sizes = paths.map((path) => this.#sizes.get(path) ?? 0);
    const total = sizes.reduce((sum, size) => sum + size, 0);
    if (!(await this.#fits(total))) return;
    let done = 0;
    for (const [i, path] of paths.entries()) {
      const { blocks } = await this.#entry(path);
      for (let block = 0; block * BLOCK_BYTES < sizes[i] && this.#writing; block += 1) {
        signal?.throwIfAborted();
        if (!blocks.has(block)) await this.#fetchBlock(path, block);
        done += Math.min(BLOCK_BYTES, sizes[i] - block * BLOCK_BYTES);
        progress(done, total);
      }
    }
  }

  async #fits(total) {
    const { quota = Infinity, usage = 0 } = await navigator.storage.estimate();
    // What is stored of this model is part of the usage.
    if (total <= quota - usage + (await this.#storedBytes())) return true;
    this.#stop(`this model has ${size(total)} and the browser offers ${size(quota - usage)}`);
    return false;
  }

  async #storedBytes() {
    let bytes = 0;
    for (const path of this.#sizes.keys()) bytes += (await this.#entry(path)).blocks.size * BLOCK_BYTES;
    return bytes;
  }

  async #part(path, block, from, to) {
    const { folder, blocks } = await this.#entry(path);
    const stored = blocks.get(block);
    if (stored) {
      const file = await folder
        ?.getFileHandle(`${block}-${stored.hash}`)
        .then((handle) => handle.getFile())
        .catch(() => undefined);
      if (file && stored.checked) return new Uint8Array(await file.slice(from, to).arrayBuffer());
      if (file) {
        const bytes = new Uint8Array(await file.arrayBuffer());
        if ((await sha256(bytes)) === stored.hash) {
          stored.checked = true;
          return bytes.subarray(from, to);
        }
        await folder.removeEntry(`${block}-${stored.hash}`).catch(() => {});
      }
      blocks.delete(block);
    }
    // Without storage there is no reason to fetch more than was asked for.
    if (!this.#writing) {
      this.#fetched += to - from;
      return this.#origin.read(path, block * BLOCK_BYTES + from, block * BLOCK_BYTES + to);
    }
    return (await this.#fetchBlock(path, block)).subarray(from, to);
  }

  async #fetchBlock(path, block) {
    const first = block * BLOCK_BYTES;
    const bytes = await this.#origin.read(path, first, Math.min(first + BLOCK_BYTES, this.#sizes.get(path)));
    this.#fetched += bytes.length;
    const hash = await sha256(bytes);
    const { folder, blocks } = await this.#entry(path, true);
    if (folder && (await this.#store(() => writeFile(folder, `${block}-${hash}`, bytes)))) {
      blocks.set(block, { hash, checked: true });
    }
    return bytes;
  }

  /** A file's folder (none if it is not there and not to be created) and its blocks. */
  async #entry(path, create = false) {
    let entry = this.#stored.get(path);
    if (!entry || (create && !entry.folder)) {
      let folder;
      const get = async () => {
        folder = await this.#folder.getDirectoryHandle(encodeURIComponent(path), { create });
      };
      if (create) await this.#store(get);
      else await get().catch(() => {});
      const blocks = entry?.blocks ?? new Map();
      if (folder) {
        for await (const name of folder.keys()) {
          const [, block, hash] = /^(\d+)-([0-9a-f]{64})$/.exec(name) ?? [];
          if (block && !blocks.has(Number(block))) blocks.set(Number(block), { hash, checked: false });
        }
      }
      entry = { folder, blocks };
      this.#stored.set(path, entry);
    }
    return entry;
  }

  /** Whether `write` could do its work; the first failure ends all storing. */
  async #store(write) {
    if (!this.#writing) return false;
    try {
      await write();
      return true;
    } catch (error) {
      this.#stop(error.name === "QuotaExceededError" ? "the browser's storage for this page is full" : error.message);
      return false;
    }
  }

  #stop(reason) {
    this.#writing = false;
    this.#warn(`${reason}: it is drawn from all the same, but what is not stored is downloaded again at every visit`);
  }
}

/** Removes stored models: the one at `url`, or all. */
export async function forget(url) {
  const folder = await root(false).catch(() => undefined);
  if (!folder) return;
  if (url === undefined) return clear(folder);
  await folder.removeEntry(await key(url), { recursive: true }).catch(() => {});
}

async function root(create) {
  return (await navigator.storage.getDirectory()).getDirectoryHandle(FOLDER, { create });
}

async function clear(folder) {
  const names = [];
  for await (const name of folder.keys()) names.push(name);
  for (const name of names) await folder.removeEntry(name, { recursive: true });
}

async function key(url) {
  return (await sha256(new TextEncoder().encode(url))).slice(0, 32);
}

async function readJson(folder, name) {
  try {
    const file = await (await folder.getFileHandle(name)).getFile();
    return JSON.parse(await file.text());
  } catch {
    return undefined;
  }
}

/** A file appears whole or not at all. */
async function writeFile(folder, name, content) {
  const writable = await (await folder.getFileHandle(name, { create: true })).createWritable();
  try {
    await writable.write(content);
    await writable.close();
  } catch (error) {
    await folder.removeEntry(name).catch(() => {});
    throw error;
  }
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function size(bytes) {
  const gib = bytes / 2 ** 30;
  return gib >= 1 ? `${gib.toFixed(1)} GiB` : `${Math.max(0, Math.round(bytes / 2 ** 20))} MiB`;
}
