// Pictures as PNG files that say how they were made, as the command line's do: `ralu generate --from` draws them again.

const SIGNATURE = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);

/** A PNG of an `image` event: its pixels, and its `texts` as text chunks. */
export async function toPng({ picture, texts = [] }) {
  const { width, height, data } = picture;
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8); // bits
  header.setUint8(9, 2); // RGB
  const pixels = await deflate(rows(width, height, data));
  return new Blob(
    [
      SIGNATURE,
      ...chunk("IHDR", new Uint8Array(header.buffer)),
      ...texts.flatMap(([keyword, text]) => textChunk(keyword, text)),
      ...chunk("IDAT", pixels),
      ...chunk("IEND", new Uint8Array()),
    ],
    { type: "image/png" },
  );
}

/** RGB rows, each number less its left neighbour's, which is what the leading 1 says. */
function rows(width, height, rgba) {
  const stride = 3 * width + 1;
  const bytes = new Uint8Array(stride * height);
  for (let y = 0; y < height; y += 1) {
    let at = y * stride;
    bytes[at++] = 1;
    for (let x = 0; x < width; x += 1) {
      const from = 4 * (y * width + x);
      for (let c = 0; c < 3; c += 1) bytes[at++] = rgba[from + c] - (x > 0 ? rgba[from + c - 4] : 0);
    }
  }
  return bytes;
}

/** Outside of this thread, as the browser does it. */
async function deflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * ASCII in the old kind of chunk: some programs look into no other for `Software`, and some drop all others, which the
 * request is to survive. Else UTF-8.
 */
function textChunk(keyword, text) {
  const utf8 = (string) => new TextEncoder().encode(string);
  const isOld = keyword === "Software" || keyword === "ralu";
  if (isOld && /^[ -~]*$/.test(text)) return chunk("tEXt", utf8(`${keyword}\0${text}`));
  // Not compressed, without a language and a translated keyword.
  return chunk("iTXt", utf8(`${keyword}\0\0\0\0\0${text}`));
}

function chunk(kind, bytes) {
  const named = new Uint8Array(4 + bytes.length);
  named.set(new TextEncoder().encode(kind));
  named.set(bytes, 4);
  const number = (value) => {
    const view = new DataView(new ArrayBuffer(4));
    view.setUint32(0, value);
    return view.buffer;
  };
  return [number(bytes.length), named, number(crc32(named))];
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit += 1) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1;
  return byte;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
