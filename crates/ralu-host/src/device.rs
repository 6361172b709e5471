//! How a program gets its device, and the next one if that is lost.

use ralu::gpu::{AdapterChoice, Error, Gpu};

use crate::cache_dir::CacheDir;
use crate::pipelines;

/// Opens devices: the first one, and another one after a loss.
pub struct Device {
    open: Box<dyn FnMut() -> Result<Gpu, Error> + Send>,
    is_shared: bool,
}

impl Device {
    /// The adapter that `choice` names, with the pipelines that earlier runs left in `cache`.
    pub fn adapter(choice: AdapterChoice, cache: Option<CacheDir>) -> Device {
        Device::opened_by(move || {
            let gpu = pollster::block_on(Gpu::open(&choice))?;
            if let Some(cache) = &cache {
                pipelines::restore(&gpu, cache)?;
            }
            Ok(gpu)
        })
    }

    /// A device that `open` opens. It is called again after a loss.
    pub fn opened_by(open: impl FnMut() -> Result<Gpu, Error> + Send + 'static) -> Device {
        Device { open: Box::new(open), is_shared: false }
    }

    /// A device that the host program draws on, too, as [`Gpu::adopt`] takes it over. `adopt` may be called several
    /// times, for the same device. A loss ends the run: what becomes of the device is for the host program to say.
    pub fn shared(mut adopt: impl FnMut() -> Gpu + Send + 'static) -> Device {
        Device { open: Box::new(move || Ok(adopt())), is_shared: true }
    }

    /// Opens the device, or the next one after a loss.
    ///
    /// # Errors
    ///
    /// If there is no adapter, or it gives no device.
    pub fn open(&mut self) -> Result<Gpu, Error> {
        (self.open)()
    }

    /// Whether it is the host program's: it is not opened again after a loss.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }
}
