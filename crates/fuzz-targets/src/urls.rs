//! URLs of branches, and the addresses behind them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;

use dtmd_engine::BranchCaller;
use dtmd_protocol::url::destination;
use dtmd_protocol::{CallProtocol, Scheme};
use dtmd_transport::outbound::{OutboundOptions, check_egress};
use dtmd_transport_grpc::outbound::Callers;

/// The first sixteen bytes are an address, the rest a URL.
pub(crate) fn url(bytes: &[u8]) {
    static CALLERS: LazyLock<Callers> = LazyLock::new(|| Callers::new(OutboundOptions::default()));
    let (address, url) = bytes.split_at(bytes.len().min(16));
    if let Ok(octets) = <[u8; 16]>::try_from(address) {
        check_address(octets);
    }
    let Ok(url) = std::str::from_utf8(url) else { return };
    let _ = Scheme::of(url);
    assert!(url.contains(destination(url)), "a destination that is not in the URL");
    for protocol in [CallProtocol::Http, CallProtocol::JsonRpc, CallProtocol::Grpc] {
        let refused = CALLERS.cannot_call(url, protocol);
        assert!(refused.is_none_or(|why| !why.is_empty()), "refused without a reason");
    }
}

/// The refusals that do not depend on a table: link-local, unspecified, multicast, broadcast; and
/// an IPv4 address is what it is in every disguise.
fn check_address(octets: [u8; 16]) {
    let six = Ipv6Addr::from(octets);
    let is_refused = |ip: IpAddr| check_egress(SocketAddr::new(ip, 80)).is_err();
    if six.is_unspecified() || six.is_multicast() || six.is_unicast_link_local() {
        assert!(is_refused(six.into()), "{six} may be called");
    }
    let four = std::net::Ipv4Addr::from([octets[0], octets[1], octets[2], octets[3]]);
    let is_bad =
        four.is_link_local() || four.is_unspecified() || four.is_multicast() || four.is_broadcast();
    assert!(!is_bad || is_refused(four.into()), "{four} may be called");
    let mapped = is_refused(four.to_ipv6_mapped().into());
    assert!(
        mapped || !is_refused(four.into()),
        "{four} may be called as {}",
        four.to_ipv6_mapped()
    );
}
