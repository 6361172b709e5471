// Pictures from text in a browser: FLUX and Stable Diffusion 3 under RALU, on WebGPU.

/** An error with a `code` for programs and a `message` for people: what happened, and what to do. */
export class RaluError extends Error {
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: ErrorOptions);
}

export type ErrorCode =
  /** This browser or this page has no WebGPU. */
  | "no-webgpu"
  /** WebGPU, but no adapter. */
  | "no-adapter"
  | "adapter-unusable"
  /** A file could not be fetched: address, connection, CORS, a truncated file. */
  | "fetch"
  /** The model's files are damaged, incomplete or of another kind. */
  | "bad-model"
  | "bad-request"
  /** The picture needs larger buffers than the adapter has. */
  | "too-large"
  | "out-of-memory"
  /** Three times without a step between; once is a warning, and the run goes on. */
  | "device-lost"
  /** NaN or infinity came out of the network. */
  | "not-finite"
  /** The engine is drawing already. */
  | "busy"
  /** The engine was disposed of. */
  | "disposed"
  /** The browser refused a piece of GPU work: a bug. */
  | "gpu";

/** Where a model's bytes come from. Paths are relative to the model's folder, with `/`. */
export interface Origin {
  /** What to call the model in messages. */
  readonly name: string;
  /** Bytes of a file; undefined if there is none. */
  size(path: string): Promise<number | undefined>;
  /**
   * The bytes from `start` to before `end` of a file that has them. An error with the name "ChangedError" says that they
   * are no longer those of the file that was asked about before.
   */
  read(path: string, start: number, end: number): Promise<Uint8Array>;
  /**
   * Size and mark of a file's present version: files of the same size with the same mark are the same. `stored` is an
   * earlier answer, which may be given again if it still holds. Without this, or without a mark, `CachedOrigin` compares
   * small files whole and the beginnings of large ones.
   */
  stat?(path: string, stored?: FileVersion): Promise<FileVersion | undefined>;
}

/** See `Origin.stat`. */
export interface FileVersion {
  size: number;
  mark?: string;
}

/** A model on a web server, by the address of its folder. */
export class HttpOrigin implements Origin {
  constructor(url: string | URL, options?: { warn?: (text: string) => void; signal?: AbortSignal });
  readonly name: string;
  size(path: string): Promise<number | undefined>;
  read(path: string, start: number, end: number): Promise<Uint8Array>;
  stat(path: string, stored?: FileVersion): Promise<FileVersion | undefined>;
}

/** A model in a folder that the user has picked. */
export class FilesOrigin implements Origin {
  static open(files: Iterable<File> | FileSystemDirectoryHandle): Promise<FilesOrigin>;
  readonly name: string;
  size(path: string): Promise<number | undefined>;
  read(path: string, start: number, end: number): Promise<Uint8Array>;
}

/**
 * Another origin, with what it gave kept in the browser's file system (OPFS). What is kept is compared with the origin at
 * every visit, and dropped if a file has changed; if the origin cannot be reached, it is used as it is.
 */
export class CachedOrigin implements Origin {
  static open(origin: Origin, options?: { warn?: (text: string) => void; refresh?: boolean }): Promise<Origin>;
  readonly name: string;
  readonly fetchedBytes: number;
  size(path: string): Promise<number | undefined>;
  read(path: string, start: number, end: number): Promise<Uint8Array>;
  download(
    paths: string[],
    progress?: (bytes: number, totalBytes: number) => void,
    signal?: AbortSignal,
  ): Promise<void>;
}

export type LoadProgress =
  /** Configurations, tokenizers and the headers of the weights are read. */
  | { phase: "open" }
  /** Weights are brought to the browser's own file system. */
  | { phase: "download"; bytes: number; totalBytes: number }
  | { phase: "ready" };

export interface AdapterOptions {
  /** Which adapter to ask the browser for; a hint. "high-performance" by default. */
  preference?: "high-performance" | "low-power";
  /** "adapter", the default, uses what there is; "webgpu" no more than WebGPU guarantees on every adapter. */
  limits?: "adapter" | "webgpu";
}

export interface LoadOptions {
  onProgress?: (progress: LoadProgress) => void;
  /** Something that does not stop anything; the console by default. */
  onWarning?: (text: string) => void;
  signal?: AbortSignal;
  adapter?: AdapterOptions;
  /**
   * How weights are kept on the GPU. "auto" and "f32": as they are stored; "f16": those of 32 bits rounded to 16. Sums
   * have 32 bits in any case.
   */
  precision?: "auto" | "f32" | "f16";
  /**
   * Whether a model from a server is kept in the browser: true by default. At every visit it is compared with the server's,
   * and downloaded again if that has changed; "refresh" downloads it again in any case.
   */
  cache?: boolean | "refresh";
  /** Whether `load` downloads all weights; if not, each is fetched when it is first needed. True by default. */
  prefetch?: boolean;
  /** Where the engine's module is, if not beside this script. */
  wasm?: string | URL;
}

