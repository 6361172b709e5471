// The levels of NF4.

fn of_two(even: f32, odd: f32, is_odd: vec4<bool>) -> vec4<f32> {
    return select(vec4<f32>(even), vec4<f32>(odd), is_odd);
}

// The level of each code. A bit of the codes at a time: a table in memory would cost a read for each number.
fn level4(code: vec4<u32>) -> vec4<f32> {
    let one = (code & vec4<u32>(1u)) != vec4<u32>();
    let two = (code & vec4<u32>(2u)) != vec4<u32>();
    let four = (code & vec4<u32>(4u)) != vec4<u32>();
    let low = select(
        select(of_two(-1.0, -0.6961928, one), of_two(-0.52507305, -0.3949175, one), two),
        select(of_two(-0.28444138, -0.18477343, one), of_two(-0.091050036, 0.0, one), two), four);
    let high = select(
        select(of_two(0.0795803, 0.1609302, one), of_two(0.2461123, 0.33791524, one), two),
        select(of_two(0.44070983, 0.562617, one), of_two(0.72295684, 1.0, one), two), four);
    return select(low, high, (code & vec4<u32>(8u)) != vec4<u32>());
}
