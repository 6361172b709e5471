//! `ralu devices`: which adapters there are.

use ralu::escape::Escaped;
use ralu::gpu::{self, AdapterReport, human_bytes, list_adapters};
use serde_json::json;

use super::args::DevicesArgs;
use super::error::{Error, Result};
use super::output;

/// Runs the command.
pub fn run(args: &DevicesArgs) -> Result<()> {
    let adapters = pollster::block_on(list_adapters());
    if args.json {
        let list: Vec<_> = adapters.iter().map(as_json).collect();
        output::json(&json!({ "adapters": list }))?;
    } else {
        for adapter in &adapters {
            output::line(as_text(adapter))?;
        }
    }
    if adapters.is_empty() {
        let backends = "Vulkan, Metal, DX12, GL".to_owned();
        return Err(Error::from(gpu::Error::NoAdapter { backends }));
    }
    if adapters.iter().all(|adapter| adapter.unusable.is_some()) {
        return Err(Error::failed(
            "none of these adapters can be used; install a Vulkan driver for your GPU, or Mesa's software \
             driver (`apt-get install mesa-vulkan-drivers libvulkan1` on Debian and Ubuntu)",
        ));
    }
    Ok(())
}

fn as_json(adapter: &AdapterReport) -> serde_json::Value {
    json!({
        "index": adapter.index,
        "name": adapter.name,
        "backend": adapter.backend,
        "driver": adapter.driver,
        "type": adapter.kind.name(),
        "features": adapter.features,
        "limits": {
            "max_buffer_bytes": adapter.max_buffer_bytes,
            "max_binding_bytes": adapter.max_binding_bytes,
            "max_workgroup_storage_bytes": adapter.max_workgroup_storage_bytes,
            "max_workgroup_invocations": adapter.max_workgroup_invocations,
            "max_storage_buffers": adapter.max_storage_buffers,
        },
        "usable": adapter.unusable.is_none(),
        "unusable_reason": adapter.unusable,
    })
}

fn as_text(adapter: &AdapterReport) -> String {
    let features = match adapter.features.as_slice() {
        [] => "none that matter".to_owned(),
        features => features.join(", "),
    };
    let usable = match &adapter.unusable {
        None => "yes".to_owned(),
        Some(reason) => format!("no: {}", Escaped(reason)),
    };
    format!(
        "{}: {}\n   backend   {}\n   type      {}\n   driver    {}\n   features  {features}\n   limits    buffer {}, \
         binding {}, workgroup {} and {} invocations, {} storage buffers\n   usable    {usable}",
        adapter.index,
        Escaped(&adapter.name),
        adapter.backend,
        adapter.kind,
        Escaped(&adapter.driver),
        human_bytes(adapter.max_buffer_bytes),
        human_bytes(adapter.max_binding_bytes),
        human_bytes(u64::from(adapter.max_workgroup_storage_bytes)),
        adapter.max_workgroup_invocations,
        adapter.max_storage_buffers,
    )
}
