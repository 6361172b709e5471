//! The memory plan and what it promises: no two live temporaries share a buffer, and a run allocates nothing.

use crate::common::recordings::{every_op, linear_layer};
use crate::common::{Bands, EPSILON, Lab, Random, Tolerance, assert_close};
use ralu::gpu::{Program, SlotPool, block_on};
use ralu::ops::{self, Activation, Affine, Attention, Epilogue, NormKind, Write};
use ralu::tensor::{
    Access, Binding, BufferRef, Caps, Command, Dispatch, MAX_WORKGROUPS, PipelineKey, Recorder,
    Recording, ResidentIds, Storage, TempId, Tensor, fold_groups, plan_memory, row_pieces,
    split_rows,
};

// ---- slots -----------------------------------------------------------------------------------

/// The temporaries that a command names.
fn temps_of(command: &Command) -> Vec<usize> {
    let temp = |(buffer, _): (BufferRef, bool)| match buffer {
        BufferRef::Temp(id) => Some(id.0 as usize),
        BufferRef::Resident(..) => None,
    };
    command.buffers().into_iter().filter_map(temp).collect()
}

/// Checks a plan against the definition: at every command, what was used before or now and will be used
/// now or later is alive.
#[track_caller]
fn check_plan(recording: &Recording) {
    let label = &recording.label;
    let plan = plan_memory(recording);
    assert_eq!(plan, plan_memory(recording), "{label}: not a pure function");
    let sizes = &recording.temp_bytes;
    assert_eq!(plan.slot_of.len(), sizes.len(), "{label}");
    assert!(plan.slots.is_sorted_by(|a, b| a >= b), "{label}: {:?} not descending", plan.slots);

    let uses: Vec<Vec<usize>> = recording.commands.iter().map(temps_of).collect();
    let alive_at = |now: usize, temp: usize| {
        uses[..=now].iter().any(|u| u.contains(&temp))
            && uses[now..].iter().any(|u| u.contains(&temp))
    };
    let mut most_alive = 0;
    for now in 0..uses.len() {
        let alive: Vec<usize> = (0..sizes.len()).filter(|t| alive_at(now, *t)).collect();
        most_alive = most_alive.max(alive.iter().map(|t| sizes[*t]).sum());
        for (i, a) in alive.iter().enumerate() {
            let slot = plan.slot_of[*a].unwrap_or_else(|| panic!("{label}: {a} has no slot"));
            assert!(sizes[*a] <= plan.slots[slot], "{label}: {a} does not fit into slot {slot}");
            for b in &alive[i + 1..] {
                assert_ne!(
                    plan.slot_of[*a], plan.slot_of[*b],
                    "{label}: {a} ({}) and {b} ({}) share a slot at command {now}",
                    recording.temp_labels[*a], recording.temp_labels[*b]
                );
            }
        }
    }
    for temp in 0..sizes.len() {
        let used = uses.iter().any(|u| u.contains(&temp));
        assert_eq!(plan.slot_of[temp].is_some(), used, "{label}: {temp}");
    }
    assert!(plan.total_bytes() >= most_alive, "{label}: less than what is alive at once");
    assert!(plan.total_bytes() <= sizes.iter().sum(), "{label}: more than without sharing");
}

fn random_recording(seed: u64) -> Recording {
    let mut random = Random::new(seed);
    let n_temps = 1 + random.below(30);
    let temp_bytes: Vec<u64> =
        (0..n_temps).map(|_| 16 * (1 + random.below(1 << (1 + seed % 12)) as u64)).collect();
    // Some recordings use neighbouring temporaries, as models do, others all over the place.
    let span = 1 + random.below(n_temps);
    let n_commands = 1 + random.below(60);
    let commands = (0..n_commands)
        .map(|at| {
            let from = at * n_temps / n_commands;
            let mut pick =
                || BufferRef::Temp(TempId(((from + random.below(span)) % n_temps) as u32));
            let buffers: Vec<BufferRef> = (0..1 + at % 4).map(|_| pick()).collect();
            match buffers[..] {
                [src, dst] => Command::Copy { src, src_offset: 0, dst, dst_offset: 0, bytes: 4 },
                _ => Command::Dispatch(Dispatch {
                    pipeline: PipelineKey {
                        shader: "none",
                        entry: "main",
                        roles: vec![],
                        overrides: vec![],
                    },
                    params: vec![],
                    bindings: buffers
                        .iter()
                        .map(|buffer| Binding { buffer: *buffer, access: Access::Read })
                        .collect(),
                    groups: [1; 3],
                    flops: 0.0,
                    label: String::new(),
                }),
            }
        })
        .collect();
    Recording {
        label: format!("random {seed}"),
        commands,
        temp_labels: (0..n_temps).map(|i| format!("t{i}")).collect(),
        works: vec![],
        temp_bytes,
    }
}

