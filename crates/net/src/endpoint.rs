//! The one UDP port of a peer and what arrives there.

use crate::connections::Connections;
use crate::handshake::{HELLO_TIMEOUT, hear_hello, say_hello};
use crate::pending::{Pending, PendingConnections, Source};
use crate::relay::Trusted;
use crate::{
    CloseReason, DataServer, Hello, Incoming, Link, NetError, SecretKey, TcpPort, VersionRange,
    peer_id, public_key,
};
use hedge_model::{Hash, PeerAddr, PeerId};
use iroh::endpoint::{
    ConnectOptions, Connection, IdleTimeout, IncomingAddr, PortmapperConfig, QuicTransportConfig,
    VarInt, presets,
};
use iroh::{
    Endpoint, EndpointAddr, NetReportConfig, RelayConfig, RelayMap, RelayMode, RelayUrl,
    TransportAddr,
};
use iroh_mdns_address_lookup::MdnsAddressLookup;
use iroh_relay::RelayQuicConfig;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;

/// The name of the control protocol in the TLS handshake.
pub const ALPN_CONTROL: &[u8] = b"hedge/ctl/1";
/// The name of the data protocol in the TLS handshake.
pub const ALPN_DATA: &[u8] = b"hedge/data/1";

/// A dialler adds this and the start of the id it wants as one more protocol name, so that another peer at that
/// address ignores the packet.
const ALPN_TO_PREFIX: &[u8] = b"hedge/to/";

/// Idle timeout of a connection. For workers it is a back-stop, because missed heartbeats and tripwires are noticed
/// sooner; between supervisors it decides how soon a connection to one that restarted is re-established. A process
/// that was frozen for longer connects again and keeps its running attempts.
pub const IDLE_TIMEOUT: Duration = Duration::from_millis(IDLE_TIMEOUT_MS as u64);
const IDLE_TIMEOUT_MS: u32 = 2_000;
const KEEP_ALIVE: Duration = Duration::from_millis(300);
/// Assumed round trip before the first sample. A lost first packet, as to a process that has not started again yet, is
/// resent after three of these (240 ms) and not after 1 s as with QUIC's default of 333 ms. On paths with a longer round
/// trip a packet is sent twice.
const INITIAL_RTT: Duration = Duration::from_millis(80);
/// Limits queued heartbeats to two or three; older ones are dropped, because a starved sender must not deliver them late.
const HEARTBEAT_QUEUE_BYTES: usize = 4 << 10;
/// The transport breaks connections above 2 MiB ("too many gaps in stream buffer").
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const _: () = assert!(STREAM_WINDOW_BYTES <= 2 << 20);
/// Receive window of a peer that has not authenticated yet.
const STRANGER_WINDOW_BYTES: u32 = 128 << 10;
/// Receive window of a peer that this one dialled.
const DIALLED_WINDOW_BYTES: u32 = 8 << 20;
/// Concurrent streams of a connection. A control connection uses one; a data connection uses one for each request.
const STREAMS_MAX: u32 = 16;
/// Connections that have not authenticated yet.
const PENDING_MAX: usize = 256;
/// Unauthenticated connections of one source: as many peers of a site behind one address as may connect within a few
/// round trips.
const PENDING_PER_SOURCE_MAX: usize = 128;
/// Authenticated peers whose admission the application has not decided yet.
const UNDECIDED_MAX: usize = 64;
/// Name of the mDNS service by which peers announce themselves on the local network.
const MDNS_SERVICE: &str = "hedgerow1";
/// Relays of one grid.
const RELAYS_MAX: usize = 4;
/// Addresses of a peer that are dialled. A peer chooses what it advertises; the limit keeps it from having others
/// flooded with packets.
const DIALLED_ADDRS_MAX: usize = 32;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How to open a peer's port.
#[derive(Debug)]
pub struct NetConfig {
    /// Addresses to listen on, at most one of each family; port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// The peer's key.
    pub key: SecretKey,
    /// The protocol versions it speaks.
    pub versions: VersionRange,
    /// What answers data requests, and the runtime that does the work.
    pub data: Option<(DataServer, Handle)>,
    /// The grid's own relays, each with its first address; more may be told later.
    pub relays: Vec<PeerAddr>,
    /// Shown to relays, which serve members and those who hold a ticket: the hash of the ticket's secret.
    pub ticket: Option<Hash>,
    /// Whether peers on the local network are told of this one and looked for there, by multicast DNS.
    pub mdns: bool,
}

