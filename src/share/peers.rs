//! Peers.
mod copy;
mod index;
mod message;
