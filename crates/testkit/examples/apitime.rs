//! Times commands of a node over one open connection, without the start of a program:
//!
//! - `apitime ADDRESS snapshot VOLUME COUNT` takes snapshots one after the other and deletes each;
//! - `apitime ADDRESS clone VOLUME@SNAPSHOT COUNT` clones a snapshot, and deletes each clone.
//!
//! Prints one line for each: the milliseconds that the command took.

use std::error::Error;
use std::time::Instant;

use skerry_api::v1::{
    CloneVolumeRequest, CreateSnapshotRequest, DeleteSnapshotRequest, DeleteVolumeRequest,
};
use skerry_api::{Address, Client};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, what, name, count] = &args[..] else {
        return Err("usage: apitime ADDRESS snapshot|clone NAME COUNT".into());
    };
    let client = Client::connect(&address.parse::<Address>()?).await?;
    for number in 0..count.parse::<u32>()? {
        let milliseconds = match what.as_str() {
            "snapshot" => snapshot(&client, name, number).await?,
            _ => clone(&client, name, number).await?,
        };
        println!("{milliseconds:.3}");
    }
    Ok(())
}

async fn snapshot(client: &Client, volume: &str, number: u32) -> Result<f64, Box<dyn Error>> {
    let (volume, snapshot) = (volume.to_owned(), format!("timed-{number}"));
    let request =
        CreateSnapshotRequest { volume: volume.clone(), snapshot: Some(snapshot.clone()) };
    let took = timed(client.create_snapshot(request)).await?;
    client.delete_snapshot(DeleteSnapshotRequest { volume, snapshot }).await?;
    Ok(took)
}

async fn clone(client: &Client, from: &str, number: u32) -> Result<f64, Box<dyn Error>> {
    let (volume, snapshot) = from.split_once('@').ok_or("a clone is made of VOLUME@SNAPSHOT")?;
    let new_name = format!("timed-{number}");
    let request = CloneVolumeRequest {
        volume: volume.to_owned(),
        snapshot: snapshot.to_owned(),
        new_name: new_name.clone(),
        size_bytes: None,
    };
    let took = timed(client.clone_volume(request)).await?;
    let delete = DeleteVolumeRequest { name: new_name, ..DeleteVolumeRequest::default() };
    client.delete_volume(delete).await?;
    Ok(took)
}

// A benchmark measures time.
#[allow(clippy::disallowed_methods)]
async fn timed<T>(call: impl Future<Output = skerry_api::Result<T>>) -> skerry_api::Result<f64> {
    let start = Instant::now();
    call.await?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