impl NetConfig {
    /// This key at this address, with no data service.
    pub fn new(key: SecretKey, listen: SocketAddr) -> NetConfig {
        NetConfig {
            listen: vec![listen],
            key,
            versions: VersionRange::default(),
            data: None,
            relays: Vec::new(),
            ticket: None,
            mdns: false,
        }
    }
}

/// An open port; cheap to clone. Its tasks run on the runtime that called [`Net::bind`]. Dropping the last
/// clone closes the port and loses every link.
#[derive(Clone, Debug)]
pub struct Net(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    peer: PeerId,
    versions: VersionRange,
    incoming: Mutex<mpsc::Receiver<Incoming>>,
    accepting: AbortHandle,
    connections: Connections,
    tcp: Arc<OnceLock<TcpPort>>,
    relays: RwLock<Vec<Relay>>,
    trusted: Trusted,
    ticket: Option<Hash>,
    mdns: bool,
}

/// A relay that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Relay {
    at: PeerAddr,
    url: RelayUrl,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Net {
    /// Opens the port and starts the accept loop. Without relays and mDNS this sends nothing.
    pub async fn bind(config: NetConfig) -> Result<Net, NetError> {
        let NetConfig {
            listen,
            key,
            versions,
            data,
            relays,
            ticket,
            mdns,
        } = config;
        let peer = peer_id(&key);
        let mut alpns = vec![ALPN_CONTROL.to_vec()];
        alpns.extend(data.as_ref().map(|_| ALPN_DATA.to_vec()));
        let trusted = Trusted::default();
        let mut builder = Endpoint::builder(presets::Minimal)
            // No relay but those that the grid names.
            .relay_mode(RelayMode::Custom(RelayMap::empty()))
            .ca_tls_config(trusted.tls())
            .net_report_config(quiet_reports())
            // Otherwise the gateway is asked for a port by UPnP.
            .portmapper_config(PortmapperConfig::Disabled)
            .secret_key(key)
            .alpns(alpns)
            .transport_config(transport(STRANGER_WINDOW_BYTES))
            .clear_ip_transports();
        if mdns {
            let lookup = MdnsAddressLookup::builder().service_name(MDNS_SERVICE);
            builder = builder.address_lookup(lookup);
        }
        for addr in &listen {
            builder = builder.bind_addr(*addr).map_err(|error| NetError::Bind {
                addr: *addr,
                why: error.to_string(),
            })?;
        }
        let first = listen
            .first()
            .copied()
            .unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into());
        let endpoint = builder.bind().await.map_err(|error| NetError::Bind {
            addr: first,
            why: plain(&error),
        })?;
        let (undecided, incoming) = mpsc::channel(UNDECIDED_MAX);
        let (connections, tcp) = (Connections::default(), Arc::new(OnceLock::new()));
        let acceptor = Acceptor {
            endpoint: endpoint.clone(),
            connections: connections.clone(),
            versions,
            undecided,
            data,
            tcp: tcp.clone(),
        };
        let accepting = tokio::spawn(acceptor.run()).abort_handle();
        let net = Net(Arc::new(Inner {
            endpoint,
            peer,
            versions,
            incoming: Mutex::new(incoming),
            accepting,
            connections,
            tcp,
            relays: RwLock::default(),
            trusted,
            ticket,
            mdns,
        }));
        net.set_relays(&relays).await;
        Ok(net)
    }

    /// Lets large blobs come and go over TCP connections to this port, from now on.
    pub fn use_tcp(&self, port: TcpPort) {
        _ = self.0.tcp.set(port);
    }

    pub(crate) fn tcp(&self) -> Option<&TcpPort> {
        self.0.tcp.get()
    }

    /// Replaces the relays: the first `RELAYS_MAX` that have an address are used. Peers that cannot be reached directly
    /// are reached through the nearest of them, which also lets two peers behind NAT punch holes where that is possible.
    pub async fn set_relays(&self, relays: &[PeerAddr]) {
        let new: Vec<Relay> = relays
            .iter()
            .take(RELAYS_MAX)
            .filter_map(Relay::at)
            .collect();
        let old = {
            let mut known = self
                .0
                .relays
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *known, new.clone())
        };
        if old == new {
            return;
        }
        self.0.trusted.set(new.iter().map(|relay| relay.at.peer));
        for gone in old.iter().filter(|relay| !new.contains(relay)) {
            self.0.endpoint.remove_relay(&gone.url).await;
        }
        for relay in new.iter().filter(|relay| !old.contains(relay)) {
            let port = relay.at.addrs.first().map_or(0, SocketAddr::port);
            let mut config = RelayConfig::new(relay.url.clone(), Some(RelayQuicConfig::new(port)));
            if let Some(ticket) = &self.0.ticket {
                config = config.with_auth_token(ticket.to_string());
            }
            let config = Arc::new(config);
            self.0
                .endpoint
                .insert_relay(relay.url.clone(), config)
                .await;
        }
    }

    /// The relays in use: at most `RELAYS_MAX`, each with an address.
    pub fn relays(&self) -> Vec<PeerAddr> {
        let known = self.0.relays.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|relay| relay.at.clone()).collect()
    }

    /// This peer's id.
    pub fn peer(&self) -> PeerId {
        self.0.peer
    }

    /// This peer and every address that others may dial: for an unspecified address those of all
    /// interfaces, loopback last.
    pub fn local_addr(&self) -> PeerAddr {
        PeerAddr {
            peer: self.peer(),
            addrs: offered(&self.0.endpoint.bound_sockets()),
        }
    }

    /// Opens a control connection and returns it with the other side's answer.
    ///
    /// A refusal is [`NetError::Closed`] with its reason.
    pub async fn connect(&self, to: &PeerAddr, hello: &Hello) -> Result<(Link, Vec<u8>), NetError> {
        let connection = self.dial(to, ALPN_CONTROL).await?;
        say_hello(to.peer, connection, self.0.versions, hello).await
    }

    /// The next peer that said hello; none when the port is closed.
    pub async fn accept(&self) -> Option<Incoming> {
        self.0.incoming.lock().await.recv().await
    }

    /// Closes all connections with a peer whose process has ended. While one of them is open, the transport sends the
    /// first packets of a new connection to where the peer was before, and nowhere else (iroh 1.4.1,
    /// `RemoteState::selected_path`).
    pub fn hang_up(&self, peer: PeerId) {
        self.0.connections.close(peer);
    }

    /// Closes the port. Links still open end with [`CloseReason::Done`]; a supervisor that stops closes
    /// them with [`CloseReason::ShuttingDown`] first.
    pub async fn close(&self) {
        self.0.accepting.abort();
        self.0.endpoint.close().await;
    }

    fn relay_urls(&self) -> Vec<RelayUrl> {
        let known = self.0.relays.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|relay| relay.url.clone()).collect()
    }

    pub(crate) async fn dial(&self, to: &PeerAddr, alpn: &[u8]) -> Result<Connection, NetError> {
        let id = public_key(to.peer)?;
        let addrs = reachable(&to.addrs, &interface_ips());
        let unreachable = |why: String| NetError::Unreachable {
            peer: to.peer,
            addrs: addrs
                .iter()
                .map(SocketAddr::to_string)
                .collect::<Vec<_>>()
                .join(", "),
            why,
        };
        let relays = self.relay_urls();
        if addrs.is_empty() && relays.is_empty() && !self.0.mdns {
            return Err(unreachable("no address is known".to_owned()));
        }
        let directly = addrs.iter().copied().map(TransportAddr::Ip);
        let ways = directly.chain(relays.into_iter().map(TransportAddr::Relay));
        let target = EndpointAddr::from_parts(id, ways);
        let options = ConnectOptions::new()
            .with_transport_config(transport(DIALLED_WINDOW_BYTES))
            .with_additional_alpns(vec![alpn_to(to.peer)]);
        let connect = async {
            let connecting = self
                .0
                .endpoint
                .connect_with_opts(target, alpn, options)
                .await;
            let connecting = connecting.map_err(|error| plain(&error))?;
            connecting.await.map_err(|error| plain(&error))
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(connected) => connected
                .inspect(|connection| self.0.connections.add(connection))
                .map_err(unreachable),
            Err(_) => Err(unreachable(format!("no answer within {CONNECT_TIMEOUT:?}"))),
        }
    }
}

