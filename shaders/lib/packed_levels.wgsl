// Numbers of types in blocks that are `scale * level(code)`. `level4` is the accessor's.

#import packed_load

fn scaled4x4(stored: Stored4x4, scales: Scales) -> mat4x4<f32> {
    let codes = codes_of(stored);
    return mat4x4<f32>(
        scales.scale * level4(codes.a), scales.scale * level4(codes.b),
        scales.scale * level4(codes.c), scales.scale * level4(codes.d));
}
