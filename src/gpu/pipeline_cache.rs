//! Compiled pipelines as bytes, for a host program to keep from one start to the next.
//!
//! wgpu can hand out what a Vulkan driver has compiled. The library reads and writes no files: a caller with a place for
//! the bytes takes them from [`Gpu::pipeline_data`] and gives them to [`Gpu::use_pipeline_data`]. They are sealed with
//! a checksum and the adapter's [`cache_key`](AdapterReport::cache_key), so that damaged and foreign ones are only
//! useless.

use super::{AdapterReport, Error, Gpu};

const MAGIC: &[u8; 8] = b"ralupip1";

impl AdapterReport {
    /// Names what was measured or compiled on this adapter, by this driver, for this version of the program: letters,
    /// digits and dashes, fit for a file's name.
    pub fn cache_key(&self) -> String {
        let shown = self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { ' ' });
        let shown: String = shown.collect();
        let name: Vec<&str> = shown.split_whitespace().take(4).collect();
        let all =
            [self.name.as_str(), self.backend, &self.driver, env!("CARGO_PKG_VERSION")].join("\n");
        format!("{}-{}-{:016x}", self.backend, name.join("-"), checksum(all.as_bytes()))
    }
}

/// FNV-1a: it has to find damage, not malice.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Puts a checksum and the key in front of the data.
fn seal(key: &str, data: &[u8]) -> Vec<u8> {
    let mut body = (key.len() as u32).to_le_bytes().to_vec();
    body.extend_from_slice(key.as_bytes());
    body.extend_from_slice(data);
    [&MAGIC[..], &checksum(&body).to_le_bytes(), &body].concat()
}

/// The data, if it is whole and of that key.
fn unseal<'a>(key: &str, sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (sum, body) = sealed.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
    if checksum(body) != u64::from_le_bytes(*sum) {
        return None;
    }
    let (length, rest) = body.split_first_chunk::<4>()?;
    let (found, data) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    (found == key.as_bytes()).then_some(data)
}

/// The feature that this needs, where an adapter has it.
pub(super) fn features(offered: wgpu::Features) -> wgpu::Features {
    offered & wgpu::Features::PIPELINE_CACHE
}

impl Gpu {
    /// Compiles with the help of what an earlier start has compiled, and remembers what is compiled from now on. Bytes
    /// that are damaged or of another adapter, driver or version are ignored. Gives whether bytes were used; does
    /// nothing on adapters that cannot cache.
    pub async fn use_pipeline_data(&self, sealed: Option<&[u8]>) -> Result<bool, Error> {
        if !self.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return Ok(false);
        }
        let data = sealed.and_then(|sealed| unseal(&self.report.cache_key(), sealed));
        let create = || {
            let descriptor =
                wgpu::PipelineCacheDescriptor { label: Some("ralu"), data, fallback: true };
            // SAFETY: the data must be what `get_data` gave on an adapter of the same key. Our seal says that it was
            // this program's `pipeline_data` for this adapter and driver, and that no byte has changed since.
            unsafe { self.device.create_pipeline_cache(&descriptor) }
        };
        let cache = self.scoped("a pipeline cache", create).await?;
        *self.pipeline_cache.lock() = Some(cache);
        Ok(data.is_some())
    }

    /// What was compiled so far, for [`Gpu::use_pipeline_data`] on the next start. `None` before that was called, and
    /// on adapters that cannot cache.
    pub fn pipeline_data(&self) -> Option<Vec<u8>> {
        let data = self.pipeline_cache.lock().as_ref()?.get_data()?;
        Some(seal(&self.report.cache_key(), &data))
    }
}
