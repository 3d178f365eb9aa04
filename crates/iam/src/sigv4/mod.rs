//! Signature Version 4, verified once for every service.
