//! `GET /nodes` and `GET /manifest/{id}` from memory; everything else is 404.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use vstack_core::manifest::Manifest;

use super::Holder;

/// A running catalogue; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Catalogue {
    pub(crate) url: String,
    _task: DropGuard,
}

#[derive(Debug)]
struct Pages {
    nodes: Vec<u8>,
    manifest: Vec<u8>,
}

impl Catalogue {
    pub(crate) async fn start(holders: &[Holder], manifest: &Manifest) -> Result<Self> {
        let entries: Vec<_> = (1..)
            .zip(holders)
            .map(|(number, holder)| holder.entry(number))
            .collect();
        let pages = Arc::new(Pages {
            nodes: serde_json::to_vec(&entries)?,
            manifest: serde_json::to_vec(manifest)?,
        });
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .context("no port is free")?;
        let url = format!("http://{}", listener.local_addr()?);
        let stop = CancellationToken::new();
        let ending = stop.clone();
        tokio::spawn(async move { ending.run_until_cancelled(accept(listener, pages)).await });
        Ok(Self {
            url,
            _task: stop.drop_guard(),
        })
    }
}

async fn accept(listener: TcpListener, pages: Arc<Pages>) {
    while let Ok((stream, _)) = listener.accept().await {
        let pages = Arc::clone(&pages);
        // A client that leaves ends its task.
        tokio::spawn(async move { drop(serve(stream, &pages).await) });
    }
}

async fn serve(stream: TcpStream, pages: &Pages) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let (mut first, mut line, mut body_bytes) = (String::new(), String::new(), 0_u64);
        if stream.read_line(&mut first).await? == 0 {
            return Ok(());
        }
        while stream.read_line(&mut line).await? > 2 {
            if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                body_bytes = length.trim().parse()?;
            }
            line.clear();
        }
        tokio::io::copy(&mut (&mut stream).take(body_bytes), &mut tokio::io::sink()).await?;
        let page = match first.split(' ').nth(1) {
            Some("/nodes") => Some(&pages.nodes),
            Some(path) if path.starts_with("/manifest/") => Some(&pages.manifest),
            _ => None,
        };
        let (status, body) = page.map_or(("404 Not Found", &b""[..]), |page| ("200 OK", page));
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
    }
}
