//! ralu as a racer: its public ops, its FLUX blocks and its pipeline, on the best adapter there is.

use half::f16;
use race::case::{Case, Weights as Stored};
use race::expected::{QUERY_SCALE, stored, weight_scale};
use race::numbers::{self, Operand};
use race::protocol::{Hello, Racer, serve};
use ralu::gpu::{self, AdapterChoice, Gpu, Program, SlotPool, Store, block_on};
use ralu::checkpoint::pack::{Packer, vector};
use ralu::checkpoint::source::{Folder, Memory, Source};
use ralu::checkpoint::weights::{Manifest, Weights};
use ralu::models::config::TransformerConfig;
use ralu::models::denoiser::{Inputs, Positions};
use ralu::models::modulation::Conditions;
use ralu::models::flux1::FluxConfig;
use ralu::models::layers::{
    LoadContext, Loader, Precision, TIME_CHANNELS, Upload, timestep_embedding,
};
use ralu::ops::{Attention, attention, conv2d, linear_into};
use ralu::pipeline::{Event, Options, Pipeline, RaluChoice, Request, Rng};
use ralu::tensor::{Recorder, Recording, Resident, ResidentIds, Tensor};
use safetensors::tensor::{Dtype, TensorView};

type Result<T, E = String> = std::result::Result<T, E>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The adapter is opened once; a picture's pipeline gets a handle of its own, as it keeps it.
async fn open() -> Result<Gpu> {
    Gpu::open(&AdapterChoice::default()).await.map_err(text)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let gpu = pollster::block_on(open())?;
    let report = gpu.report();
    let hello = Hello {
        version: format!("ralu, wgpu {}", env!("RACE_WGPU")),
        device: format!("{}, {}, {}", report.name, report.driver, report.backend),
    };
    let mut racer = Ralu { gpu, case: None };
    Ok(serve(&hello, &mut racer)?)
}

struct Ralu {
    gpu: Gpu,
    case: Option<Prepared>,
}

enum Prepared {
    Op(Box<Op>),
    Picture { pipeline: Box<Pipeline>, request: Box<Request>, rgb: Vec<u8> },
}

/// What is recorded anew for each number of repeats: programs are cheap, operands are not.
type Record = Box<dyn for<'r> Fn(&'r Recorder, Tensor<'r>)>;

struct Op {
    store: Store,
    pool: SlotPool,
    y: Resident,
    record: Record,
    programs: Vec<(usize, Program)>,
}

impl Racer for Ralu {
    fn prepare(&mut self, case: &Case) -> Result<String> {
        self.case = Some(match case {
            Case::Picture { folder, prompt, width, height, steps, seed } => {
                let model = Folder::open(folder).map_err(text)?;
                let gpu = pollster::block_on(open())?;
                let pipeline =
                    Pipeline::open(gpu, Box::new(model), Options::default()).map_err(text)?;
                let mut request =
                    Request::new(prompt).size(*width, *height).ralu(RaluChoice::Off).seed(*seed);
                request.steps = Some(*steps);
                request.rng = Rng::Torch;
                let (pipeline, request) = (Box::new(pipeline), Box::new(request));
                Prepared::Picture { pipeline, request, rgb: Vec::new() }
            }
            _ => Prepared::Op(Box::new(self.op(case)?)),
        });
        Ok(String::new())
    }

    fn run(&mut self, repeats: usize) -> Result<()> {
        match self.case.as_mut().ok_or("nothing is prepared")? {
            Prepared::Op(op) => op.run(&self.gpu, repeats).map_err(text),
            Prepared::Picture { pipeline, request, rgb } => {
                for _ in 0..repeats {
                    let mut run = pipeline.start((**request).clone()).map_err(text)?;
                    while let Some(event) = block_on(pipeline.gpu(), run.next()).map_err(text)? {
                        if let Event::Image { picture, .. } = event {
                            rgb.clone_from(&picture.rgb);
                        }
                    }
                }
                Ok(())
            }
        }
    }

    fn result(&mut self) -> Result<Vec<f32>> {
        match self.case.as_ref().ok_or("nothing is prepared")? {
            Prepared::Op(op) => block_on(&self.gpu, op.store.read(&self.gpu, &op.y)).map_err(text),
            Prepared::Picture { rgb, .. } => Ok(rgb.iter().map(|byte| f32::from(*byte)).collect()),
        }
    }

    fn free(&mut self) {
        self.case = None;
    }
}

impl Op {
    fn run(&mut self, gpu: &Gpu, repeats: usize) -> Result<(), gpu::Error> {
        if !self.programs.iter().any(|(n, _)| *n == repeats) {
            let recording = self.recording(gpu, repeats);
            let program =
                block_on(gpu, Program::compile(gpu, &self.store, &self.pool, &recording))?;
            self.programs.push((repeats, program));
        }
        let program = self.programs.iter().find(|(n, _)| *n == repeats);
        program.map_or(Ok(()), |(_, program)| block_on(gpu, program.run(gpu)))
    }

