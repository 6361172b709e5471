// Thirty-two pixels an invocation, 8 x 4, for processors: their registers spill into the first cache at little cost, and
// their drivers unroll loops that index registers.

const ROWS: u32 = 4u;
const PIXELS: u32 = COLUMNS * ROWS;

alias Sums = array<vec4<f32>, PIXELS>;

override PATCH_QUADS: u32 = PATCH_PIXELS * C4;

var<workgroup> pixels: array<vec4<f32>, PATCH_QUADS>;

fn store_pixel(pixel: u32, c: u32, v: vec4<f32>) {
    pixels[pixel * C4 + c] = v;
}

// Where the pixel lies that a tap of an invocation's first pixel reads, if its first tap reads that at `place`.
fn tap_at(place: vec2<u32>, tap: u32) -> u32 {
    return ((place.y + tap / ACROSS) * PATCH_COLUMNS + place.x + tap % ACROSS) * C4;
}

// Writes all pixels, of which the first is at `first` of the input.
fn put_pixels(sums: ptr<function, Sums>, first: vec2<u32>, phase: vec2<u32>, column4: u32) {
    for (var p = 0u; p < PIXELS; p++) {
        put_pixel(first + vec2<u32>(p % COLUMNS, p / COLUMNS), phase, column4, (*sums)[p]);
    }
}