/// The transport's words without the names of its types in front, like `ConnectionError`.
fn plain(error: &impl std::fmt::Display) -> String {
    let text = format!("{error:#}");
    let parts = text.split(": ");
    let words: Vec<&str> = parts.skip_while(|part| !part.contains(' ')).collect();
    match words.is_empty() {
        true => text,
        false => words.join(": "),
    }
}

impl Relay {
    fn at(at: &PeerAddr) -> Option<Relay> {
        let url = format!("https://{}/", at.addrs.first()?);
        let (at, url) = (at.clone(), url.parse().ok()?);
        Some(Relay { at, url })
    }
}

/// The relay is asked for this peer's address by QUIC; nobody is asked whether there is a captive portal.
fn quiet_reports() -> NetReportConfig {
    let mut config = NetReportConfig::minimal();
    // Where QUIC is not let through, the relay is still found.
    config.https_probes = true;
    config
}

fn alpn_to(peer: PeerId) -> Vec<u8> {
    [ALPN_TO_PREFIX, &peer.0[..16]].concat()
}

fn transport(receive_window: u32) -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .default_path_max_idle_timeout(IDLE_TIMEOUT)
        .initial_rtt(INITIAL_RTT)
        .keep_alive_interval(KEEP_ALIVE)
        .default_path_keep_alive_interval(KEEP_ALIVE)
        .datagram_send_buffer_size(HEARTBEAT_QUEUE_BYTES)
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(0u32.into())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(receive_window.into())
        .build()
}

