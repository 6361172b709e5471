//! Models with random weights: they run, and take the memory of real ones.

use ralu::checkpoint::source::{Folder, Source};
use ralu::gpu::block_on;
use ralu::models::config::ModelConfig;
use ralu::models::layers::Precision;
use ralu::pipeline::{
    Event, Options, Picture, Pipeline, RaluChoice, Request, Settings, plan::plan,
};
use ralu::sampling::Preset;

fn config(model: &str) -> ModelConfig {
    let folder = Folder::open(model).unwrap();
    ModelConfig::load(&folder as &dyn Source).unwrap()
}

fn draw(pipeline: &Pipeline, request: &Request) -> Picture {
    let mut run = pipeline.start(request.clone()).unwrap();
    let mut drawn = None;
    while let Some(event) = block_on(pipeline.gpu(), run.next()).unwrap() {
        if let Event::Image { picture, .. } = event {
            drawn = Some(picture);
        }
    }
    drawn.expect("a picture")
}

#[test]
fn a_model_without_files_runs_in_the_memory_of_a_real_one() {
    let plain = Request::new("").size(64, 64).ralu(RaluChoice::Off);
    let plain = plain.with(|request| {
        request.steps = Some(2);
        request.max_sequence_length = Some(16);
    });
    let staged = plain.clone().size(128, 128).ralu(RaluChoice::Preset(Preset::X2));
    let staged = staged.with(|request| request.steps = None);
    for model in [
        "tests/fixtures/flux-b/model",
        "tests/fixtures/sd35m-b/model",
        "tests/fixtures/klein-a/model",
    ] {
        let config = config(model);
        for precision in [Precision::Auto, Precision::F32] {
            let options = Options::default().with(|options| options.precision = precision);
            let gpu = crate::common::gpu();
            let caps = gpu.caps();
            let pipeline = Pipeline::random(gpu, config.clone(), "random", options).unwrap();
            let picture = draw(&pipeline, &plain);
            assert!(draw(&pipeline, &plain) == picture, "{model}: another picture");
            let settings = Settings::resolve(&plain, &config).unwrap();
            let planned = plan(&config, None, &settings, caps, options).unwrap().memory;
            let weights = planned.denoiser_weights_bytes + planned.modulation_weights_bytes;
            // A plan without files counts 16 bits.
            match precision {
                Precision::F32 => assert!(pipeline.memory_use().weights_bytes > weights),
                _ => assert_eq!(pipeline.memory_use().weights_bytes, weights, "{model}"),
            }
            if precision == Precision::Auto {
                draw(&pipeline, &staged);
                let pipeline =
                    block_on(&crate::common::gpu(), pipeline.revive(crate::common::gpu()));
                assert!(draw(&pipeline.unwrap(), &plain) == picture, "{model}: on another device");
            }
        }
    }
}
