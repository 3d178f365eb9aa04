//! Sealed objects behind an S3 front.