/// Accepts connections until the port is closed.
struct Acceptor {
    endpoint: Endpoint,
    connections: Connections,
    versions: VersionRange,
    undecided: mpsc::Sender<Incoming>,
    data: Option<(DataServer, Handle)>,
    tcp: Arc<OnceLock<TcpPort>>,
}

impl Acceptor {
    async fn run(self) {
        let all_pending = PendingConnections::new(PENDING_MAX, PENDING_PER_SOURCE_MAX);
        let here = Handle::current();
        let to_me = alpn_to(PeerId(*self.endpoint.id().as_bytes()));
        while let Some(incoming) = self.endpoint.accept().await {
            let alpns = incoming.decrypt().and_then(|hello| hello.alpns());
            let alpns: Vec<_> = alpns.into_iter().flatten().filter_map(Result::ok).collect();
            let to_other = |alpn: &[u8]| alpn.starts_with(ALPN_TO_PREFIX) && alpn != to_me;
            if alpns.iter().any(|alpn| to_other(alpn)) {
                incoming.ignore();
                continue;
            }
            // Under pressure a source address has to be proven before it takes a pending slot.
            if all_pending.is_crowded() && !incoming.remote_addr_validated() {
                _ = incoming.retry();
                continue;
            }
            let Some(source) = source(incoming.remote_addr()) else {
                incoming.refuse();
                continue;
            };
            let pending = all_pending.enter(source);
            let wants_data = alpns.iter().any(|alpn| *alpn == ALPN_DATA);
            // A connection's own task, with its encryption, stays on the runtime that accepts it.
            let runtime = match &self.data {
                Some((_, runtime)) if wants_data => runtime,
                _ => &here,
            };
            let (versions, undecided) = (self.versions, self.undecided.clone());
            let port = self.tcp.get().cloned();
            let server = self.data.as_ref().map(|(server, _)| server.clone());
            let data = server.map(|server| (server, port));
            let connections = self.connections.clone();
            runtime.spawn(async move {
                let hello = receive(incoming, connections, versions, undecided, data, pending);
                if let Err(error) = hello.await {
                    tracing::debug!(%error, "an incoming connection came to nothing");
                }
            });
        }
    }
}

/// The source to which a pending connection is charged; none if it is unknown.
fn source(addr: IncomingAddr) -> Option<Source> {
    match addr {
        IncomingAddr::Ip(addr) => Some(addr.ip().into()),
        IncomingAddr::Relay { endpoint_id, .. } => Some(Source::Relayed(*endpoint_id.as_bytes())),
        _ => None,
    }
}

