// Activation functions, chosen by the override ACTIVATION.

const IDENTITY: u32 = 0u;
const SILU: u32 = 1u;
const GELU_TANH: u32 = 2u;
const QUICK_GELU: u32 = 3u;
const GELU_ERF: u32 = 4u;

// x * sigmoid(u), where t = -u / ln 2: x / (1 + 2^t). In powers of two the argument is reduced by one subtraction; that t
// is rounded, which exp.wgsl avoids, is an error of a few roundings near zero and none that counts in the tails.
//
// 2^t = 2^i 2^f with |f| <= 1/2, i found as in exp.wgsl, 2^f by a minimax polynomial (1.7 roundings with its own), 2^i
// by adding i to the exponent. Beyond 116 it is held: x / (1 + inf) is the right limit, 0, but some drivers give NaN for
// inf. The quotient of NaN is NaN, whatever its denominator.
fn gated4(x: vec4<f32>, t: vec4<f32>) -> vec4<f32> {
    let held = clamp(t, vec4<f32>(-125.0), vec4<f32>(116.0));
    let i = bitcast<vec4<i32>>(held + 12582912.0) - 0x4b400000;
    let f = held - vec4<f32>(i);
    let p = (((((1.5345812e-4 * f + 1.3399931e-3) * f + 9.618489e-3) * f + 5.5503286e-2) * f
        + 2.4022646e-1) * f + 6.931472e-1) * f + 1.0;
    return x / (1.0 + bitcast<vec4<f32>>(bitcast<vec4<i32>>(p) + (i << vec4<u32>(23u))));
}

// gelu_tanh(x) = x / 2 * (1 + tanh(u)) = x * sigmoid(2 u): tanh itself misbehaves for large arguments on
// some Metal drivers, and lavapipe's is off by 1e-5. 2 u / ln 2 = 2.302208 (x + 0.044715 x^3).
fn gelu_tanh4(x: vec4<f32>) -> vec4<f32> {
    return gated4(x, x * (-2.3022081986 - 0.1029432397 * x * x));
}

// Error function, Abramowitz & Stegun 7.1.26: at most 1.5e-7 off.
fn erf4(x: vec4<f32>) -> vec4<f32> {
    let a = abs(x);
    let t = 1.0 / (1.0 + 0.3275911 * a);
    let poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return sign(x) * (1.0 - poly * exp4(-a * a));
}

fn activate4(x: vec4<f32>, kind: u32) -> vec4<f32> {
    if (kind == SILU) {
        return gated4(x, -1.4426950408889634 * x);
    }
    if (kind == GELU_TANH) {
        return gelu_tanh4(x);
    }
    if (kind == QUICK_GELU) {
        return gated4(x, -2.4554669596 * x);
    }
    if (kind == GELU_ERF) {
        return 0.5 * x * (1.0 + erf4(x * 0.7071067811865476));
    }
    return x;
}
