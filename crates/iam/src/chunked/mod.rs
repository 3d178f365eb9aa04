//! The `aws-chunked` body encoding.
