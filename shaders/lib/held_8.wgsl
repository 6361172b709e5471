// Lanes of a subgroup that hold what all of it reads. Eight, where all subgroups have as many.

const HELD: u32 = 8u;
