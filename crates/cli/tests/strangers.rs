//! What those get who may not do what they try, and what a job that runs notices of it: nothing.

mod common;

use common::tasks::Marks;
use common::{Grid, PATIENCE, Place, told, until};
use hedge_net::{ALPN_CONTROL, ALPN_DATA, CloseReason, Hello, Role, Ticket, public_key};
use iroh::endpoint::{Connection, ConnectionError, presets};
use iroh::{Endpoint, EndpointAddr, RelayMode, TransportAddr};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use tempfile::TempDir;

/// A grid whose only worker runs a task that waits for leave.
struct Busy {
    grid: Grid,
    marks: Marks,
    job: String,
    memory: u64,
    folder: TempDir,
}

impl Busy {
    fn start() -> Busy {
        let folder = tempfile::tempdir().unwrap();
        let grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
        let marks = Marks::new(folder.path());
        let job = marks.task("work", "echo made > made", "outputs = [\"made\"]");
        fs::write(folder.path().join("job.toml"), job).unwrap();
        let job = grid.place.submit("job.toml");
        marks.await_starts("work", 1);
        let mut busy = Busy {
            grid,
            marks,
            job,
            memory: 0,
            folder,
        };
        busy.memory = busy.resident_bytes();
        busy
    }

    /// The ticket that the supervisor left for clients on its machine.
    fn ticket(&self) -> Ticket {
        self.grid.place.ticket("client").parse().unwrap()
    }

    /// A newcomer with a folder and thus an identity of its own.
    fn stranger(&self, name: &str) -> Place {
        Place::here(&self.folder.path().join(name))
    }

    /// Exit code and text of what a newcomer gets who wants to see the jobs.
    fn try_jobs(&self, name: &str, ticket: &str) -> (Option<i32>, String) {
        let output = self.stranger(name).call(&["jobs", "--join", ticket]);
        (output.status.code(), told(&output))
    }

    fn resident_bytes(&self) -> u64 {
        let status = format!("/proc/{}/status", self.grid.supervisor.pid());
        let status = fs::read_to_string(status).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() << 10
    }

    /// The task was not started again, the job ends as it should, and the supervisor has not grown.
    fn expect_unimpressed(mut self) {
        let view = self.grid.place.ask(&["job", &self.job]);
        assert_eq!(
            (&view["state"], &view["running"]),
            (&"running".into(), &1.into()),
            "{view}"
        );
        let grown = self.resident_bytes().saturating_sub(self.memory);
        assert!(
            grown < 48 << 20,
            "the supervisor has grown by {grown} bytes"
        );
        self.marks.let_go("work");
        let view = self.grid.place.wait(&self.job);
        assert_eq!(view["state"], "done", "{view}");
        assert_eq!(self.marks.starts("work"), 1);
        assert!(self.grid.supervisor.running());
        assert!(self.grid.workers[0].running());
        let said = self.grid.supervisor.told();
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn a_ticket_that_is_made_up_of_the_wrong_role_expired_or_used_up_lets_nobody_in() {
    let busy = Busy::start();
    let real = busy.ticket();
    let forged = Ticket::new(Role::Client, real.supervisors.clone(), None).to_string();
    let (code, text) = busy.try_jobs("forged", &forged);
    assert_eq!(code, Some(4), "{text}");
    let (code, text) = busy.try_jobs("nonsense", "hedge-client-nonsense");
    assert_eq!(code, Some(4), "{text}");

    // The supervisor does not rely on what the ticket says of itself.
    let worker: Ticket = busy.grid.place.ticket("worker").parse().unwrap();
    let disguised = Ticket {
        role: Role::Client,
        ..worker.clone()
    };
    for ticket in [worker, disguised] {
        let (code, text) = busy.try_jobs("role", &ticket.to_string());
        assert_eq!(code, Some(4), "{text}");
    }

    let asked = busy
        .grid
        .place
        .ask(&["ticket", "client", "--expires", "1s"]);
    let short: Ticket = asked["ticket"].as_str().unwrap().parse().unwrap();
    let prolonged = Ticket {
        expires_unix_s: None,
        ..short.clone()
    };
    let mut tries = 0;
    let (code, text) = until("the ticket to expire", || {
        tries += 1;
        let told = busy.try_jobs(&format!("late-{tries}"), &prolonged.to_string());
        (told.0 != Some(0)).then_some(told)
    });
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("expired"), "{text}");
    let (code, text) = busy.try_jobs("expired", &short.to_string());
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("expired"), "{text}");

    let asked = busy.grid.place.ask(&["ticket", "client", "--uses", "1"]);
    let once = asked["ticket"].as_str().unwrap();
    let first = [(); 2].map(|()| busy.try_jobs("first", once));
    assert_eq!(
        first.map(|told| told.0),
        [Some(0); 2],
        "members stay members"
    );
    let (code, text) = busy.try_jobs("second", once);
    assert_eq!(code, Some(4), "{text}");

    let forged = Ticket::new(Role::Worker, real.supervisors, None).to_string();
    let output = busy.stranger("worker").call(&["worker", "--join", &forged]);
    assert_eq!(output.status.code(), Some(4), "{}", told(&output));
    busy.expect_unimpressed();
}

