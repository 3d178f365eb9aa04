//! Entry points for the fuzz targets in `tests/fuzz`: decoders of what the disk gives back, which are private.

use std::{io, sync::Arc};

use crypto::{
    record::{MacKey, RecordKey, RootKey},
    secret::SecretBytes,
};

use crate::{
    VolumeId,
    descriptor::Descriptor,
    device::Device,
    geometry::CHUNK_LEN,
    log::{
        Record,
        frame::{self, FileHeader, PAGE_LEN},
        replay::replay,
    },
};

fn id() -> VolumeId {
    VolumeId::from_bytes([0; 16]).expect("68 zero bits")
}

/// A metadata log: file header, frames, records. The first page is made to fit where it is nearly one, so that the fuzzer
/// gets past the MAC.
pub fn log(data: &[u8]) {
    let key = MacKey::public("fuzz");
    let header = FileHeader {
        volume: id(),
        sealed: false,
        size: CHUNK_LEN * 64,
        epoch: 1,
        checkpoint_end: 0,
    };
    if let Some((page, _)) = data.split_first_chunk::<PAGE_LEN>() {
        let _ = FileHeader::decode(page, &key);
    }
    let _ = frame::decode(&key, data);
    let mut file = header.encode(&key).to_vec();
    file.extend_from_slice(data);
    let _ = replay(Box::new(Bytes(file.into())), &key, &header, |_| Ok(()));
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
        RootKey::from_secret(SecretBytes::init_with(|key| key.fill(1))).record_key("fuzz");
    let _ = Descriptor::open(data, id(), &records);
    let _ = Descriptor::open_body(data, id());
}

/// A file that is read only.
struct Bytes(Arc<[u8]>);

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
