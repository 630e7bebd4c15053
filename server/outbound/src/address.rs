//! Which addresses are public: those of the internet at large, and none that mean something special (the special-purpose
//! registries of IANA for IPv4 and IPv6, RFC 6890, and the metadata services of clouds). Knows nothing of names or URLs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All addresses that share their first bits with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// The network of the first `bits` bits of `address`; nothing where it has not so many.
    pub(crate) fn new(address: IpAddr, bits: u8) -> Option<Self> {
        let network = Self {
            address: address.to_canonical(),
            bits,
        };
        (bits <= network.width()).then_some(network)
    }

    const fn v4(address: Ipv4Addr, bits: u8) -> Self {
        Self {
            address: IpAddr::V4(address),
            bits,
        }
    }

    const fn v6(address: Ipv6Addr, bits: u8) -> Self {
        Self {
            address: IpAddr::V6(address),
            bits,
        }
    }

    const fn width(&self) -> u8 {
        match self.address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        }
    }

    /// Whether it is one address alone.
    pub(crate) const fn is_single(&self) -> bool {
        self.bits == self.width()
    }

    /// Whether `address` is in it. No network of one family holds an address of the other.
    pub(crate) const fn contains(&self, address: IpAddr) -> bool {
        let shared = match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros(),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros(),
            _ => return false,
        };
        shared >= self.bits as u32
    }
}

/// What answers at an address: of an IPv6 address that stands for an IPv4 one, that one. These are IPv4-mapped addresses, which
/// the kernel connects as IPv4, and those of the well-known prefix `64:ff9b::/96`, which a translator does (RFC 6052); under it a
/// network without IPv4 reaches the whole of the IPv4 internet. A translator's prefix of an operator's own looks like any other
/// network: such a translator has to keep private addresses to itself.
pub(crate) fn meant(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if TRANSLATED.contains(IpAddr::V6(v6)) => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        canonical => canonical,
    }
}

const TRANSLATED: Network = Network::v6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Whether `address`, and what it stands for, is public.
pub(crate) fn is_public(address: IpAddr) -> bool {
    let meant = meant(address);
    let special = |networks: &[Network]| networks.iter().any(|n| n.contains(meant));
    match meant {
        IpAddr::V4(_) => !special(&SPECIAL_V4),
        IpAddr::V6(_) => GLOBAL_V6.contains(meant) && !special(&SPECIAL_V6),
    }
}

/// Whether `address` is of this machine.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether a cloud tells at `address` what its machines are and may do. Such addresses lie in networks that an operator may
/// have good reasons to allow, and not this one.
pub(crate) fn is_metadata(address: IpAddr) -> bool {
    METADATA.contains(&meant(address))
}

const SPECIAL_V4: [Network; 19] = [
    Network::v4(Ipv4Addr::UNSPECIFIED, 8), // this network; 0.0.0.0 is this machine
    Network::v4(Ipv4Addr::new(10, 0, 0, 0), 8), // private
    Network::v4(Ipv4Addr::new(100, 64, 0, 0), 10), // between a carrier and its customers
    Network::v4(Ipv4Addr::new(127, 0, 0, 0), 8), // this machine
    Network::v4(Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's wire server, public by its looks
    Network::v4(Ipv4Addr::new(169, 254, 0, 0), 16), // link-local, metadata services among them
    Network::v4(Ipv4Addr::new(172, 16, 0, 0), 12), // private
    Network::v4(Ipv4Addr::new(192, 0, 0, 0), 24), // protocol assignments
    Network::v4(Ipv4Addr::new(192, 0, 2, 0), 24), // documentation
    Network::v4(Ipv4Addr::new(192, 31, 196, 0), 24), // AS112
    Network::v4(Ipv4Addr::new(192, 52, 193, 0), 24), // multicast tunnels
    Network::v4(Ipv4Addr::new(192, 88, 99, 0), 24), // relays of 6to4
    Network::v4(Ipv4Addr::new(192, 168, 0, 0), 16), // private
    Network::v4(Ipv4Addr::new(192, 175, 48, 0), 24), // AS112
    Network::v4(Ipv4Addr::new(198, 18, 0, 0), 15), // benchmarks
    Network::v4(Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    Network::v4(Ipv4Addr::new(203, 0, 113, 0), 24), // documentation
    Network::v4(Ipv4Addr::new(224, 0, 0, 0), 4), // multicast
    Network::v4(Ipv4Addr::new(240, 0, 0, 0), 4), // reserved
];

/// Global unicast, the one block that IANA gives public addresses out of. Outside of it lie, among others, `::` and `::1`,
/// IPv4-compatible addresses (`::/96`), translation within a network (`64:ff9b:1::/48`), discard-only (`100::/64`), segment
/// routing (`5f00::/16`), unique local (`fc00::/7`), link-local (`fe80::/10`), site-local (`fec0::/10`) and multicast (`ff00::/8`).
const GLOBAL_V6: Network = Network::v6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What is special in it. Teredo and 6to4 carry an IPv4 address and leave it to a relay where that leads; nobody serves there.
const SPECIAL_V6: [Network; 6] = [
    Network::v6(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo and benchmarks among them
    Network::v6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    Network::v6(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    Network::v6(Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48), // AS112
    Network::v6(Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16), // the 6bone of old
    Network::v6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

const METADATA: [IpAddr; 9] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), // most clouds
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),   // credentials of containers at Amazon
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),  // credentials of pods at Amazon
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),   // Azure's wire server
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), // Alibaba
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),     // Oracle
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), // Amazon
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)), // credentials of pods at Amazon
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)), // Google
];

