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

/** A model on a web server, by the address of its folder. What follows `?` in it follows the address of every file. */
export class HttpOrigin implements Origin {
  constructor(url: string | URL, options?: { warn?: (text: string) => void; signal?: AbortSignal });
  readonly name: string;
  size(path: string): Promise<number | undefined>;
  read(path: string, start: number, end: number): Promise<Uint8Array>;
  stat(path: string, stored?: FileVersion): Promise<FileVersion | undefined>;
}

/**
 * A model in a folder or in files that the user has picked, or in files by their addresses. Files are read in ranges, where
 * they lie.
 */
export class FilesOrigin implements Origin {
  /** `remote` makes the origin of the folder that a file's address is in; an `HttpOrigin` by default. */
  static open(
    files: Iterable<File | string | URL> | FileSystemDirectoryHandle,
    options?: { remote?: (folder: URL) => Promise<Origin> | Origin },
  ): Promise<FilesOrigin>;
  readonly name: string;
  /** Paths of all files, if there is no `model_index.json` among them that makes them a folder. */
  readonly list?: string[];
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

/** A model in files of its own rather than in a diffusers folder. Paths are relative to what is loaded. */
export interface ModelFiles {
  /** A denoiser's file or one with all parts, safetensors or GGUF; or the folder of a diffusers model. */
  model?: string;
  /** A denoiser whose other parts are the model's. */
  diffusionModel?: string;
  clipL?: string;
  clipG?: string;
  t5xxl?: string;
  vae?: string;
  /** A folder, or a `tokenizer.json`. */
  clipTokenizer?: string;
  /** A folder, or a `tokenizer.json`. */
  t5Tokenizer?: string;
  /** Leaves T5 out, where a model can be without it. */
  noT5?: boolean;
  /**
   * LoRAs and their relatives, as safetensors: paths as for the other files, and what their changes are multiplied by (1 by
   * default; may be negative, or one for each of RALU's stages). With a diffusers folder, `model` is "".
   */
  loras?: { file: string; weight?: number | [number, number, number] }[];
}

export interface LoadOptions {
  onProgress?: (progress: LoadProgress) => void;
  /** Something that does not stop anything; the console by default. */
  onWarning?: (text: string) => void;
  signal?: AbortSignal;
  adapter?: AdapterOptions;
  /** Which file is what. Without it, a diffusers folder is loaded, or files are sorted by what they hold. */
  files?: ModelFiles;
  /**
   * How weights are kept on the GPU, and what products round to. "auto" and "f32": weights as they are stored; "f16": those of
   * 32 bits rounded to 16. Products and sums have 32 bits. "int8": as "auto", but what meets weights in blocks of 8, 5 and 4
   * bits is rounded to 8 bits, which is faster on GPUs of AMD, Intel and NVIDIA, and changes pictures a little.
   */
  precision?: "auto" | "f32" | "f16" | "int8";
  /**
   * Quantises large matrices that are stored in 16 or 32 bits on their way to the GPU: "q8_0", "q6_k", "q5_k", "q5_0", "q4_k",
   * "q4_0", "q3_k", "q2_k", "fp8" or "nf4", with parts of the model behind a colon: "q4_k:denoiser,t5". The parts are
   * denoiser (the default), clip, t5, qwen3, text-encoders and all.
   */
  quantize?: string;
  /**
   * The most GPU memory that runs may take: a size such as "800MiB" or "6GiB". Weights that do not fit come and go while the
   * engine draws, from what the browser has stored, and the picture is the same. "auto", the default: as much as it takes, and
   * less when the memory is full; "off": never less.
   */
  memoryBudget?: string;
  /**
   * Whether a model from a server is kept in the browser: true by default. At every visit it is compared with the server's,
   * and downloaded again if that has changed; "refresh" downloads it again in any case.
   */
  cache?: boolean | "refresh";
  /** Whether `load` downloads all weights; if not, each is fetched when it is first needed. True by default. */
  prefetch?: boolean;
  /** Where the engine's module is, if not next to this script. */
  wasm?: string | URL;
  /**
   * The folder with CLIP's and T5's vocabularies, if that is not `vocabularies/` next to this script. They are fetched (199 and
   * 261 KB) and kept as a model's files are when a model in files of its own has no tokenizer, and only then.
   */
  vocabularies?: string | URL;
}

export interface InspectOptions
  extends Pick<LoadOptions, "onWarning" | "signal" | "files" | "precision" | "quantize" | "memoryBudget" | "cache" | "wasm" | "vocabularies"> {
  /** What would be drawn; the model's own settings by default. */
  request?: Partial<GenerateRequest>;
}

/** What a model would take. */
export interface Inspection {
  /** What it is called. */
  name: string;
  /** Its files with weights, their bytes, and how many of these are on this device: kept by the browser, or picked. */
  files: { path: string; bytes: number; keptBytes: number }[];
  plan: ModelPlan;
}

/** What drawing one picture would take. */
export interface ModelPlan {
  width: number;
  height: number;
  /** The preset's name, "custom" or "off". */
  ralu: string;
  /** Image tokens, steps and operations of a step, in units of 10^12, of each stage. */
  stages: { tokens: number; steps: number; tflopsPerStep: number }[];
  /** Operations of the whole run in units of 10^12. */
  tflops: number;
  /** Those of plain sampling, divided by that. */
  speedup: number;
  /** The most GPU memory at any time. */
  gpuBytes: number;
  /** What is odd about the request, as `generate` says it. */
  warnings: string[];
}

/** A small tensor, row-major. */
export interface Tensor {
  shape: number[];
  data: Float32Array | BigInt64Array;
}

// ---- made from the library's types by `cargo run -p ralu-web-types` ----

/** What to make. Whatever is left out is the model's own. */
export interface GenerateRequest {
  /** The text. */
  prompt: string;
  /** What true classifier-free guidance steers away from. */
  negativePrompt?: string;
  /** Width in pixels, 16 to 8192; the model's own by default, in proportion to a height that is given alone. */
  width?: number;
  /** Height in pixels, 16 to 8192; the model's own by default, in proportion to a width that is given alone. */
  height?: number;
  /** Steps of plain sampling. */
  steps?: number;
  /** FLUX.1: distilled guidance. Other families: scale of classifier-free guidance. */
  guidance?: number;
  /** Scale of true classifier-free guidance; 1 is off. */
  trueCfg?: number;
  /** Tokens of the text encoder whose length can be chosen, padding included. */
  maxSequenceLength?: number;
  /** Seed of the first picture; the i-th uses `seed + i`. The same seed is the same picture. */
  seed?: number;
  /** Number of pictures; 1 by default. */
  count?: number;
  /**
   * Where the initial noise comes from.
   *
   * - "philox": Counter-based and keyed by coordinates: the same for every adapter and picture size.
   * - "torch": What `torch.Generator("cpu").manual_seed(seed)` gives diffusers in float32.
   */
  rng?: "philox" | "torch";
  /**
   * Acceleration.
   *
   * - "auto": The model's own preset, or its family's best-tested one, where the picture is large enough for it, else
   *   plain sampling.
   * - "off": Plain sampling.
   * - "2x": About twice as fast.
   * - "3x": About three times as fast.
   * - "4x": About four times as fast.
   * - "5x": About five times as fast.
   * - "7x": About seven times as fast.
   * - "distilled": For models that need only four steps: the same number of steps, on fewer tokens.
   */
  ralu?: "auto" | "off" | "2x" | "3x" | "4x" | "5x" | "7x" | "distilled" | {
    /** Evaluations of the network in each stage. */
    stageSteps: number[];
    /** Paper time (0 is noise, 1 the picture) at the end of each stage; the last is 1. */
    stageEnds: number[];
    /** Share of coarse tokens that are refined early, 0 to 1. */
    upRatio: number;
    /** Time shift of each stage; solved if absent. */
    stageShifts?: number[];
    /** Strength of the noise between stages, at least 2; solved if absent. */
    stageZ?: number;
  };
  /**
   * Follow RALU's official code, or correct it.
   *
   * - "official": What the authors' published code does, for comparing results with it.
   * - "exact": What the derivation asks for, and what `docs/quality` measured to be clearly better: noise bound to
   *   coordinates.
   */
  variant?: "official" | "exact";
  /** Single rules that differ from the variant's. */
  rules?: {
    /**
     * How a coarse token becomes four fine ones.
     *
     * - "token": The packed 2x2 patch is repeated four times (the code, and the paper's figure).
     * - "latent": Each latent pixel is repeated four times, so that child `(p, q)` is filled with pixel `(p, q)` of its
     *   parent: nearest neighbour on the latent itself.
     */
    upsample?: "token" | "latent";
    /**
     * How rotary positions of two grids meet.
     *
     * - "official": All in units of the coarse grid, fine tokens at half steps: the code.
     * - "crpa": In units of the query's own grid: cross-resolution phase-aligned attention, arXiv 2511.19778.
     */
    ropeMode?: "official" | "crpa";
    /**
     * What regions are chosen by.
     *
     * - "edges": Canny edges of the decoded clean estimate: the code.
     * - "latent-gradient": Gradients of the clean estimate's latents.
     * - "variance": How much the clean estimate has changed over the first stage's steps.
     */
    regionScore?: "edges" | "latent-gradient" | "variance";
    /**
     * What noise the jumps put back.
     *
     * - "fresh": New noise for each jump, anti-correlated between copies, onto the noisy state: the paper.
     * - "bound": One noise field bound to the full grid's coordinates, the run's initial noise, onto the clean
     *   estimate.
     */
    jumpNoise?: "fresh" | "bound";
  };
  /** How strong the noise between stages is; the preset's by default. */
  zPolicy?: "published" | "min-noise" | `fixed=${number}`;
  /**
   * Temporal cache, with its parameters if they are not the usual ones, as in `teacache:threshold=0.25`; off by
   * default.
   */
  cache?: string;
  /** User-painted regions. */
  mask?: {
    /** Brightness, `[height, width]`: white is where detail matters. */
    luma: Uint8Array | Uint8ClampedArray | number[];
    /** Width in pixels, any. */
    width: number;
    /** Height in pixels, any. */
    height: number;
    /**
     * Instead of the found regions, or added to them.
     *
     * - "replace": The painted tokens are the regions; edges play no part, and the up ratio neither.
     * - "add": The painted tokens join those found by their edges, so there are more of them than the up ratio says.
     */
    mode?: "replace" | "add";
  };
  /** Pictures of all stages, not only those that cost nothing. */
  stagePictures?: boolean;
  /** What the run made (noise, embeddings, latents) with the picture. */
  tensors?: boolean;
  /**
   * Tensors that replace what the run would draw or compute, under the names that the tensors of a picture have:
   * `initial_noise`, `ralu_noise_stage2`, `ralu_noise_stage3`, `prompt_embeds`, `pooled_prompt_embeds`, both with
   * `negative_` before their names, and `ralu_selected`. Others are left alone.
   */
  given?: Record<string, Tensor>;
  /** Show after every step what the run has in mind: the event `estimate`. */
  estimates?: boolean;
  /** Ends the run within a step. */
  signal?: AbortSignal;
}

/** What happens in a run. `image` counts pictures from 0, `stage` and `step` from 1. Seconds are wall-clock. */
export type RaluEvent =
  /** Something odd that does not stop the run. */
  | {
      type: "warning";
      message: string;
    }
  /** Weights are on their way to the GPU. */
  | {
      type: "loading";
      /**
       * Which part of the model.
       *
       * - "textEncoders": The text encoders.
       * - "modulation": The layers of the denoiser that make its modulations, which depend on no token: needed before the
       *   first step alone.
       * - "denoiser": The rest of the denoiser, and the VAE's decoder.
       */
      part: "textEncoders" | "modulation" | "denoiser";
      /** Bytes uploaded so far. */
      bytes: number;
      /** Bytes in all. */
      totalBytes: number;
    }
  /** The prompt is encoded, and the text encoders' memory is free again. */
  | {
      type: "encoded";
      /** Text tokens, padding included. */
      tokens: number;
      /** Seconds, loading included. */
      seconds: number;
    }
  /** A stage begins. */
  | {
      type: "stage";
      /** Number of the picture, from 0. */
      image: number;
      /** Number of the stage, from 1. */
      stage: number;
      /** Number of stages. */
      of: number;
      /** Image tokens. */
      tokens: number;
      /** Evaluations of the network. */
      steps: number;
      /** Bytes of temporaries that the stage uses. */
      bytes: number;
      /** Of those, bytes in buffers that an earlier stage used too. */
      reusedBytes: number;
      /** Bytes that had to be newly allocated for this stage. */
      allocatedBytes: number;
    }
  /** A step is done. */
  | {
      type: "step";
      /** Number of the picture, from 0. */
      image: number;
      /** Number of the stage, from 1. */
      stage: number;
      /** Number of the step in the stage, from 1. */
      step: number;
      /** Steps in the stage. */
      of: number;
      /** Noise level at which the network was evaluated: 1 is pure noise, 0 a clean picture. */
      sigma: number;
      /** Seconds this step took. */
      seconds: number;
      /** Share of this picture's work that is done, by estimated operations. */
      done: number;
      /** Whether a temporal cache stood in for the network, or for most of it. */
      reused: boolean;
    }
  /** A stage is over. Of a kept first stage too, then with no seconds. */
  | {
      type: "stageEnd";
      /** Number of the picture, from 0. */
      image: number;
      /** Number of the stage, from 1. */
      stage: number;
      /** Seconds of all its steps. */
      seconds: number;
      /** Buffers created after its first step. Always 0. */
      buffersCreated: number;
      /** Bind groups created after its first step. Always 0. */
      bindGroupsCreated: number;
    }
  /** Regions are chosen. */
  | {
      type: "regions";
      /** Number of the picture, from 0. */
      image: number;
      /** Rows of coarse tokens. */
      rows: number;
      /** Columns of coarse tokens. */
      columns: number;
      /** Raster indices of the chosen coarse tokens, ascending. */
      selected: Uint32Array;
      /** The score of each coarse token: edge pixels, or what else `RegionScore` says. */
      score: Float32Array;
      /** Seconds for scores and choice, and decoding if that was needed. */
      seconds: number;
    }
  /** A picture of a stage. */
  | {
      type: "stagePicture";
      /** Number of the picture, from 0. */
      image: number;
      /** Number of the stage, from 1. */
      stage: number;
      /**
       * What it shows.
       *
       * - "estimate": The clean estimate at the end of the stage.
       * - "edges": The edges that regions are chosen by.
       * - "regions": The chosen regions, drawn over the estimate.
       */
      kind: "estimate" | "edges" | "regions";
      /** Width in pixels. */
      width: number;
      /** Height in pixels. */
      height: number;
      picture: ImageData;
    }
  /** A picture is finished. */
  | {
      type: "image";
      /** Its number, from 0. */
      image: number;
      /** Its seed. */
      seed: string;
      /** Width in pixels. */
      width: number;
      /** Height in pixels. */
      height: number;
      /** Seconds for this picture, from the first step to the decoded pixels. */
      seconds: number;
      /** Steps in which the network was evaluated. */
      stepsComputed: number;
      /** Steps in which the temporal cache stood in. */
      stepsReused: number;
      /** For each stage and step, whether the network was evaluated. */
      computed: boolean[][];
      /** Operations of the GPU's programs in units of 10^12, by estimate: steps, jumps and decoding. */
      tflops: number;
      /**
       * What products rounded to: `f16` where kernels on matrices ran, `int8` where those on bytes did, else `f32`.
       *
       * - "f32": Nothing: factors are f32.
       * - "f16": f16, where kernels on cooperative matrices were the ones to run.
       * - "int8": 8 bits in blocks of 32 numbers, where kernels on bytes were the ones to run.
       */
      products: "f32" | "f16" | "int8";
      /** Blocks that met numbers beyond f16's range, and were done again with activations divided by 256. */
      scaled: string[];
      /** Blocks that met numbers beyond f16's range even so, and were done again in f32. */
      inF32: string[];
      picture: ImageData;
      /** What the picture says about itself, as keywords and texts: see `toPng`. */
      texts: [keyword: string, text: string][];
      /** If the request asks for them. */
      tensors?: Record<string, Tensor>;
    }
  /** After a step, if the request asks for `estimates`: the clean estimate in approximate colours. */
  | {
      type: "estimate";
      /** Number of the picture, from 0. */
      image: number;
      /** Number of the stage, from 1. */
      stage: number;
      /** Number of the step in the stage, from 1. */
      step: number;
      /** An eighth as wide and as high as what the stage draws, which is half the size in the first. */
      picture: ImageData;
    };

// ---- end of what is made ----

/** A PNG that carries the request in its text chunks: `ralu generate --from FILE.png` draws it again. */
export function toPng(image: { picture: ImageData; texts?: [keyword: string, text: string][] }): Promise<Blob>;

/** A part of a model that lies in a file of its own. */
export interface ModelPart {
  part: "denoiser" | "clip-l" | "clip-g" | "t5" | "vae";
  path: string;
}

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
  /**
   * Opens a model: the address of its folder or of a file with all parts (`.safetensors`, `.gguf`), files that the user has
   * picked, addresses of files, or an origin of your own. Which of several files is what, their contents say; if one is
   * missing, the error names it.
   */
  static load(
    model: string | URL | Iterable<File | string | URL> | FileSystemDirectoryHandle | Origin,
    options?: LoadOptions,
  ): Promise<Ralu>;

