// What kernels of linear layers share that multiply numbers as they are.

#import linear_parameters

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;

fn dot_columns(sum: vec4<f32>, a: vec4<f32>, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>) -> vec4<f32> {
    return sum + a.x * w0 + a.y * w1 + a.z * w2 + a.w * w3;
}
