//! The program with real clients, servers and disks: one binary, so that it is linked once.

mod clients;
mod copies;
mod crash;
mod fence;
mod fs;
mod full_disk;
mod guest;
mod job_log;
mod job_nodes;
mod jobs;
mod jobs_bad_input;
mod jobs_cli;
mod jobs_outage;
mod jobs_program;
mod jobs_unary;
mod jobs_worker;
mod outage;
mod process;
mod run_script;
mod snapshots;
mod transcripts;
