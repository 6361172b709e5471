// What four numbers of K x four outputs of a weight in blocks are made of, for types whose words are D_WORDS (0 or 1) of what all
// of a block shares, SCALE_WORDS of scales, UPPER_WORDS of the upper bits of codes and CODE_WORDS of their lower bits, in that
// order. These constants are the accessor's, and so are `scales_of` and `scaled4x4`.

#import packed_block

const SCALES_AT: u32 = D_WORDS;
const UPPER_AT: u32 = SCALES_AT + SCALE_WORDS;
const CODES_AT: u32 = UPPER_AT + UPPER_WORDS;
const WORDS: u32 = CODES_AT + CODE_WORDS;

// Numbers of K in a word, and bits of each.
const CODES_A_WORD: u32 = NUMBERS / CODE_WORDS;
const CODE_BITS: u32 = 32u / CODES_A_WORD;
const SCALES_A_WORD: u32 = NUMBERS / max(SCALE_WORDS, 1u);
const UPPERS_A_WORD: u32 = NUMBERS / max(UPPER_WORDS, 1u);
const UPPER_BITS: u32 = 32u / UPPERS_A_WORD;

struct Stored4x4 {
    k: u32,
    d: vec4<u32>,
    scales: vec4<u32>,
    upper: vec4<u32>,
    codes: vec4<u32>,
}

// A number of a block is `scale * code + offset`, or `scale * level(code)`.
struct Scales {
    scale: vec4<f32>,
    offset: vec4<f32>,
}

// The words that hold scales of number `place.k`.
fn load_scales(place: Place) -> Stored4x4 {
    var stored = Stored4x4();
    stored.k = place.k;
    if (D_WORDS > 0u) {
        stored.d = word4(place, 0u);
    }
    if (SCALE_WORDS > 0u) {
        stored.scales = word4(place, SCALES_AT + place.k / SCALES_A_WORD);
    }
    return stored;
}

fn load4x4(i: u32, lanes: u32) -> Stored4x4 {
    let place = place_of(i, lanes);
    var stored = load_scales(place);
    if (UPPER_WORDS > 0u) {
        stored.upper = word4(place, UPPER_AT + place.k / UPPERS_A_WORD);
    }
    stored.codes = word4(place, CODES_AT + place.k / CODES_A_WORD);
    return stored;
}

// The codes of `stored`, of which upper bits are joined to lower ones.
fn codes_of(stored: Stored4x4) -> Codes {
    let low = codes4x4(stored.codes, stored.k % CODES_A_WORD * CODE_BITS, CODE_BITS);
    if (UPPER_WORDS == 0u) {
        return low;
    }
    return joined(low, codes4x4(stored.upper, stored.k % UPPERS_A_WORD * UPPER_BITS, UPPER_BITS), CODE_BITS);
}

fn widen4x4(stored: Stored4x4) -> mat4x4<f32> {
    return scaled4x4(stored, scales_of(stored));
}

// Eight numbers of K, of which the first is a multiple of eight: words that both halves share are loaded once.
fn numbers8x4(i: u32, lanes: u32, to_second: u32) -> Numbers8x4 {
    var first = load4x4(i, lanes);
    // Compilers then know its lower bits, and codes are shifted by constants.
    first.k &= ~7u;
    var second = first;
    second.k = first.k + 4u;
    if (CODES_A_WORD == 4u) {
        second.codes = word4(place_of(i, lanes), CODES_AT + first.k / 4u + 1u);
    }
    let scales = scales_of(first);
    return Numbers8x4(scaled4x4(first, scales), scaled4x4(second, scales));
}