#[test]
fn no_two_live_temporaries_share_a_slot() {
    (0..2000).for_each(|seed| check_plan(&random_recording(seed)));
    every_op().iter().for_each(|(_, recording)| check_plan(recording));
}

/// A transformer block, in one band and in many.
#[test]
fn a_block_reuses_its_memory() {
    for max_binding_bytes in [128 << 20, 40 << 10] {
        let caps = Caps { max_binding_bytes, ..Caps::default() };
        let record = |blocks: usize| {
            let r = Recorder::new(caps);
            let ids = ResidentIds::default();
            let x = r.resident(&ids.matrix("x", 100, 64, u64::MAX));
            (0..blocks).for_each(|i| r.scope(format!("block.{i}"), || block(x, &ids)));
            r.finish("blocks")
        };
        let (one, three) = (record(1), record(3));
        check_plan(&one);
        check_plan(&three);
        let (one, three) = (plan_memory(&one), plan_memory(&three));
        assert_eq!(one.slots, three.slots, "three blocks need the memory of one");
    }
}

fn block(x: Tensor<'_>, ids: &ResidentIds) {
    let layer = |n, k| linear_layer(ids, n, k, Storage::F16, u64::MAX);
    let r = x.recorder();
    let normed = ops::norm("norm", x, NormKind::Layer { eps: 1e-6 }, Affine::None);
    // k and v lie in one buffer each, whatever the limit: here they do as they are small.
    let [q, k, v] =
        ["q", "k", "v"].map(|name| ops::linear(name, normed, &layer(64, 64), Activation::Identity));
    let attended = r.temp("attended", x.rows(), 64);
    let options = Attention { head_dim: 16, scale: 0.25, causal: false, bias: None };
    ops::attention("attention", [q, k, v], attended, options);
    let add = Epilogue { write: Write::Add, ..Default::default() };
    ops::linear_into("out", attended, &layer(64, 64), x, add);
    let hidden = ops::linear("up", x, &layer(256, 64), Activation::GeluTanh);
    ops::linear_into("down", hidden, &layer(64, 256), x, add);
}

// ---- bands -----------------------------------------------------------------------------------

#[test]
fn split_rows_covers_all_rows_in_few_near_equal_bands() {
    let mut random = Random::new(5);
    let fixed = [(1, 1, 16, 1), (10, 1, 16, 16), (10, 1, 16, 160), (10, 1, 16, 159), (12, 4, 1, 9)];
    let random = (0..5000).map(|_| {
        (
            1 + random.below(500),
            1 + random.below(20),
            4 * (1 + random.below(300)) as u64,
            1 + random.below(1 << 15) as u64,
        )
    });
    for (rows, granule, row_bytes, max_bytes) in fixed.into_iter().chain(random.collect::<Vec<_>>())
    {
        let case = format!("split_rows({rows}, {granule}, {row_bytes}, {max_bytes})");
        let bands = split_rows(rows, granule, row_bytes, max_bytes);
        let mut next = 0;
        for band in &bands {
            assert_eq!(band.row0, next, "{case}: a gap");
            assert_eq!(band.row0 % granule, 0, "{case}: a border inside a granule");
            assert!(band.rows > 0, "{case}: an empty band");
            let fits = band.rows as u64 * row_bytes <= max_bytes;
            assert!(fits || band.rows <= granule, "{case}: {band:?} is too large");
            next = band.row0 + band.rows;
        }
        assert_eq!(next, rows, "{case}: rows are missing");
        let units = rows.div_ceil(granule);
        let fit = ((max_bytes / (row_bytes * granule as u64)) as usize).max(1);
        assert_eq!(bands.len(), units.div_ceil(fit), "{case}: not as few bands as possible");
        let sizes = || bands.iter().map(|band| band.rows.div_ceil(granule));
        let spread = sizes().max().unwrap() - sizes().min().unwrap();
        assert!(spread <= 1, "{case}: bands differ by {spread} granules");
    }
}

