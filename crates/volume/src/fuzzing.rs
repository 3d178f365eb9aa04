//! Entry points for the fuzz targets in `tests/fuzz`: decoders of what the disk gives back, which are private.

use std::{path::Path, sync::Arc};

use crypto::mac::MacKey;
use host::{Disk as _, Mode, disk::sim::SimDisk};

use crate::{
    VolumeId, cache_epoch, copy,
    default_encryption::DefaultEncryption,
    descriptor::Row,
    engine::{Engine, Media, Shape},
    geometry::{CHUNK_LEN, LayerId, Slot},
    log::{
        Record,
        folder::{LOG_NAME, LogFolder},
        frame::{self, FRAME_ALIGN, FileHeader, FramePlace, PAGE_LEN, PAYLOAD_LEN_MAX, Payload},
    },
    owner::{Claim, HEADER_LEN, OWNER_LEN, SlotHeader},
    protection::Unencrypted,
};

fn id() -> VolumeId {
    VolumeId::from_bytes([0; 16]).expect("68 zero bits")
}

/// What a volume's folder keeps of its epoch.
pub fn epoch(data: &[u8]) {
    if let Some(bytes) = data.first_chunk() {
        let _ = cache_epoch::Kept::decode(bytes);
    }
}

/// A metadata log: as a whole file, as what follows a right header, and as records in a right frame, each replayed into a
/// map.
pub fn log(data: &[u8]) {
    let key = MacKey::public("sealgate unencrypted volume log v1");
    let header = FileHeader {
        volume: id(),
        sealed: false,
        size: CHUNK_LEN * 64,
        epoch: 1,
        checkpoint_end: 0,
    };
    let _ = frame::decode(&key, 0, data);
    open(data);
    let page = header.encode(&key);
    open(&[&page[..], data].concat());
    let Some((count, records)) = data.split_first() else {
        return;
    };
    if records.len() > PAYLOAD_LEN_MAX {
        return;
    }
    let records = &records[..records.len() - records.len() % FRAME_ALIGN];
    let payload = Payload {
        bytes: records.to_vec(),
        count: u32::from(*count),
    };
    let place = FramePlace {
        sequence: 1,
        durable: PAGE_LEN as u64,
        previous: header.seed(&key),
    };
    let mut file = page.to_vec();
    frame::encode(&key, &place, &payload, &mut file);
    open(&file);
}

/// Opens a volume with that log.
fn open(log: &[u8]) {
    let disk = SimDisk::new(0);
    let made = |name| disk.open(&Path::new("/").join(name), Mode::New);
    let (slots, file) = (made("slots"), made(LOG_NAME));
    let (slots, file) = slots
        .and_then(|slots| Ok((slots, file?)))
        .expect("the disk is new");
    slots.set_len(Slot(1).start()).expect("the disk is well");
    file.write_at(0, log).expect("the disk is well");
    let header = SlotHeader {
        volume: id(),
        sealed: false,
        layer: LayerId(0),
        closed: false,
        sequence: 1,
        log_epoch: 0,
        log_durable: 0,
        revision: 1,
    };
    let owner_key = MacKey::public("sealgate unencrypted volume owners v1");
    slots
        .write_at(0, &header.encode(&owner_key))
        .expect("the disk is well");
    let media = Media {
        slots,
        log: LogFolder::new(Arc::new(disk), Path::new("/")),
        on_failed: Box::new(|| ()),
    };
    let shape = Shape {
        volume: id(),
        size: CHUNK_LEN * 64,
    };
    if let Ok(volume) = Engine::open(media, shape, Unencrypted::new()) {
        let _ = volume.extents(0, CHUNK_LEN * 64, 1000);
        let _ = volume.read(0, &mut [0; 4096]);
    }
}

/// One record; what decodes encodes to the same bytes.
pub fn record(data: &[u8]) {
    let mut rest = data;
    while let Ok(record) = Record::decode(&mut rest) {
        let mut again = Vec::new();
        record.encode(&mut again);
        let end = data.len() - rest.len();
        assert_eq!(again, &data[end - again.len()..end]);
    }
}

/// The header of a slot file, and an entry of its owner table; what decodes encodes to the same bytes.
pub fn owner(data: &[u8]) {
    let key = MacKey::public("sealgate unencrypted volume owners v1");
    // What does not authenticate is refused before anything else is looked at, so the MAC is made here.
    const { assert!(HEADER_LEN == OWNER_LEN) };
    let Some(data) = data.first_chunk::<96>() else {
        return;
    };
    let mut bytes = [0; HEADER_LEN];
    bytes[..96].copy_from_slice(data);
    bytes[96..].copy_from_slice(&key.mac(&[data]));
    if let Ok(header) = SlotHeader::decode(&bytes, &key) {
        assert_eq!(header.encode(&key), bytes);
    }
    for slot in [Slot(0), Slot(u32::MAX - 1)] {
        if let Claim::Owner(owner) = Claim::decode(&bytes, &key, id(), slot) {
            assert_eq!(owner.encode(&key, id(), slot), bytes);
        }
    }
}

/// The copy in a volume's folder, and the contents of one, or of a row, that authenticates.
pub fn descriptor(data: &[u8]) {
    if let Ok(copy) = copy::Sealed::decode(data) {
        assert_eq!(copy.encode(), data);
    }
    if let Ok(row) = Row::decode(data, id()) {
        assert_eq!(Row::decode(&row.encode(), id()), Ok(row));
    }
}

/// The contents of a claim on a client token.
pub fn token_claim(data: &[u8]) {
    crate::token::decode_any(data);
}

/// The contents of the record of what new volumes get.
pub fn default_encryption(data: &[u8]) {
    if let Ok(default) = DefaultEncryption::decode(data) {
        assert_eq!(DefaultEncryption::decode(&default.encode()), Ok(default));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::{Entropy as _, entropy::SeededEntropy};

    #[test]
    #[allow(clippy::cast_possible_truncation)]
    fn nothing_a_disk_gives_back_makes_a_decoder_panic() {
        let rng = SeededEntropy::new(1);
        let golden = include_bytes!("../golden/map.log");
        for _ in 0..100 {
            let mut bytes = golden.to_vec();
            for _ in 0..rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.number() as u8;
            }
            bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
            log(&bytes);
            let from = rng.below(bytes.len() as u64 + 1) as usize;
            let some = &bytes[from..bytes.len().min(from + 100)];
            record(some);
            log(some);
            descriptor(some);
            owner(some);
            epoch(&bytes);
            let kinds: Vec<u8> = (0..80)
                .map(|n| match n % 4 {
                    0 => (rng.number() % 9) as u8,
                    _ => (rng.number() % 3) as u8 * (rng.number() % 2) as u8,
                })
                .collect();
            record(&kinds);
            log(&kinds);
        }
        descriptor(include_bytes!("../golden/volume.copy"));
        let slots = include_bytes!("../golden/slots");
        for at in 0..96 {
            let mut bytes = slots.to_vec();
            bytes[at] ^= 1;
            owner(&bytes);
            owner(&bytes[HEADER_LEN..]);
        }
        descriptor(include_bytes!("../golden/volume.contents"));
        default_encryption(include_bytes!("../golden/default.contents"));
        epoch(include_bytes!("../golden/epoch"));
    }
}
