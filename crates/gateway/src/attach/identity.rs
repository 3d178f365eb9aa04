//! What the kernel keeps of an attached device for its agents.
//!
//! The kernel tells no one the flags that a device was connected with, nor whose it is. What it does keep, for as long as
//! the device is connected, is one string of ours: the backend identifier, which it shows in `/sys/block/nbdN/backend`
//! and compares at each reconnection. So everything that an agent must know of a device stands in it, and
//! no file of ours has to agree with the kernel:
//!
//! `sealgate:1:EPOCH:FLAGS:LINKS:VOLUME:NAME`
//!
//! the format, the volume's cache epoch (32 hexadecimal digits), the transmission flags (4), the number of connections,
//! the export's canonical name, and the name by which it was asked for, which may hold colons.

use std::fmt;

use nbd::ExportName;
use nbd::client::Offer;

use crate::nbd_front::EPOCH_PREFIX;

/// Most connections of a device; more than a machine has processors bring nothing.
pub(crate) const LINKS_MAX: u32 = 16;
/// A page is what sysfs shows of it.
const LEN_MAX: usize = 1024;
const BEGINS: &str = "sealgate:1:";

/// What a device is, as its backend identifier says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    epoch: String,
    flags: u16,
    links: u32,
    volume: String,
    name: String,
}

/// Why an offer makes no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoIdentity {
    /// Without an epoch nobody can tell whether it is safe to reconnect.
    #[error(
        "the server tells no cache epoch, so it is not a Sealgate that devices can be kept attached to"
    )]
    NoEpoch,
    /// It does not say what the export is called.
    #[error("the server tells no usable name of the export")]
    NoName,
    /// Together they are too long.
    #[error("the export's name is too long")]
    TooLong,
}

impl Identity {
    /// The identity of a device that `links` connections to this export make, which was asked for by `name`.
    pub(crate) fn of(offer: &Offer, name: &ExportName, links: u32) -> Result<Self, NoIdentity> {
        let epoch = epoch(offer).ok_or(NoIdentity::NoEpoch)?;
        let volume = offer.name.as_ref().ok_or(NoIdentity::NoName)?.as_str();
        let fits = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        if !fits(volume) || volume.contains(':') || !fits(name.as_str()) {
            return Err(NoIdentity::NoName);
        }
        let identity = Self {
            epoch: epoch.to_owned(),
            flags: offer.flags,
            links,
            volume: volume.to_owned(),
            name: name.as_str().to_owned(),
        };
        if identity.to_string().len() > LEN_MAX {
            return Err(NoIdentity::TooLong);
        }
        Ok(identity)
    }

    /// Reads what [`Display`](fmt::Display) wrote; `None` if it is not one of ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(BEGINS)?.splitn(5, ':');
        let mut part = || parts.next();
        let (epoch, flags, links, volume, name) = (part()?, part()?, part()?, part()?, part()?);
        let links = links.parse().ok()?;
        let is_ours = is_epoch(epoch)
            && flags.len() == 4
            && (1..=LINKS_MAX).contains(&links)
            && !volume.is_empty()
            && !name.is_empty();
        is_ours.then_some(Self {
            epoch: epoch.to_owned(),
            flags: u16::from_str_radix(flags, 16).ok()?,
            links,
            volume: volume.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Whether an export that is offered now may take over where the device's connections ended.
    pub(crate) fn compare(&self, size: u64, offer: &Offer) -> Compared {
        if epoch(offer) != Some(&self.epoch) {
            return Compared::OtherEpoch;
        }
        let volume = offer.name.as_ref().map(ExportName::as_str);
        if offer.size != size || offer.flags != self.flags || volume != Some(&self.volume) {
            return Compared::OtherExport;
        }
        Compared::Same
    }

    /// Whether this is the volume that `name` means: its canonical name, or the one it was attached by.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.volume == name || self.name == name
    }

    /// How many connections the device has.
    pub(crate) fn links(&self) -> u32 {
        self.links
    }

    /// The export's canonical name.
    pub(crate) fn volume(&self) -> &str {
        &self.volume
    }

    /// The name by which it was asked for.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The cache epoch.
    pub(crate) fn epoch(&self) -> &str {
        &self.epoch
    }
}

/// What [`Identity::compare`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    /// Nothing that was answered can have been lost.
    Same,
    /// Something may have been.
    OtherEpoch,
    /// It is not what the device was made of.
    OtherExport,
}

