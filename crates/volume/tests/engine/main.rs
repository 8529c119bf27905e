//! Tests of the engine: one binary, so that its parts are linked once.

mod beside;
mod bounds;
mod conformance;
mod cost;
mod crash_points;
mod damage;
mod edges;
mod family;
mod layers;
mod model;
mod outage;
mod own_root;
mod parked;
mod promises;
mod rig;
mod sample;
mod scale;
mod smoke;
