//! Where the server listens, and how much it takes from callers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::error::Problem;
use super::settings::Reader;

/// Addresses, ports and who may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenConfig {
    /// The address to listen on. Since 0.1.0.
    pub address: IpAddr,
    /// The port of the HTTP interface; 0 takes any free one. Since 0.1.0.
    pub http_port: u16,
    /// The port of the gRPC interface; 0 takes any free one. Since 0.1.0.
    pub grpc_port: u16,
    /// Whether callers from other machines are let in without authentication. Since 0.1.0.
    pub allow_anonymous: bool,
    /// The prefix of the admin pages, once there are any. Since 0.1.0.
    pub admin_base_path: String,
    /// Where integration tests drive the clock from; only a flag sets it. Since 0.1.0.
    pub test_control: Option<SocketAddr>,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            address: Self::LOOPBACK,
            http_port: 36789,
            grpc_port: 36790,
            allow_anonymous: false,
            admin_base_path: String::new(),
            test_control: None,
        }
    }
}

impl ListenConfig {
    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let expected = "an IP address without a port (that is HttpPort), such as 127.0.0.1";
        let parse = |text: &str| parse_address(text).map(Some);
        Self {
            address: reader.parsed("Listen", expected, parse).unwrap_or(Self::LOOPBACK),
            http_port: reader.integer("HttpPort"),
            grpc_port: reader.integer("GrpcPort"),
            allow_anonymous: reader.boolean("AllowAnonymous"),
            admin_base_path: reader.text("AdminBasePath").into(),
            test_control: None,
        }
    }

    /// Returns the address and port of the HTTP interface.
    pub fn http(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.http_port)
    }

    /// Returns the address and port of the gRPC interface. Who wants any free port for HTTP and
    /// gave none for gRPC wants any free one there too.
    pub fn grpc(&self) -> SocketAddr {
        let any = self.grpc_may_move() && self.http_port == 0;
        SocketAddr::new(self.address, if any { 0 } else { self.grpc_port })
    }

    /// Returns whether gRPC may move if its port is taken: who gave HTTP a port of its own and
    /// nothing to gRPC wants a second server on this machine, not a quarrel over 36790.
    pub fn grpc_may_move(&self) -> bool {
        let usual = Self::default();
        self.grpc_port == usual.grpc_port && self.http_port != usual.http_port
    }

    /// Returns what to warn of at start: open doors.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.address.is_loopback() {
            warnings.push(format!(
                "listening on {} without authentication (AllowAnonymous): every host that reaches \
                 this port can start, stop and read transactions",
                self.address
            ));
        }
        if let Some(address) = self.test_control {
            warnings.push(format!(
                "the clock is driven from {address} (--test-control): nothing is retried by itself"
            ));
        }
        warnings
    }

    pub(super) fn validate(&self, problems: &mut Vec<Problem>) {
        let address = self.address;
        if !address.is_loopback() && !self.allow_anonymous {
            let text = format!(
                "Listen {address} would let every host in that reaches it, because callers are not \
                 authenticated. Either listen on loopback only (Listen: 127.0.0.1, or --listen \
                 127.0.0.1), or, on a network you trust, say AllowAnonymous: true (or \
                 --allow-anonymous)"
            );
            problems.push(Problem::new("Listen", text));
        }
        if self.test_control.is_some_and(|address| !address.ip().is_loopback()) {
            let text = "--test-control takes a loopback address only, such as 127.0.0.1:0";
            problems.push(Problem::new("--test-control", text));
        }
    }
}