  /**
   * Says what a model would take, before it is loaded: which files with weights would be downloaded and what of them is kept
   * already, and what drawing a request would cost. Reads configurations and the headers of weights, and needs no WebGPU.
   */
  static inspect(model: Parameters<typeof Ralu.load>[0], options?: InspectOptions): Promise<Inspection>;

  /** Removes models that were kept in the browser: the one at `url`, or all. */
  static forget(url?: string | URL): Promise<void>;

  readonly adapter: AdapterInfo;
  readonly memory: MemoryInfo;
  /** Which file each part is from; empty for a diffusers folder. */
  readonly parts: ModelPart[];

  /**
   * Draws. One request at a time: another one that is begun before the first has ended is an error with the code "busy" and
   * changes nothing. Engines draw independently of each other, in one page or in several tabs. Leaving the loop, or aborting
   * the signal, ends the run.
   */
  generate(request: GenerateRequest): AsyncGenerator<RaluEvent, void, void>;

  /**
   * Multiplies the changes of LoRAs by other weights, from the next request on: a number for each file, in the order of
   * `files.loras` or of the files that were picked, or three for RALU's stages. Nothing is loaded or compiled again. Files whose
   * changes are merged into weights (LoHa, LoKr, DoRA, whole differences), and those that were loaded with 0, keep theirs: load
   * the model again.
   */
  setLoraWeights(weights: (number | [number, number, number])[]): void;

  /** Ends what is running and frees everything. */
  dispose(): void;
}
