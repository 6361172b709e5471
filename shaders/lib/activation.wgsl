// Activation functions, chosen by the override ACTIVATION.

const IDENTITY: u32 = 0u;
const SILU: u32 = 1u;
const GELU_TANH: u32 = 2u;
const QUICK_GELU: u32 = 3u;
const GELU_ERF: u32 = 4u;

// exp(-x) overflows to infinity below x = -88; x / (1 + inf) is the right limit, 0, but some drivers give
// NaN for inf, so the exponent is held at 80, where sigmoid is 2e-35 anyway. The sigmoid of NaN is some number: whoever
// multiplies by x has his NaN.
fn sigmoid4(x: vec4<f32>) -> vec4<f32> {
    return 1.0 / (1.0 + exp4_within(clamp(-x, vec4<f32>(-87.0), vec4<f32>(80.0))));
}

// gelu_tanh(x) = x / 2 * (1 + tanh(u)) = x * sigmoid(2 u): tanh itself misbehaves for large arguments on
// some Metal drivers, and lavapipe's is off by 1e-5.
fn gelu_tanh4(x: vec4<f32>) -> vec4<f32> {
    let u = 0.7978845608028654 * (x + 0.044715 * x * x * x);
    return x * sigmoid4(2.0 * u);
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
        return x * sigmoid4(x);
    }
    if (kind == GELU_TANH) {
        return gelu_tanh4(x);
    }
    if (kind == QUICK_GELU) {
        return x * sigmoid4(1.702 * x);
    }
    if (kind == GELU_ERF) {
        return 0.5 * x * (1.0 + erf4(x * 0.7071067811865476));
    }
    return x;
}
