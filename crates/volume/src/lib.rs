//! Sealed block volumes.
