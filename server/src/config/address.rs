//! Ranges of addresses, as `10.0.0.0/8` or one address alone.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// A text that is no address range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an address or a range like `10.0.0.0/8`")]
pub struct AddressRangeError;

/// All addresses that share their first bits with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    network: IpAddr,
    bits: u8,
}

/// An address as bits, left-aligned; IPv4-mapped IPv6 addresses are IPv4.
fn bits_of(address: IpAddr) -> (u128, u8) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

impl AddressRange {
    /// The first address, and how many of its bits count.
    pub const fn parts(&self) -> (IpAddr, u8) {
        (self.network, self.bits)
    }

    /// Whether `address` is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ours, width) = bits_of(self.network);
        let (theirs, their_width) = bits_of(address);
        let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
        width == their_width && (ours ^ theirs) & mask == 0
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, AddressRangeError> {
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text.trim(), None),
        };
        let network: IpAddr = address.parse().map_err(|_| AddressRangeError)?;
        let (_, width) = bits_of(network);
        let bits = match bits {
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|b| *b <= width)
                .ok_or(AddressRangeError)?,
            None => width,
        };
        Ok(Self {
            network: network.to_canonical(),
            bits,
        })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(range: &str, address: &str) -> bool {
        range
            .parse::<AddressRange>()
            .unwrap()
            .contains(address.parse().unwrap())
    }

    #[test]
    fn a_range_holds_the_addresses_that_share_its_first_bits() {
        assert!(holds("10.0.0.0/8", "10.200.3.4"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("192.0.2.7", "192.0.2.7"));
        assert!(!holds("192.0.2.7", "192.0.2.8"));
        assert!(holds("0.0.0.0/0", "203.0.113.9"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1"));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_the_same_address() {
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in ["", "ten", "10.0.0.0/33", "::1/129", "10.0.0.0/"] {
            assert_eq!(bad.parse::<AddressRange>(), Err(AddressRangeError), "{bad}");
        }
    }
}
