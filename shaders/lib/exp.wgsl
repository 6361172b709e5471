// exp to 1.2e-7 on every adapter. WGSL lets a built-in one be off by 3 + 2 |x| ulp, 2e-5 at -87 (lavapipe's is off by
// 4e-6); where attention scores are in the thousands, as in SD3 without q/k norms, such an error in a
// modulation becomes one of several per cent in a softmax.
//
// x = k ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts so that k ln 2 is exact; exp(r) is Cephes' polynomial.
// Below -87 the result is held at 1.6e-38: no denormals. NaN stays NaN, so that a sum that overflowed is noticed;
// drivers may drop clamp's and `x != x`, so its bits are asked.
fn exp4(x: vec4<f32>) -> vec4<f32> {
    let held = clamp(x, vec4<f32>(-87.0), vec4<f32>(88.0));
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits. Software drivers convert floats to integers one
    // lane after the other, with checks; this is faster by half.
    let i = bitcast<vec4<i32>>(held * 1.4426950408889634 + 12582912.0) - 0x4b400000;
    let k = vec4<f32>(i);
    let r = (held - k * 0.693359375) + k * 2.12194440e-4;
    let p = ((((1.9875691500e-4 * r + 1.3981999507e-3) * r + 8.3334519073e-3) * r + 4.1665795894e-2) * r
        + 1.6666665459e-1) * r + 5.0000001201e-1;
    let result = (p * r * r + r + 1.0) * bitcast<vec4<f32>>((i + 127) << vec4<u32>(23u));
    return select(result, x, (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u));
}
