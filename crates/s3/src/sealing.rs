//! From plaintext to sealed chunks in a store's sink, in one pass.
//!
//! While one batch of chunks is written, the next is received; memory is two
//! batches and what waits to be hashed ([`crate::md5`]), whatever the object's size.

use std::collections::VecDeque;
use std::future::Future;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use crypto::chunk::{Algorithm, ChunkSealer, ObjectKey, SealedBuf, StreamAad};
use crypto::random::Random;

use crate::error::Error;
use crate::guard::{GuardedBody, Received};
use crate::room::BATCH_LEN;
use crate::store::{PartSink, PutSink, StoreError};

/// Plaintext of a known length that comes in pieces.
pub(crate) trait Plain: Send {
    /// How many bytes are to come.
    fn plain_len(&self) -> u64;
    /// The next ones; `None` at the end.
    fn next_bytes(&mut self) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send;
    /// Whether all came as promised.
    fn received(self) -> impl Future<Output = Result<Received, Error>> + Send;
}

impl Plain for GuardedBody {
    fn plain_len(&self) -> u64 {
        self.len()
    }

    async fn next_bytes(&mut self) -> Result<Option<Bytes>, Error> {
        self.next().await
    }

    async fn received(self) -> Result<Received, Error> {
        self.finish().await
    }
}

/// What takes sealed chunks.
#[async_trait]
pub(crate) trait Sink: Send {
    async fn put(&mut self, sealed: SealedBuf) -> Result<(), StoreError>;
}

#[async_trait]
impl Sink for Box<dyn PutSink> {
    async fn put(&mut self, sealed: SealedBuf) -> Result<(), StoreError> {
        self.write(sealed).await
    }
}

#[async_trait]
impl Sink for Box<dyn PartSink> {
    async fn put(&mut self, sealed: SealedBuf) -> Result<(), StoreError> {
        self.write(sealed).await
    }
}

/// What a stream is sealed with and bound to.
pub(crate) struct Seal<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) key: &'a ObjectKey,
    pub(crate) place: StreamAad,
    pub(crate) random: &'a dyn Random,
}

/// A sealed stream, as its envelope describes it.
pub(crate) struct SealedStream {
    pub(crate) salt: [u8; 32],
    pub(crate) received: Received,
}

/// Seals `plain` into `sink` under a one-use key with a fresh salt. Nothing is
/// committed; the caller does so with what is returned.
pub(crate) async fn seal<P: Plain, S: Sink>(
    mut plain: P,
    sink: &mut S,
    with: Seal<'_>,
) -> Result<SealedStream, Error> {
    let (one_use, salt) = with.key.part_key(with.random);
    let mut sealer = ChunkSealer::new(with.algorithm, one_use, with.place);
    let mut batches = Batches {
        left: plain.plain_len(),
        ready: VecDeque::new(),
    };
    let mut batch = batches.next(&mut plain).await?;
    loop {
        let last = batches.left == 0;
        let sealed = sealer
            .seal_vec(batch, last)
            .map_err(|_| Error::Internal("a batch was not whole chunks"))?;
        if last {
            sink.put(sealed).await?;
            break;
        }
        let write = async { sink.put(sealed).await.map_err(Error::from) };
        ((), batch) = futures::future::try_join(write, batches.next(&mut plain)).await?;
    }
    // Anything beyond the announced length is an error in the source itself.
    if plain.next_bytes().await?.is_some() || !batches.ready.is_empty() {
        return Err(Error::invalid_request("The body is longer than announced."));
    }
    Ok(SealedStream {
        salt,
        received: plain.received().await?,
    })
}

/// Gathers pieces into batches of whole chunks.
struct Batches {
    left: u64,
    ready: VecDeque<Bytes>,
}

impl Batches {
    /// The next batch: [`BATCH_LEN`] bytes, or all that is left.
    async fn next<P: Plain>(&mut self, plain: &mut P) -> Result<Vec<u8>, Error> {
        let want = usize::try_from(self.left).map_or(BATCH_LEN, |left| left.min(BATCH_LEN));
        let mut batch = Vec::with_capacity(want);
        while batch.len() < want {
            let Some(piece) = self.ready.front_mut() else {
                match plain.next_bytes().await? {
                    Some(bytes) => self.ready.push_back(bytes),
                    None => return Err(Error::incomplete_body()),
                }
                continue;
            };
            let take = piece.len().min(want - batch.len());
            batch.extend_from_slice(&piece[..take]);
            piece.advance(take);
            if piece.is_empty() {
                self.ready.pop_front();
            }
        }
        self.left -= want as u64;
        Ok(batch)
    }
}
