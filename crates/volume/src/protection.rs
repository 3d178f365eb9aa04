//! Sealed or not: the two ways a volume's sectors reach its store, as two types.
//!
//! The engine is generic over [`Protection`]. What a protection gives the store to write is a type of its own:
//! [`Sealed`] gives [`SealedSectors`], which `crypto` alone makes, so a store of a sealed volume cannot be handed
//! plaintext: it does not compile. There is no cipher that may be absent.

use std::sync::OnceLock;

use crypto::{
    mac::MacKey,
    sector::{PlainSectors, SealedSectors, SectorIndex, SectorKey, SectorSize, StoredSectors},
    volume_key::VolumeDataKey,
};

use crate::{
    VolumeId,
    geometry::{CHUNK_LEN, CHUNKS_MAX, Generation, REGION_LEN, SECTOR_LEN},
};

mod private {
    pub(crate) trait Closed {}
}

/// How sectors are turned into what the store takes, and back. Closed: there are two.
pub(crate) trait Protection: private::Closed + Send + Sync + 'static {
    /// Sectors that may be written to the store.
    type Outgoing<'a>;

    /// Whether whoever has the store learns nothing of the content.
    const SEALED: bool;

    /// Makes whole sectors fit for the store, in place. `first` is the volume's sector that `plain` begins with; all are
    /// of one key region.
    fn seal<'a>(
        &self,
        generation: Generation,
        first: u64,
        plain: &'a mut [u8],
    ) -> Self::Outgoing<'a>;

    /// The inverse, in place. XTS does not authenticate: damaged sectors come out as noise.
    fn open(&self, generation: Generation, first: u64, stored: &mut [u8]);

    /// The bytes to write.
    fn bytes<'a>(outgoing: &'a Self::Outgoing<'_>) -> &'a [u8];

    /// The volume's sector that they begin with.
    fn first(outgoing: &Self::Outgoing<'_>) -> u64;

    /// What the metadata log is authenticated with.
    fn log_key(&self) -> &MacKey;

    /// What the header and the owner table of the slot file are authenticated with.
    fn owner_key(&self) -> &MacKey;
}

/// AES-256-XTS, data unit 4096 bytes, a key a generation and TiB.
pub(crate) struct Sealed {
    volume: VolumeId,
    data_key: VolumeDataKey,
    generation: Generation,
    /// The sector keys of `generation`, derived when first needed.
    keys: Box<[OnceLock<SectorKey>]>,
    log_key: MacKey,
    owner_key: MacKey,
}

impl Sealed {
    /// Under a volume's data key. `generation` is the top layer's, the only one yet.
    pub(crate) fn new(volume: VolumeId, data_key: VolumeDataKey, generation: Generation) -> Self {
        let regions = u64::from(CHUNKS_MAX) * CHUNK_LEN / REGION_LEN;
        Self {
            log_key: data_key.log_key(&volume.to_bytes()),
            owner_key: data_key.owner_key(&volume.to_bytes()),
            volume,
            data_key,
            generation,
            keys: (0..regions).map(|_| OnceLock::new()).collect(),
        }
    }

    fn key(&self, generation: Generation, first: u64) -> &SectorKey {
        assert_eq!(generation, self.generation, "a volume has one generation");
        let region = first / (REGION_LEN / SECTOR_LEN as u64);
        let slot = &self.keys[usize::try_from(region).expect("a volume has 64 regions")];
        slot.get_or_init(|| {
            let region = u32::try_from(region).expect("a volume has 64 regions");
            self.data_key.sector_key(
                &self.volume.to_bytes(),
                generation.0,
                region,
                SectorSize::B4096,
            )
        })
    }
}

impl private::Closed for Sealed {}

impl Protection for Sealed {
    type Outgoing<'a> = SealedSectors<'a>;

    const SEALED: bool = true;

