//! What a URL has to be to be an endpoint, as far as its text tells. Looks up no names.

use url::{Host, ParseError, Url};

use handoff_domain::ports::{EndpointError, LONGEST_URL};

use crate::address::is_loopback;
use crate::rules::Reach;

/// A URL that something may be sent to, if its host's name, where it has one, resolves to what may be reached.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) url: Url,
    pub(crate) way: Way,
}

/// How an endpoint is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By https.
    Tls,
    /// By http on this machine.
    PlainLoopback,
}

/// Ports above 1023 that the Fetch standard refuses too ("port blocking"): what listens there reads lines, and might take a
/// request for some.
const OTHER_PROTOCOLS: [u16; 19] = [
    1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679,
    6697, 10080,
];

/// The most characters of a name, and of each of its labels (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

impl Endpoint {
    /// The endpoint that `text` names, in the one form that is used from here on: the parser has made literal addresses of all
    /// ways to write one (`127.1`, `0x7f000001`, `017700000001`, `%31%32%37.0.0.1`, full-width digits), and names lower case.
    pub(crate) fn parse(text: &str, reach: &Reach, plain_loopback: bool) -> Result<Self, EndpointError> {
        if text.len() > LONGEST_URL {
            return Err(EndpointError::TooLong);
        }
        // The parser would drop the ones and turn the other into slashes, and no two parsers agree on what that means.
        if text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '\\')
        {
            return Err(EndpointError::NotAUrl);
        }
        let url = Url::parse(text).map_err(unparsed)?;
        let way = match url.scheme() {
            "https" => Way::Tls,
            "http" if plain_loopback => Way::PlainLoopback,
            _ => return Err(EndpointError::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::Userinfo);
        }
        if url.fragment().is_some() {
            return Err(EndpointError::Fragment);
        }
        check_port(way, url.port_or_known_default())?;
        check_host(way, url.host(), reach)?;
        Ok(Self { url, way })
    }
}

const fn unparsed(error: ParseError) -> EndpointError {
    match error {
        ParseError::EmptyHost
        | ParseError::IdnaError
        | ParseError::InvalidIpv4Address
        | ParseError::InvalidIpv6Address
        | ParseError::InvalidDomainCharacter => EndpointError::Host,
        ParseError::InvalidPort => EndpointError::Port,
        _ => EndpointError::NotAUrl,
    }
}

fn check_port(way: Way, port: Option<u16>) -> Result<(), EndpointError> {
    match (way, port) {
        (Way::Tls, Some(443)) | (Way::PlainLoopback, Some(80)) => Ok(()),
        (_, Some(port)) if port > 1023 && !OTHER_PROTOCOLS.contains(&port) => Ok(()),
        _ => Err(EndpointError::Port),
    }
}

fn check_host(way: Way, host: Option<Host<&str>>, reach: &Reach) -> Result<(), EndpointError> {
    let address = match host.ok_or(EndpointError::Host)? {
        Host::Domain(name) => return check_name(way, name),
        Host::Ipv4(v4) => v4.into(),
        Host::Ipv6(v6) => v6.into(),
    };
    match way {
        Way::Tls if reach.permits(address) => Ok(()),
        Way::Tls => Err(EndpointError::NotPublic),
        Way::PlainLoopback if is_loopback(address) => Ok(()),
        Way::PlainLoopback => Err(EndpointError::Scheme),
    }
}

