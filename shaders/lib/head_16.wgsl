// Heads of up to 16 numbers: how many registers a query and an output row take.

const HEAD4_MAX: u32 = 4u;
