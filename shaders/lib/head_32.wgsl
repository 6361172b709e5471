// Heads of up to 32 numbers: how many registers a query and an output row take.

const HEAD4_MAX: u32 = 8u;
