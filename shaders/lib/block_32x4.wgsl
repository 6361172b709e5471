// A workgroup of attention: 4 blocks of four queries, 32 invocations each.

const LANES: u32 = 32u;
const BLOCKS: u32 = 4u;
const CHUNK: u32 = 4u;