#[cfg(test)]
mod tests {
    use super::*;

    fn public(address: &str) -> bool {
        is_public(address.parse().unwrap())
    }

    #[test]
    fn addresses_of_the_internet_are_public() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2001:db7:ffff::1",
            "2001:db9::1",
            "2003::1",
            "2606:4700:4700::1111",
            "3ffd::1",
            "3fff:1000::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
        ] {
            assert!(public(address), "{address}");
        }
    }

    #[test]
    fn special_addresses_are_not_public() {
        for address in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.170.2",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.9",
            "192.0.0.192",
            "192.0.2.1",
            "192.31.196.1",
            "192.52.193.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "192.175.48.1",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::1.1.1.1",
            "::ffff:0:1.1.1.1",
            "64:ff9b:1::1.1.1.1",
            "64:ff9b:1:a00:0:100::",
            "100::1",
            "100:0:0:1::1",
            "200::1",
            "1fff:ffff::1",
            "2001::1",
            "2001:0:101:101:0:0:fefe:fefe",
            "2001:2::1",
            "2001:3::1",
            "2001:4:112::1",
            "2001:10::1",
            "2001:20::1",
            "2001:30::1",
            "2001:1ff:ffff::1",
            "2001:db8::1",
            "2002:101:101::1",
            "2002:7f00:1::1",
            "2620:4f:8000::1",
            "3ffe::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "feff::1",
            "ff02::1",
            "ffff::1",
        ] {
            assert!(!public(address), "{address}");
        }
    }

    #[test]
    fn every_special_ipv4_address_is_special_in_ipv6_clothes_too() {
        for network in SPECIAL_V4 {
            let IpAddr::V4(v4) = network.address else {
                panic!("{network:?}");
            };
            for clothed in [
                format!("::ffff:{v4}"),
                format!("64:ff9b::{v4}"),
                format!("::{v4}"),
            ] {
                assert!(!public(&clothed), "{clothed}");
            }
        }
    }

    #[test]
    fn a_network_holds_the_addresses_that_share_its_first_bits() {
        let holds = |network: &str, bits, address: &str| {
            Network::new(network.parse().unwrap(), bits)
                .unwrap()
                .contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0", 8, "10.200.3.4"));
        assert!(!holds("10.0.0.0", 8, "11.0.0.1"));
        assert!(holds("10.1.2.3", 32, "10.1.2.3"));
        assert!(!holds("10.1.2.3", 32, "10.1.2.2"));
        assert!(holds("0.0.0.0", 0, "203.0.113.9"));
        assert!(!holds("0.0.0.0", 0, "fd00::1"));
        assert!(!holds("::", 0, "10.0.0.1"));
        assert!(holds("::ffff:10.0.0.0", 8, "10.1.1.1"));
        assert!(holds("fd12::", 16, "fd12:ffff::1"));
    }

    #[test]
    fn no_network_has_more_bits_than_its_addresses() {
        for (address, bits) in [("10.0.0.0", 33), ("::ffff:10.0.0.0", 104), ("fd00::", 129)] {
            assert_eq!(
                Network::new(address.parse().unwrap(), bits),
                None,
                "{address}/{bits}"
            );
        }
    }
}
