//! Which device: each candidate gets a score or a reason against it, in words that `doctor` prints.

use crate::error::OpenError;
use crate::physical::Physical;
use crate::report::Candidate;
use ash::vk;

/// The device chosen and why.
pub(crate) struct Choice {
    /// Its place in the list.
    pub(crate) index: usize,
    /// All of them, for the report.
    pub(crate) candidates: Vec<Candidate>,
    /// Why this one.
    pub(crate) why: String,
}

/// What a device must have; `Some` says what is missing.
fn refusal(device: &Physical) -> Option<String> {
    if device.api < vk::API_VERSION_1_2 {
        return Some(format!("speaks Vulkan {}, 1.2 is needed", crate::loader::version_words(device.api)));
    }
    if let Some(what) = device.features.lacks() {
        return Some(format!("lacks {what}"));
    }
    if !device.families.iter().any(|f| f.queue_count > 0 && f.queue_flags.contains(vk::QueueFlags::COMPUTE)) {
        return Some(String::from("has no compute queue"));
    }
    None
}

/// Whether this device can serve.
pub(crate) fn usable(device: &Physical) -> Result<(), OpenError> {
    match refusal(device) {
        Some(reason) => Err(OpenError::NoUsableDevice { refused: vec![format!("{} {reason}", device.name)] }),
        None => Ok(()),
    }
}

/// Kind first, memory second: a discrete card is what migration is for, software is the last resort.
fn score(device: &Physical) -> (u32, u64) {
    let kind = match device.kind {
        vk::PhysicalDeviceType::DISCRETE_GPU => 4,
        vk::PhysicalDeviceType::INTEGRATED_GPU => 3,
        vk::PhysicalDeviceType::VIRTUAL_GPU => 2,
        vk::PhysicalDeviceType::CPU => 1,
        _ => 0,
    };
    (kind, largest_device_heap(device))
}

/// Bytes of the largest DEVICE_LOCAL heap.
pub(crate) fn largest_device_heap(device: &Physical) -> u64 {
    let heaps = device.memory.memory_heaps_as_slice();
    heaps
        .iter()
        .filter(|h| h.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL))
        .map(|h| h.size)
        .max()
        .unwrap_or(0)
}

/// Takes the device asked for, else the best one.
pub(crate) fn choose(devices: &[Physical], asked: Option<&str>) -> Result<Choice, OpenError> {
    let candidates: Vec<Candidate> = devices
        .iter()
        .map(|d| Candidate {
            name: d.name.clone(),
            driver: d.driver.clone(),
            kind: d.kind_words().into(),
            refused: refusal(d),
        })
        .collect();
    let listed = || candidates.iter().enumerate().map(|(i, c)| format!("{i}: {}", c.name)).collect();
    if let Some(asked) = asked {
        let wanted = asked.to_lowercase();
        let by_number = asked.parse::<usize>().ok().filter(|n| *n < devices.len());
        let by_name = || candidates.iter().position(|c| c.name.to_lowercase().contains(&wanted));
        let no = |reason: String| OpenError::NoSuchDevice { asked: asked.into(), reason, have: listed() };
        let index =
            by_number.or_else(by_name).ok_or_else(|| no("no device has that number or name".into()))?;
        if let Some(reason) = &candidates[index].refused {
            return Err(no(format!("{} {reason}", candidates[index].name)));
        }
        return Ok(Choice { index, why: format!("asked for by {asked:?}"), candidates });
    }
    let best =
        (0..devices.len()).filter(|i| candidates[*i].refused.is_none()).max_by_key(|i| score(&devices[*i]));
    let Some(index) = best else {
        let refused =
            candidates.iter().map(|c| format!("{} {}", c.name, c.refused.as_deref().unwrap_or(""))).collect();
        return Err(OpenError::NoUsableDevice { refused });
    };
    let usable = candidates.iter().filter(|c| c.refused.is_none()).count();
    let why = if usable == 1 {
        format!("the only usable device ({})", candidates[index].kind)
    } else {
        format!(
            "best of {usable} usable devices: {} first, then the largest device heap",
            candidates[index].kind
        )
    };
    Ok(Choice { index, candidates, why })
}
