//! Measures the transport on this machine: opening, connecting, round trips, frames, heartbeats and content.
//!
//! `cargo run --release -p hedge-net --example net_latency`

use bytes::Bytes;
use hedge_net::{
    DataServer, DataStore, Fetcher, Hello, Link, Net, NetConfig, Role, SecretKey, Trust, encode,
    peer_id,
};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

type Failure = Box<dyn std::error::Error>;

const ROUND_TRIPS: usize = 5_000;
const FRAMES: u32 = 200_000;
const CONTENT_BYTES: usize = 256 << 20;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut binds = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        let net = bind(SecretKey::generate(), None).await?;
        binds.push(start.elapsed());
        net.close().await;
    }
    report("bind", binds);

    let (here, there) = (
        bind(SecretKey::generate(), None).await?,
        bind(SecretKey::generate(), None).await?,
    );
    let mut connects = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        let (a, _b) = link(&here, &there).await?;
        connects.push(start.elapsed());
        drop(a);
    }
    report("connect, hello and welcome", connects);

    let (mut a, mut b) = link(&here, &there).await?;
    report(
        "round trip of a 64-byte message",
        round_trips(&mut a, &mut b).await?,
    );
    report(
        "round trip of a 64-byte heartbeat",
        heartbeat_round_trips(&mut a, &mut b).await?,
    );
    frames(&mut a, &mut b).await?;
    content().await
}

async fn bind(
    key: SecretKey,
    data: Option<(DataServer, Handle)>,
) -> Result<Net, hedge_net::NetError> {
    Net::bind(NetConfig {
        data,
        ..NetConfig::new(key, (Ipv4Addr::LOCALHOST, 0).into())
    })
    .await
}

async fn link(here: &Net, there: &Net) -> Result<(Link, Link), Failure> {
    let hello = Hello {
        role: Role::Worker,
        proof: None,
        payload: Vec::new(),
    };
    let to = there.local_addr();
    let accept = async {
        there
            .accept()
            .await
            .ok_or("closed")?
            .accept(b"")
            .await
            .map_err(Failure::from)
    };
    let dial = async { here.connect(&to, &hello).await.map_err(Failure::from) };
    let ((link, _), accepted) = tokio::try_join!(dial, accept)?;
    Ok((link, accepted))
}

async fn round_trips(a: &mut Link, b: &mut Link) -> Result<Vec<Duration>, Failure> {
    let echo = async {
        for _ in 0..ROUND_TRIPS {
            let batch = b.receiver.recv::<Vec<u8>>().await?;
            b.sender.send(encode(&batch)?).await?;
        }
        Ok::<_, Failure>(())
    };
    let ask = async {
        let mut times = Vec::with_capacity(ROUND_TRIPS);
        for _ in 0..ROUND_TRIPS {
            let start = Instant::now();
            a.sender.send(encode(&[vec![7u8; 64]])?).await?;
            a.receiver.recv::<Vec<u8>>().await?;
            times.push(start.elapsed());
        }
        Ok::<_, Failure>(times)
    };
    Ok(tokio::try_join!(echo, ask)?.1)
}

async fn heartbeat_round_trips(a: &mut Link, b: &mut Link) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    let (mut there, mut back) = (vec![Bytes::new(); 8], vec![Bytes::new(); 8]);
    for _ in 0..ROUND_TRIPS {
        let start = Instant::now();
        a.sender.send_heartbeat(Bytes::from_static(&[7; 64]))?;
        b.heartbeats.recv(&mut there).await?;
        b.sender.send_heartbeat(there[0].clone())?;
        a.heartbeats.recv(&mut back).await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

async fn frames(a: &mut Link, b: &mut Link) -> Result<(), Failure> {
    let start = Instant::now();
    let send = async {
        for number in 0..FRAMES {
            a.sender.send(encode(&[(number, [7u8; 32])])?).await?;
        }
        Ok::<_, Failure>(())
    };
    let receive = async {
        for _ in 0..FRAMES {
            b.receiver.recv::<(u32, [u8; 32])>().await?;
        }
        Ok::<_, Failure>(())
    };
    tokio::try_join!(send, receive)?;
    let each = start.elapsed() / FRAMES;
    println!(
        "{:<34} {each:>9.1?} each, one message in each of {FRAMES} frames",
        "frames one way"
    );
    Ok(())
}

async fn content() -> Result<(), Failure> {
    let dir = std::env::temp_dir().join(format!("hedge-net-latency-{}", std::process::id()));
    let key = SecretKey::generate();
    let start = Instant::now();
    let store = DataStore::open(&dir.join("a")).await?;
    println!("{:<34} {:>9.1?}", "store, first opening", start.elapsed());
    let mut adds = Vec::new();
    for number in 0..100u8 {
        let start = Instant::now();
        store.add_bytes(vec![number; 100_000]).await?;
        adds.push(start.elapsed());
    }
    report("add 100 kB", adds);
    let bytes: Vec<u8> = (0..CONTENT_BYTES as u32)
        .map(|i| (i.wrapping_mul(7919) >> 3) as u8)
        .collect();
    let start = Instant::now();
    let hash = store.add_bytes(bytes).await?;
    rate("add 256 MiB", start.elapsed());
    let server = DataServer::new(store.clone(), Trust::new([peer_id(&key)]));
    let holder = bind(SecretKey::generate(), Some((server, Handle::current()))).await?;
    let reader = bind(key, None).await?;
    let target = DataStore::open(&dir.join("b")).await?;
    let fetcher = Fetcher::new(reader, target.clone(), Handle::current());
    let sources = [holder.local_addr()];
    let start = Instant::now();
    fetcher
        .fetch(hash, CONTENT_BYTES as u64, &sources, None)
        .await?;
    rate("fetch 256 MiB, store to store", start.elapsed());
    let mut fetches = Vec::new();
    for number in 0..100u8 {
        let small = store.add_bytes(vec![number; 20_000]).await?;
        let start = Instant::now();
        fetcher.fetch(small, 20_000, &sources, None).await?;
        fetches.push(start.elapsed());
    }
    report("fetch 20 kB", fetches);
    let start = Instant::now();
    target.export(hash, &dir.join("out"), false).await?;
    rate("write out 256 MiB, verified", start.elapsed());
    store.close();
    drop(store);
    let start = Instant::now();
    let store = DataStore::open(&dir.join("a")).await?;
    println!(
        "{:<34} {:>9.1?}  with {} contents",
        "store, opening again",
        start.elapsed(),
        store.list().len()
    );
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn rate(what: &str, time: Duration) {
    let mib_per_s = (CONTENT_BYTES >> 20) as f64 / time.as_secs_f64();
    println!("{what:<34} {time:>9.1?}  {mib_per_s:.0} MiB/s");
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{what:<34} {:>9.1?} p50, {:.1?} p90", at(0.5), at(0.9));
}
