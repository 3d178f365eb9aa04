//! Every kernel against RFC 1321's vectors and crate `md-5`.
#![allow(clippy::unwrap_used)]

use crypto::hash::Md5;
use crypto::md5_lanes::{Job, Kernel, Lanes, Stream};
use crypto::random::{Random, SeededRandom};
use proptest::prelude::*;

/// RFC 1321, A.5.
const VECTORS: [(&str, &str); 7] = [
    ("", "d41d8cd98f00b204e9800998ecf8427e"),
    ("a", "0cc175b9c0f1b6a831c399e269772661"),
    ("abc", "900150983cd24fb0d6963f7d28e17f72"),
    ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
    (
        "abcdefghijklmnopqrstuvwxyz",
        "c3fcd3d76192e4007dfb496cca67e13b",
    ),
    (
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
        "d174ab98d277d9f5a5611c2c9f419d9f",
    ),
    (
        "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
        "57edf4a22be3c955ac49da2e2107b67a",
    ),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededRandom::new(seed).fill(&mut bytes);
    bytes
}

/// The digests of all messages, each given in pieces, by one call of the kernel.
fn digests(kernel: Kernel, messages: &[Vec<&[u8]>]) -> Vec<[u8; 16]> {
    let mut streams = vec![Stream::new(); messages.len()];
    let mut jobs: Vec<Job<'_>> = streams
        .iter_mut()
        .zip(messages)
        .map(|(stream, pieces)| Job::new(stream, pieces))
        .collect();
    Lanes::with_kernel(kernel).unwrap().update(&mut jobs);
    streams.into_iter().map(Stream::finish).collect()
}

#[test]
fn every_kernel_gives_the_digests_of_rfc_1321() {
    for kernel in Kernel::available() {
        // Seven messages, then twenty-one: more than any kernel has lanes.
        for times in [1, 3] {
            let vectors = VECTORS.repeat(times);
            let messages: Vec<_> = vectors
                .iter()
                .map(|(text, _)| vec![text.as_bytes()])
                .collect();
            for (digest, (text, expected)) in digests(kernel, &messages).iter().zip(&vectors) {
                assert_eq!(hex(digest), *expected, "{kernel}: {text}");
            }
        }
    }
}

#[test]
fn every_length_around_two_blocks_is_padded_right() {
    let data = random_bytes(200, 1);
    for len in 0..data.len() {
        let mut stream = Stream::new();
        stream.update(&data[..len]);
        assert_eq!(stream.finish(), Md5::digest(&data[..len]), "{len} bytes");
    }
}

#[test]
fn every_number_of_streams_of_unequal_lengths_is_hashed_to_the_end() {
    let data = random_bytes(1 << 16, 2);
    for kernel in Kernel::available() {
        for count in 0..=40 {
            let messages: Vec<_> = (0..count)
                .map(|i| vec![&data[i..][..(i * 7919 + count * 31) % 9000]])
                .collect();
            for (digest, message) in digests(kernel, &messages).iter().zip(&messages) {
                assert_eq!(
                    *digest,
                    Md5::digest(message[0]),
                    "{kernel}, {count} streams"
                );
            }
        }
    }
}

#[test]
fn a_stream_goes_on_where_another_kernel_left_it() {
    let data = random_bytes(10_000, 3);
    let mut streams = vec![Stream::new(); 5];
    let mut from = 0;
    for (i, kernel) in Kernel::ALL.into_iter().cycle().take(12).enumerate() {
        if !kernel.is_available() {
            continue;
        }
        let to = from + 37 * i;
        let pieces = [&data[from..to]];
        let mut jobs: Vec<_> = streams.iter_mut().map(|s| Job::new(s, &pieces)).collect();
        Lanes::with_kernel(kernel).unwrap().update(&mut jobs);
        from = to;
    }
    for stream in streams {
        assert_eq!(stream.finish(), Md5::digest(&data[..from]));
    }
}

#[test]
fn a_kernel_that_does_not_run_here_is_refused() {
    for kernel in Kernel::ALL {
        assert_eq!(
            Lanes::with_kernel(kernel).is_ok(),
            kernel.is_available(),
            "{kernel}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Each stream has its own length and is cut into its own pieces, some of them empty,
    /// over several calls.
    #[test]
    fn lanes_agree_with_crate_md5(
        cuts in proptest::collection::vec(
            proptest::collection::vec(0usize..700, 0..12),
            1..36,
        ),
        calls in 1usize..4,
        seed in any::<u64>(),
    ) {
        let messages: Vec<Vec<u8>> = cuts
            .iter()
            .enumerate()
            .map(|(i, cuts)| random_bytes(cuts.iter().sum(), seed ^ i as u64))
            .collect();
        let pieces: Vec<Vec<&[u8]>> = cuts
            .iter()
            .zip(&messages)
            .map(|(cuts, message)| {
                let mut rest = &message[..];
                cuts.iter()
                    .map(|len| {
                        let (piece, after) = rest.split_at(*len);
                        rest = after;
                        piece
                    })
                    .collect()
            })
            .collect();
        for kernel in Kernel::available() {
            let mut streams = vec![Stream::new(); messages.len()];
            for call in 0..calls {
                let share = |pieces: &Vec<&[u8]>| {
                    let each = pieces.len().div_ceil(calls);
                    let start = (call * each).min(pieces.len());
                    start..(start + each).min(pieces.len())
                };
                let mut jobs: Vec<Job<'_>> = streams
                    .iter_mut()
                    .zip(&pieces)
                    .map(|(stream, pieces)| Job::new(stream, &pieces[share(pieces)]))
                    .collect();
                Lanes::with_kernel(kernel).unwrap().update(&mut jobs);
            }
            for (stream, message) in streams.into_iter().zip(&messages) {
                prop_assert_eq!(stream.finish(), Md5::digest(message), "{}", kernel);
            }
        }
    }
}
