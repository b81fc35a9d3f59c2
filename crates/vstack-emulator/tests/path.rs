//! The emulator in front of a real TCP server: what passes is unchanged, the limits hold, the switches switch.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use vstack_emulator::{Emulated, Emulator, Profile};

const DEADLINE: Duration = Duration::from_secs(10);

/// A server that answers every 8-byte count with so many bytes of a pattern.
async fn source() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has free ports");
    let addr = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while let Ok(count) = stream.read_u64().await {
                    if stream.write_all(&pattern(count)).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

fn pattern(count: u64) -> Vec<u8> {
    (0..count)
        .map(|index| u8::try_from(index * 31 % 251).expect("below 251"))
        .collect()
}

async fn path(profile: Profile) -> Emulated {
    Emulator::start(source().await, profile)
        .await
        .expect("loopback has free ports")
}

async fn ask(path: &Emulated, count: u64) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(path.addr).await?;
    ask_on(&mut stream, count).await
}

async fn ask_on(stream: &mut TcpStream, count: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(count).expect("counts are small here")];
    stream.write_u64(count).await?;
    timeout(DEADLINE, stream.read_exact(&mut bytes)).await??;
    Ok(bytes)
}

#[tokio::test]
async fn bytes_pass_unchanged_on_many_connections_and_are_counted() {
    let path = path(Profile::default()).await;
    let mut streams = Vec::new();
    for n in 1..=8 {
        let mut stream = TcpStream::connect(path.addr).await.unwrap();
        stream.write_u64(n * 100_000).await.unwrap();
        streams.push((stream, pattern(n * 100_000)));
    }
    for (stream, expected) in &mut streams {
        let mut bytes = vec![0; expected.len()];
        timeout(DEADLINE, stream.read_exact(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&bytes, expected);
    }
    assert_eq!(path.handle.down_bytes(), 3_600_000);
    assert_eq!(path.handle.up_bytes(), 64);
}

#[tokio::test]
async fn connections_share_the_limit_of_their_direction() {
    let path = path(Profile {
        down_mbps: Some(8.0),
        ..Profile::default()
    })
    .await; // 1 MB/s
    let started = Instant::now();
    let (first, second) = tokio::join!(ask(&path, 250_000), ask(&path, 250_000));
    assert_eq!(
        (first.unwrap(), second.unwrap()),
        (pattern(250_000), pattern(250_000))
    );
    let seconds = started.elapsed().as_secs_f64();
    assert!((0.46..2.0).contains(&seconds), "half a megabyte took {seconds} s");
}

#[tokio::test]
async fn delay_counts_once_for_each_direction_and_costs_no_bandwidth() {
    let path = path(Profile {
        delay_ms: 60,
        ..Profile::default()
    })
    .await;
    let started = Instant::now();
    assert_eq!(ask(&path, 1_000_000).await.unwrap(), pattern(1_000_000));
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(120),
        "{took:?} for one round trip of 120 ms"
    );
    assert!(
        took < Duration::from_millis(900),
        "{took:?}: each piece waited by itself"
    );
}

#[tokio::test]
async fn a_frozen_path_is_silent_and_goes_on_where_it_stopped() {
    let path = path(Profile::default()).await;
    let mut stream = TcpStream::connect(path.addr).await.unwrap();
    assert_eq!(ask_on(&mut stream, 10).await.unwrap(), pattern(10));
    path.handle.freeze();
    stream.write_u64(20).await.unwrap();
    let mut bytes = [0; 20];
    assert!(
        timeout(Duration::from_millis(200), stream.read_exact(&mut bytes))
            .await
            .is_err(),
        "it moved"
    );
    let mut newcomer = TcpStream::connect(path.addr).await.unwrap();
    assert!(
        timeout(Duration::from_millis(200), ask_on(&mut newcomer, 1))
            .await
            .is_err(),
        "it moved"
    );
    path.handle.restore();
    timeout(DEADLINE, stream.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bytes[..], pattern(20));
}

#[tokio::test]
async fn a_cut_path_resets_what_is_open_and_what_is_new_until_it_is_restored() {
    let path = path(Profile {
        down_mbps: Some(1.0),
        ..Profile::default()
    })
    .await;
    let mut stream = TcpStream::connect(path.addr).await.unwrap();
    stream.write_u64(10_000_000).await.unwrap();
    stream.read_u8().await.unwrap(); // the answer is on its way
    path.handle.cut();
    let mut rest = Vec::new();
    let error = timeout(DEADLINE, stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(ask(&path, 1).await.is_err());
    path.handle.restore();
    assert_eq!(ask(&path, 1).await.unwrap(), pattern(1));
}

#[tokio::test]
async fn a_node_that_is_not_there_looks_like_a_reset() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let path = Emulator::start(gone, Profile::default()).await.unwrap();
    assert!(ask(&path, 1).await.is_err());
}

#[tokio::test]
async fn limits_change_while_a_path_runs() {
    let path = path(Profile {
        down_mbps: Some(0.1),
        ..Profile::default()
    })
    .await;
    path.handle.set_profile(Profile::default());
    let started = Instant::now();
    assert_eq!(ask(&path, 1_000_000).await.unwrap(), pattern(1_000_000));
    assert!(started.elapsed() < Duration::from_secs(5));
}
