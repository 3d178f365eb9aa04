//! Entry points for fuzz targets: what reads bytes from strangers. Compiled for fuzzing alone.
use bytes::Bytes;

use crate::{kms, query::Form};

/// A form in the body of a POST.
pub fn query_form(data: &[u8]) {
    let (head, ()) = http::Request::post("/")
        .body(())
        .expect("a constant")
        .into_parts();
    if let Ok(form) = Form::read(&head, &Bytes::copy_from_slice(data)) {
        for name in form.names() {
            let base = name.split_once('.').map_or(name, |(base, _)| base);
            let _ = (form.get(name), form.list(base), form.numbers(base));
        }
    }
}

/// The body of a KMS request, read as each operation would.
pub fn kms_json(data: &[u8]) {
    kms::fuzz(data);
}

/// The body of a request to Sealgate's own service, read as each operation would.
pub fn sealgate_json(data: &[u8]) {
    crate::sealgate::fuzz(data);
}
