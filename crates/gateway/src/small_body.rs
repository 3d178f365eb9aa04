//! The bodies of requests that are not S3's: small, read whole, within a limit and a time.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use api::Refusal;
use bytes::Bytes;
use host::memory::{Account, Memory, Share};
use http_body_util::{BodyExt, Limited};

/// The largest body of a service that is not S3. KMS's largest request carries 6 KiB of ciphertext and
/// 8 KiB of context; a policy may be 32 KiB, and Query encoding triples it at worst.
const LEN_MAX: usize = 256 * 1024;

/// And it has to be here by then: nobody has proved who he is before the whole of it is.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Reads a body whole, into memory that is accounted for.
pub(crate) async fn read<B>(
    body: B,
    memory: &Memory,
    account: &Arc<Account>,
) -> Result<(Bytes, Share), Refusal>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    // A client that says how long its body is takes no more than that; most are a few hundred bytes.
    let announced = body.size_hint().upper().unwrap_or(u64::MAX);
    let share = memory.take(account, announced.min(LEN_MAX as u64)).await;
    let share = share.map_err(|_| Refusal::Busy)?;
    Ok((read_whole(body, LEN_MAX, TIMEOUT).await?, share))
}

/// Reads a body of at most `len_max` bytes that arrives within `timeout`.
async fn read_whole<B>(body: B, len_max: usize, timeout: Duration) -> Result<Bytes, Refusal>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match tokio::time::timeout(timeout, Limited::new(body, len_max).collect()).await {
        Err(_) => Err(Refusal::BodyTooSlow),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Refusal::BodyTooLong)
        }
        Ok(Err(error)) if has_stalled(&*error) => Err(Refusal::BodyTooSlow),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a request's body broke off");
            Err(Refusal::BodyBroken)
        }
    }
}

fn has_stalled(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body_util::Full;

    use super::*;

    /// A client that says nothing more.
    struct Silent;

    impl http_body::Body for Silent {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_or_does_not_end_is_refused() {
        let wait = Duration::from_millis(20);
        let slow = read_whole(Silent, 8, wait).await;
        assert!(matches!(slow, Err(Refusal::BodyTooSlow)));
        let long = read_whole(Full::new(Bytes::from_static(b"123456789")), 8, wait).await;
        assert!(matches!(long, Err(Refusal::BodyTooLong)));
        let whole = read_whole(Full::new(Bytes::from_static(b"12345678")), 8, wait).await;
        assert_eq!(whole.ok().unwrap(), "12345678");
    }
}
