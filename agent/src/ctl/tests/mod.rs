//! Daemon's end and caller's end together, over a real socket, in front of a control that is not real.

mod cli;
mod socket;
mod support;
