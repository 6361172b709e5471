// What `CachedOrigin` uses of a browser, in memory: OPFS, storage estimates and locks. All tabs of a test share it.

class FileHandle {
  kind = "file";
  data = new Uint8Array();

  async getFile() {
    return new Blob([this.data]);
  }

  async createWritable() {
    const parts = [];
    return {
      write: async (part) => parts.push(part),
      // As in a browser, what was written is there at once, or not at all.
      close: async () => {
        this.data = new Uint8Array(await new Blob(parts).arrayBuffer());
      },
    };
  }
}

export class Directory {
  kind = "directory";
  inside = new Map();

  #get(name, create, make) {
    if (name === "" || name === "." || name === ".." || /[/\\]/.test(name) || name.length > 255) {
      throw new TypeError(`${name} is no name for a file`);
    }
    if (!this.inside.has(name)) {
      if (!create) throw new DOMException("not there", "NotFoundError");
      this.inside.set(name, make());
    }
    return this.inside.get(name);
  }

  async getDirectoryHandle(name, { create = false } = {}) {
    return this.#get(name, create, () => new Directory());
  }

  async getFileHandle(name, { create = false } = {}) {
    return this.#get(name, create, () => new FileHandle());
  }

  async removeEntry(name) {
    if (!this.inside.delete(name)) throw new DOMException("not there", "NotFoundError");
  }

  async *keys() {
    yield* [...this.inside.keys()];
  }

  /** All files below, by their paths. */
  files(prefix = "") {
    return [...this.inside].flatMap(([name, entry]) =>
      entry.kind === "file" ? [[`${prefix}${name}`, entry]] : entry.files(`${prefix}${name}/`),
    );
  }
}

/** Puts an empty browser in the place of `navigator`; gives the root of its file system. */
export function installBrowser() {
  const root = new Directory();
  const held = new Map();
  const locks = {
    async request(name, options, work) {
      const before = held.get(name) ?? Promise.resolve();
      const mine = before.then(() => {
        options.signal?.throwIfAborted();
        return work();
      });
      held.set(name, mine.catch(() => {}));
      return mine;
    },
  };
  const storage = { getDirectory: async () => root, estimate: async () => ({ quota: 1e12, usage: 0 }) };
  Object.defineProperty(globalThis, "navigator", { value: { storage, locks }, configurable: true });
  return root;
}
