//! The map of edges, against OpenCV's.

use ralu::sampling::edges::{canny, gray_u8};
use ralu::sampling::{EdgeMap, Error, GrayMap, Grid, edge_density, edge_map, gradient_sum};

fn check_edges(name: &str, gray: &[u8], side: usize, want: (usize, usize), blocks: &[u32]) {
    let map = canny(gray, side, side).unwrap();
    let places: usize =
        map.edges.iter().enumerate().filter(|(_, e)| **e == 1).map(|(i, _)| i).sum();
    assert_eq!((map.count(), places), want, "{name}");
    let grid = Grid { rows: side / 16, cols: side / 16 };
    let density = edge_density(&map, grid).unwrap();
    assert_eq!(density.iter().sum::<u32>() as usize, want.0, "{name}");
    if !blocks.is_empty() {
        assert_eq!(density, blocks, "{name}");
    }
}

/// Counts, index sums and block counts are those of OpenCV's `Canny(gray, 100, 200)`.
#[test]
fn canny_as_opencv_has_it() {
    let picture = |side: i32, f: &dyn Fn(i32, i32) -> u8| -> Vec<u8> {
        (0..side * side).map(|i| f(i % side, i / side)).collect()
    };
    let disc = picture(32, &|x, y| {
        if (x - 16).pow(2) + (y - 16).pow(2) < 100 { 255 } else { 20 }
    });
    check_edges("disc", &disc, 32, (64, 33561), &[15, 16, 16, 17]);

    let stripes = picture(32, &|x, y| ((37 * x + 61 * y) % 256) as u8);
    check_edges("stripes", &stripes, 32, (436, 222856), &[111, 107, 111, 107]);

    // A linear congruential generator, its upper bits in raster order.
    let mut state = 1u32;
    let noise: Vec<u8> = (0..512 * 512)
        .map(|_| {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12345) & 0x7FFF_FFFF;
            (state >> 16) as u8
        })
        .collect();
    // 5 x 5 box with replicated border, rounded down.
    let blur = |side: i32| {
        picture(side, &|x, y| {
            let mut sum = 0;
            for dy in -2..=2 {
                for dx in -2..=2 {
                    let (x, y) = ((x + dx).clamp(0, side - 1), (y + dy).clamp(0, side - 1));
                    sum += u32::from(noise[(y * side + x) as usize]);
                }
            }
            (sum / 25) as u8
        })
    };
    check_edges("noise", &noise[..64 * 64], 64, (1587, 3270798), &[]);
    // Large enough for each of the fixed-point tangents to decide somewhere.
    check_edges("large noise", &noise, 512, (96563, 12663741875), &[]);
    check_edges("large blur", &blur(512), 512, (15489, 2043704559), &[]);

    #[rustfmt::skip]
    let blocks = [
        40, 15, 0, 16,
        11, 21, 11, 0,
        22, 4, 0, 0,
        0, 22, 0, 15,
    ];
    check_edges("blurred noise", &blur(64), 64, (177, 297518), &blocks);
}

#[test]
fn a_weak_edge_needs_a_strong_one() {
    // A step whose gradient is 4 * 40 = 160, between the thresholds, ...
    let step = |height: usize, at: usize| -> Vec<u8> {
        (0..height * 32)
            .map(|i| {
                if i % 32 < 16 {
                    0
                } else if i / 32 < at {
                    60
                } else {
                    40
                }
            })
            .collect()
    };
    assert_eq!(canny(&step(32, 0), 32, 32).unwrap().count(), 0);
    // ... and the same line continued by one of 4 * 60 = 240, which it touches.
    let map = canny(&step(32, 16), 32, 32).unwrap();
    assert_eq!(map.count(), 32);
    assert_eq!(map.gradient[31 * 32 + 16], 160);
    let grid = Grid { rows: 2, cols: 2 };
    let score = gradient_sum(&map, grid).unwrap();
    // Two columns per row are not flat; the row where the halves meet differs a little.
    assert!(score[0] > score[2] && score[2] > 16.0 * 160.0 * 0.9);
}

#[test]
fn grey_maps() {
    // One pixel of each: black, mid grey, white, out of range, not a number.
    let levels = [-1.0, 0.0, 1.0, 7.0, f32::NAN];
    let image = [levels, levels, levels].concat();
    let gray = |map| gray_u8(&image, 5, 1, map).unwrap();
    assert_eq!(gray(GrayMap::Official), [0, 0, 255, 255, 0]);
    assert_eq!(gray(GrayMap::Fixed), [0, 127, 255, 255, 0]);
    // 0.299 R, 0.587 G, 0.114 B, times 255, cut.
    let primaries = [
        1.0, 0.0, 0.0, //
        0.0, 1.0, 0.0, //
        0.0, 0.0, 1.0,
    ];
    let gray = gray_u8(&primaries, 3, 1, GrayMap::Official).unwrap();
    assert_eq!(gray, [76, 149, 29]);
}

/// The official map turns the darker half black, so a dark picture has edges only when fixed.
#[test]
fn dark_edges_need_the_fixed_grey_map() {
    let plane: Vec<f32> = (0..32 * 32).map(|i| if i % 32 < 16 { -1.0 } else { -0.1 }).collect();
    let image = [&plane[..]; 3].concat();
    let count = |map| edge_map(&image, 32, 32, map).unwrap().count();
    assert_eq!(count(GrayMap::Official), 0);
    assert_eq!(count(GrayMap::Fixed), 32);
}

#[test]
fn edges_reject_wrong_sizes() {
    assert!(gray_u8(&[0.0; 5], 2, 1, GrayMap::Fixed).is_err());
    assert!(canny(&[0; 5], 2, 2).is_err());
    assert!(canny(&[], usize::MAX, 2).is_err());
    // An empty picture is no mistake here; a grid can never match it.
    let empty = canny(&[], 0, 0).unwrap();
    let grid = Grid { rows: 1, cols: 1 };
    assert!(matches!(edge_density(&empty, grid), Err(Error::PictureGrid { .. })));
    let broken = EdgeMap { width: 16, height: 16, edges: vec![0; 3], gradient: vec![0; 256] };
    assert!(edge_density(&broken, grid).is_err());
    assert!(gradient_sum(&broken, grid).is_err());
}
