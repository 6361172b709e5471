// Scales of Q4_K and Q5_K: `(d scale) q - dmin min`, from the f16 `d` and `dmin` in a word, and from a word with a byte of scale
// and one of minimum for 32 numbers, and two for the next 32.

const HAS_OFFSET: bool = true;

fn scales_of(stored: Stored4x4) -> Scales {
    let own = stored.k / 32u % 2u * 2u;
    let scale = half4(stored.d, 0u) * number4(byte4(stored.scales, own));
    let least = half4(stored.d, 1u) * number4(byte4(stored.scales, own + 1u));
    return Scales(scale, -least);
}