async fn receive(
    incoming: iroh::endpoint::Incoming,
    connections: Connections,
    versions: VersionRange,
    undecided: mpsc::Sender<Incoming>,
    data: Option<(DataServer, Option<TcpPort>)>,
    mut pending: Pending,
) -> Result<(), NetError> {
    let timed_out = || NetError::Closed(CloseReason::HandshakeTimeout);
    let lost = || NetError::Closed(CloseReason::Lost);
    let crowded = || NetError::Closed(CloseReason::TooManyPeers);
    let accepting = incoming.accept().map_err(|_| lost())?;
    let connected = tokio::select! {
        () = pending.evicted() => return Err(crowded()),
        connected = tokio::time::timeout(HELLO_TIMEOUT, accepting) => connected.map_err(|_| timed_out())?,
    };
    let connection = connected.map_err(|_| lost())?;
    connections.add(&connection);
    if let (ALPN_DATA, Some((server, port))) = (connection.alpn(), data) {
        server.serve(connection, port, pending).await;
        return Ok(());
    }
    let hello = hear_hello(connection.clone(), versions);
    let incoming = tokio::select! {
        () = pending.evicted() => {
            CloseReason::TooManyPeers.close(&connection);
            return Err(crowded());
        }
        heard = tokio::time::timeout(HELLO_TIMEOUT, hello) => heard.map_err(|_| {
            CloseReason::HandshakeTimeout.close(&connection);
            timed_out()
        })??,
    };
    // The place is kept while the application has not taken those before, so that the queue stays bounded.
    tokio::select! {
        () = pending.evicted() => {
            incoming.refuse(CloseReason::TooManyPeers);
            Err(crowded())
        }
        place = undecided.reserve() => {
            place.map_err(|_| lost())?.send(incoming);
            Ok(())
        }
    }
}

/// The addresses worth dialling. Loopback addresses lead back to the dialler's own machine, perhaps to
/// another peer there; they stay only where the target may be on this machine too.
fn reachable(addrs: &[SocketAddr], own_ips: &[IpAddr]) -> Vec<SocketAddr> {
    let here = |addr: &SocketAddr| !addr.ip().is_loopback() && own_ips.contains(&addr.ip());
    let keep_loopback = addrs.iter().all(|addr| addr.ip().is_loopback()) || addrs.iter().any(here);
    let worth = |addr: &&SocketAddr| keep_loopback || !addr.ip().is_loopback();
    let worth = addrs.iter().filter(worth);
    worth.take(DIALLED_ADDRS_MAX).copied().collect()
}

/// What others may dial to reach these sockets.
pub(crate) fn offered(sockets: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut addrs = Vec::new();
    for bound in sockets {
        if bound.ip().is_unspecified() {
            let same_family = |ip: &IpAddr| ip.is_ipv4() == bound.is_ipv4();
            let interfaces = interface_ips().into_iter().filter(same_family);
            addrs.extend(interfaces.map(|ip| SocketAddr::new(ip, bound.port())));
        } else {
            addrs.push(*bound);
        }
    }
    addrs.sort_by_key(|addr| (addr.ip().is_loopback(), addr.is_ipv6()));
    addrs.dedup();
    addrs
}

fn interface_ips() -> Vec<IpAddr> {
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces
            .into_iter()
            .map(|i| i.ip())
            .filter(usable)
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "the network interfaces cannot be listed; only loopback is offered");
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_dialled_only_where_the_target_may_be_here() {
        let all: Vec<SocketAddr> = vec![
            "10.0.0.7:1".parse().unwrap(),
            "127.0.0.1:1".parse().unwrap(),
        ];
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            reachable(&all, &[ip("10.0.0.9"), ip("127.0.0.1")]),
            all[..1]
        );
        assert_eq!(reachable(&all, &[ip("10.0.0.7"), ip("127.0.0.1")]), all);
        assert_eq!(reachable(&all[1..], &[ip("10.0.0.9")]), all[1..]);
    }

    #[test]
    fn names_of_types_are_left_out_of_what_went_wrong() {
        let text = "ConnectingError::ConnectionError: timed out";
        assert_eq!(plain(&text), "timed out");
        let text = "bind: Failed to bind: Address in use: (os error 98)";
        assert_eq!(
            plain(&text),
            "Failed to bind: Address in use: (os error 98)"
        );
        assert_eq!(plain(&"Closed"), "Closed");
    }

    #[test]
    fn a_peer_that_names_very_many_addresses_is_dialled_at_a_few() {
        let many: Vec<SocketAddr> = (1..=u16::MAX)
            .map(|port| ([10, 0, 0, 7], port).into())
            .collect();
        assert_eq!(reachable(&many, &[]), many[..DIALLED_ADDRS_MAX]);
    }
}
