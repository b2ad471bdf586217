//! What vkhmm needs of a device, and what it would like: asked before the application creates it. The same answer is what we create
//! a device of our own from.

use crate::chain::FeatureChain;
use crate::choice;
use crate::config::Config;
use crate::error::OpenError;
use crate::physical::Physical;
use crate::placement;
use crate::queues::Plan;
use ash::vk;
use core::fmt;
use std::ffi::CStr;
use vkhmm_port::Role;

/// How much an application is ready to turn on for vkhmm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What vkhmm does not run without, and nothing else.
    Required,
    /// Everything that it can use.
    Everything,
}

/// What becomes of a runtime without an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// There is none.
    Required,
    /// It lacks what these words say.
    Lost(&'static str),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Required => write!(f, "required"),
            Self::Lost(what) => write!(f, "without it {what}"),
        }
    }
}

/// One item, and what becomes of a runtime without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<T> {
    /// The item.
    pub what: T,
    /// What becomes of a runtime without it.
    pub need: Need,
}

/// Queues of one family that nobody but vkhmm uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedQueue {
    /// Which family.
    pub family: u32,
    /// How many queues of it, beside those that the application keeps for itself.
    pub count: u32,
    /// What they are for.
    pub roles: Vec<Role>,
    /// What becomes of a runtime without them. An application that cannot do without the required one may share it under a lock:
    /// see [`crate::QueueLock`].
    pub need: Need,
}

/// What vkhmm asks of a device that an application is about to create. Items that the device does not have are not listed.
///
/// What is lost without an item is lost without harm: it is off then, and the report of the device says so.
pub struct Requirements {
    /// Device extensions, to be turned on.
    pub extensions: Vec<Wanted<&'static CStr>>,
    /// Features, to be turned on: a chain for `VkDeviceCreateInfo::pNext`, or to be merged with the application's own.
    pub features: FeatureChain,
    /// The same features in words, by the names that the specification gives them.
    pub feature_names: Vec<Wanted<&'static str>>,
    /// Queues, to be created for vkhmm.
    pub queues: Vec<WantedQueue>,
}

impl Requirements {
    /// Asks the driver, for an instance that was created with an `apiVersion` of 1.3 or above (or not below the device's).
    ///
    /// # Errors
    /// `NoUsableDevice`: the device lacks what is required; the error names it.
    ///
    /// # Safety
    /// `instance` is alive, and `physical` is one of its devices.
    pub unsafe fn query(
        instance: &ash::Instance,
        physical: vk::PhysicalDevice,
        level: Level,
    ) -> Result<Self, OpenError> {
        // SAFETY: the caller's promise is the same.
        unsafe { Self::query_for(instance, physical, vk::API_VERSION_1_3, level) }
    }

    /// Like [`Requirements::query`], for an instance that was created with `api_version` (VkApplicationInfo's `apiVersion`).
    ///
    /// # Errors
    /// As [`Requirements::query`]; below 1.2 no device can serve.
    ///
    /// # Safety
    /// As [`Requirements::query`].
    pub unsafe fn query_for(
        instance: &ash::Instance,
        physical: vk::PhysicalDevice,
        api_version: u32,
        level: Level,
    ) -> Result<Self, OpenError> {
        let physical = Physical::query(instance, physical, api_version, vk::BufferUsageFlags::empty());
        choice::usable(&physical)?;
        Ok(Self::of(&physical, level, &Config::default()))
    }

    /// (family, how many queues of it), each family once.
    pub(crate) fn queue_counts(&self) -> Vec<(u32, u32)> {
        let mut out: Vec<(u32, u32)> = Vec::new();
        for queue in &self.queues {
            match out.iter_mut().find(|(family, _)| *family == queue.family) {
                Some((_, count)) => *count += queue.count,
                None => out.push((queue.family, queue.count)),
            }
        }
        out
    }

    /// What a device that can serve is asked for.
    pub(crate) fn of(physical: &Physical, level: Level, config: &Config) -> Self {
        let liked = |need: Need| need == Need::Required || level == Level::Everything;
        let on = physical.features.wanted().chosen(|row| liked(row.need));
        let mut queues = wanted_queues(&Plan::new(
            &physical.families,
            config.switches.shared_queue,
            placement::wants_binds(&physical.features, &on, config).is_ok(),
        ));
        queues.retain(|queue| liked(queue.need));
        let mut extensions = physical.extensions.wanted();
        extensions.retain(|extension| liked(extension.need));
        let mut chained = physical.extensions;
        if level == Level::Required {
            (chained.robustness2, chained.atomic_float) = (false, false);
        }
        Self {
            extensions,
            feature_names: on.rows().map(|row| Wanted { what: row.name, need: row.need }).collect(),
            features: FeatureChain::new(&on, physical.api, chained),
            queues,
        }
    }
}

const ALONE: Need = Need::Lost("its work queues up with the kernels on one queue");

/// The queues of a plan: the one for kernels is required; the others by families.
fn wanted_queues(plan: &Plan) -> Vec<WantedQueue> {
    let compute = plan.queues[plan.roles[Role::Compute as usize]];
    let mut wanted: Vec<WantedQueue> = Vec::new();
    let mut seen: Vec<(u32, u32)> = Vec::new();
    // The required one first.
    for queue in core::iter::once(compute).chain(plan.queues.iter().copied()) {
        if seen.contains(&queue) {
            continue;
        }
        seen.push(queue);
        let served = |role: &Role| plan.queues[plan.roles[*role as usize]] == queue;
        let roles: Vec<Role> = Role::ALL.into_iter().filter(served).collect();
        let need = if queue == compute { Need::Required } else { ALONE };
        match wanted.iter_mut().find(|w| w.family == queue.0 && w.need == need) {
            Some(same) => {
                same.count += 1;
                same.roles.extend(roles);
            }
            None => wanted.push(WantedQueue { family: queue.0, count: 1, roles, need }),
        }
    }
    wanted
}

impl fmt::Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Wanted { what, need } in &self.extensions {
            writeln!(f, "extension {}: {need}", what.to_string_lossy())?;
        }
        for Wanted { what, need } in &self.feature_names {
            writeln!(f, "feature {what}: {need}")?;
        }
        for WantedQueue { family, count, roles, need } in &self.queues {
            writeln!(f, "{count} queue(s) of family {family} for {roles:?}: {need}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
