// Keeps what was downloaded in the browser's own file system (OPFS), block by block, so that a broken download goes on
// where it ended and the next visit downloads nothing. This file imports nothing, so that tests can run it under Node.
//
// A model's folder has `index.json`: its layout's version, and for each path the file's size, the mark of its version and
// the name of the folder with its blocks. Blocks of two versions are never in one folder, so no file can become a mixture.

const BLOCK_BYTES = 4 << 20;
const FOLDER = "ralu-models";
const INDEX = "index.json";
/** Of what is described above. What another layout stored is removed. */
const LAYOUT = 2;
/** Bytes at a large file's beginning that are compared where the server gives no mark. */
const SAMPLE_BYTES = 64 << 10;

/**
 * An origin that asks `origin` only for what is not stored yet.
 *
 * At every visit a file's size and mark are compared with the origin's. If they differ, everything that is stored of the
 * model is dropped. If the origin cannot be reached, what is stored is used. A file that the origin lacks is asked for
 * again at the next visit.
 *
 * A block is a file that has its SHA-256 in its name: one that was damaged is noticed when it is first read, and
 * fetched again. Where storage is not to be had, or full, everything works as without.
 */
export class CachedOrigin {
  #origin;
  #folder;
  #warn;
  #lock;
  /** Path to { size, mark, weak, folder }, or to null for a file that the origin lacked. */
  #index;
  /** Path to a promise of what this visit is told of it. */
  #files = new Map();
  /** Those files that are known by now. */
  #told = new Set();
  #refresh;
  #writing;
  /** Why the origin cannot be asked. */
  #unreachable;
  #saidUnreachable = false;
  #fetched = 0;

  constructor(origin, folder, index, { warn, refresh, store, lock }) {
    this.#origin = origin;
    this.#folder = folder;
    this.#index = index;
    this.#warn = warn;
    this.#refresh = refresh;
    this.#writing = store;
    this.#lock = lock;
  }

  /**
   * `origin` itself where nothing can be stored. With `refresh`, what is stored is dropped once the origin answers; without
   * `store`, no more is stored than there is.
   */
  static async open(origin, { warn = () => {}, refresh = false, store = true } = {}) {
    try {
      const name = await key(origin.name);
      const folder = await (await root(true)).getDirectoryHandle(name, { create: true });
      const lock = `${FOLDER}/${name}`;
      const index = await locked(lock, async () => {
        const stored = await readIndex(folder);
        if (!stored) await clear(folder);
        return stored ?? new Map();
      });
      return new CachedOrigin(origin, folder, index, { warn, refresh, store, lock });
    } catch (error) {
      warn(`the browser stores nothing for this page, so the model is downloaded at every visit (${error.message})`);
      return origin;
    }
  }

  get name() {
    return this.#origin.name;
  }

  get paths() {
    return this.#origin.paths;
  }

  /** The origin has no other files than these. */
  knowPaths(paths) {
    this.#origin.knowPaths?.(paths);
  }

