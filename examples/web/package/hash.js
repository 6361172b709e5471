// What stands for a model's files, as the native program counts it: a picture that was drawn in a page is found to be of the same
// model there. This file imports nothing, so that tests can run it under Node.

/** Files up to this length are hashed whole, of longer ones as much at the beginning. */
const WHOLE = 1 << 20;
/** Pieces of longer files, and the bytes of each. */
const PIECES = 32;
const PIECE = 1 << 16;
/** Ends of the names that are read from a model's folder. */
const READ = /\.(gguf|json|model|safetensors|txt)$/i;

/**
 * The paths of a model's files, each once. `read` are what is read: paths of files, and of folders, "" for all of an origin; `all` are
 * the paths of all files there.
 */
export function modelFiles(read, all) {
  return [...new Set(read.flatMap((path) => (all.includes(path) ? [path] : inFolder(path, all))))];
}

/**
 * A SHA-256, in hexadecimal, of the lengths and of pieces of `files`, which `origin` has. Undefined if there are none. After `signal`
 * nothing is read any more.
 */
export async function hashModel(origin, files, signal) {
  const hashes = new Set();
  for (const path of files) hashes.add(await hashPieces(origin, path, signal));
  return hashes.size > 0 ? hex(await sha256([...hashes].sort().map(fromHex))) : undefined;
}

/** The files of a model's folder: its own, and those of the folders in it. */
function inFolder(folder, all) {
  const prefix = folder && `${folder}/`;
  const inside = all.filter((path) => path.startsWith(prefix)).map((path) => path.slice(prefix.length));
  const isModel = inside.includes("model_index.json");
  const isRead = (path) => {
    const [first, second, ...more] = path.split("/");
    if (!READ.test(path) || more.length > 0) return false;
    // Weights next to the folders of a diffusers model belong to other programs.
    return second === undefined ? !isModel || /\.json$/i.test(first) : !first.startsWith(".");
  };
  return inside.filter(isRead).map((path) => prefix + path);
}

async function hashPieces(origin, path, signal) {
  const length = await origin.size(path);
  if (length === undefined) throw new Error(`${path} is not there`);
  const header = new DataView(new ArrayBuffer(8));
  header.setBigUint64(0, BigInt(length), true);
  const parts = [new Uint8Array(header.buffer)];
  const piece = async (start, bytes) => {
    signal?.throwIfAborted();
    const end = Math.min(start + bytes, length);
    if (start < end) parts.push(await origin.read(path, start, end));
  };
  await piece(0, WHOLE);
  if (length > WHOLE) {
    const last = length - PIECE;
    for (let i = 0; i <= PIECES; i += 1) await piece(Math.floor(last / PIECES) * i, PIECE);
    await piece(last, PIECE);
  }
  return hex(await sha256(parts));
}

async function sha256(parts) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer()));
}

function hex(bytes) {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function fromHex(text) {
  return Uint8Array.from(text.match(/../g), (digits) => parseInt(digits, 16));
}
