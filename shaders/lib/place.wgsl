// Row and column of item `first + lane` in rows of `width` items, for workgroups that start at `first` and have at most
// 64 lanes. Dividing vectors of integers takes software drivers longer than all else that an elementwise kernel
// does; here only the workgroup's start is divided so, and the lanes are placed by a division in floats, exact as
// lane + width stays far below 2^22.
fn place(first: u32, lane: u32, width: u32) -> vec2<u32> {
    let row = first / width;
    let past = first - row * width + lane;
    // The nearest integer, found as in exp.wgsl, is the quotient or one more.
    var more = bitcast<u32>(f32(past) / f32(width) + 12582912.0) - 0x4b400000u;
    more -= select(0u, 1u, more * width > past);
    return vec2<u32>(row + more, past - more * width);
}
