//! burn with its wgpu backend (cubecl, cubek's kernels), autotuned, as a racer.

use burn::tensor::module::{attention, conv2d};
use burn::tensor::ops::{AttentionModuleOptions, ConvOptions};
use burn::tensor::wgpu::WgpuBackend;
use burn::tensor::{DType, Device, Tensor, TensorData};
use race::case::{Case, Weights};
use race::expected::{QUERY_SCALE, weight_scale};
use race::numbers::{self, Operand};
use race::protocol::{Hello, Racer, serve};

type Result<T, E = String> = std::result::Result<T, E>;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let device = Device::wgpu_options().graphics_api(WgpuBackend::Vulkan).init()?;
    let hello = Hello {
        version: format!(
            "burn {}, cubecl {}, wgpu {} ({})",
            env!("RACE_BURN"),
            env!("RACE_CUBECL"),
            env!("RACE_WGPU"),
            compiler()
        ),
        device: format!("{device:?}"),
    };
    Ok(serve(&hello, &mut Burn { device, case: None })?)
}

/// How this build hands its kernels to Vulkan.
fn compiler() -> &'static str {
    if cfg!(feature = "spirv") { "SPIR-V" } else { "WGSL" }
}

struct Burn {
    device: Device,
    case: Option<Prepared>,
}

struct Prepared {
    once: Box<dyn Fn() -> Output>,
    last: Option<Output>,
    /// The result in the case's layout.
    layout: fn(Output) -> Vec<f32>,
}

enum Output {
    Matrix(Tensor<2>),
    Batch(Tensor<4>),
}

impl Output {
    fn numbers(self) -> Vec<f32> {
        let data = match self {
            Output::Matrix(tensor) => tensor.cast(DType::F32).into_data(),
            Output::Batch(tensor) => tensor.cast(DType::F32).into_data(),
        };
        data.try_to_vec().unwrap_or_default()
    }
}

impl Burn {
    fn operand<const D: usize>(
        &self,
        operand: Operand,
        shape: [usize; D],
        scale: f32,
    ) -> Tensor<D> {
        let values = numbers::vector(operand, shape.iter().product(), scale);
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    /// Waits until everything asked for is computed.
    fn sync(&self) -> Result<()> {
        self.device.sync().map_err(|error| format!("{error:?}"))
    }
}

impl Racer for Burn {
    fn prepare(&mut self, case: &Case) -> Result<String> {
        let mut note = String::new();
        let (once, layout): (Box<dyn Fn() -> Output>, fn(Output) -> Vec<f32>) = match *case {
            Case::Matmul { m, k, n, weights } => {
                let mut x = self.operand(Operand::X, [m, k], 1.0);
                // burn's linear layers keep their weights [K, N].
                let w: Tensor<2> = self.operand(Operand::W, [n, k], weight_scale(k));
                let values = Output::Matrix(w.transpose()).numbers();
                let mut w = Tensor::<2>::from_data(TensorData::new(values, [k, n]), &self.device);
                if weights == Weights::F16 {
                    (x, w) = (x.cast(DType::F16), w.cast(DType::F16));
                    note = "f16 x f16".into();
                }
                (Box::new(move || Output::Matrix(x.clone().matmul(w.clone()))), Output::numbers)
            }
            Case::Attention { tokens, heads, head_dim } => {
                let operand = |operand, scale| {
                    let rows: Tensor<4> =
                        self.operand(operand, [1, tokens, heads, head_dim], scale);
                    let values = Output::Batch(rows.swap_dims(1, 2)).numbers();
                    let shape = [1, heads, tokens, head_dim];
                    Tensor::<4>::from_data(TensorData::new(values, shape), &self.device)
                };
                let q = operand(Operand::X, QUERY_SCALE);
                let k = operand(Operand::W, QUERY_SCALE);
                let v = operand(Operand::V, 1.0);
                let once = move || {
                    let options = AttentionModuleOptions::default();
                    let [q, k, v] = [&q, &k, &v].map(Tensor::clone);
                    Output::Batch(attention(q, k, v, None, None, options))
                };
                (Box::new(once), |output| match output {
                    Output::Batch(y) => Output::Batch(y.swap_dims(1, 2)).numbers(),
                    Output::Matrix(_) => Vec::new(),
                })
            }
            Case::Conv2d { height, width, input, output } => {
                let pixels: Tensor<4> = self.operand(Operand::X, [1, height, width, input], 1.0);
                let values = Output::Batch(pixels.permute([0, 3, 1, 2])).numbers();
                let shape = [1, input, height, width];
                let x = Tensor::<4>::from_data(TensorData::new(values, shape), &self.device);
                let w = self.operand(Operand::W, [output, input, 3, 3], weight_scale(9 * input));
                let once = move || {
                    let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
                    Output::Batch(conv2d(x.clone(), w.clone(), None, options))
                };
                (Box::new(once), |output| match output {
                    Output::Batch(y) => Output::Batch(y.permute([0, 2, 3, 1])).numbers(),
                    Output::Matrix(_) => Vec::new(),
                })
            }
            Case::Blocks { .. } | Case::Picture { .. } => {
                return Err("not run: burn has no FLUX".into());
            }
        };
        self.sync()?;
        self.case = Some(Prepared { once, last: None, layout });
        Ok(note)
    }

    fn run(&mut self, repeats: usize) -> Result<()> {
        let case = self.case.as_mut().ok_or("nothing is prepared")?;
        // All results are kept until they are computed: none may be skipped because nobody wants it.
        let mut results: Vec<Output> = (0..repeats).map(|_| (case.once)()).collect();
        case.last = results.pop();
        self.sync()
    }

    fn result(&mut self) -> Result<Vec<f32>> {
        let case = self.case.as_mut().ok_or("nothing is prepared")?;
        case.last.take().map(case.layout).ok_or_else(|| "nothing has run".into())
    }

    fn free(&mut self) {
        self.case = None;
    }
}
