// A workgroup of attention: 4 blocks of four queries, 16 invocations each.

const LANES: u32 = 16u;
const BLOCKS: u32 = 4u;
const CHUNK: u32 = 4u;