/// A row lies where its band says, whichever views are cut together and however long the pieces may be.
#[test]
fn row_pieces_agree_with_single_rows() {
    let mut random = Random::new(11);
    for _ in 0..500 {
        let caps =
            Caps { max_binding_bytes: 64 * (1 + random.below(60) as u64), ..Caps::default() };
        let r = Recorder::new(caps);
        let (height, width) = (1 + random.below(12), 1 + random.below(6));
        let rows = 1 + random.below(height * width);
        let views = [
            r.temp("a", height * width, 16),
            r.image("b", height, width, 8),
            r.temp("c", height * width + 3, 4),
        ]
        .map(|tensor| part_of(tensor, rows, &mut random));
        let max_rows = 1 + random.below(20);
        let pieces = row_pieces(&views, max_rows);
        let mut next = 0;
        for piece in &pieces {
            assert_eq!(piece.row0, next, "a gap");
            assert!((1..=max_rows).contains(&piece.rows), "{} rows in a piece", piece.rows);
            for (view, (buffer, at)) in views.iter().zip(&piece.at) {
                for row in 0..piece.rows {
                    let from = piece.row0 + row;
                    let alone = view.row_range(from..from + 1).single().unwrap();
                    assert_eq!(alone, (*buffer, at + row * view.row_stride()), "row {from}");
                }
            }
            next += piece.rows;
        }
        assert_eq!(next, rows, "rows are missing");
    }
}

fn part_of<'r>(tensor: Tensor<'r>, rows: usize, random: &mut Random) -> Tensor<'r> {
    let row0 = random.below(tensor.rows() - rows + 1);
    let col0 = 4 * random.below(tensor.cols() / 4);
    tensor.row_range(row0..row0 + rows).col_range(col0..tensor.cols())
}

/// A picture in bands keeps room for the image rows above and below each of them.
#[test]
fn an_image_in_bands_has_a_halo() {
    let (height, width, channels) = (10, 6, 8);
    let image_row = (width * channels * 4) as u64;
    let caps = Caps { max_binding_bytes: 5 * image_row, ..Caps::default() };
    let r = Recorder::new(caps);
    let image = r.image("image", height, width, channels);
    (0..3).for_each(|upper| r.exchange_halo(image, upper));
    assert!(image.single().is_none());
    // Five image rows fit: three of a band, one above and one below. 10 rows, so four bands of 2 and 3.
    let starts: Vec<usize> =
        row_pieces(&[image], usize::MAX).iter().map(|p| p.row0 / width).collect();
    assert_eq!(starts, [0, 2, 5, 7]);
    let offsets: Vec<usize> = row_pieces(&[image], usize::MAX).iter().map(|p| p.at[0].1).collect();
    assert_eq!(offsets, [0, 48, 48, 48], "all but the first have an image row above");
    let recording = r.finish("image");
    assert_eq!(recording.temp_bytes, [3, 5, 4, 4].map(|rows| rows * image_row));
    assert_eq!(recording.commands.len(), 2 * 3, "two copies at each border");
    check_plan(&recording);
}

#[test]
fn fold_groups_stays_in_the_limits_and_wastes_little() {
    let max = MAX_WORKGROUPS as usize;
    for count in [0, 1, 2, max - 1, max, max + 1, 2 * max, 2 * max + 1, 1_000_003, max * max] {
        let [x, y, z] = fold_groups(count);
        assert!((1..=MAX_WORKGROUPS).contains(&x) && (1..=MAX_WORKGROUPS).contains(&y), "{count}");
        assert_eq!(z, 1, "{count}");
        let groups = x as usize * y as usize;
        assert!(groups >= count && groups < count.max(1) + y as usize, "{count}: {groups} groups");
    }
    assert_eq!(fold_groups(max), [MAX_WORKGROUPS, 1, 1]);
}

#[test]
fn views_of_views_and_labels() {
    let r = Recorder::new(Caps::default());
    let x = r.scope("double", || r.scope("3", || r.temp("img", 10, 24)));
    let [a, b, c] = x.chunk_cols::<3>();
    assert_eq!([a.cols(), b.cols(), c.cols()], [8; 3]);
    let view = b.row_range(2..9).row_range(1..3).col_range(4..8);
    assert_eq!((view.rows(), view.cols(), view.row_stride()), (2, 4, 24));
    assert_eq!(view.single().unwrap().1, 3 * 24 + 12);
    assert!(x.is_whole() && x.row_range(0..3).is_whole());
    assert!(!a.is_whole() && !x.row_range(1..3).is_whole());
    assert_eq!(r.finish("r").temp_labels, ["double.3.img"]);
}

// ---- on the GPU ------------------------------------------------------------------------------

