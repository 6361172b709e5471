// Which files a model's folder has. Web servers have no lists, and a browser shows in red every answer that there is no such file;
// where the list is known, none is asked for. This file imports nothing, so that tests can run it under Node.

/** More bytes are no `model_index.json`. */
const MOST_BYTES = 4 << 20;

/**
 * Paths and bytes of the files of `origin`, a model's folder: as the Hugging Face hub lists them, or as `_files` in
 * `model_index.json` does. Undefined where neither is there; what is wrong with a model is found when it is opened.
 */
export async function listFiles(origin, signal) {
  const hub = hubList(origin.name);
  try {
    return hub ? await listHub(hub, signal) : await listIndex(origin);
  } catch {
    signal?.throwIfAborted();
    return undefined;
  }
}

/** Where the hub lists the files of a folder that it serves, and the folder's place in that list. */
function hubList(address) {
  const { origin, pathname } = URL.canParse(address) ? new URL(address) : {};
  const [, repository, revision, folder] = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.*)$/.exec(pathname ?? "") ?? [];
  if (origin !== "https://huggingface.co" || !repository) return undefined;
  return { url: `${origin}/api/models/${repository}/tree/${revision}?recursive=true`, folder: decodeURIComponent(folder) };
}

async function listHub({ url, folder }, signal) {
  const response = await fetch(url, { cache: "no-cache", signal });
  // A list in several answers is one of very many files.
  if (!response.ok || response.headers.get("link")?.includes('rel="next"')) return undefined;
  const entries = (await response.json()).filter(({ type, path }) => type === "file" && path.startsWith(folder));
  return new Map(entries.map(({ path, size }) => [path.slice(folder.length), size]));
}

async function listIndex(origin) {
  const size = await origin.size("model_index.json");
  if (!(size <= MOST_BYTES)) return undefined;
  const bytes = await origin.read("model_index.json", 0, size);
  const { _files: files } = JSON.parse(new TextDecoder().decode(bytes));
  if (files === null || typeof files !== "object") return undefined;
  return new Map(Object.entries(files)).set("model_index.json", size);
}
