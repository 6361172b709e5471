// Sixteen pixels an invocation, 8 x 2, for graphics chips: 64 sums. They are spelt out, as drivers need not unroll a loop
// that indexes registers, and then keep them in memory or find them by branches.

const ROWS: u32 = 2u;

struct Sums {
    p0: vec4<f32>,
    p1: vec4<f32>,
    p2: vec4<f32>,
    p3: vec4<f32>,
    p4: vec4<f32>,
    p5: vec4<f32>,
    p6: vec4<f32>,
    p7: vec4<f32>,
    p8: vec4<f32>,
    p9: vec4<f32>,
    pa: vec4<f32>,
    pb: vec4<f32>,
    pc: vec4<f32>,
    pd: vec4<f32>,
    pe: vec4<f32>,
    pf: vec4<f32>,
}

// Two groups of channels, so that a browser checks one index for both.
alias Pixel = array<vec4<f32>, 2>;
override PATCH_PAIRS: u32 = PATCH_PIXELS * C4 / 2u;

var<workgroup> pixels: array<Pixel, PATCH_PAIRS>;

fn store_pixel(pixel: u32, c: u32, v: vec4<f32>) {
    pixels[(pixel * C4 + c) / 2u][c % 2u] = v;
}

// Writes all pixels, of which the first is at `first` of the input.
fn put_pixels(sums: ptr<function, Sums>, first: vec2<u32>, phase: vec2<u32>, column4: u32) {
    put_pixel(first + vec2<u32>(0u, 0u), phase, column4, (*sums).p0);
    put_pixel(first + vec2<u32>(1u, 0u), phase, column4, (*sums).p1);
    put_pixel(first + vec2<u32>(2u, 0u), phase, column4, (*sums).p2);
    put_pixel(first + vec2<u32>(3u, 0u), phase, column4, (*sums).p3);
    put_pixel(first + vec2<u32>(4u, 0u), phase, column4, (*sums).p4);
    put_pixel(first + vec2<u32>(5u, 0u), phase, column4, (*sums).p5);
    put_pixel(first + vec2<u32>(6u, 0u), phase, column4, (*sums).p6);
    put_pixel(first + vec2<u32>(7u, 0u), phase, column4, (*sums).p7);
    put_pixel(first + vec2<u32>(0u, 1u), phase, column4, (*sums).p8);
    put_pixel(first + vec2<u32>(1u, 1u), phase, column4, (*sums).p9);
    put_pixel(first + vec2<u32>(2u, 1u), phase, column4, (*sums).pa);
    put_pixel(first + vec2<u32>(3u, 1u), phase, column4, (*sums).pb);
    put_pixel(first + vec2<u32>(4u, 1u), phase, column4, (*sums).pc);
    put_pixel(first + vec2<u32>(5u, 1u), phase, column4, (*sums).pd);
    put_pixel(first + vec2<u32>(6u, 1u), phase, column4, (*sums).pe);
    put_pixel(first + vec2<u32>(7u, 1u), phase, column4, (*sums).pf);
}