/// Parses an address as people write it; `localhost` is the one name that is understood.
fn parse_address(text: &str) -> Option<IpAddr> {
    if text == "localhost" {
        return Some(ListenConfig::LOOPBACK);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

/// The least that [`LimitsConfig::memory_max`] may be, in bytes.
const MEMORY_MAX_LEAST: usize = 64 << 20;

/// How much one caller may send, and how many may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// The longest request body. Since 0.1.0.
    pub body_max_bytes: usize,
    /// The longest request line and headers together. Since 0.1.0.
    pub header_max_bytes: usize,
    /// The most steps in one submitted transaction. Since 0.1.0.
    pub steps_max: usize,
    /// The most branches of one transaction. Since 0.1.0.
    pub branches_max: usize,
    /// The longest payload of one branch. Since 0.1.0.
    pub payload_max_bytes: usize,
    /// How much of a branch's answer is read. Since 0.1.0.
    pub response_max_bytes: usize,
    /// The most connections from callers. Since 0.1.0.
    pub connections_max: usize,
    /// The most transactions worked on at a time. Since 0.1.0.
    pub active_max: usize,
    /// From how much memory on nothing new is accepted; 0 finds it out. Since 0.1.0.
    pub memory_max: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            body_max_bytes: 1 << 20,
            header_max_bytes: 16 << 10,
            steps_max: 1_000,
            branches_max: 4_000,
            payload_max_bytes: 256 << 10,
            response_max_bytes: 64 << 10,
            connections_max: 10_000,
            active_max: 50_000,
            memory_max: 0,
        }
    }
}

impl LimitsConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            body_max_bytes: reader.bytes("BodyMaxBytes"),
            header_max_bytes: reader.bytes("HeaderMaxBytes"),
            steps_max: reader.integer("StepsMax"),
            branches_max: reader.integer("BranchesMax"),
            payload_max_bytes: reader.bytes("PayloadMaxBytes"),
            response_max_bytes: reader.bytes("ResponseMaxBytes"),
            connections_max: reader.integer("ConnectionsMax"),
            active_max: reader.integer("ActiveMax"),
            memory_max: reader.bytes("MemoryMax"),
        }
    }

    pub(super) fn validate(&self, problems: &mut Vec<Problem>) {
        let least = [
            ("BodyMaxBytes", self.body_max_bytes, 1024),
            ("HeaderMaxBytes", self.header_max_bytes, 8192),
            ("StepsMax", self.steps_max, 1),
            ("BranchesMax", self.branches_max, 1),
            ("PayloadMaxBytes", self.payload_max_bytes, 1),
            ("ResponseMaxBytes", self.response_max_bytes, 1024),
            ("ConnectionsMax", self.connections_max, 1),
            ("ActiveMax", self.active_max, 2),
        ];
        for (key, value, least) in least {
            if value < least {
                let text = format!("{key} should not be less than {least}");
                problems.push(Problem::new(key, text));
            }
        }
        // An idle server has half of it.
        if self.memory_max != 0 && self.memory_max < MEMORY_MAX_LEAST {
            let text = "MemoryMax should be 0, or not less than 64MiB".to_owned();
            problems.push(Problem::new("MemoryMax", text));
        }
    }
}

/// How long one caller may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeoutsConfig {
    /// For the request line and headers. Since 0.1.0.
    pub header: Duration,
    /// For the body. Since 0.1.0.
    pub body: Duration,
    /// Between two requests of one connection. Since 0.1.0.
    pub idle: Duration,
    /// For reading the answer. Since 0.1.0.
    pub write: Duration,
    /// For what is under way when the server is told to stop. Since 0.1.0.
    pub shutdown: Duration,
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(120),
            write: Duration::from_secs(30),
            shutdown: Duration::from_secs(10),
        }
    }
}

impl TimeoutsConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            header: reader.duration("HeaderTimeout"),
            body: reader.duration("BodyTimeout"),
            idle: reader.duration("IdleTimeout"),
            write: reader.duration("WriteTimeout"),
            shutdown: reader.duration("ShutdownTimeout"),
        }
    }

    pub(super) fn validate(&self, problems: &mut Vec<Problem>) {
        let values = [
            ("HeaderTimeout", self.header),
            ("BodyTimeout", self.body),
            ("IdleTimeout", self.idle),
            ("WriteTimeout", self.write),
        ];
        for (key, value) in values {
            if value.is_zero() {
                problems.push(Problem::new(key, format!("{key} should be longer than zero")));
            }
        }
    }
}