fn epoch(offer: &Offer) -> Option<&str> {
    let epoch = offer.description.as_deref()?.strip_prefix(EPOCH_PREFIX)?;
    is_epoch(epoch).then_some(epoch)
}

fn is_epoch(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 32 && text.bytes().all(digit)
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{BEGINS}{}:{:04x}:{}:{}:{}",
            self.epoch, self.flags, self.links, self.volume, self.name
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    /// An offer of a volume of 1 MiB, with an epoch of that digit.
    pub(crate) fn offer(epoch: char) -> Offer {
        Offer {
            size: 1 << 20,
            flags: 0x56d,
            name: Some(ExportName::new("vol-1").unwrap()),
            description: Some(format!("{EPOCH_PREFIX}{}", epoch.to_string().repeat(32))),
        }
    }

    pub(crate) fn name() -> ExportName {
        ExportName::new("db").unwrap()
    }

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let odd = ExportName::new("a:b c").unwrap();
        let identity = Identity::of(&offer('e'), &odd, 4).unwrap();
        let text = format!("sealgate:1:{}:056d:4:vol-1:a:b c", "e".repeat(32));
        assert_eq!(identity.to_string(), text);
        assert_eq!(Identity::parse(&text), Some(identity));
    }

    #[test]
    fn what_is_not_ours_is_no_identity() {
        let good = Identity::of(&offer('e'), &name(), 1).unwrap().to_string();
        let broken = [
            "",
            "attach",
            &good.replace(":1:", ":2:"),
            &good.replace(":056d:1:", ":056d:0:"),
            &good.replace(":056d:1:", ":056d:17:"),
            &good.replace(":056d", ":56d"),
            &good.replace('e', "E"),
            good.strip_suffix(":db").unwrap(),
        ];
        for text in broken {
            assert_eq!(Identity::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_the_same_export_in_the_same_epoch_may_take_over() {
        let identity = Identity::of(&offer('e'), &name(), 1).unwrap();
        let compare = |offer: &Offer| identity.compare(1 << 20, offer);
        assert_eq!(compare(&offer('e')), Compared::Same);
        assert_eq!(compare(&offer('f')), Compared::OtherEpoch);
        let silent = Offer {
            description: None,
            ..offer('e')
        };
        assert_eq!(compare(&silent), Compared::OtherEpoch);
        let grown = Offer {
            size: 2 << 20,
            ..offer('e')
        };
        let read_only = Offer {
            flags: 0x56f,
            ..offer('e')
        };
        let other = Offer {
            name: Some(ExportName::new("vol-2").unwrap()),
            ..offer('e')
        };
        for offer in [grown, read_only, other] {
            assert_eq!(compare(&offer), Compared::OtherExport);
        }
    }

    #[test]
    fn a_server_without_epoch_or_name_makes_no_device() {
        let mut bare = offer('e');
        bare.description = Some("a disk".into());
        let found = Identity::of(&bare, &name(), 1);
        assert_eq!(found, Err(NoIdentity::NoEpoch));
        let mut nameless = offer('e');
        nameless.name = None;
        let found = Identity::of(&nameless, &name(), 1);
        assert_eq!(found, Err(NoIdentity::NoName));
        let long = ExportName::new("x".repeat(2000)).unwrap();
        let found = Identity::of(&offer('e'), &long, 1);
        assert_eq!(found, Err(NoIdentity::TooLong));
    }
}
