//! AWS-LC's AES-256-XTS, which `aws-lc-rs` does not offer: the one module of
//! this package that speaks C.

#![allow(unsafe_code)]

use std::ptr;

use aws_lc_sys::{
    EVP_CIPHER_CTX, EVP_CIPHER_CTX_free, EVP_CIPHER_CTX_new, EVP_CipherInit_ex, EVP_CipherUpdate,
    EVP_aes_256_xts,
};

/// A keyed context, used for one sector after another as a storage engine would.
pub(crate) struct AwsLcXts(*mut EVP_CIPHER_CTX);

impl AwsLcXts {
    pub(crate) fn new(key: &[u8; 64], seal: bool) -> Self {
        // SAFETY: plain allocation; null is refused below.
        let ctx = unsafe { EVP_CIPHER_CTX_new() };
        assert!(!ctx.is_null(), "AWS-LC allocates a context");
        // SAFETY: `ctx` is fresh, the cipher is static, the key has the 64 bytes
        // this cipher reads, the tweak is set later.
        let done = unsafe {
            EVP_CipherInit_ex(
                ctx,
                EVP_aes_256_xts(),
                ptr::null_mut(),
                key.as_ptr(),
                ptr::null(),
                i32::from(seal),
            )
        };
        assert_eq!(done, 1, "AWS-LC takes the key");
        Self(ctx)
    }

    pub(crate) fn run(&mut self, buf: &mut [u8], sector_len: usize, first: u128) {
        for (sector, index) in buf.chunks_exact_mut(sector_len).zip(first..) {
            let tweak = index.to_le_bytes();
            let mut written = 0;
            let len = i32::try_from(sector.len()).expect("a sector is short");
            // SAFETY: `self.0` is a live context with a key; -1 keeps its
            // direction; the tweak has the 16 bytes that are read. Input and
            // output are the same `len` bytes, which AWS-LC allows.
            let done = unsafe {
                EVP_CipherInit_ex(
                    self.0,
                    ptr::null(),
                    ptr::null_mut(),
                    ptr::null(),
                    tweak.as_ptr(),
                    -1,
                ) & EVP_CipherUpdate(
                    self.0,
                    sector.as_mut_ptr(),
                    &mut written,
                    sector.as_ptr(),
                    len,
                )
            };
            assert!(done == 1 && written == len, "AWS-LC runs a sector");
        }
    }
}

impl Drop for AwsLcXts {
    fn drop(&mut self) {
        // SAFETY: made by `EVP_CIPHER_CTX_new`, freed once.
        unsafe { EVP_CIPHER_CTX_free(self.0) }
    }
}
