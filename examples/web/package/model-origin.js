// Where a model comes from, whatever the page gives: see `Ralu.load`. This file imports nothing of the engine.

import { CachedOrigin } from "./cache.js";
import { escape } from "./escape.js";
import { listFiles } from "./listing.js";
import { FilesOrigin, HttpOrigin, isWeights } from "./origins.js";

/** The origin of a model, as the engine reads it. */
export class ModelOrigin {
  #changed;
  /** Where the bytes come from. */
  source;
  /** Makes the origin of a folder's address. */
  remote;
  /** Paths that were asked for and are there. */
  asked = new Set();
  /** Paths of files that are no folder, if the contents are to say which is what. */
  list;

  /** Without `store`, nothing more is kept in the browser than there is. */
  static async open({ model, cache, signal, onWarning, files, store = true }) {
    const own = new ModelOrigin();
    const warn = (text) => onWarning(escape(text));
    own.remote = async (url) => {
      const origin = new HttpOrigin(url, { warn, signal });
      return cache ? CachedOrigin.open(origin, { warn, refresh: cache === "refresh", store }) : origin;
    };
    own.source = await originOf(model, own.remote);
    if (files === undefined) {
      own.list = own.source instanceof FilesOrigin ? own.source.list : undefined;
      // Files that the page names may be others than the folder lists.
      const listed = own.source.knowPaths && (await listFiles(own.source, signal));
      if (listed) own.source.knowPaths(listed.keys());
    }
    return own;
  }

  get name() {
    return this.source.name;
  }

  /** What was replaced on the server while it was read. */
  get changed() {
    return this.#changed;
  }

  async size(path) {
    const size = await this.noted(() => this.source.size(path));
    if (size !== undefined) this.asked.add(path);
    return size;
  }

  read(path, start, end) {
    return this.noted(() => this.source.read(path, start, end));
  }

  /** Names of files and what servers say go into messages. */
  async noted(ask) {
    try {
      return await ask();
    } catch (error) {
      const message = escape(error?.message ?? error);
      if (error?.name === "ChangedError") this.#changed = message;
      throw new Error(message, { cause: error });
    }
  }

  /** Files with weights among those that were asked for. */
  get weights() {
    return [...this.asked].filter(isWeights);
  }
}

function originOf(model, remote) {
  if (isFile(model)) return FilesOrigin.open([model], { remote });
  if (typeof model === "string" || model instanceof URL) return remote(model);
  if (typeof model?.read === "function" && typeof model?.size === "function") return model;
  return FilesOrigin.open(model, { remote });
}

/** Whether a model is the address of a single file rather than of a folder. */
export function isFile(model) {
  return (typeof model === "string" || model instanceof URL) && isWeights(addressOf(model).pathname);
}

export function addressOf(url) {
  return new URL(url, globalThis.location?.href);
}

/** CLIP's and T5's vocabularies, for models without tokenizers. Nothing is asked for before one of them is needed. */
export function vocabulariesOf(place, remote) {
  let origin;
  const open = () => (origin ??= remote(place));
  return {
    name: "vocabularies",
    size: async (path) => {
      const size = await (await open()).size(path);
      if (size !== undefined) return size;
      throw new Error(`the model has no tokenizer of its own, and ${addressOf(place).href} has no ${path}: serve the whole package, or say where its vocabularies are (the option vocabularies)`);
    },
    read: async (path, start, end) => (await open()).read(path, start, end),
  };
}
