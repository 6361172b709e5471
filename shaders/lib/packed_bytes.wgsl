// Codes of a weight in blocks as bytes, eight numbers of K x four outputs: `code` alone, which `scales_of` makes a number of.
//
// Two words of four bytes for each output. Codes of 8 bits are in the order of K; of smaller ones the first word has numbers 0, 2,
// 4 and 6, the second 1, 3, 5 and 7: half bytes fall apart so, by a mask. x has the same order (quantise_rows.wgsl).

// As they are stored: no load is waited for.
struct Stored8x4 {
    k: u32,
    upper: vec4<u32>,
    first: vec4<u32>,
    second: vec4<u32>,
}

struct Bytes8x4 {
    first: vec4<u32>,
    second: vec4<u32>,
}

// `place.k` is a multiple of eight.
fn load_codes(place: Place) -> Stored8x4 {
    var stored = Stored8x4();
    stored.k = place.k;
    if (UPPER_WORDS > 0u) {
        stored.upper = word4(place, UPPER_AT + place.k / UPPERS_A_WORD);
    }
    stored.first = word4(place, CODES_AT + place.k / CODES_A_WORD);
    if (CODE_BITS == 8u) {
        stored.second = word4(place, CODES_AT + place.k / CODES_A_WORD + 1u);
    }
    return stored;
}

// Bits 0, 2, 4 and 6 as bit 4 of four bytes. Copies of them, 6 bits apart, are added: what meets in a place is carried to one that
// is not taken.
fn fifth_bits(bits: vec4<u32>) -> vec4<u32> {
    return ((bits & vec4<u32>(0x55u)) * 0x00410410u) & vec4<u32>(0x10101010u);
}

fn bytes_of(stored: Stored8x4) -> Bytes8x4 {
    if (CODE_BITS == 8u) {
        return Bytes8x4(stored.first, stored.second);
    }
    let half_bytes = vec4<u32>(0x0f0f0f0fu);
    let even = stored.first & half_bytes;
    let odd = (stored.first >> vec4<u32>(4u)) & half_bytes;
    if (UPPER_WORDS == 0u) {
        return Bytes8x4(even, odd);
    }
    let upper = stored.upper >> vec4<u32>(stored.k % 32u);
    return Bytes8x4(even | fifth_bits(upper), odd | fifth_bits(upper >> vec4<u32>(1u)));
}
