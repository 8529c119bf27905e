//! `skerry jobs work`: a program that does jobs.

use std::process::Command;

use rustix::process::Signal;
use skerry_testkit::process::wait_foreign;
use skerry_testkit::{NodeSettings, Process, SkerryNode};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn start() -> std::io::Result<SkerryNode> {
    NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))?.start()
}

/// A worker of the group "g" that runs a shell script for each job. Its standard error goes to its
/// standard output.
fn worker(node: &SkerryNode, more: &[&str], script: &str) -> std::io::Result<Process> {
    let data = node.settings().data();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(node.settings().bin());
    command.arg("--data").arg(data).args(["jobs", "work", "g"]).args(more);
    Process::spawn(command.args(["--", "sh", "-c", script]))
}

fn enqueue(node: &SkerryNode, id: &str, payload: &str, more: &[&str]) -> std::io::Result<String> {
    node.cli(&[&["jobs", "enqueue", "--group", "g", "--id", id, payload], more].concat())
}

#[test]
fn a_program_gets_the_payload_and_gives_the_result() -> Outcome {
    let node = start()?;
    enqueue(&node, "a", "hello", &["--meta", "user=42"])?;
    let script = "tr a-z A-Z; echo \" $SKERRY_JOB_ID $SKERRY_JOB_ATTEMPT $SKERRY_JOB_METADATA\"";
    let worker = worker(&node, &[], script)?;
    node.cli(&["jobs", "await", "a"])?;
    assert_eq!(node.cli(&["jobs", "result", "a"])?, "HELLO a 1 {\"user\":\"42\"}\n");
    worker.signal(Signal::TERM);
    assert!(worker.wait()?.success(), "{}", worker.stdout_tail());
    assert!(worker.stdout_tail().contains("waiting for jobs of \"g\""));
    Ok(())
}

#[test]
fn an_exit_code_says_whether_another_try_helps() -> Outcome {
    let node = start()?;
    enqueue(&node, "bad", "", &["--retries", "9"])?;
    let script = "echo 'no such address' >&2; exit 65";
    let worker = worker(&node, &["--give-up", "65"], script)?;
    node.settings().cli(&["jobs", "await", "bad"])?.refused(5)?;
    let shown = node.json(&["jobs", "show", "bad"])?;
    assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(1), "{shown}");
    let said = shown.to_string();
    assert!(said.contains("exit 65") && said.contains("no such address"), "{said}");
    worker.kill()?;

    enqueue(&node, "once", "", &["--retries", "1"])?;
    let worker = self::worker(&node, &[], "test $SKERRY_JOB_ATTEMPT = 2")?;
    node.cli(&["jobs", "await", "once"])?;
    worker.kill()?;
    Ok(())
}

/// A cancelled job's program is asked to end, with all its processes.
#[test]
fn a_cancelled_program_is_told() -> Outcome {
    let node = start()?;
    enqueue(&node, "long", "", &[])?;
    let script = "trap 'echo told >&2; exit 1' TERM; sleep 1000 & echo begun $! >&2; wait";
    let worker = worker(&node, &[], script)?;
    let begun = worker.wait_line(|line| line.starts_with("begun "))?;
    node.cli(&["jobs", "cancel", "long"])?;
    node.settings().cli(&["jobs", "await", "long"])?.refused(5)?;
    assert_eq!(node.json(&["jobs", "show", "long"])?["state"].as_str(), Some("cancelled"));
    worker.wait_line(|line| line == "told")?;
    wait_foreign(&begun["begun ".len()..])?;
    worker.signal(Signal::TERM);
    assert!(worker.wait()?.success(), "{}", worker.stdout_tail());
    Ok(())
}

/// A process that a program leaves behind keeps neither its job nor its worker.
#[test]
fn a_process_that_is_left_behind_keeps_no_job() -> Outcome {
    let node = start()?;
    enqueue(&node, "left", "", &[])?;
    let worker = worker(&node, &[], "sleep 1000 & echo $!")?;
    node.cli(&["jobs", "await", "left"])?;
    wait_foreign(&node.cli(&["jobs", "result", "left"])?)?;
    worker.kill()?;
    Ok(())
}

/// The first order lets programs finish, and the second kills them.
#[test]
fn a_second_signal_kills_what_runs() -> Outcome {
    let node = start()?;
    enqueue(&node, "long", "", &[])?;
    let worker = worker(&node, &[], "echo begun $$ >&2; exec sleep 1000")?;
    let begun = worker.wait_line(|line| line.starts_with("begun "))?;
    worker.signal(Signal::HUP);
    worker.wait_line(|line| line.contains("stopping"))?;
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait()?.code(), Some(7), "{}", worker.stdout_tail());
    wait_foreign(&begun["begun ".len()..])?;
    Ok(())
}

/// A worker without files for another program waits, and the job keeps its attempt.
#[test]
fn a_program_that_can_not_be_started_now_costs_no_attempt() -> Outcome {
    const IDS: [&str; 12] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"];
    let node = start()?;
    for id in IDS {
        enqueue(&node, id, "", &["--retries", "0"])?;
    }
    let gate = node.settings().data().join("gate");
    assert!(Command::new("mkfifo").arg(&gate).status()?.success());
    // Each program that runs has three files of the worker, and ends when the gate is open.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 36; exec \"$@\" 2>&1", "sh"]).arg(node.settings().bin());
    command.arg("--data").arg(node.settings().data());
    command.args(["jobs", "work", "g", "--concurrency", "12", "--", "sh", "-c", ": <\"$0\""]);
    let worker = Process::spawn(command.arg(&gate))?;
    worker.wait_line(|line| line.contains("can't be started now"))?;
    let _open = std::fs::OpenOptions::new().read(true).write(true).open(&gate)?;
    node.cli(&[&["jobs", "await"], IDS.as_slice()].concat())?;
    worker.kill()?;
    Ok(())
}

#[test]
fn a_program_that_is_not_there_takes_no_job() -> Outcome {
    let node = start()?;
    enqueue(&node, "a", "", &[])?;
    let plain = node.settings().data().join("plain");
    std::fs::write(&plain, "#!/bin/sh\n")?;
    for program in ["no-such-program", &plain.to_string_lossy()] {
        let refused = node.settings().cli(&["jobs", "work", "g", "--", program])?.refused(6)?;
        assert!(refused.contains(program), "{refused}");
    }
    let shown = node.json(&["jobs", "show", "a"])?;
    assert_eq!(shown["state"].as_str(), Some("scheduled"), "{shown}");
    Ok(())
}
