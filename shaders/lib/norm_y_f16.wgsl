// Where a norm writes that only products read which round to f16. If a number does not fit, a flag is raised, and the result is of
// no use.
enable f16;

@group(0) @binding(4) var<storage, read_write> y: array<vec4<f16>>;
@group(0) @binding(5) var<storage, read_write> f16_flags: array<atomic<u32>>;

// Numbers are multiplied by it before they are rounded, and sums of products divided by it: a power of two.
override SCALE: f32 = 1.0;

// The largest magnitude that this invocation has rounded.
var<private> largest: f32 = 0.0;

fn put_y(at: u32, numbers: vec4<f32>) {
    let v = numbers * SCALE;
    largest = max(largest, max(max(abs(v.x), abs(v.y)), max(abs(v.z), abs(v.w))));
    y[at] = vec4<f16>(v);
}

fn tell_range() {
    if (largest > 65504.0) {
        atomicStore(&f16_flags[params.f16_flag], 1u);
    }
}
