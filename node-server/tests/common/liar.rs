//! A network path to a node that can be told to lie: every larger piece of an answer then has one bit turned.
//!
//! Heads and short JSON answers pass as they are, so that the node looks well and only its bytes are wrong.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Pieces below this are heads and small answers.
const SMALL_BYTES: usize = 600;

pub struct Liar {
    pub address: SocketAddr,
    lies: Arc<AtomicBool>,
}

impl Liar {
    /// A path to `upstream`, honest until it is told to lie. Its threads end with the test.
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let lies = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&lies);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let lies = Arc::clone(&shared);
                thread::spawn(move || carry(client, upstream, &lies));
            }
        });
        Self { address, lies }
    }

    pub fn lie(&self, lies: bool) {
        self.lies.store(lies, Ordering::SeqCst);
    }
}

fn carry(client: TcpStream, upstream: SocketAddr, lies: &Arc<AtomicBool>) {
    let Ok(node) = TcpStream::connect(upstream) else {
        return;
    };
    let (Ok(from_client), Ok(to_node)) = (client.try_clone(), node.try_clone()) else {
        return;
    };
    let up = thread::spawn(move || copy(from_client, to_node, None));
    copy(node, client, Some(lies));
    let _ = up.join();
}

fn copy(mut from: TcpStream, mut to: TcpStream, lies: Option<&AtomicBool>) {
    let mut piece = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        let is_body = length >= SMALL_BYTES;
        if is_body && lies.is_some_and(|lies| lies.load(Ordering::SeqCst)) {
            piece[length - 1] ^= 1;
        }
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
