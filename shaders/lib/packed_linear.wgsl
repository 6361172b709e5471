// Numbers of types in blocks that are `scale * code + offset` of unsigned codes.

#import packed_load

fn scaled4x4(stored: Stored4x4, scales: Scales) -> mat4x4<f32> {
    return numbers4x4(codes_of(stored), scales.scale, scales.offset);
}
