// A block of 32 rows x 4 columns times 4 numbers of K, where HELD lanes of a subgroup hold the rows: lane `l` has row
// `i * HELD + l` in `held[i]`.
//
// `subgroupBroadcast` wants a constant lane, so the rows are spelt out. Who imports this says that `Sums` is an array of 32.

// What a lane holds. Always by this name: a length written in two ways is two types to naga, and SPIR-V refuses a call
// that passes one for the other.
alias Held = array<vec4<f32>, 32u / HELD>;

fn multiply_held(
    sums: ptr<function, Sums>,
    held: Held,
    w0: vec4<f32>,
    w1: vec4<f32>,
    w2: vec4<f32>,
    w3: vec4<f32>,
) {
    var a = held;
    (*sums)[0] = dot_columns((*sums)[0], subgroupBroadcast(a[0u / HELD], 0u % HELD), w0, w1, w2, w3);
    (*sums)[1] = dot_columns((*sums)[1], subgroupBroadcast(a[1u / HELD], 1u % HELD), w0, w1, w2, w3);
    (*sums)[2] = dot_columns((*sums)[2], subgroupBroadcast(a[2u / HELD], 2u % HELD), w0, w1, w2, w3);
    (*sums)[3] = dot_columns((*sums)[3], subgroupBroadcast(a[3u / HELD], 3u % HELD), w0, w1, w2, w3);
    (*sums)[4] = dot_columns((*sums)[4], subgroupBroadcast(a[4u / HELD], 4u % HELD), w0, w1, w2, w3);
    (*sums)[5] = dot_columns((*sums)[5], subgroupBroadcast(a[5u / HELD], 5u % HELD), w0, w1, w2, w3);
    (*sums)[6] = dot_columns((*sums)[6], subgroupBroadcast(a[6u / HELD], 6u % HELD), w0, w1, w2, w3);
    (*sums)[7] = dot_columns((*sums)[7], subgroupBroadcast(a[7u / HELD], 7u % HELD), w0, w1, w2, w3);
    (*sums)[8] = dot_columns((*sums)[8], subgroupBroadcast(a[8u / HELD], 8u % HELD), w0, w1, w2, w3);
    (*sums)[9] = dot_columns((*sums)[9], subgroupBroadcast(a[9u / HELD], 9u % HELD), w0, w1, w2, w3);
    (*sums)[10] = dot_columns((*sums)[10], subgroupBroadcast(a[10u / HELD], 10u % HELD), w0, w1, w2, w3);
    (*sums)[11] = dot_columns((*sums)[11], subgroupBroadcast(a[11u / HELD], 11u % HELD), w0, w1, w2, w3);
    (*sums)[12] = dot_columns((*sums)[12], subgroupBroadcast(a[12u / HELD], 12u % HELD), w0, w1, w2, w3);
    (*sums)[13] = dot_columns((*sums)[13], subgroupBroadcast(a[13u / HELD], 13u % HELD), w0, w1, w2, w3);
    (*sums)[14] = dot_columns((*sums)[14], subgroupBroadcast(a[14u / HELD], 14u % HELD), w0, w1, w2, w3);
    (*sums)[15] = dot_columns((*sums)[15], subgroupBroadcast(a[15u / HELD], 15u % HELD), w0, w1, w2, w3);
    (*sums)[16] = dot_columns((*sums)[16], subgroupBroadcast(a[16u / HELD], 16u % HELD), w0, w1, w2, w3);
    (*sums)[17] = dot_columns((*sums)[17], subgroupBroadcast(a[17u / HELD], 17u % HELD), w0, w1, w2, w3);
    (*sums)[18] = dot_columns((*sums)[18], subgroupBroadcast(a[18u / HELD], 18u % HELD), w0, w1, w2, w3);
    (*sums)[19] = dot_columns((*sums)[19], subgroupBroadcast(a[19u / HELD], 19u % HELD), w0, w1, w2, w3);
    (*sums)[20] = dot_columns((*sums)[20], subgroupBroadcast(a[20u / HELD], 20u % HELD), w0, w1, w2, w3);
    (*sums)[21] = dot_columns((*sums)[21], subgroupBroadcast(a[21u / HELD], 21u % HELD), w0, w1, w2, w3);
    (*sums)[22] = dot_columns((*sums)[22], subgroupBroadcast(a[22u / HELD], 22u % HELD), w0, w1, w2, w3);
    (*sums)[23] = dot_columns((*sums)[23], subgroupBroadcast(a[23u / HELD], 23u % HELD), w0, w1, w2, w3);
    (*sums)[24] = dot_columns((*sums)[24], subgroupBroadcast(a[24u / HELD], 24u % HELD), w0, w1, w2, w3);
    (*sums)[25] = dot_columns((*sums)[25], subgroupBroadcast(a[25u / HELD], 25u % HELD), w0, w1, w2, w3);
    (*sums)[26] = dot_columns((*sums)[26], subgroupBroadcast(a[26u / HELD], 26u % HELD), w0, w1, w2, w3);
    (*sums)[27] = dot_columns((*sums)[27], subgroupBroadcast(a[27u / HELD], 27u % HELD), w0, w1, w2, w3);
    (*sums)[28] = dot_columns((*sums)[28], subgroupBroadcast(a[28u / HELD], 28u % HELD), w0, w1, w2, w3);
    (*sums)[29] = dot_columns((*sums)[29], subgroupBroadcast(a[29u / HELD], 29u % HELD), w0, w1, w2, w3);
    (*sums)[30] = dot_columns((*sums)[30], subgroupBroadcast(a[30u / HELD], 30u % HELD), w0, w1, w2, w3);
    (*sums)[31] = dot_columns((*sums)[31], subgroupBroadcast(a[31u / HELD], 31u % HELD), w0, w1, w2, w3);
}
