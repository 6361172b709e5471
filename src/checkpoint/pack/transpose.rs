//! Rows to tiles. The bytes of a whole model pass through here on their way to the GPU, so this is written for memory, not for
//! the eye: sixteen numbers at a time, in blocks that stay in the first-level cache.

/// Numbers of a row that are transposed together: two cache lines of 16-bit numbers.
const BLOCK: usize = 64;

/// Rows of units `[rows][K]` to `[K][tile]`. A unit is a number, or a word of a block, of 1, 2 or 4 bytes.
pub(super) fn transpose(rows: &[&[u8]], unit_bytes: usize, tile: usize, packed: &mut [u8]) {
    match unit_bytes {
        1 => transpose_narrow::<1>(rows, tile, packed),
        2 => transpose_narrow::<2>(rows, tile, packed),
        _ => transpose_32(rows, tile, packed),
    }
}

/// Puts the blocks of a row, from number `first` on, in column `r` of `[K][tile]`.
fn place(
    row: &[u8],
    first: usize,
    block_bytes: usize,
    (r, tile): (usize, usize),
    packed: &mut [u8],
) {
    for (i, block) in row.chunks_exact(block_bytes).enumerate().skip(first) {
        packed[(i * tile + r) * block_bytes..][..block_bytes].copy_from_slice(block);
    }
}

/// Rows of numbers of `BYTES` bytes, 1 or 2, `[rows][K]` to `[K][tile]`.
fn transpose_narrow<const BYTES: usize>(rows: &[&[u8]], tile: usize, packed: &mut [u8]) {
    let k = rows.first().map_or(0, |row| row.len() / BYTES);
    let whole = k - k % 4;
    for block in (0..whole).step_by(BLOCK) {
        let columns = BYTES * block..BYTES * (block + BLOCK).min(whole);
        let packed = &mut packed[block * tile * BYTES..];
        for (i, four) in rows.chunks_exact(4).enumerate() {
            let [a, b, c, d] =
                [0, 1, 2, 3].map(|row| four[row][columns.clone()].chunks_exact(4 * BYTES));
            let quads = a.zip(b).zip(c.zip(d));
            for (((a, b), (c, d)), packed) in quads.zip(packed.chunks_mut(4 * tile * BYTES)) {
                let columns = transpose_4x4::<BYTES>([a, b, c, d].map(word::<BYTES>));
                for (column, packed) in columns.iter().zip(packed.chunks_exact_mut(tile * BYTES)) {
                    let at = 4 * BYTES * i;
                    packed[at..at + 4 * BYTES].copy_from_slice(&column.to_le_bytes()[..4 * BYTES]);
                }
            }
        }
    }
    // What is left when neither is a multiple of 4.
    let rest = rows.len() - rows.len() % 4;
    for (r, row) in rows.iter().enumerate() {
        place(row, if r < rest { whole } else { 0 }, BYTES, (r, tile), packed);
    }
}

/// Four numbers of `BYTES` bytes, 1 or 2, as the low bytes of a word. Lengths are constants, or each would be a call.
fn word<const BYTES: usize>(bytes: &[u8]) -> u64 {
    if BYTES == 1 {
        let mut word = [0; 4];
        word.copy_from_slice(bytes);
        return u32::from_le_bytes(word).into();
    }
    let mut word = [0; 8];
    word.copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// Four rows of four numbers of `BYTES` bytes, as columns. Two rounds of swaps: single numbers, then pairs.
fn transpose_4x4<const BYTES: usize>([a, b, c, d]: [u64; 4]) -> [u64; 4] {
    let (one, two) = (8 * BYTES, 16 * BYTES);
    let number = (1 << one) - 1;
    let even = number | (number << two);
    let odd = even << one;
    let low = (1 << two) - 1;
    let high = low << two;
    // [a0 b0 a2 b2], [a1 b1 a3 b3] and the same of c and d.
    let (ab_even, ab_odd) = ((a & even) | ((b & even) << one), ((a >> one) & even) | (b & odd));
    let (cd_even, cd_odd) = ((c & even) | ((d & even) << one), ((c >> one) & even) | (d & odd));
    [
        (ab_even & low) | (cd_even << two),
        (ab_odd & low) | (cd_odd << two),
        (ab_even >> two) | (cd_even & high),
        (ab_odd >> two) | (cd_odd & high),
    ]
}

/// Rows of 32-bit numbers `[rows][K]` to `[K][tile]`.
fn transpose_32(rows: &[&[u8]], tile: usize, packed: &mut [u8]) {
    let k = rows.first().map_or(0, |row| row.len() / 4);
    for block in (0..k).step_by(BLOCK / 2) {
        let columns = 4 * block..4 * (block + BLOCK / 2).min(k);
        let packed = &mut packed[block * tile * 4..];
        for (i, four) in rows.chunks(4).enumerate() {
            let at = 16 * i;
            if let [a, b, c, d] = four {
                let [a, b, c, d] = [a, b, c, d].map(|row| row[columns.clone()].chunks_exact(4));
                let quads = a.zip(b).zip(c.zip(d));
                for (((a, b), (c, d)), packed) in quads.zip(packed.chunks_exact_mut(tile * 4)) {
                    let packed = &mut packed[at..at + 16];
                    packed[0..4].copy_from_slice(a);
                    packed[4..8].copy_from_slice(b);
                    packed[8..12].copy_from_slice(c);
                    packed[12..16].copy_from_slice(d);
                }
                continue;
            }
            for (r, row) in four.iter().enumerate() {
                let values = row[columns.clone()].chunks_exact(4);
                for (value, packed) in values.zip(packed.chunks_exact_mut(tile * 4)) {
                    packed[at + 4 * r..at + 4 * r + 4].copy_from_slice(value);
                }
            }
        }
    }
}
