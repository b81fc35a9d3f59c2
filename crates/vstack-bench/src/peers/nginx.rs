//! nginx as its own documents tune it for files: sendfile, a worker a core, descriptors kept open, no access log.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Programs, Target, fresh};
use crate::http::get;
use crate::process::{Process, free_address, wait_for_listener};

/// Starts nginx over `chunks` as files; nothing if it is not installed.
pub(crate) fn nginx(programs: &Programs, chunks: &[Vec<u8>]) -> Result<Option<Target>> {
    let Some(program) = &programs.nginx else {
        return Ok(None);
    };
    let folder = fresh(&programs.work, "nginx")?;
    let files = folder.join("files");
    std::fs::create_dir_all(&files)?;
    for (number, chunk) in chunks.iter().enumerate() {
        std::fs::write(files.join(format!("chunk-{number:03}")), chunk)
            .context("cannot write nginx's files")?;
    }
    let address = free_address()?;
    std::fs::write(folder.join("nginx.conf"), config(&folder, &address.to_string()))?;
    let mut command = Command::new(program);
    command
        .arg("-p")
        .arg(&folder)
        .arg("-c")
        .arg(folder.join("nginx.conf"));
    command.arg("-e").arg(folder.join("error.log"));
    let process = Process::start(&mut command, &folder.join("log"))?;
    wait_for_listener(address)?;
    let reads = (0..chunks.len())
        .map(|number| get(address, &format!("/chunk-{number:03}")))
        .collect();
    Ok(Some(Target {
        name: "nginx",
        version: version(program),
        address,
        process,
        _beside: None,
        reads,
    }))
}

fn config(folder: &Path, address: &str) -> String {
    let folder = folder.display();
    format!(
        "daemon off;
worker_processes auto;
pid {folder}/pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 600;
    open_file_cache max=100000 inactive=600s;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{ listen {address} backlog=4096; root {folder}/files; }}
}}
"
    )
}

/// `nginx version: nginx/1.22.1` goes to standard error.
fn version(program: &Path) -> String {
    let output = Command::new(program).arg("-v").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    let text = text.unwrap_or_default();
    text.trim().rsplit('/').next().unwrap_or_default().to_owned()
}