fn check_name(way: Way, name: &str) -> Result<(), EndpointError> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let labels_fit = name
        .split('.')
        .all(|label| (1..=LONGEST_LABEL).contains(&label.len()));
    if name.len() > LONGEST_NAME || !labels_fit {
        return Err(EndpointError::Host);
    }
    // What `localhost` resolves to is looked at as well, when it is connected to.
    match way {
        Way::PlainLoopback if name != "localhost" && !name.ends_with(".localhost") => {
            Err(EndpointError::Scheme)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, plain_loopback: bool) -> Result<(), EndpointError> {
        let reach = Reach::new(&[]).unwrap();
        Endpoint::parse(text, &reach, plain_loopback).map(drop)
    }

    #[test]
    fn an_endpoint_is_an_https_url_of_a_public_host() {
        for text in [
            "https://hooks.example",
            "HTTPS://Hooks.Example./a/b?c=d",
            "https://hooks.example:8443/",
            "https://hooks_1.example/%0d%0a",
            "https://bücher.example/",
            "https://93.184.216.34/",
            "https://[2606:4700:4700::1111]:1024/",
        ] {
            assert_eq!(check(text, false), Ok(()), "{text}");
        }
    }

    #[test]
    fn whatever_else_a_url_is_it_is_told_what_is_wrong() {
        use EndpointError::{Fragment, Host, NotAUrl, NotPublic, Port, Scheme, TooLong, Userinfo};
        let long = |n: usize| format!("https://hooks.example/{}", "a".repeat(n - 22));
        assert_eq!(check(&long(LONGEST_URL), false), Ok(()));
        let (long, label) = (
            long(LONGEST_URL + 1),
            format!("https://{}.example/", "a".repeat(64)),
        );
        let name = format!("https://{}example/", "a.".repeat(124));
        for (text, expected) in [
            ("", NotAUrl),
            ("hooks.example", NotAUrl),
            ("/hook", NotAUrl),
            ("//hooks.example/", NotAUrl),
            (" https://hooks.example/", NotAUrl),
            ("https://hooks.example/\r\nHost: a", NotAUrl),
            ("https://hooks.\texample/", NotAUrl),
            ("https://hooks.example/\0", NotAUrl),
            ("https:\\\\hooks.example\\", NotAUrl),
            ("https://hooks.example\\@127.0.0.1/", NotAUrl),
            ("http://hooks.example/", Scheme),
            ("http://localhost:8080/", Scheme),
            ("http://127.0.0.1:8080/", Scheme),
            ("ws://hooks.example/", Scheme),
            ("file:///etc/passwd", Scheme),
            ("gopher://hooks.example/", Scheme),
            ("data:text/plain,a", Scheme),
            ("urn:uuid:1", Scheme),
            ("https://user@hooks.example/", Userinfo),
            ("https://:pass@hooks.example/", Userinfo),
            ("https://hooks.example:443@127.0.0.1/", Userinfo),
            ("https://hooks.example/#", Fragment),
            ("https://hooks.example/#a", Fragment),
            ("https://", Host),
            ("https://256.1.1.1/", Host),
            ("https://1.2.3.4.5/", Host),
            ("https://[::1/", Host),
            ("https://[fe80::1%25eth0]/", Host),
            ("https://a..example/", Host),
            ("https://./", Host),
            ("https://hooks<.example/", Host),
            (&label, Host),
            (&name, Host),
            ("https://hooks.example:0/", Port),
            ("https://hooks.example:22/", Port),
            ("https://hooks.example:80/", Port),
            ("https://hooks.example:1023/", Port),
            ("https://hooks.example:6667/", Port),
            ("https://hooks.example:65536/", Port),
            ("https://hooks.example:a/", Port),
            ("https://10.0.0.1/", NotPublic),
            ("https://127.0.0.1./", NotPublic),
            ("https://[::ffff:10.0.0.1]/", NotPublic),
            (&long, TooLong),
        ] {
            assert_eq!(check(text, false), Err(expected), "{text}");
        }
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        for text in [
            "http://127.0.0.1:8080/",
            "http://127.9.9.9/",
            "http://[::1]:8080/",
            "http://localhost:8080/",
            "http://LOCALHOST./",
            "http://demo.localhost/",
        ] {
            assert_eq!(check(text, true), Ok(()), "{text}");
        }
        for text in [
            "http://hooks.example/",
            "http://localhost.example/",
            "http://notlocalhost/",
            "http://93.184.216.34/",
            "http://10.0.0.1/",
            "http://0.0.0.0/",
        ] {
            assert_eq!(check(text, true), Err(EndpointError::Scheme), "{text}");
        }
        assert_eq!(check("http://localhost:22/", true), Err(EndpointError::Port));
        assert_eq!(check("https://127.0.0.1/", true), Err(EndpointError::NotPublic));
    }

    #[test]
    fn an_operator_may_name_private_hosts_and_no_metadata_service() {
        let check = |text: &str| crate::check(text, &crate::Rules::of_an_operator());
        for text in [
            "https://siem.hospital.example:8088/collector",
            "https://10.1.2.3/",
            "https://[fd12::1]:4318/v1/logs",
            "https://127.0.0.1:4318/v1/logs",
            "http://127.0.0.1:4318/v1/logs",
            "http://localhost:4318/v1/logs",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for (text, expected) in [
            ("http://siem.hospital.example/", EndpointError::Scheme),
            ("http://10.1.2.3:4318/", EndpointError::Scheme),
            ("https://169.254.169.254/", EndpointError::NotPublic),
            ("https://[fd00:ec2::254]/", EndpointError::NotPublic),
            ("https://user:pass@siem.example/", EndpointError::Userinfo),
            ("https://siem.example:22/", EndpointError::Port),
        ] {
            assert_eq!(check(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn an_allowed_network_holds_no_metadata_service_that_is_not_named_alone() {
        let check = |allowed: &[(&str, u8)], text: &str| {
            let allowed: Vec<_> = allowed
                .iter()
                .map(|(a, bits)| (a.parse().unwrap(), *bits))
                .collect();
            Endpoint::parse(text, &Reach::new(&allowed).unwrap(), false).map(drop)
        };
        let wide = [("169.254.0.0", 16), ("fc00::", 7), ("0.0.0.0", 0)];
        assert_eq!(check(&wide, "https://169.254.1.1/"), Ok(()));
        assert_eq!(check(&wide, "https://[fd12::1]/"), Ok(()));
        assert_eq!(check(&wide, "https://[64:ff9b::10.0.0.1]/"), Ok(()));
        for text in [
            "https://169.254.169.254/",
            "https://[::ffff:169.254.169.254]/",
            "https://[64:ff9b::169.254.169.254]/",
            "https://168.63.129.16/",
            "https://[fd00:ec2::254]/",
        ] {
            assert_eq!(check(&wide, text), Err(EndpointError::NotPublic), "{text}");
        }
        assert_eq!(check(&[("168.63.129.16", 32)], "https://168.63.129.16/"), Ok(()));
    }
}
