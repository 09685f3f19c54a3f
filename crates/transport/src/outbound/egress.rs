//! Which addresses may be called: the one function every outgoing connection passes.
//!
//! Whoever may submit a transaction chooses the URLs this server calls (spec 07 D18). Addresses
//! that hand out a machine's credentials, or that no service can have, are refused whatever name or
//! spelling led to them. Private and loopback addresses are allowed: services live there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Why an address may not be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the address {address} may not be called: it is {kind}")]
pub struct EgressRefused {
    /// The address.
    pub address: IpAddr,
    /// What kind of address it is.
    pub kind: &'static str,
}

const METADATA: &str = "a link-local or metadata address";
const UNSPECIFIED: &str = "an unspecified address";
const MULTICAST: &str = "a multicast address";
const BROADCAST: &str = "a broadcast address";

/// Metadata services outside of the link-local ranges: Alibaba Cloud, Azure, Oracle Cloud.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// Metadata services of AWS and Google Cloud.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Checks the address of a connection that is about to be made.
///
/// Called with every address a host resolved to, before connecting to exactly that address.
///
/// # Errors
///
/// [`EgressRefused`] for link-local, metadata, unspecified, multicast and broadcast addresses, and
/// for IPv6 addresses that stand for such an IPv4 address.
pub fn check_egress(address: SocketAddr) -> Result<(), EgressRefused> {
    let ip = address.ip();
    let refused = match ip {
        IpAddr::V4(v4) => refused_v4(v4),
        IpAddr::V6(v6) => refused_v6(v6),
    };
    refused.map_or(Ok(()), |kind| Err(EgressRefused { address: ip, kind }))
}

fn refused_v4(ip: Ipv4Addr) -> Option<&'static str> {
    if ip.is_link_local() || METADATA_V4.contains(&ip) {
        return Some(METADATA);
    }
    // The whole of 0.0.0.0/8: Linux takes 0.0.0.0 for this host, others take more of it.
    if ip.octets()[0] == 0 {
        return Some(UNSPECIFIED);
    }
    if ip.is_multicast() {
        return Some(MULTICAST);
    }
    ip.is_broadcast().then_some(BROADCAST)
}

fn refused_v6(ip: Ipv6Addr) -> Option<&'static str> {
    if ip.is_loopback() {
        return None;
    }
    if ip.is_unspecified() {
        return Some(UNSPECIFIED);
    }
    if ip.is_multicast() {
        return Some(MULTICAST);
    }
    if ip.is_unicast_link_local() || METADATA_V6.contains(&ip) {
        return Some(METADATA);
    }
    embedded_v4(ip).and_then(refused_v4)
}

/// Returns the IPv4 address that a gateway or the kernel would reach under an IPv6 address.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        // Mapped, translated (SIIT), compatible.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0, 0, 0, 0, 0, 0, high, low]
        // NAT64, well-known and local.
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        // 6to4.
        | [0x2002, high, low, ..] => Some(join(high, low)),
        // Teredo hides the address by inverting it.
        [0x2001, 0, _, _, _, _, high, low] => Some(join(!high, !low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn refused(ip: &str) -> Option<&'static str> {
        check_egress(SocketAddr::new(ip.parse().unwrap(), 80)).err().map(|refused| refused.kind)
    }

    #[test]
    fn addresses_that_are_never_called() {
        let table = [
            ("169.254.169.254", METADATA),
            ("169.254.0.0", METADATA),
            ("169.254.255.255", METADATA),
            ("100.100.100.200", METADATA),
            ("168.63.129.16", METADATA),
            ("192.0.0.192", METADATA),
            ("0.0.0.0", UNSPECIFIED),
            ("0.1.2.3", UNSPECIFIED),
            ("224.0.0.1", MULTICAST),
            ("239.255.255.255", MULTICAST),
            ("255.255.255.255", BROADCAST),
            ("::", UNSPECIFIED),
            ("fe80::1", METADATA),
            ("febf::1", METADATA),
            ("fd00:ec2::254", METADATA),
            ("fd20:ce::254", METADATA),
            ("ff02::1", MULTICAST),
            ("::ffff:169.254.169.254", METADATA),
            ("::ffff:0:169.254.169.254", METADATA),
            ("::169.254.169.254", METADATA),
            ("::ffff:0.0.0.0", UNSPECIFIED),
            ("::ffff:224.0.0.1", MULTICAST),
            ("::ffff:255.255.255.255", BROADCAST),
            ("::ffff:100.100.100.200", METADATA),
            ("64:ff9b::169.254.169.254", METADATA),
            ("64:ff9b:1::a9fe:a9fe", METADATA),
            ("2002:a9fe:a9fe::", METADATA),
            ("2002:6464:64c8::1", METADATA),
            ("2001:0:1:2:3:4:5601:5601", METADATA),
        ];
        for (ip, kind) in table {
            assert_eq!(refused(ip), Some(kind), "{ip}");
        }
    }

    #[test]
    fn addresses_services_have() {
        let table = [
            "127.0.0.1",
            "127.1.2.3",
            "::1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "8.8.8.8",
            "fd00::1",
            "fec0::1",
            "2606:4700::1111",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::8.8.8.8",
            "2002:0808:0808::1",
        ];
        for ip in table {
            assert_eq!(refused(ip), None, "{ip}");
        }
    }

    #[test]
    fn the_refusal_names_address_and_kind() {
        let refused = check_egress("[::ffff:169.254.1.1]:80".parse().unwrap()).unwrap_err();
        let text = "the address ::ffff:169.254.1.1 may not be called: it is a link-local or \
                    metadata address";
        assert_eq!(refused.to_string(), text);
    }
}
