//! Entry points for the fuzz targets in `tests/fuzz`: decoders of what the disk gives back, which are private.

use std::{path::Path, sync::Arc};

use crypto::mac::MacKey;
use host::{Disk as _, Mode, disk::sim::SimDisk};

use crate::{
    VolumeId, copy,
    descriptor::Row,
    engine::{Engine, Media, Shape},
    geometry::CHUNK_LEN,
    log::{
        Record,
        folder::{LOG_NAME, LogFolder},
        frame::{self, FRAME_ALIGN, FileHeader, FramePlace, PAGE_LEN, PAYLOAD_LEN_MAX, Payload},
    },
    protection::Unencrypted,
};

fn id() -> VolumeId {
    VolumeId::from_bytes([0; 16]).expect("68 zero bits")
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
    slots.set_len(CHUNK_LEN).expect("the disk is well");
    file.write_at(0, log).expect("the disk is well");
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
        descriptor(include_bytes!("../golden/volume.contents"));
    }
}
