//! Principals, SigV4 verification and decisions.
