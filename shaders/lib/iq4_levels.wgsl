// The levels of IQ4_NL and IQ4_XS: -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89 and 113, four signed
// bytes in a word. A table in memory would cost a read for each number.

#import packed_levels

const LEVELS_0: u32 = 0xbfad9881u;
const LEVELS_4: u32 = 0xf6eaddcfu;
const LEVELS_8: u32 = 0x26190d01u;
const LEVELS_12: u32 = 0x71594535u;

fn level4(code: vec4<u32>) -> vec4<f32> {
    let is_odd = (code & vec4<u32>(4u)) != vec4<u32>();
    let low = select(vec4<u32>(LEVELS_0), vec4<u32>(LEVELS_4), is_odd);
    let high = select(vec4<u32>(LEVELS_8), vec4<u32>(LEVELS_12), is_odd);
    let levels = select(low, high, (code & vec4<u32>(8u)) != vec4<u32>());
    let up = vec4<u32>(24u) - ((code & vec4<u32>(3u)) << vec4<u32>(3u));
    return vec4<f32>(bitcast<vec4<i32>>(levels << up) >> vec4<u32>(24u));
}
