//! Serves disks in memory over NBD: `memory SOCKET SIZE_BYTES [NAME]...`.
//!
//! Prints `ready SOCKET` when clients may connect; ends, after draining, when its standard input
//! does. Environment: `RUNTIME=current` for one thread; `TCP=ADDR:PORT` also listens there.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use skerry_device::memory::MemoryDevice;
use skerry_serve::nbd::{Limits, Server};
use skerry_serve::{Export, FixedExports};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UnixListener};

/// Time for clients to take their last replies.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    let (Some(socket), Some(size)) = (args.next(), args.next()) else {
        return Err("usage: memory SOCKET SIZE_BYTES [NAME]...".into());
    };
    let mut names: Vec<String> = args.collect();
    if names.is_empty() {
        names.push("disk".to_owned());
    }
    let mut runtime = match std::env::var("RUNTIME").as_deref() {
        Ok("current") => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build()?.block_on(serve(socket, size.parse()?, names))
}

async fn serve(socket: String, size: u64, names: Vec<String>) -> Result<(), Box<dyn Error>> {
    let disks = names.iter().map(|name| Export::new(name, Arc::new(MemoryDevice::new(size))));
    let server = Server::new(Arc::new(FixedExports::new(disks.collect())), Limits::default());
    let listener = UnixListener::bind(&socket)?;
    let unix = server.clone();
    tokio::spawn(async move { unix.serve_unix(listener).await });
    if let Ok(address) = std::env::var("TCP") {
        let listener = TcpListener::bind(address).await?;
        let tcp = server.clone();
        tokio::spawn(async move { tcp.serve_tcp(listener).await });
    }
    println!("ready {socket}");
    let mut ignored = Vec::new();
    tokio::io::stdin().read_to_end(&mut ignored).await?;
    server.shutdown(DRAIN_TIME_MAX).await;
    std::fs::remove_file(&socket)?;
    Ok(())
}