    fn recording(&self, gpu: &Gpu, repeats: usize) -> Recording {
        let recorder = Recorder::new(gpu.caps());
        for _ in 0..repeats {
            (self.record)(&recorder, recorder.resident(&self.y));
        }
        recorder.finish("race")
    }
}

/// What a case's operands are made with.
struct Operands<'g> {
    gpu: &'g Gpu,
    ids: ResidentIds,
    store: Store,
}

impl Operands<'_> {
    /// A matrix in memory; zeros without `values`.
    fn matrix(&self, rows: usize, cols: usize, values: Option<&[f32]>) -> Result<Resident> {
        let limit = self.gpu.caps().max_binding_bytes;
        let resident = self.ids.matrix("operand", rows, cols, limit);
        block_on(self.gpu, async {
            self.store.create(self.gpu, &resident).await?;
            match values {
                Some(values) => self.store.write(self.gpu, &resident, values).await,
                None => Ok(()),
            }
        })
        .map_err(text)?;
        Ok(resident)
    }

    /// The layers that `build` asks for, from a checkpoint.
    fn layers<L>(&self, weights: &Weights, build: impl FnOnce(&Loader<'_>) -> L) -> Result<L> {
        let limit = self.gpu.caps().max_binding_bytes;
        let context = LoadContext::new(&self.ids, Precision::default(), limit);
        let manifest = Manifest::new(weights);
        let layers = build(&Loader::new(manifest.root(), &context));
        manifest.finish(&[]).map_err(text)?;
        for upload in context.uploads.borrow().iter().chain(&*context.modulation_uploads.borrow()) {
            self.upload(weights, upload)?;
        }
        Ok(layers)
    }

    fn upload(&self, weights: &Weights, upload: &Upload) -> Result<()> {
        match upload {
            Upload::Vector { resident, sources } => {
                let mut values = vector(weights, sources).map_err(text)?;
                values.resize(resident.cols, 0.0);
                block_on(self.gpu, async {
                    self.store.create(self.gpu, resident).await?;
                    self.store.write(self.gpu, resident, &values).await
                })
                .map_err(text)
            }
            Upload::Packed { weight, sources } => {
                block_on(self.gpu, self.store.create_packed(self.gpu, weight)).map_err(text)?;
                let mut packer = Packer::default();
                for (i, shard) in weight.shards.iter().enumerate() {
                    let mut offset = 0;
                    for first in (shard.row0..shard.row0 + shard.rows).step_by(weight.tile) {
                        let bytes = packer.tile(weights, sources, weight, first).map_err(text)?;
                        let write = self.store.write_bytes(self.gpu, weight.id, i, offset, bytes);
                        block_on(self.gpu, write).map_err(text)?;
                        offset += bytes.len() as u64;
                    }
                }
                Ok(())
            }
        }
    }

    /// A checkpoint with one layer: `layer.weight` of `shape`, `layer.bias` of zeros.
    fn checkpoint(&self, shape: &[usize], stored_as: Stored) -> Result<Weights> {
        let (n, k) = (shape[0], shape[1..].iter().product::<usize>());
        let values = numbers::vector(Operand::W, n * k, weight_scale(k));
        let halves: Vec<f16>;
        let (dtype, bytes): (_, &[u8]) = match stored_as {
            Stored::F32 => (Dtype::F32, bytemuck::cast_slice(&values)),
            Stored::F16 => {
                halves =
                    values.iter().map(|value| f16::from_f32(stored(*value, Stored::F16))).collect();
                (Dtype::F16, bytemuck::cast_slice(&halves))
            }
        };
        let bias = vec![0_f32; n];
        let file = safetensors::serialize(
            [
                ("layer.weight", TensorView::new(dtype, shape.to_vec(), bytes).map_err(text)?),
                (
                    "layer.bias",
                    TensorView::new(Dtype::F32, vec![n], bytemuck::cast_slice(&bias))
                        .map_err(text)?,
                ),
            ],
            None,
        )
        .map_err(text)?;
        let memory = Memory::new("race").with("layer.safetensors", file);
        Weights::open_file(&memory, "layer.safetensors").map_err(text)
    }
}