#[test]
fn a_later_stage_allocates_nothing() {
    let lab = crate::common::block_on(Lab::new());
    let caps = lab.caps();
    let [small, large] = [64, 512].map(|rows| {
        let x =
            crate::common::block_on(lab.matrix("x", rows, 64, &vec![0.5; rows * 64], Bands::One));
        let r = Recorder::new(caps);
        let ids = &lab.ids;
        let t = r.resident(&x);
        chain(t, ids, &lab);
        r.finish("chain")
    });
    let plans = [plan_memory(&small), plan_memory(&large)];
    let pool = SlotPool::default();
    let run = async {
        let allocated = pool.reserve(&lab.gpu, &[&plans[0], &plans[1]]).await?;
        assert_eq!(allocated, pool.bytes());
        assert!(allocated >= plans[1].total_bytes());
        assert_eq!(pool.reserve(&lab.gpu, &[&plans[1]]).await?, 0, "reserved twice");
        for recording in [&small, &large] {
            let before = lab.gpu.counters();
            let program = Program::compile(&lab.gpu, &lab.store, &pool, recording).await?;
            let compiled = lab.gpu.counters();
            // One buffer holds the parameters of all dispatches.
            assert_eq!(compiled.buffers, before.buffers + 1, "compiling allocated temporaries");
            assert_eq!(compiled.bytes_alive, before.bytes_alive, "compiling allocated temporaries");
            for _ in 0..2 {
                program.run(&lab.gpu).await?;
            }
            let after = lab.gpu.counters();
            assert_eq!(
                (after.buffers, after.bind_groups, after.pipelines),
                (compiled.buffers, compiled.bind_groups, compiled.pipelines),
                "running created objects"
            );
            assert!(after.submissions > compiled.submissions);
        }
        Ok::<_, ralu::gpu::Error>(())
    };
    block_on(&lab.gpu, run).unwrap();
}

/// `x += linear(norm(x))`, twice.
fn chain(x: Tensor<'_>, ids: &ResidentIds, lab: &Lab) {
    for _ in 0..2 {
        let layer = linear_layer(ids, 64, 64, Storage::F16, u64::MAX);
        block_on(&lab.gpu, lab.store.create_packed(&lab.gpu, &layer.weight)).unwrap();
        let layer = ops::LinearLayer { bias: None, ..layer };
        let normed = ops::norm("norm", x, NormKind::Layer { eps: 1e-6 }, Affine::None);
        let add = Epilogue { write: Write::Add, ..Default::default() };
        ops::linear_into("out", normed, &layer, x, add);
    }
}

/// Programs overlay each other in the pool, and one that was compiled before the pool grew still runs.
#[test]
fn programs_take_turns_in_one_pool() {
    let lab = crate::common::block_on(Lab::new());
    let pool = SlotPool::default();
    let mut random = Random::new(1);
    let stage = |rows: usize, activation, random: &mut Random| {
        let values = random.numbers(rows * 64, 3.0);
        let x = crate::common::block_on(lab.matrix("x", rows, 64, &values, Bands::One));
        let zeros = vec![0.0; rows * 64];
        let y = crate::common::block_on(lab.matrix("y", rows, 64, &zeros, Bands::One));
        let r = Recorder::new(lab.caps());
        let activated = ops::activate("a", r.resident(&x), activation);
        let kind = NormKind::Layer { eps: 1e-6 };
        let normed = ops::norm("b", activated, kind, Affine::None);
        ops::norm_into("y", normed, kind, Affine::None, r.resident(&y));
        let recording = r.finish("stage");
        let program = Program::compile(&lab.gpu, &lab.store, &pool, &recording);
        let program = block_on(&lab.gpu, program).unwrap();
        let expected: Vec<f64> = values
            .iter()
            .map(|v| ops::reference::activate(f64::from(*v), activation) as f32)
            .collect::<Vec<_>>()
            .chunks_exact(64)
            .flat_map(|row| {
                let once = ops::reference::norm(row, kind, None, None);
                let once: Vec<f32> = once.iter().map(|v| *v as f32).collect();
                ops::reference::norm(&once, kind, None, None)
            })
            .collect();
        (program, x, y, expected)
    };
    let stages = [
        stage(10, Activation::Identity, &mut random),
        stage(100, Activation::Silu, &mut random),
        stage(40, Activation::GeluErf, &mut random),
    ];
    for turn in [0, 1, 2, 0, 2, 1] {
        let (program, _, y, expected) = &stages[turn];
        block_on(&lab.gpu, async {
            lab.store.write(&lab.gpu, y, &vec![0.0; expected.len()]).await?;
            program.run(&lab.gpu).await
        })
        .unwrap();
        let tolerance = Tolerance::sum(64).plus(Tolerance::absolute(1e-5 + EPSILON));
        let actual = crate::common::block_on(lab.read(y));
        assert_close(&format!("stage {turn}"), [y.rows, 64], &actual, expected, tolerance);
    }
}