export interface GenerateRequest {
  prompt: string;
  negativePrompt?: string;
  /** In pixels; the model's own size by default. */
  width?: number;
  height?: number;
  /** Steps of plain sampling. */
  steps?: number;
  guidance?: number;
  trueCfg?: number;
  maxSequenceLength?: number;
  /** The same seed is the same picture. */
  seed?: number;
  /** Number of pictures; the i-th has the seed `seed + i`. */
  count?: number;
  rng?: "philox" | "torch";
  ralu?:
    | "auto"
    | "off"
    | "2x"
    | "3x"
    | "4x"
    | "5x"
    | "7x"
    | "distilled"
    | {
        stageSteps: [number, number, number];
        stageEnds: [number, number, number];
        upRatio: number;
        shifts?: [number, number, number];
        z?: number;
      };
  variant?: "exact" | "official";
  /** A temporal cache, as the command line's `--cache` has them: "fora", "teacache:threshold=0.25", … */
  cache?: string;
  /** Pictures of all stages, not only those that cost nothing. */
  stagePictures?: boolean;
  /** What the run made (noise, embeddings, latents) with the picture. */
  tensors?: boolean;
  /** Ends the run within a step. */
  signal?: AbortSignal;
}

/** A small tensor, row-major. */
export interface Tensor {
  shape: number[];
  data: Float32Array | BigInt64Array;
}

/** `image` counts pictures from 0, `stage` and `step` from 1. Seconds are wall-clock. */
export type RaluEvent =
  | { type: "warning"; message: string }
  /** Weights are on their way to the GPU. */
  | { type: "loading"; part: "textEncoders" | "denoiser"; bytes: number; totalBytes: number }
  /** The prompt is encoded. */
  | { type: "encoded"; tokens: number; seconds: number }
  /** A stage begins: `tokens` image tokens, `steps` evaluations, `bytes` of temporaries. */
  | { type: "stage"; image: number; stage: number; of: number; tokens: number; steps: number; bytes: number }
  /** `done` is the share of the picture's work, from 0 to 1; `reused`: a temporal cache stood in for the network. */
  | {
      type: "step";
      image: number;
      stage: number;
      step: number;
      of: number;
      sigma: number;
      seconds: number;
      done: number;
      reused: boolean;
    }
  | { type: "stageEnd"; image: number; stage: number; seconds: number }
  /** `selected` are raster indices into the grid of `rows` x `columns` coarse tokens. */
  | {
      type: "regions";
      image: number;
      rows: number;
      columns: number;
      selected: Uint32Array;
      score: Float32Array;
      seconds: number;
    }
  | {
      type: "stagePicture";
      image: number;
      stage: number;
      kind: "estimate" | "edges" | "regions";
      picture: ImageData;
    }
  | {
      type: "image";
      image: number;
      seed: string;
      picture: ImageData;
      seconds: number;
      stepsComputed: number;
      stepsReused: number;
      tflops: number;
      /** What the picture says about itself, as keywords and texts: see `toPng`. */
      texts: [keyword: string, text: string][];
      tensors?: Record<string, Tensor>;
    };

/** A PNG that carries the request in its text chunks: `ralu generate --from FILE.png` draws it again. */
export function toPng(image: { picture: ImageData; texts?: [keyword: string, text: string][] }): Promise<Blob>;

export interface AdapterInfo {
  name: string;
  driver: string;
  kind: string;
  features: string[];
  maxBufferBytes: number;
  maxBindingBytes: number;
}

export interface MemoryInfo {
  /** Of the engine's buffers on the GPU, now and at most. */
  gpuBytes: number;
  gpuPeakBytes: number;
  /** Of the model's files in the engine's memory, on their way to the GPU. */
  stagingBytes: number;
  /** The engine's own memory; it never shrinks, so this is also its peak. Shared by all engines of a page. */
  heapBytes: number;
  /** What came over the network, if the model is kept in the browser. */
  fetchedBytes?: number;
}

/**
 * A model, ready to draw.
 *
 * ```js
 * const engine = await Ralu.load("models/tiny-flux/");
 * for await (const event of engine.generate({ prompt: "a red apple", ralu: "7x" })) {
 *   if (event.type === "image") context.putImageData(event.picture, 0, 0);
 * }
 * engine.dispose();
 * ```
 */
export class Ralu {
  /** Opens a model: the address of its folder, files that the user has picked, or an origin of your own. */
  static load(
    model: string | URL | Iterable<File> | FileSystemDirectoryHandle | Origin,
    options?: LoadOptions,
  ): Promise<Ralu>;

  /** Removes models that were kept in the browser: the one at `url`, or all. */
  static forget(url?: string | URL): Promise<void>;

  readonly adapter: AdapterInfo;
  readonly memory: MemoryInfo;

  /**
   * Draws. One request at a time: another one that is begun before the first has ended is an error with the code "busy" and
   * changes nothing. Engines draw independently of each other, in one page or in several tabs. Leaving the loop, or aborting
   * the signal, ends the run.
   */
  generate(request: GenerateRequest): AsyncGenerator<RaluEvent, void, void>;

  /** Ends what is running and frees everything. */
  dispose(): void;
}
