//! Enqueues a few jobs, does them, and waits for the last. Run: `cargo run -p skerry-client
//! --example jobs -- ADDRESS`.

use skerry_client::{Address, Failure, Jobs, NewJob, Task, Worker};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "unix:skerry-data/api.sock".to_owned());
    let address: Address = address.parse()?;
    let jobs = Jobs::connect(&address).await?;
    for n in 0..10 {
        let job = NewJob::new(format!("hello {n}")).id(format!("hello-{n}")).group("greetings");
        jobs.enqueue(job).await?;
    }
    let stop = CancellationToken::new();
    let worker = Worker::new(address, "greetings").concurrency(4);
    let working = tokio::spawn(worker.run(stop.clone(), greet));
    let last = jobs.wait("default", "hello-9").await?;
    println!("hello-9: {:?}", last.state());
    stop.cancel();
    Ok(working.await??)
}

async fn greet(task: Task) -> Result<bytes::Bytes, Failure> {
    let text = std::str::from_utf8(&task.payload);
    let text = text.map_err(|error| Failure::give_up("utf8", error.to_string()))?;
    println!("{text}");
    Ok(text.len().to_string().into())
}
