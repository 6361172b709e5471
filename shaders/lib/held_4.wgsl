// Lanes of a subgroup that hold what all of it reads. Four, the smallest subgroup that WebGPU allows.

const HELD: u32 = 4u;