#[test]
fn where_nobody_or_someone_else_answers_the_grid_cannot_be_reached() {
    let busy = Busy::start();
    let mut nobody = busy.ticket();
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    nobody.supervisors[0].addrs = vec![free.local_addr().unwrap()];
    drop(free);
    let (code, text) = busy.try_jobs("nobody", &nobody.to_string());
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("127.0.0.1"), "{text}");
    let mut other = busy.ticket();
    other.supervisors[0].peer = hedge_net::peer_id(&hedge_net::SecretKey::generate());
    let (code, text) = busy.try_jobs("other", &other.to_string());
    assert_eq!(code, Some(3), "{text}");
    let output = busy.stranger("none").call(&["jobs"]);
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    assert!(
        told(&output).contains("hedge supervisor"),
        "{}",
        told(&output)
    );
    busy.expect_unimpressed();
}

#[test]
fn garbage_datagrams_change_nothing() {
    let busy = Busy::start();
    let to = busy.address();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for round in 0..20_000usize {
        let mut bytes: Vec<u8> = (0..round % 1400)
            .map(|at| (at * 31 + round * 17) as u8 ^ 0xc3)
            .collect();
        // Half of them look like the first packet of a connection.
        if let (Some(first), true) = (bytes.first_mut(), round % 2 == 0) {
            *first = 0xc3;
        }
        socket.send_to(&bytes, to).unwrap();
    }
    busy.expect_unimpressed();
}

#[test]
fn garbage_and_endless_frames_on_a_connection_end_that_connection_alone() {
    let busy = Busy::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let gib = (1u32 << 30).to_le_bytes();
        let noise: Vec<u8> = (0..4096u32).map(|at| (at * 167 % 251) as u8).collect();
        let frame = |body: &[u8]| [&(body.len() as u32).to_le_bytes()[..], body].concat();
        let hello = hello(busy.ticket().secret);
        #[rustfmt::skip]
        let cases: [(Vec<u8>, CloseReason); 7] = [
            // From a stranger, as the first message.
            (gib.to_vec(), CloseReason::Oversized),
            (noise.clone(), CloseReason::Oversized),
            (frame(&[255; 40]), CloseReason::WrongVersion),
            (frame(&[1, 0, 1, 0, 255, 255, 255, 255]), CloseReason::Malformed),
            // From a member, after a good hello.
            ([&hello[..], &gib].concat(), CloseReason::Oversized),
            ([&hello[..], &frame(&noise)].concat(), CloseReason::WrongVersion),
            ([&hello[..], &frame(&[1, 200, 1, 2])].concat(), CloseReason::Malformed),
        ];
        for (number, (bytes, reason)) in cases.into_iter().enumerate() {
            let endpoint = endpoint().await;
            let connection = busy.dial(&endpoint, ALPN_CONTROL).await;
            let (mut send, _recv) = connection.open_bi().await.unwrap();
            // Breaks off where the supervisor has closed already.
            let _ = send.write_all(&bytes).await;
            assert_eq!(close_reason(&connection).await, reason, "case {number}");
        }
        // Where content is asked for: a stranger without a grant, and nonsense.
        for bytes in [noise, gib.to_vec()] {
            let endpoint = endpoint().await;
            let connection = busy.dial(&endpoint, ALPN_DATA).await;
            let (mut send, mut recv) = connection.open_bi().await.unwrap();
            let _ = send.write_all(&bytes).await;
            let _ = send.finish();
            let answer = tokio::time::timeout(PATIENCE, recv.read_to_end(64))
                .await
                .unwrap();
            assert!(
                answer.is_err() || answer.unwrap().len() <= 1,
                "no content is given away"
            );
        }
    });
    busy.expect_unimpressed();
}

impl Busy {
    fn address(&self) -> SocketAddr {
        let addrs = self.ticket().supervisors[0].addrs.clone();
        *addrs.iter().find(|addr| addr.ip().is_loopback()).unwrap()
    }

    async fn dial(&self, endpoint: &Endpoint, alpn: &[u8]) -> Connection {
        let peer = public_key(self.ticket().supervisors[0].peer).unwrap();
        let to = EndpointAddr::from_parts(peer, [TransportAddr::Ip(self.address())]);
        let connected = tokio::time::timeout(PATIENCE, endpoint.connect(to, alpn)).await;
        connected.unwrap().unwrap()
    }
}

/// A peer that speaks QUIC but then says what the test wants.
async fn endpoint() -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .bind()
        .await
        .unwrap()
}

/// The first message of a client with this ticket.
fn hello(secret: [u8; 16]) -> Vec<u8> {
    let hello = Hello {
        role: Role::Client,
        proof: Some(secret),
        payload: Vec::new(),
    };
    let mut message = vec![1, 0, 1, 0];
    message.extend(postcard::to_allocvec(&hello).unwrap());
    [&(message.len() as u32).to_le_bytes()[..], &message].concat()
}

/// The reason that the supervisor gives when it closes.
async fn close_reason(connection: &Connection) -> CloseReason {
    match tokio::time::timeout(PATIENCE, connection.closed())
        .await
        .unwrap()
    {
        ConnectionError::ApplicationClosed(close) => {
            CloseReason::from_code(close.error_code.into_inner())
        }
        other => panic!("not closed by the supervisor: {other:?}"),
    }
}
