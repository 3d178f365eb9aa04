//! AWS-shaped fronts.
