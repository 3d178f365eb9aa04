//! Pure cryptography: no I/O, no clock, no async.
