//! Entry points for the fuzz targets in `tests/fuzz`: decoders of what the disk gives back, which are private.

use std::{io, sync::Arc};

use crypto::{
    record::{MacKey, RecordKey},
    secret::SecretBytes,
    store_key::GenerationKey,
};

use crate::{
    VolumeId,
    descriptor::Descriptor,
    device::{Device, LogDir},
    engine::{Engine, Media, Shape},
    geometry::{CHUNK_LEN, CHUNK_SECTORS, SECTOR_LEN},
    log::{
        Record,
        frame::{self, FileHeader, FramePlace, PAGE_LEN, PAYLOAD_LEN_MAX},
        record::Payload,
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
    let _ = frame::decode(&key, data);
    open(data.to_vec());
    let page = header.encode(&key);
    open([&page[..], data].concat());
    let Some((count, records)) = data.split_first() else {
        return;
    };
    if records.len() > PAYLOAD_LEN_MAX {
        return;
    }
    let payload = Payload {
        bytes: records.to_vec(),
        count: u32::from(*count),
    };
    let place = FramePlace {
        sequence: 1,
        batch_start: PAGE_LEN as u64,
        previous: header.seed(&key),
    };
    let mut file = page.to_vec();
    frame::encode(&key, &place, &payload, &mut file);
    open(file);
}

/// Opens a volume with that log.
fn open(log: Vec<u8>) {
    let file = Bytes(log.into());
    let media = Media {
        slots: Arc::new(Bytes(vec![0; SECTOR_LEN * CHUNK_SECTORS as usize].into())),
        log: Box::new(file),
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

/// A volume's descriptor, as it is and as the content of one that authenticates.
pub fn descriptor(data: &[u8]) {
    let records: RecordKey =
        GenerationKey::from_secret(SecretBytes::init_with(|key| key.fill(1))).record_key("fuzz");
    let _ = Descriptor::open(data, id(), &records);
    let _ = Descriptor::open_body(data, id());
}

/// A file that swallows what is written.
#[derive(Clone)]
struct Bytes(Arc<[u8]>);

impl LogDir for Bytes {
    fn open_current(&self) -> io::Result<Box<dyn Device>> {
        Ok(Box::new(self.clone()))
    }

    fn create_next(&self) -> io::Result<Box<dyn Device>> {
        Ok(Box::new(self.clone()))
    }

    fn publish_next(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard_next(&self) {}
}

impl Device for Bytes {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = self
            .0
            .get(at..at + buf.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::sim::Rng;

    #[test]
    #[allow(clippy::cast_possible_truncation)]
    fn nothing_a_disk_gives_back_makes_a_decoder_panic() {
        let mut rng = Rng(1);
        let golden = include_bytes!("../golden/map.log");
        for _ in 0..100 {
            let mut bytes = golden.to_vec();
            for _ in 0..rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.next() as u8;
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
                    0 => (rng.next() % 7) as u8,
                    _ => (rng.next() % 3) as u8 * (rng.next() % 2) as u8,
                })
                .collect();
            record(&kinds);
            log(&kinds);
        }
        descriptor(include_bytes!("../golden/volume.json"));
    }
}
