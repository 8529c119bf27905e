//! Tests of the NBD server with clients: a small one of our own for every message and error, and
//! common ones.

mod client;
mod commands;
mod elsewhere;
mod gate;
mod lifecycle;
mod limits;
mod malformed;
mod negotiation;
mod real_clients;