  /** Bytes of a file that are stored. */
  async keptBytes(path) {
    const { size, blocks } = (await this.#file(path)) ?? { size: 0, blocks: new Map() };
    return [...blocks.keys()].reduce((sum, block) => sum + Math.min(BLOCK_BYTES, size - block * BLOCK_BYTES), 0);
  }

  /** Bytes that came from the origin. */
  get fetchedBytes() {
    return this.#fetched;
  }

  async size(path) {
    return (await this.#file(path))?.size;
  }

  async read(path, start, end) {
    const file = await this.#file(path);
    if (!file) throw new Error(`${this.name} has no ${path}`);
    const bytes = new Uint8Array(end - start);
    for (let block = Math.floor(start / BLOCK_BYTES); block * BLOCK_BYTES < end; block += 1) {
      const first = block * BLOCK_BYTES;
      const from = Math.max(start, first);
      const to = Math.min(end, first + BLOCK_BYTES);
      bytes.set(await this.#part(file, block, from - first, to - first), from - start);
    }
    return bytes;
  }

  /**
   * Downloads what is still missing of `paths`. `progress(bytes, total)` counts what is stored, too. One tab after the
   * other: what another one has downloaded meanwhile is not downloaded again.
   */
  async download(paths, progress = () => {}, signal) {
    const waits = setTimeout(() => this.#warn(`another tab downloads ${this.name}; this one waits for it`), 1000);
    const work = () => {
      clearTimeout(waits);
      return this.#download(paths, progress, signal);
    };
    await locked(`${this.#lock}/download`, work, signal).finally(() => clearTimeout(waits));
  }

  async #download(paths, progress, signal) {
    const files = (await Promise.all(paths.map((path) => this.#file(path)))).filter((file) => file);
    const total = files.reduce((sum, { size }) => sum + size, 0);
    for (const file of files) await this.#list(file);
    if (!(await this.#fits(total))) return;
    const before = this.#fetched;
    let done = 0;
    for (const file of files) {
      for (let block = 0; block * BLOCK_BYTES < file.size && this.#writing; block += 1) {
        signal?.throwIfAborted();
        if (!file.blocks.has(block)) await this.#fetchBlock(file, block);
        done += Math.min(BLOCK_BYTES, file.size - block * BLOCK_BYTES);
        progress(done, total);
      }
    }
    if (this.#fetched > before) await this.#compare(signal);
  }

  /** Whether the model was replaced while it was downloaded: files are fetched at different times. */
  async #compare(signal) {
    for (const file of [...this.#told]) {
      signal?.throwIfAborted();
      const found = await this.#ask(file.path, file).catch((error) => {
        if (isChange(error)) return this.#changed(file.path);
      });
      // What is gone or cannot be asked for now is here as it was.
      if (found && !same(file, found)) await this.#changed(file.path);
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
    for (const { blocks } of this.#told) bytes += blocks.size * BLOCK_BYTES;
    return bytes;
  }

  // ---- versions ------------------------------------------------------------------------------

  /** What there is of a file, the same for the whole visit; undefined if there is none. */
  #file(path) {
    if (!this.#files.has(path)) {
      const file = this.#find(path);
      this.#files.set(path, file);
      file.catch(() => this.#files.delete(path));
    }
    return this.#files.get(path);
  }

  async #find(path) {
    const stored = this.#index.get(path);
    let found;
    try {
      if (stored !== undefined && !this.#refresh && this.#unreachable) throw this.#unreachable;
      found = await this.#ask(path, this.#refresh ? undefined : stored);
    } catch (error) {
      if (isChange(error)) await this.#drop();
      if (isChange(error) || error?.name === "AbortError" || stored === undefined || this.#refresh) throw error;
      this.#notReached(error);
      return stored === null ? undefined : this.#open(path, stored, false);
    }
    if (found && this.#refresh) {
      // Not before: what cannot be downloaded must not be lost.
      await this.#drop();
      this.#refresh = false;
    }
    if (!found) {
      // What is stored of it stays: the file may be back at the next visit.
      if (!stored) await this.#note(path, null);
      return undefined;
    }
    const kept = this.#index.get(path);
    if (kept) {
      const file = await this.#open(path, kept, true);
      const reason = this.#differs(file, found);
      if (!reason) return file;
      this.#told.delete(file);
      this.#warn(`${this.name}: ${reason}; what is stored of it is dropped and downloaded again`);
      await this.#drop();
    }
    const { size, mark, weak } = found;
    const folder = await folderName(path, found);
    await this.#note(path, { size, mark, weak, folder });
    return this.#open(path, { size, mark, weak, folder }, true);
  }

  /** Why what is stored cannot be used together with what the origin has now. */
  #differs(file, found) {
    if (!same(file, found)) return `${file.path} has changed`;
    const whole = file.blocks.size === Math.ceil(file.size / BLOCK_BYTES);
    if (file.weak && !whole) {
      return `a part of ${file.path} is stored, and its server sends neither ETag nor Last-Modified that would say whether the rest belongs to it`;
    }
    return undefined;
  }

  /** Size and mark at the origin. `weak`: another version might have the same mark. `known` is what was there before. */
  async #ask(path, known) {
    const found = this.#origin.stat
      ? await this.#origin.stat(path, known ?? undefined)
      : { size: await this.#origin.size(path) };
    if (found?.size === undefined) return undefined;
    const { size, mark } = found;
    if (mark !== undefined) return { size, mark, weak: false };
    const bytes = await this.#origin.read(path, 0, Math.min(size, size <= BLOCK_BYTES ? BLOCK_BYTES : SAMPLE_BYTES));
    return { size, mark: `sha256 ${await sha256(bytes)}`, weak: bytes.length < size };
  }

  #notReached(error) {
    if (error?.unreachable) this.#unreachable = error;
    if (this.#saidUnreachable) return;
    this.#saidUnreachable = true;
    this.#warn(`whether ${this.name} has changed cannot be found out, so what is stored of it is used (${error?.message ?? error})`);
  }

  /** Drops all of the model and ends with an error: a part of it was read already. */
  async #changed(path) {
    await this.#drop();
    const message = `${path} was replaced at ${this.name} after a part of the model had been read; load the model again`;
    throw Object.assign(new Error(message), { name: "ChangedError" });
  }

  /** Drops everything that is stored of the model. */
  async #drop() {
    await this.#locked(async () => {
      this.#index = new Map();
      await this.#store(() => writeIndex(this.#folder, this.#index));
      await clear(this.#folder, INDEX);
    });
    // What this visit was told of before, and has compared, is stored again as it is fetched.
    for (const file of this.#told) {
      file.handle = undefined;
      if (!file.compared) continue;
      file.folder = await folderName(file.path, file);
      await this.#note(file.path, record(file));
    }
  }

  /** Stores what is known of a path, together with what other tabs have stored. */
  async #note(path, value) {
    this.#index.set(path, value);
    if (!this.#writing) return;
    await this.#locked(() =>
      this.#store(async () => {
        const index = (await readIndex(this.#folder)) ?? new Map();
        index.set(path, value);
        await writeIndex(this.#folder, index);
      }),
    );
  }

  #locked(work) {
    return locked(this.#lock, work);
  }

  // ---- blocks --------------------------------------------------------------------------------

  async #part(file, block, from, to) {
    const stored = file.blocks.get(block);
    if (stored) {
      const handle = await this.#handle(file, false);
      const name = `${block}-${stored.hash}`;
      const content = await handle
        ?.getFileHandle(name)
        .then((handle) => handle.getFile())
        .catch(() => undefined);
      if (content && stored.checked) {
        // Undefined if another tab has dropped it in this moment.
        const bytes = await content.slice(from, to).arrayBuffer().catch(() => undefined);
        if (bytes?.byteLength === to - from) return new Uint8Array(bytes);
      }
      const bytes = content && (await content.arrayBuffer().catch(() => undefined));
      if (bytes && (await sha256(bytes)) === stored.hash) {
        stored.checked = true;
        return new Uint8Array(bytes).subarray(from, to);
      }
      if (content) await handle.removeEntry(name).catch(() => {});
    }
    // Without storage there is no reason to fetch more than was asked for, unless it is to be compared.
    if (!this.#writing && !stored) {
      const first = block * BLOCK_BYTES;
      return this.#fetch(file, first + from, first + to);
    }
    return (await this.#fetchBlock(file, block)).subarray(from, to);
  }

  async #fetchBlock(file, block) {
    const first = block * BLOCK_BYTES;
    const bytes = await this.#fetch(file, first, Math.min(first + BLOCK_BYTES, file.size));
    const hash = await sha256(bytes);
    const stored = file.blocks.get(block);
    if (stored && stored.hash !== hash) await this.#changed(file.path);
    const handle = await this.#handle(file, true);
    if (handle && (await this.#store(() => writeFile(handle, `${block}-${hash}`, bytes), file))) {
      file.blocks.set(block, { hash, checked: true });
    }
    return bytes;
  }

  async #fetch(file, start, end) {
    if (!file.compared) {
      // The origin is there after all.
      const found = await this.#ask(file.path, file);
      if (!found || this.#differs(file, found)) await this.#changed(file.path);
      file.compared = true;
    }
    try {
      const bytes = await this.#origin.read(file.path, start, end);
      this.#fetched += bytes.length;
      return bytes;
    } catch (error) {
      if (isChange(error)) await this.#drop();
      throw error;
    }
  }

  /** A file with the blocks that are stored of it. `compared`: the origin has this version at this visit. */
  async #open(path, { size, mark, weak, folder }, compared) {
    const file = { path, size, mark, weak, folder, compared, handle: undefined, blocks: new Map() };
    await this.#list(file);
    this.#told.add(file);
    return file;
  }

  async #list(file) {
    const handle = await this.#handle(file, false);
    if (!handle) return;
    try {
      for await (const name of handle.keys()) {
        const [, block, hash] = /^(\d+)-([0-9a-f]{64})$/.exec(name) ?? [];
        if (block && !file.blocks.has(Number(block))) file.blocks.set(Number(block), { hash, checked: false });
      }
    } catch {
      // Another tab has removed the folder.
      file.handle = undefined;
    }
  }

  /** A file's folder; undefined if it is not there and not to be created. */
  async #handle(file, create) {
    const get = async () => (file.handle ??= await this.#folder.getDirectoryHandle(file.folder, { create }));
    if (create) await this.#store(get, file);
    else await get().catch(() => {});
    return file.handle;
  }

  /** Whether `write` could do its work. A failure ends all storing, unless another tab has removed the folder. */
  async #store(write, file) {
    if (!this.#writing) return false;
    try {
      await write();
      return true;
    } catch (error) {
      if (file && ["NotFoundError", "NoModificationAllowedError"].includes(error.name)) file.handle = undefined;
      else this.#stop(error.name === "QuotaExceededError" ? "the browser's storage for this page is full" : error.message);
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

/** Whether an origin says that a file is no longer the one that it has given before. */
function isChange(error) {
  return error?.name === "ChangedError";
}

function same(a, b) {
  return a.size === b.size && a.mark === b.mark;
}

function record({ size, mark, weak, folder }) {
  return { size, mark, weak, folder };
}

/** One folder for each version of a file. Where versions cannot be told apart, one for each time it is begun. */
async function folderName(path, { size, mark, weak }) {
  const version = weak ? crypto.randomUUID() : `${size} ${mark}`;
  const tag = (await sha256(new TextEncoder().encode(`${path} ${version}`))).slice(0, 32);
  // For people who look into the folder: names may have 255 bytes.
  return `${encodeURIComponent(path).slice(-128)}-${tag}`;
}

async function root(create) {
  return (await navigator.storage.getDirectory()).getDirectoryHandle(FOLDER, { create });
}

/** Alone among all tabs, where the browser can do that. */
function locked(name, work, signal) {
  const locks = globalThis.navigator?.locks;
  return locks ? locks.request(name, signal ? { signal } : {}, work) : work();
}

/** Removes what is in a folder but for the entry `but`. What another tab writes in this moment may stay. */
async function clear(folder, but) {
  const names = [];
  for await (const name of folder.keys()) names.push(name);
  for (const name of names) {
    if (name !== but) await folder.removeEntry(name, { recursive: true }).catch(() => {});
  }
}

async function key(url) {
  return (await sha256(new TextEncoder().encode(url))).slice(0, 32);
}

/** What is stored, or undefined if that cannot be known: another layout, or a damaged file. */
async function readIndex(folder) {
  try {
    const file = await (await folder.getFileHandle(INDEX)).getFile();
    const { layout, files } = JSON.parse(await file.text());
    const entries = Object.entries(files);
    const isSound = (entry) =>
      entry === null || (Number.isSafeInteger(entry.size) && typeof entry.mark === "string" && typeof entry.folder === "string");
    return layout === LAYOUT && entries.every(([, entry]) => isSound(entry)) ? new Map(entries) : undefined;
  } catch {
    return undefined;
  }
}

async function writeIndex(folder, index) {
  await writeFile(folder, INDEX, JSON.stringify({ layout: LAYOUT, files: Object.fromEntries(index) }));
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