impl Ralu {
    fn op(&self, case: &Case) -> Result<Op> {
        let operands =
            Operands { gpu: &self.gpu, ids: ResidentIds::default(), store: Store::default() };
        let (y, record): (Resident, Record) = match *case {
            Case::Matmul { m, k, n, weights } => {
                let checkpoint = operands.checkpoint(&[n, k], weights)?;
                // Without the bias of zeros, as the others have none.
                let layer = operands.layers(&checkpoint, |loader| {
                    let _ = loader.vector("layer.bias", n);
                    loader.linear_no_bias("layer", n, k)
                })?;
                let x = operands.matrix(m, k, Some(&numbers::vector(Operand::X, m * k, 1.0)))?;
                (
                    operands.matrix(m, n, None)?,
                    Box::new(move |recorder, y| {
                        let x = recorder.resident(&x);
                        linear_into("linear", x, &layer, y, Default::default());
                    }),
                )
            }
            Case::Attention { tokens, heads, head_dim } => {
                let width = heads * head_dim;
                let operand = |operand, scale| {
                    let values = numbers::vector(operand, tokens * width, scale);
                    operands.matrix(tokens, width, Some(&values))
                };
                let q = operand(Operand::X, QUERY_SCALE)?;
                let k = operand(Operand::W, QUERY_SCALE)?;
                let v = operand(Operand::V, 1.0)?;
                let scale = 1.0 / (head_dim as f32).sqrt();
                (
                    operands.matrix(tokens, width, None)?,
                    Box::new(move |recorder, y| {
                        let options = Attention { head_dim, scale, causal: false, bias: None };
                        let qkv = [&q, &k, &v].map(|operand| recorder.resident(operand));
                        attention("attention", qkv, y, options);
                    }),
                )
            }
            Case::Conv2d { height, width, input, output } => {
                let checkpoint = operands.checkpoint(&[output, input, 3, 3], Stored::F32)?;
                let layer = operands
                    .layers(&checkpoint, |loader| loader.conv3x3("layer", output, input))?;
                let pixels = height * width;
                let values = numbers::vector(Operand::X, pixels * input, 1.0);
                let picture = |channels, values: Option<&[f32]>| -> Result<Resident> {
                    // Pictures over a binding's size lie in bands with their neighbours' rows around.
                    let limit = self.gpu.caps().max_binding_bytes;
                    if 4 * (pixels * channels) as u64 > limit {
                        return Err(format!("a picture of {channels} channels is over a binding"));
                    }
                    operands.matrix(pixels, channels, values)
                };
                let x = picture(input, Some(&values))?;
                (
                    picture(output.next_multiple_of(4), None)?,
                    Box::new(move |recorder, y| {
                        conv2d(
                            "conv2d",
                            recorder.resident(&x),
                            width,
                            &layer,
                            y,
                            Default::default(),
                        );
                    }),
                )
            }
            Case::Blocks { ref folder, image_rows, image_cols, text: n_text, .. } => {
                self.blocks(&operands, folder, [image_rows, image_cols], n_text)?
            }
            Case::Picture { .. } => return Err("a picture is not an op".into()),
        };
        let pool = SlotPool::default();
        Ok(Op { store: operands.store, pool, y, record, programs: Vec::new() })
    }

    /// The transformer in `folder`, whose inputs the operands' numbers are.
    fn blocks(
        &self,
        operands: &Operands<'_>,
        folder: &str,
        [rows, cols]: [usize; 2],
        n_text: usize,
    ) -> Result<(Resident, Record)> {
        let source = Folder::open(folder).map_err(text)?;
        let source: &dyn Source = &source;
        let config = FluxConfig::load(source, "config.json").map_err(text)?;
        let weights = Weights::open(source, "", "diffusion_pytorch_model").map_err(text)?;
        let network = operands.layers(&weights, |loader| TransformerConfig::load(&config, loader))?;
        let n_image = rows * cols;
        let positions: Vec<[f32; 2]> =
            (0..n_image).map(|i| [(i / cols) as f32, (i % cols) as f32]).collect();
        let rope = config.rope().ok_or("FLUX has rotary positions")?;
        let pe = [rope.text_table(n_text), rope.image_table(&positions)].concat();
        let matrix =
            |rows: usize, cols: usize, values: &[f32]| operands.matrix(rows, cols, Some(values));
        let number = |operand, rows: usize, cols: usize| {
            matrix(rows, cols, &numbers::vector(operand, rows * cols, 1.0))
        };
        let img = number(Operand::X, n_image, config.in_channels)?;
        let txt = number(Operand::W, n_text, config.joint_attention_dim)?;
        let pooled = number(Operand::V, 1, config.pooled_projection_dim)?;
        let sinusoid =
            |value: f64| matrix(1, TIME_CHANNELS, &timestep_embedding(value));
        // sigma = 0.5, guidance = 3.5.
        let (time, guidance) = (sinusoid(500.0)?, sinusoid(3500.0)?);
        let pe = matrix(n_text + n_image, config.attention_head_dim, &pe)?;
        let y = operands.matrix(n_image, config.out_channels, None)?;
        let record: Record = Box::new(move |recorder, y| {
            let conditions = Conditions {
                time: recorder.resident(&time),
                guidance: recorder.resident(&guidance),
                pooled: Some(recorder.resident(&pooled)),
            };
            let modulations = recorder.temp("modulations", 1, network.modulations().width());
            network.modulations().record(conditions, modulations);
            let inputs = Inputs {
                branches: 1,
                txt: recorder.resident(&txt),
                modulations,
                positions: Positions::Rotations(recorder.resident(&pe)),
            };
            let velocity = network.forward(recorder.resident(&img), inputs, &config);
            ralu::ops::combine(
                "velocity.copy",
                &velocity,
                ralu::ops::Weights::Constant([1.0, 0.0, 0.0]),
                None,
                ralu::ops::Write::Store,
                y,
            );
        });
        Ok((y, record))
    }
}
