//! The NBD server as clients see it: a small client of our own for every message and error, and
//! the clients that people use.

mod client;
mod commands;
mod elsewhere;
mod gate;
mod lifecycle;
mod limits;
mod malformed;
mod negotiation;
mod real_clients;
