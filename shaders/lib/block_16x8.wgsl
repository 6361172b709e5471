// A workgroup of attention: 8 blocks of four queries, 16 invocations each.

const LANES: u32 = 16u;
const BLOCKS: u32 = 8u;
const CHUNK: u32 = 8u;
