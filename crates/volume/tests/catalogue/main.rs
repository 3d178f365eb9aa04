//! Volumes on a simulated disk and a catalogue that fails: what exists after every crash, and what is made again.
#![allow(clippy::unwrap_used)]

mod crashes;
mod damage;
mod rebuild;
mod reseal;
mod world;