    fn seal<'a>(
        &self,
        generation: Generation,
        first: u64,
        plain: &'a mut [u8],
    ) -> SealedSectors<'a> {
        let plain = PlainSectors::new(plain, SectorSize::B4096).expect("whole sectors");
        self.key(generation, first)
            .seal(plain, SectorIndex::new(first.into()))
    }

    fn open(&self, generation: Generation, first: u64, stored: &mut [u8]) {
        let stored = StoredSectors::new(stored, SectorSize::B4096).expect("whole sectors");
        self.key(generation, first)
            .open(stored, SectorIndex::new(first.into()));
    }

    fn bytes<'a>(outgoing: &'a SealedSectors<'_>) -> &'a [u8] {
        outgoing.as_bytes()
    }

    fn first(outgoing: &SealedSectors<'_>) -> u64 {
        u64::try_from(outgoing.first().get()).expect("made from one")
    }

    fn log_key(&self) -> &MacKey {
        &self.log_key
    }

    fn owner_key(&self) -> &MacKey {
        &self.owner_key
    }
}

/// No encryption: what was asked for when the volume was made, and never anything else afterwards.
pub(crate) struct Unencrypted {
    log_key: MacKey,
    owner_key: MacKey,
}

impl Unencrypted {
    pub(crate) fn new() -> Self {
        Self {
            log_key: MacKey::public("sealgate unencrypted volume log v1"),
            owner_key: MacKey::public("sealgate unencrypted volume owners v1"),
        }
    }
}

/// Sectors of an unencrypted volume.
pub(crate) struct OpenSectors<'a> {
    bytes: &'a [u8],
    first: u64,
}

impl private::Closed for Unencrypted {}

impl Protection for Unencrypted {
    type Outgoing<'a> = OpenSectors<'a>;

    const SEALED: bool = false;

    fn seal<'a>(&self, _: Generation, first: u64, plain: &'a mut [u8]) -> OpenSectors<'a> {
        OpenSectors {
            bytes: plain,
            first,
        }
    }

    fn open(&self, _: Generation, _: u64, _: &mut [u8]) {}

    fn bytes<'a>(outgoing: &'a OpenSectors<'_>) -> &'a [u8] {
        outgoing.bytes
    }

    fn first(outgoing: &OpenSectors<'_>) -> u64 {
        outgoing.first
    }

    fn log_key(&self) -> &MacKey {
        &self.log_key
    }

    fn owner_key(&self) -> &MacKey {
        &self.owner_key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::secret::SecretVec;

    fn sealed(volume: &str) -> Sealed {
        let data_key = VolumeDataKey::from_secret(SecretVec::from_slice(&[7; 64])).unwrap();
        Sealed::new(volume.parse().unwrap(), data_key, Generation(1))
    }

    #[test]
    fn the_same_sector_of_two_volumes_or_regions_is_sealed_differently() {
        let seal = |volume: &str, first: u64| {
            let mut sector = vec![1; SECTOR_LEN];
            let volume = sealed(volume);
            assert_eq!(
                Sealed::first(&volume.seal(Generation(1), first, &mut sector)),
                first
            );
            sector
        };
        let one = seal("vol-00000000000000001", 0);
        assert_eq!(one, seal("vol-00000000000000001", 0));
        assert_ne!(one, vec![1; SECTOR_LEN]);
        assert_ne!(one, seal("vol-00000000000000002", 0));
        assert_ne!(one, seal("vol-00000000000000001", 1 << 28));
    }

    #[test]
    fn sectors_open_to_what_was_sealed() {
        let volume = sealed("vol-00000000000000001");
        let mut sectors: Vec<u8> = (0..3 * SECTOR_LEN)
            .map(|n| u8::try_from(n % 251).unwrap())
            .collect();
        let plain = sectors.clone();
        volume.seal(Generation(1), (1 << 34) - 3, &mut sectors);
        assert_ne!(sectors, plain);
        volume.open(Generation(1), (1 << 34) - 3, &mut sectors);
        assert_eq!(sectors, plain);
    }
}
