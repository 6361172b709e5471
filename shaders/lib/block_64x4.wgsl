// A workgroup of attention: 4 blocks of four queries, 64 invocations each.

const LANES: u32 = 64u;
const BLOCKS: u32 = 4u;
const CHUNK: u32 = 2u;
