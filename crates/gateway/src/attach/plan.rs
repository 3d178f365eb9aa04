//! Which device an attach is to use: the one that has the volume already, or a free one.

use super::device::{self, Device};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// The volume is attached: its agent, if it has one, keeps it, and otherwise it is taken over.
    Adopt(Device),
    /// One of these devices, in this order.
    Fresh(Vec<u32>),
}

/// Why nothing can be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unplannable {
    /// On another device than the one asked for. On two, one would not see what is written through the other.
    #[error("{volume} is attached as {} already", device::path(*index))]
    Elsewhere {
        /// The volume, as it was asked for.
        volume: String,
        /// Where it is.
        index: u32,
    },
    /// It was disconnected under its users, who hold on to it.
    #[error(
        "{volume} was disconnected from {} while it was in use, and is still open there: unmount it first",
        device::path(*index)
    )]
    StillOpen {
        /// The volume, as it was asked for.
        volume: String,
        /// Where it was.
        index: u32,
    },
    /// The device asked for is another's.
    #[error("{} is in use: it has {by}", device::path(*index))]
    Taken {
        /// The device.
        index: u32,
        /// What it has.
        by: String,
    },
    /// None is free.
    #[error("every NBD device is in use (modprobe nbd nbds_max=N makes more)")]
    NoneFree,
}

/// Plans the attaching of the volume that goes by any of `names`, on the device `wanted` if one was asked for.
pub(crate) fn plan(
    devices: &[Device],
    names: &[&str],
    wanted: Option<u32>,
) -> Result<Plan, Unplannable> {
    let volume = names.first().copied().unwrap_or_default().to_owned();
    let is_ours = |device: &&Device| {
        let identity = device.identity.as_ref();
        identity.is_some_and(|identity| names.iter().any(|name| identity.is_called(name)))
    };
    if let Some(found) = devices.iter().find(is_ours) {
        let index = found.index;
        if !found.connected {
            return Err(Unplannable::StillOpen { volume, index });
        }
        if wanted.is_some_and(|wanted| wanted != index) {
            return Err(Unplannable::Elsewhere { volume, index });
        }
        return Ok(Plan::Adopt(found.clone()));
    }
    let is_free = |device: &Device| !device.connected && device.identity.is_none();
    match wanted {
        // One that is not there yet is made by the driver.
        Some(index) => match devices.iter().find(|device| device.index == index) {
            Some(device) if !is_free(device) => Err(Unplannable::Taken {
                index,
                by: match &device.identity {
                    Some(identity) => format!("the volume {}", identity.name()),
                    None => "another client".into(),
                },
            }),
            _ => Ok(Plan::Fresh(vec![index])),
        },
        None => {
            let free: Vec<u32> = devices
                .iter()
                .filter(|device| is_free(device))
                .map(|device| device.index)
                .collect();
            if free.is_empty() {
                return Err(Unplannable::NoneFree);
            }
            Ok(Plan::Fresh(free))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::identity::Identity;
    use super::super::identity::tests::{name, offer};
    use super::*;

    fn device(index: u32, connected: bool, ours: bool) -> Device {
        Device {
            index,
            size: 0,
            connected,
            identity: ours.then(|| Identity::of(&offer('e'), &name(), 1).unwrap()),
        }
    }

    #[test]
    fn a_volume_that_is_attached_is_taken_over_by_either_of_its_names() {
        let devices = [device(0, true, false), device(1, true, true)];
        for names in [&["db"][..], &["vol-1"], &["other", "vol-1"]] {
            let adopt = Plan::Adopt(devices[1].clone());
            assert_eq!(plan(&devices, names, None).unwrap(), adopt);
            assert_eq!(plan(&devices, names, Some(1)).unwrap(), adopt);
        }
    }

    #[test]
    fn a_volume_never_gets_a_second_device() {
        let devices = [device(0, false, false), device(1, true, true)];
        let error = plan(&devices, &["db"], Some(0)).unwrap_err();
        assert_eq!(error.to_string(), "db is attached as /dev/nbd1 already");
        let devices = [device(0, false, false), device(1, false, true)];
        let error = plan(&devices, &["db"], None).unwrap_err();
        assert!(error.to_string().contains("unmount it first"), "{error}");
    }

    #[test]
    fn free_devices_are_those_that_nobody_has() {
        let devices = [
            device(0, true, false),
            device(1, false, true),
            device(2, false, false),
            device(3, false, false),
        ];
        let fresh = |free: &[u32]| Ok(Plan::Fresh(free.to_vec()));
        assert_eq!(plan(&devices, &["x"], None), fresh(&[2, 3]));
        assert_eq!(plan(&devices, &["x"], Some(3)), fresh(&[3]));
        assert_eq!(plan(&devices, &["x"], Some(9)), fresh(&[9]));
        for (wanted, text) in [(0, "another client"), (1, "the volume db")] {
            let error = plan(&devices, &["x"], Some(wanted)).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
        let none = plan(&devices[..2], &["x"], None);
        assert_eq!(none, Err(Unplannable::NoneFree));
    }
}
